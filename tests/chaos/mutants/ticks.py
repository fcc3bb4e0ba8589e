"""Bugs in schedules: ticks that are made twice, not at all, or beside the one before."""

from __future__ import annotations

from tests.chaos.mutants.mutant import BESIDE, IN_TIME, LUA, ONCE, POSTGRES, SQLITE, Mutant
from tests.chaos.mutation import Change
from tests.chaos.storms import LOSSY_TICKS, TICKS, TWO_LEADERS

SCHEDULER = "dayjob.services.scheduler:Scheduler"

TICKING = (
    Mutant(
        name="a tick does not look at the version",
        storm=LOSSY_TICKS,
        promise="P5",
        breaks="a tick that arrives late is made, though its schedule has ticked meanwhile",
        noticed=(ONCE,),
        sqlite=(
            Change(
                SQLITE,
                "WHERE kind = 'schedule' AND key = ?2 AND version = ?3",
                "WHERE kind = 'schedule' AND key = ?2 AND ?3 > 0",
            ),
        ),
        postgres=(Change(POSTGRES, "r.key = s.key AND r.version = s.expected", "r.key = s.key AND s.expected > 0"),),
        redis=(Change(f"{LUA}/tick.lua", "version > 0 and version == tonumber(expected)", "version > 0"),),
    ),
    Mutant(
        name="jobs are stored after their tick",
        storm=LOSSY_TICKS,
        promise="P5",
        breaks="a schedule is moved on first, and its jobs are stored then: whoever dies or gets no answer between loses them",
        noticed=(ONCE,),
        everywhere=(
            Change(
                f"{SCHEDULER}._write",
                "answers = self._store.tick(ticks)",
                "self._store.tick([Tick(one.key, one.expected, one.value, ()) for one in ticks])\n"
                "            answers = self._store.tick([Tick(one.key, one.expected + 1, one.value, one.jobs) for one in ticks])",
            ),
        ),
    ),
    Mutant(
        name="a skip does not look",
        storm=TICKS,
        promise="P5",
        breaks="a schedule that is to skip while its last job runs starts the next beside it",
        noticed=(BESIDE,),
        everywhere=(Change(f"{SCHEDULER}._busy", "return found", "return set()"),),
    ),
    Mutant(
        name="a queued tick does not wait",
        storm=TICKS,
        promise="P5",
        breaks="a schedule whose jobs are to run one after the other runs them as they come",
        noticed=(BESIDE,),
        everywhere=(Change("dayjob.services.agenda:row", "if ordered:", "if False:"),),
    ),
    Mutant(
        name="a leader who has slept forgets what came meanwhile",
        storm=TWO_LEADERS,
        promise="P5",
        breaks="ticks that came while nobody led are passed over, though they are late by less than it takes to find a leader",
        noticed=(ONCE,),
        everywhere=(
            Change("dayjob.services.agenda:due", "edge = now - int(grace * SECOND)", "edge = now - 10 * SECOND"),
        ),
    ),
    Mutant(
        name="a schedule ticks once",
        storm=TICKS,
        promise="P5",
        breaks="what has ticked is not put back among those that will: it ticks again when all schedules are read anew",
        noticed=(ONCE, IN_TIME),
        everywhere=(Change(f"{SCHEDULER}._write", "self._push(held)", "pass"),),
    ),
)
