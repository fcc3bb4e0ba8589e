"""Reads ledger and store after a run, and says what was promised and not kept."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from dayjob.states import Outcome, State
from dayjob.store.contract import Store
from dayjob.store.records import Filter, JobRow, Settlement

FORGOTTEN = 1.0
"""Seconds before a crash of the store of which it may have forgotten claims (PostgreSQL writes its log every 0.2 s)."""
AHEAD = 1.5
"""Seconds after it in which what was claimed ahead before may still start: a worker hands back what waits for a second."""
LOST = (Outcome.LOST, Outcome.CRASHED)


def all_jobs(store: Store) -> dict[str, JobRow]:
    """Every job in the store, without its attempts."""
    found: dict[str, JobRow] = {}
    after: str | None = None
    while True:
        page = store.find(Filter(), limit=1000, after=after)
        for row in page.jobs:
            assert row.id not in found, f"job {row.id} is in the store twice"
            found[row.id] = row
        after = page.after
        if after is None:
            return found


def violations(
    store: Store,
    acknowledged: set[str],
    poisoned: set[str],
    facts: list[dict[str, Any]],
    *,
    crashes: Sequence[float] = (),
    forgetful: float = 0.0,
) -> list[str]:
    """Each broken promise as a line; empty when all were kept.

    Args:
        crashes: when (monotonic) the store itself crashed. A claim does not wait for the disk, so one of the last second
            may be forgotten, and its job runs again (P2); a settlement never is…
        forgetful: …but where the store may have forgotten all of so many seconds before a crash.
    """
    jobs = all_jobs(store)
    broken = [f"acknowledged and lost: {id}" for id in acknowledged - jobs.keys()]
    broken += [f"nobody enqueued {id}" for id in jobs.keys() - acknowledged]
    starts: dict[str, list[dict[str, Any]]] = defaultdict(list)
    effects: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    for fact in facts:
        if _near(fact, crashes, {"start": FORGOTTEN + forgetful, "job.completed": forgetful}.get(fact["fact"], 0.0)):
            continue
        elif fact["fact"] == "start":
            starts[fact["id"]].append(fact)
        elif fact["fact"] == "effect":
            effects[fact["id"]] += 1
        elif fact["fact"] == "job.completed":
            accepted[fact["id"]] += 1
    for id, job in jobs.items():
        # Reading thousands of jobs whole takes long, and of most there is nothing more to be learnt.
        whole = job if job.state is State.COMPLETED and len(starts[id]) == 1 else store.get(id)
        assert whole is not None
        lost = sum(attempt.outcome in LOST for attempt in whole.attempts)
        if id in poisoned:
            if (job.state, job.reason, job.crashes) != (State.DEAD, "crashed", 3):
                broken.append(f"poison {id} is {job.state} ({job.reason}) after {job.crashes} crashes")
            continue
        if job.state is not State.COMPLETED:
            broken.append(f"{id} is {job.state} ({job.reason}), attempts: {[str(a.outcome) for a in whole.attempts]}")
        if effects[id] < 1:
            broken.append(f"{id} completed without its effect")
        if accepted[id] > 1:
            broken.append(f"{id} was completed {accepted[id]} times")
        if len(starts[id]) > 1 + lost:
            broken.append(f"{id} started {len(starts[id])} times with {lost} recorded lease losses")
        entries = [start["entry"] for start in starts[id]]
        if entries != sorted(set(entries)):
            broken.append(f"{id} started under entries {entries}: one twice, or falling")
    return broken


def _near(fact: dict[str, Any], crashes: Sequence[float], before: float) -> bool:
    """Whether *fact* is of the time around a crash that the store may have forgotten."""
    return before > 0 and any(crash - before < fact["at"] < crash + AHEAD for crash in crashes)


def replay_stale(store: Store, facts: list[dict[str, Any]], count: int) -> tuple[int, int]:
    """Settle *count* runs again under leases of the past; returns (sent, refused)."""
    # The last start of a job may have settled it; all earlier ones are stale for certain, and so is every finished one.
    past = [fact for fact in facts if fact["fact"] == "start"]
    again = Counter(fact["id"] for fact in past)
    past.sort(key=lambda fact: -again[fact["id"]])  # those that were taken from a worker first
    chosen = past[:count]
    refused = 0
    for number, fact in enumerate(chosen):
        outcome = (Outcome.COMPLETED, Outcome.FAILED, Outcome.RELEASED, Outcome.DEAD)[number % 4]
        before = store.get(fact["id"])
        turn = store.turn(
            fact["worker"], settlements=[Settlement(fact["id"], fact["entry"], outcome, 1, 2, result=b'"stale"')]
        )
        refused += turn.refused == [(fact["id"], fact["entry"])] and store.get(fact["id"]) == before
    return len(chosen), refused
