"""Bugs in what is counted: crashes and attempts."""

from __future__ import annotations

from tests.chaos.mutants.mutant import (
    ALONE,
    DRAINED,
    EXIT_OF,
    EXITS,
    GIVEN_UP,
    LEGAL,
    LOST,
    PLANNED,
    RETURNED,
    WORKED,
    Mutant,
)
from tests.chaos.mutation import Change
from tests.chaos.storms import (
    CALM,
    POISON,
    SHORT,
    SHUTDOWNS,
)


def _counted(outcome: str) -> dict[str, tuple[Change, ...]]:
    """*outcome* spends an attempt, on all engines."""
    exits = Change(
        RETURNED,
        "job.attempt + effect.attempt,",
        f'job.attempt + (1 if settlement.outcome == "{outcome}" else effect.attempt),',
    )
    script = Change(
        EXITS, "d[2] + x.attempts, x.crashed", f"d[2] + (x.outcome == '{outcome}' and 1 or x.attempts), x.crashed"
    )
    return {"sqlite": (exits,), "postgres": (exits,), "redis": (script,)}


def _deadly(crashes: int) -> dict[str, tuple[Change, ...]]:
    """A job is dead after so many crashes, on all engines."""
    exits = Change(EXIT_OF, ">= MAX_CRASHES", f">= {crashes}")
    return {
        "sqlite": (exits,),
        "postgres": (exits,),
        "redis": (Change(EXITS, "x.crashed >= 3", f"x.crashed >= {crashes}"),),
    }


CRASHES = (
    Mutant(
        name="a crash counts for neighbours",
        storm=POISON,
        promise="P5",
        breaks="whoever ran in a process that died is said to have crashed it",
        noticed=(ALONE, LEGAL, PLANNED),
        sqlite=(Change(GIVEN_UP, "Outcome.CRASHED if solo and held == 1 else Outcome.LOST", "Outcome.CRASHED"),),
        postgres=(Change(GIVEN_UP, "Outcome.CRASHED if solo and held == 1 else Outcome.LOST", "Outcome.CRASHED"),),
        redis=(Change(EXITS, "or solo and 'crashed' or 'lost'", "or 'crashed'"),),
    ),
    Mutant(
        name="poison dies late",
        storm=POISON,
        promise="P5",
        breaks="a job may take its process down twice as often as is said",
        noticed=(PLANNED,),
        **_deadly(6),
    ),
    Mutant(
        name="the first crash is death",
        storm=POISON,
        promise="P5",
        breaks="a job that crashed once is dead, whoever was to blame",
        noticed=(PLANNED,),
        **_deadly(1),
    ),
    Mutant(
        name="nobody is a suspect",
        storm=POISON,
        promise="P5",
        breaks="what was lost in a crash runs beside others again",
        noticed=(LOST, DRAINED, PLANNED),
        sqlite=(Change(RETURNED, "crashed or (bool(job.suspect)", "False or (bool(job.suspect)"),),
        postgres=(Change(RETURNED, "crashed or (bool(job.suspect)", "False or (bool(job.suspect)"),),
        redis=(Change(EXITS, "local hurt = HURTS[x.outcome] or false", "local hurt = false"),),
    ),
)


COUNTERS = (
    Mutant(
        name="a failed attempt is not counted",
        storm=SHORT,
        promise="P2",
        breaks="a job fails for ever, as each attempt is its first",
        noticed=(LEGAL, PLANNED),
        sqlite=(Change(RETURNED, "job.attempt + effect.attempt,", "job.attempt,"),),
        postgres=(Change(RETURNED, "job.attempt + effect.attempt,", "job.attempt,"),),
        redis=(Change(EXITS, "d[2] + x.attempts, x.crashed", "d[2], x.crashed"),),
    ),
    Mutant(
        name="a release spends an attempt",
        storm=SHUTDOWNS,
        promise="P2",
        breaks="a job that its worker gave back unfinished has an attempt less",
        noticed=(LEGAL, PLANNED),
        **_counted("released"),
    ),
    Mutant(
        name="a snooze spends an attempt",
        storm=CALM,
        promise="P2",
        breaks="a job that puts itself off has an attempt less",
        noticed=(LEGAL, PLANNED),
        **_counted("snoozed"),
    ),
    Mutant(
        name="what was interrupted has completed",
        storm=SHUTDOWNS,
        promise="P2",
        breaks="a job that is stopped at a shutdown is settled as if it had done its work",
        noticed=(WORKED,),
        everywhere=(
            Change(
                "dayjob.worker.outcomes:settle_error",
                "end(Outcome.RELEASED, reason=SHUTDOWN)",
                "end(Outcome.COMPLETED)",
            ),
        ),
    ),
)
