"""After the power came back: opens what the disk left as an application would, and holds it against the ledger.

The machine has booted: another boot id, a boot clock that began anew, and nobody of those who had claimed jobs lives. A
claim may be forgotten (docs/decisions/0011); nothing that was acknowledged may.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

from msgspec import Struct, field

from dayjob.clock import SECOND, wall
from dayjob.errors import DayjobError
from dayjob.states import EFFECTS, TERMINAL, Outcome, State
from dayjob.store import open_store
from dayjob.store.contract import Store
from dayjob.store.records import JobRow, Settlement, Want, WorkerInfo
from dayjob.store.sqlite import bootclock
from tests.chaos.ledger import Fact
from tests.chaos.power.workload import DATABASE

LEASE = 8.0
SHM = 32_768
CLOCKS_APART = 5 * SECOND
_PLACES = (
    "SELECT id, 'live' FROM dayjob_job UNION ALL SELECT id, 'finished' FROM dayjob_history "
    "UNION ALL SELECT DISTINCT id, 'gone' FROM dayjob_gone"
)


class Said(Struct):
    """What the ledger says up to a moment: ids, and by id."""

    tried: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    deleting: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    started: Counter[str] = field(default_factory=Counter)
    effects: Counter[str] = field(default_factory=Counter)
    sent: dict[str, list[Outcome]] = field(default_factory=lambda: defaultdict(list))
    accepted: dict[str, list[Outcome]] = field(default_factory=lambda: defaultdict(list))
    saved: dict[str, int] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def hear(self, fact: Fact) -> None:
        id = fact["id"]
        match fact["fact"]:
            case "enqueue.tried":
                self.tried.add(id)
            case "enqueue.acknowledged":
                self.acknowledged.add(id)
            case "delete.tried":
                self.deleting.add(id)
            case "delete.acknowledged":
                self.deleted.add(id)
            case "start":
                self.started[id] += 1
            case "effect":
                self.effects[id] += 1
            case "finish.sent":
                self.sent[id].append(Outcome(fact["outcome"]))
            case "finish.accepted":
                self.accepted[id].append(Outcome(fact["outcome"]))
            case "finish.committed":
                self.accepted[id].append(Outcome.COMPLETED)
            case "finish.refused":
                self.refused.append(id)
            case "write.accepted":
                self.saved[id] = fact["value"]
            case other:
                raise AssertionError(f"nobody judges {other}")


def said(facts: Sequence[Fact]) -> Said:
    """What *facts* come to."""
    result = Said()
    for fact in facts:
        result.hear(fact)
    return result


class Finding(Struct):
    """What was found after one cut: *jobs* judged, *again* of them had started before and ran once more."""

    broken: list[str]
    jobs: int = 0
    again: int = 0


def judge(folder: Path, files: dict[str, bytes], ledger: Said, rng: random.Random) -> Finding:
    """Boot with *files*, look, drain, look again."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    if rng.random() < 0.5:  # nobody syncs the shared memory: it may be there with anything in it
        (folder / f"{DATABASE}-shm").write_bytes(rng.randbytes(SHM))
    with rebooted(folder) as boot:
        store = open_store(f"sqlite:///{folder / DATABASE}", lease=LEASE)
        try:
            store.migrate()
            return _judged(store, ledger, folder / DATABASE, boot)
        except (DayjobError, sqlite3.Error) as error:
            return Finding([f"the store does not open or work: {error}"])
        finally:
            store.close()


@contextlib.contextmanager
def rebooted(folder: Path) -> Iterator[str]:
    """While this is open the machine has another boot id, and its boot clock began a moment ago."""
    boot = str(uuid.uuid4())
    (folder / "boot_id").write_text(boot + "\n")
    began = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    since = bootclock._since_boot
    with patch.multiple(bootclock, _BOOT_ID=folder / "boot_id", _since_boot=lambda: since() - began):
        yield boot


def _judged(store: Store, ledger: Said, path: Path, boot: str) -> Finding:
    broken = _integrity(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        places: dict[str, list[str]] = defaultdict(list)
        for id, place in connection.execute(_PLACES):
            places[id].append(place)
        ordered, paid = (_of_application(connection, table) for table in ("ordered", "paid"))
        boots = {row[0] for row in connection.execute("SELECT boot FROM dayjob_clock")}
    if boot not in boots:
        broken.append("the new boot is not in the file: its clock was not learnt anew")
    if abs(store.now() - wall()) > CLOCKS_APART:
        broken.append("the store's clock stands where the last boot left it")
    broken += _of_places(places, ledger)
    jobs = {id: job for id in places if (job := store.get(id)) is not None}
    broken += _of_jobs(jobs, ledger)
    broken += _of_transactions(places, jobs, ordered, paid)
    broken += [
        f"the checkpoint of {id} was {value} and is {store.recorded(id)!r}"
        for id, value in ledger.saved.items()
        if id in jobs and int(store.recorded(id) or 0) < value
    ]
    ran, more = _drain(store)
    broken += more
    for id, job in jobs.items():
        if job.state in TERMINAL and ran[id]:
            broken.append(f"{id} was {job.state}, and ran again")
        after = store.get(id)
        if after is None or after.state not in TERMINAL or (job.state not in TERMINAL and not ran[id]):
            broken.append(f"{id} was {job.state} and is {after and after.state} in the end")
        elif after.state is State.COMPLETED and not (ledger.effects[id] or ran[id]):
            broken.append(f"{id} completed without its effect")
    broken += _integrity(path)
    return Finding(broken, len(jobs), sum(ledger.started[id] > 0 for id in ran))


def _integrity(path: Path) -> list[str]:
    # In this process SQLite knows of the store's connections: nobody's locks are dropped.
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [f"damaged: {row[0]}" for row in connection.execute("PRAGMA integrity_check(3)") if row[0] != "ok"]


def _of_places(places: dict[str, list[str]], ledger: Said) -> list[str]:
    """Every acknowledged job in one place, and no other jobs."""
    broken = [f"acknowledged and lost: {id}" for id in sorted(ledger.acknowledged - places.keys())]
    broken += [f"nobody enqueued {id}" for id in sorted(places.keys() - ledger.tried)]
    broken += [f"{id} is in {' and '.join(found)}" for id, found in places.items() if len(found) > 1]
    broken += [f"{id} was deleted and is {places[id]}" for id in ledger.deleted if places.get(id, ["gone"]) != ["gone"]]
    for id, found in places.items():
        over = Outcome.COMPLETED in ledger.accepted[id] or len(ledger.sent[id]) > len(ledger.accepted[id])
        if found == ["gone"] and id not in ledger.deleting and not over:
            broken.append(f"{id} is gone, though it neither completed nor was deleted")
    return broken + [f"a settlement of {id} was refused before the cut" for id in ledger.refused]


def _of_jobs(jobs: dict[str, JobRow], ledger: Said) -> list[str]:
    """Every accepted settlement is in its job, and none that nobody sent."""
    broken = []
    for id, job in jobs.items():
        outcomes = ledger.accepted[id]
        if outcomes and outcomes[-1] in (Outcome.COMPLETED, Outcome.DEAD) and job.state not in TERMINAL:
            broken.append(f"{id} was accepted as {outcomes[-1]} and is {job.state}")
        least, most = _spent(outcomes), _spent(ledger.sent[id])
        if not least <= job.attempt <= most:
            broken.append(f"{id} has {job.attempt} attempts; {least} were accepted, and {most} sent")
    return broken


def _of_application(connection: sqlite3.Connection, table: str) -> Counter[str]:
    """How often each id is in a table of the application's, which may not be there yet."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
        return Counter()
    return Counter(id for (id,) in connection.execute(f"SELECT id FROM {table}"))


def _of_transactions(
    places: Mapping[str, list[str]], jobs: dict[str, JobRow], ordered: Counter[str], paid: Counter[str]
) -> list[str]:
    """What was written in one transaction with a job is there when the job is, and once."""
    broken = [f"{id} is ordered, and no such job is there" for id in ordered if id not in places]
    for id, job in jobs.items():
        if job.task == "power.pay":
            if ordered[id] != 1:
                broken.append(f"{id} is there and ordered {ordered[id]} times")
            if paid[id] != (job.state is State.COMPLETED):
                broken.append(f"{id} is {job.state} and paid {paid[id]} times")
    return broken


def _spent(outcomes: Sequence[Outcome]) -> int:
    return sum(EFFECTS[outcome].attempt for outcome in outcomes)


def _drain(store: Store) -> tuple[Counter[str], list[str]]:
    """A new worker takes over from the dead ones and runs all that is left: how often each ran, and what went wrong."""
    me = WorkerInfo(str(uuid.uuid4()), "after", "here", 1, expiry=LEASE)
    now = store.now()
    ran: Counter[str] = Counter()
    broken: list[str] = []
    done: list[Settlement] = []
    claim = 0
    idle = 0
    while idle < 5:
        now += int(LEASE / 2 * SECOND)  # the store's clock, virtual: so that the lease of the dead runs out
        beat = store.beat(me, [claim], now=now)
        if beat.term is not None:
            store.rescue(beat.term, now=now)
        claim += 1
        turn = store.turn(me.id, claim, done, [Want(None, 500), Want(None, 500, suspects=True)], now=now)
        broken += [f"a settlement of {id} was refused after the cut" for id, _ in turn.refused]
        done = [
            Settlement(job.id, job.entry, Outcome.COMPLETED, now, now, keep=None, claim_no=claim)
            for job in turn.claimed
        ]
        ran.update(job.id for job in turn.claimed)
        idle = 0 if turn.claimed else idle + 1
    broken += [f"{id} ran {count} times after the cut" for id, count in ran.items() if count > 1]
    return ran, broken
