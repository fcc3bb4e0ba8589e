"""The states of a job, the outcomes of a claim, and what each outcome does: the one table.

enqueue ─▶ scheduled ─due─▶ available ─claim─▶ running ─ok──────────────────────────▶ completed
   │            ▲               ▲   ▲             │ ├─ terminal error, attempts or crashes used up ─▶ dead
   └─▶ blocked ─┼──gates open───┘   └─ released, ─┘ └───────────────────────────────▶ cancelled
                └──── failed with attempts left, snoozed ────┘        rescued
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

MAX_CRASHES = 3
"""Crashes alone in a process of its own after which a job is dead (P5)."""


class State(StrEnum):
    """Where a job stands. A failed job with attempts left is `scheduled` with `attempt > 0`."""

    SCHEDULED = "scheduled"
    BLOCKED = "blocked"
    AVAILABLE = "available"
    RUNNING = "running"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    DEAD = "dead"

    @property
    def terminal(self) -> bool:
        """True for completed, cancelled and dead."""
        return self in TERMINAL


TERMINAL = frozenset({State.COMPLETED, State.CANCELLED, State.DEAD})
WAITING = frozenset({State.SCHEDULED, State.BLOCKED, State.AVAILABLE})


class Outcome(StrEnum):
    """How a claim of a job ended."""

    COMPLETED = "completed"
    FAILED = "failed"  # an error, the time limit or RetryAfter, with attempts left
    DEAD = "dead"  # an error with no attempts left, or Unrecoverable
    SNOOZED = "snoozed"
    PARKED = "parked"  # the task is unknown here, or its signature no longer fits the payload
    RELEASED = "released"  # shutdown, pause, prefetched but not started
    CRASHED = "crashed"  # its process died while the job ran alone in it
    LOST = "lost"  # its process died with other jobs in it
    CANCELLED = "cancelled"


class Effect(NamedTuple):
    """What an outcome adds to the counters, and where the job goes."""

    attempt: int
    crashes: int
    state: State


EFFECTS: dict[Outcome, Effect] = {
    Outcome.COMPLETED: Effect(1, 0, State.COMPLETED),
    Outcome.FAILED: Effect(1, 0, State.SCHEDULED),
    Outcome.DEAD: Effect(1, 0, State.DEAD),
    Outcome.SNOOZED: Effect(0, 0, State.SCHEDULED),
    Outcome.PARKED: Effect(0, 0, State.SCHEDULED),
    Outcome.RELEASED: Effect(0, 0, State.AVAILABLE),  # in its old place
    Outcome.CRASHED: Effect(0, 1, State.AVAILABLE),  # a suspect, in its old place; dead at MAX_CRASHES
    Outcome.LOST: Effect(0, 0, State.AVAILABLE),  # a suspect, in its old place
    Outcome.CANCELLED: Effect(0, 0, State.CANCELLED),
}
