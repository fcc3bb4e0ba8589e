"""Schedules: each tick makes its job, once, in time and beside others only as it may, whoever leads, freezes or dies.

A tick may be left out for two reasons. It came later than another leader is found (`catch_up` says what becomes of it then):
the call that passed over it came too late itself. Or the job before had not ended, and its schedule skips then.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

from msgspec import json

from dayjob.clock import SECOND
from dayjob.context import SCHEDULED_FOR
from dayjob.services.agenda import NAME_KEY
from dayjob.store.records import JobRow
from tests.chaos.evidence import FOREVER, Evidence
from tests.chaos.ledger import Fact
from tests.chaos.verdict import Broken, Finding, quantile
from tests.schedules.oracle import oracle

ONCE = "each tick makes its job, once"
IN_TIME = "who leads ticks in time"
BESIDE = "jobs of a schedule overlap as it allows"

GRACE, LEASES = 60.0, 3
"""A tick is late after so many seconds, or so many leases, if that is more."""
FOUND_BACK = 10.0
"""Seconds after a fault until whoever leads is himself again: an answer that he waits for in vain, a pause before he asks anew."""
PATIENCE = 10.0
"""Seconds that a leader to whom nothing happens may take."""
APART = 7.0
"""Seconds between two acts of a leader at most: he stages and sweeps every five."""


class Call(NamedTuple):
    """The store took all ticks of a schedule after *after* and up to *cursor*, at *at* by the ledger."""

    at: float
    after: int
    cursor: int


class Schedule:
    """One schedule.

    Attributes:
        due: the stamps at which it is to tick, by an oracle that looks at every second or minute. made: jobs by the stamp of their tick.
        ordered: its jobs come one after the other. grace: seconds by which a tick may be late.
    """

    def __init__(
        self, of: Evidence, fact: Fact, calls: list[Fact], made: dict[int, list[JobRow]], grace: float
    ) -> None:
        self._of, self.made, self.grace = of, made, grace
        self.name, self.catch_up = fact["schedule"], fact["catch_up"]
        self.skips = fact["overlap"] == "skip"
        self.ordered = fact["overlap"] == "queue" or (self.skips and self.catch_up == "all")
        self.due = _due(fact)
        cursors = [fact["since"], *(call["cursor"] for call in calls)]
        self._calls = [Call(call["at"], *span) for call, span in zip(calls, pairwise(cursors), strict=True)]
        self._cursors = cursors[1:]

    def call(self, at: int) -> Call | None:
        """The call that dealt with the tick of *at*."""
        place = bisect_left(self._cursors, at)
        return self._calls[place] if place < len(self._calls) else None

    def passed_over(self, at: int) -> str | None:
        """What is wrong with it that the tick of *at* has no job; None: nothing."""
        call = self.call(at)
        if call is None:
            return "nobody dealt with it"
        others = [other for other in self.made if call.after < other <= call.cursor]
        if self.skips and (any(other < at for other in others) or self._busy(at)):
            return None
        if self.catch_up == "latest" and self._late(self._first(call), call) > self.grace:  # one for all of them
            return None if any(other > at for other in others) else "the latest was to be made up for"
        late = self._late(at, call)
        if late <= self.grace:
            return f"it was passed over {late:.1f} s after its time"
        return "all were to be made up for" if self.catch_up == "all" else None

    def _first(self, call: Call) -> int:
        return self.due[bisect_right(self.due, call.after)]

    def _late(self, at: int, call: Call) -> float:
        return call.at - self._of.ledger_time(at)

    def _busy(self, at: int) -> bool:
        """True when a job of it had not ended then."""
        now = self._of.ledger_time(at)
        return any(self._of.over(job.id) >= now for tick, jobs in self.made.items() if tick < at for job in jobs)


def _due(fact: Fact) -> list[int]:
    first, last = fact["since"] // SECOND + 1, fact["until"] // SECOND
    if fact["every"] is not None:
        return [second * SECOND for second in range(first, last + 1) if second % fact["every"] == 0]
    minute, hour, day, month, weekday = fact["cron"].split()
    assert month == "*", "the oracle knows no months"
    begin, end = (datetime.fromtimestamp(second, UTC) for second in (first, last))
    found = oracle(
        (minute, hour, day, weekday), ZoneInfo(fact["tz"]), begin.replace(second=0) - timedelta(minutes=1), end
    )
    return [round(at.timestamp()) * SECOND for at in found if at >= begin]


def _schedules(of: Evidence) -> Iterator[Schedule]:
    made: defaultdict[str, defaultdict[int, list[JobRow]]] = defaultdict(lambda: defaultdict(list))
    for job in of.jobs.values():
        if job.meta and NAME_KEY in job.meta:
            said = json.decode(job.meta)
            made[said[NAME_KEY]][said[SCHEDULED_FOR]].append(job)
    calls: defaultdict[str, list[Fact]] = defaultdict(list)
    for call in of.of["tick"]:
        calls[call["schedule"]].append(call)
    grace = max(GRACE, LEASES * of.conditions.lease)
    for fact in of.of["schedule.declared"]:
        name = fact["schedule"]
        yield Schedule(of, fact, calls[name], dict(made[name]), grace)


def once(of: Evidence) -> Finding:
    """The jobs of a schedule are those that the oracle says; none twice, and none left out but for a reason."""
    looked = left = 0

    def broken() -> Broken:
        nonlocal looked, left
        for one in _schedules(of):
            looked += len(one.due)
            for at, jobs in sorted(one.made.items()):
                if len(jobs) > 1:
                    yield f"{one.name} ticked {len(jobs)} times for {at}: {', '.join(job.id for job in jobs)}"
            for at in sorted(one.made.keys() - set(one.due)):
                yield f"{one.name} ticked for {at}, when it was not to"
            for at in one.due:
                if at not in one.made:
                    why = one.passed_over(at)
                    left += why is None
                    if why is not None:
                        yield f"{one.name} has no job of {at}: {why}"

    lines = tuple(broken())
    return Finding(ONCE, looked, lines, f"{left} were left out, as they may be")


def in_time(of: Evidence) -> Finding:
    """While somebody leads to whom nothing happens, ticks are dealt with soon."""
    reigns = _reigns(of)
    took: list[float] = []

    def broken() -> Broken:
        for one in _schedules(of):
            for at in one.due:
                call, due = one.call(at), of.ledger_time(at)
                done = FOREVER if call is None else call.at
                for begun, over in reigns:
                    if begun <= due and done <= over:
                        took.append(done - due)
                    if min(done, over) - max(due, begun) > PATIENCE:
                        yield f"{one.name} was to tick at {due:.1f} and did at {done:.1f}; somebody led {begun:.1f} - {over:.1f}"
                        break

    lines = tuple(broken())
    return Finding(IN_TIME, len(took), lines, f"p99 {quantile(took, 0.99):.2f} s" if took else "")


def beside(of: Evidence) -> Finding:
    """Who skips or queues makes a job, or starts it, when the one before has ended."""
    tolerance = of.conditions.tolerance
    looked = 0

    def broken() -> Broken:
        nonlocal looked
        for one in _schedules(of):
            for before, after in pairwise(jobs[0] for _, jobs in sorted(one.made.items())):
                over = FOREVER if before.finished_at is None else of.ledger_time(before.finished_at) - tolerance
                if one.ordered and after.id in of.starts:
                    begun = float(of.starts[after.id][0]["at"])
                elif one.skips and not one.ordered:
                    begun = of.ledger_time(after.created_at)
                else:
                    continue
                looked += 1
                if begun < over:
                    yield f"{after.id} of {one.name} began {over - begun:.3f} s before {before.id} had ended"

    lines = tuple(broken())
    return Finding(BESIDE, looked, lines)


def _reigns(of: Evidence) -> list[tuple[float, float]]:
    """The times in which somebody led to whom nothing happened; of those who know what their code declares."""
    leaders = {fact["term"]: fact["worker"] for fact in of.of["term.granted"] if fact["worker"] not in of.solo}
    acts: defaultdict[int, list[float]] = defaultdict(list)
    for fact in of.of["upkeep.accepted"]:
        if fact["term"] in leaders and not fact.get("late"):
            acts[fact["term"]].append(fact["sent"])
    found = []
    for term, times in acts.items():
        pid = of.process_of.get(leaders[term])
        begun = times[0]
        for last, next in pairwise([*times, FOREVER]):
            if next - last > APART:
                found += _undisturbed(of, begun, last, pid)
                begun = next
    return sorted(found)


def _undisturbed(of: Evidence, begun: float, over: float, pid: int | None) -> Iterator[tuple[float, float]]:
    for stretch in of.stretches:
        if stretch.target not in (None, pid) or stretch.over + FOUND_BACK < begun:
            continue
        if stretch.begun > over:
            break
        if stretch.begun > begun:
            yield begun, stretch.begun
        begun = max(begun, stretch.over + FOUND_BACK)
    if begun < over:
        yield begun, over
