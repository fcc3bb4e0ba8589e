"""Time limits, and what is done about jobs that do not stop when told. Pure: says what is due, does nothing.

running ──limit over, cancel, …──▶ told ──each second──▶ told again ──10 s after the first──▶ forced
                                                                                               │
 async, suspended: its coroutine is closed and never driven again ◀────────────────────────────┤
 async, blocks the loop: an exception is raised inside it; 5 s later it is abandoned ◀─────────┤
 thread: abandoned: it goes on until its process is replaced ◀─────────────────────────────────┘
 process: killed at once, no steps

A loop that stands still outside of any job has nobody to tell: 10 s after the report its process is replaced.
"""

from __future__ import annotations

from enum import Enum

from dayjob.clock import SECOND
from dayjob.worker.run import CANCEL, TIMEOUT, Run

AGAIN = 1 * SECOND
FORCE = 10 * SECOND
LAST = 15 * SECOND
COURTESY = 5 * SECOND
"""A sync task that takes a context can look at `ctx.cancelled`: it has so long to end by itself when cancelled."""


class Step(Enum):
    """What is due for a run."""

    NOTHING = 0
    TELL = 1  # interrupt it; for what is remembered in `stopping`
    CLOSE = 2  # an async job that swallows its cancellation
    BREAK = 3  # an async job that blocks the loop
    ABANDON = 4


def due(run: Run, now: int, *, blocks: bool = False) -> tuple[Step, str]:
    """The step that is due for *run* at *now* (monotonic microseconds), and why it must stop.

    Args:
        blocks: the loop stands still in this run.
    """
    kind = run.plan.kind
    if run.abandoned or not run.started or kind == "process":  # whose own thread keeps its time, and kills the child
        return Step.NOTHING, ""
    limit = run.plan.timeout
    if run.stopping is None:
        if limit is not None and now - run.started >= limit * SECOND:
            return Step.TELL, TIMEOUT
        return Step.NOTHING, ""
    for_how_long = now - run.told_at
    if for_how_long >= FORCE:
        if kind == "async" and not blocks:
            return Step.CLOSE, run.stopping
        if kind == "thread" or for_how_long >= LAST:
            return Step.ABANDON, run.stopping
        return (Step.BREAK, run.stopping) if for_how_long < FORCE + AGAIN else (Step.NOTHING, "")
    if run.told == 0 and courteous(run) and for_how_long < COURTESY:
        return Step.NOTHING, ""
    if for_how_long >= run.told * AGAIN:
        return Step.TELL, run.stopping
    return Step.NOTHING, ""


def courteous(run: Run) -> bool:
    """True when *run* is first only shown that it is cancelled, and not interrupted yet."""
    return run.stopping == CANCEL and run.plan.kind == "thread" and run.plan.takes_context
