"""Keys and limits: what is unique is never there twice, and nobody passes a limit, whatever happens to whom.

A lease lasts at the least from the start that its job notes until the end that the store recorded for it (in a simulation, which
hears all that the store is told: from its claim until its end); a job is active at the least from its acknowledgement until its
recorded end. So what overlaps here did overlap.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable
from typing import TypeVar

from dayjob.clock import SECOND
from tests.chaos.evidence import FOREVER, Evidence
from tests.chaos.ledger import Fact
from tests.chaos.verdict import Broken, Finding

RATED = "starts within their rate by the ledger's clock"
SHARE, EXTRA = 1.02, 1
"""By how much starts may exceed a rate by the ledger: between claim and start lies a worker."""

MICROSECOND = 1e-6

K = TypeVar("K")
V = TypeVar("V")


def unique(of: Evidence) -> Finding:
    """Of the jobs of one key, one is active at a time."""
    told = {fact["id"]: float(fact["at"]) for fact in of.of["enqueue.acknowledged"]}
    mine = _grouped((plan.unique, id) for id, plan in of.tried.items() if plan.unique and id in of.jobs)
    looked = 0

    def active(id: str) -> tuple[float, float]:
        starts, end = of.starts.get(id), of.jobs[id].finished_at
        begun = min(told.get(id, FOREVER), starts[0]["at"] if starts else FOREVER)
        over = FOREVER if end is None else of.ledger_time(end)
        return begun, _free(of, id, over) - of.conditions.tolerance

    def broken() -> Broken:
        nonlocal looked
        for key, ids in mine.items():
            spans = sorted((*active(id), id) for id in ids if not _forgotten(of, active(id)[0]))
            looked += len(spans)
            last, holder = 0.0, ""
            for begun, over, id in spans:
                if begun < min(last, over):
                    yield f"{id} was active {last - begun:.3f} s before {holder} had ended, both with the key {key}"
                if over > last:
                    last, holder = over, id

    lines = tuple(broken())
    return Finding("of a unique key one job is active", looked, lines, f"{len(mine)} keys")


def told(of: Evidence) -> Finding:
    """Who is told that another job has the key hears of one that has it still: else it is lost with nobody to blame."""
    answers = of.of["enqueue.existing"]

    def broken() -> Broken:
        for fact in answers:
            holder = fact["holder"]
            if holder not in of.jobs:
                yield f"{fact['id']} was told of {holder}, which is not in the store"
                continue
            late = of.tried_at[fact["id"]] - _free(of, holder, of.over(holder))
            if late > of.conditions.tolerance:
                yield f"{fact['id']} was told of {holder}, whose key had been free for {late:.3f} s"

    return Finding("who is told of a key's holder is told the truth", len(answers), tuple(broken()))


def concurrent(of: Evidence) -> Finding:
    """No more leases at once than a concurrency limit allows."""
    runs: defaultdict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for id, plan in of.tried.items():
        if plan.shares is not None and id in of.jobs:
            runs[plan.shares] += _leases(of, id)
    most: dict[str, int] = {}

    def broken() -> Broken:
        for (key, limit), spans in runs.items():
            at_once = most[key] = _most_at_once(spans)
            if at_once > limit:
                yield f"{at_once} leases at once under {key}, {limit} are allowed"

    lines = tuple(broken())
    figures = ", ".join(f"{key}: at most {many}" for key, many in sorted(most.items()))
    return Finding("leases within their concurrency limit", sum(map(len, runs.values())), lines, figures)


def claimed(of: Evidence) -> Finding:
    """By the store's clock no window of a rate is overfull. What it counts is the claim."""
    tolerance = MICROSECOND if of.conditions.atomic else of.conditions.tolerance
    return _rated(of, "starts within their rate by the store's clock", _claims(of), tolerance, 1.0, 0)


def started(of: Evidence) -> Finding:
    """By the ledger's clock hardly one. A job counts from when its worker was handed it: it begins later where all places are taken."""
    c = of.conditions
    handed = {(fact["id"], fact["entry"]): float(fact["at"]) for fact in of.of["claim"]}
    starts = _grouped(
        (plan.rate, min(start["at"], handed.get((id, start["entry"]), FOREVER)))
        for id, plan in of.tried.items()
        if plan.rate is not None
        for start in of.starts.get(id, ())
        if not of.disturbed(start["at"], c.lease + c.sweep + c.slack)
    )
    return _rated(of, RATED, starts, c.tolerance, SHARE, EXTRA)


Rates = dict[tuple[str, int, float], list[float]]


def _rated(of: Evidence, rule: str, times: Rates, tolerance: float, share: float, extra: int) -> Finding:
    most: dict[str, int] = {}

    def broken() -> Broken:
        for (key, limit, per), mine in times.items():
            within = most[key] = _most_within(mine, per - tolerance)
            if within > share * limit + extra:
                yield f"{within} starts of {key} within {per:g} s, {limit} are allowed"

    lines = tuple(broken())
    figures = ", ".join(f"{key}: at most {many}" for key, many in sorted(most.items()))
    return Finding(rule, sum(map(len, times.values())), lines, figures)


def _claims(of: Evidence) -> Rates:
    return _grouped(
        (plan.rate, fact["stamp"] / SECOND)
        for fact in of.of["claim"]
        if (plan := of.tried.get(fact["id"])) is not None and plan.rate is not None and not _forgotten(of, fact["at"])
    )


def _forgotten(of: Evidence, at: float) -> bool:
    """A crash of the store may have taken the memory of what happened then."""
    return of.near_a_crash(at, max(of.conditions.forgets, of.conditions.forgets_claims))


def _free(of: Evidence, id: str, over: float) -> float:
    """When the key of a job that had ended by *over* came free."""
    plan, claims = of.tried[id], of.claims.get(id)
    expires = FOREVER if plan.ttl is None else of.ledger_time(of.jobs[id].created_at) + plan.ttl
    if plan.until == "expired":
        return expires
    return min(over, expires, claims[0]["at"] if plan.until == "started" and claims else FOREVER)


def _leases(of: Evidence, id: str) -> list[tuple[float, float]]:
    """What is surely within the leases of a job."""
    if id in of.lease_ends:
        return _whole_leases([*of.claims.get(id, ()), *of.lease_ends[id]])
    job = of.jobs[id]
    recorded = [attempt.finished_at for attempt in job.attempts] + ([job.finished_at] if job.finished_at else [])
    ends = sorted(of.ledger_time(stamp) for stamp in recorded)
    leases = []
    for start in of.starts.get(id, ()):
        place = bisect.bisect_left(ends, start["at"] - of.conditions.tolerance)
        over = (ends[place] if place < len(ends) else start["at"]) - of.conditions.tolerance
        if over > start["at"] and not _forgotten(of, start["at"]) and not of.held_up(start):
            leases.append((float(start["at"]), over))
    return leases


def _whole_leases(facts: list[Fact]) -> list[tuple[float, float]]:
    """From each claim to the end that follows it; of one whose reply was lost no end is told."""
    leases, begun = [], None
    for fact in sorted(facts, key=lambda fact: (fact["at"], fact["fact"] == "claim")):
        if fact["fact"] == "claim":
            begun = fact["at"]
        elif begun is not None:
            leases.append((begun, fact["at"]))
            begun = None
    return leases


def _most_at_once(spans: Iterable[tuple[float, float]]) -> int:
    steps = sorted((at, step) for begun, over in spans for at, step in ((begun, 1), (over, -1)))
    now = most = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most


def _most_within(times: list[float], window: float) -> int:
    times = sorted(times)
    return max((bisect.bisect_left(times, first + window) - place for place, first in enumerate(times)), default=0)


def _grouped(pairs: Iterable[tuple[K | None, V]]) -> dict[K, list[V]]:
    found: defaultdict[K, list[V]] = defaultdict(list)
    for key, value in pairs:
        if key is not None:
            found[key].append(value)
    return found
