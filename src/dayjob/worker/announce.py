"""From settled runs to events: what became of each, told after the store has accepted it."""

from __future__ import annotations

from typing import Any

from dayjob.clock import SECOND
from dayjob.codec.failure import decode_failure
from dayjob.events import (
    Bus,
    Event,
    JobCancelled,
    JobCompleted,
    JobDead,
    JobFailed,
    JobParked,
    JobReleased,
    JobRetried,
    JobSnoozed,
)
from dayjob.states import Outcome, State
from dayjob.store.records import Settlement
from dayjob.worker.run import Run


def announce(bus: Bus, run: Run, settlement: Settlement, state: State | None) -> None:
    """Emit what happened to *run*. *state*: where the store put it, when not where the settlement says."""
    job, outcome = run.job, settlement.outcome
    base: dict[str, Any] = {"id": job.id, "task": job.task, "queue": job.queue}
    duration = (settlement.finished_at - settlement.started_at) / SECOND if settlement.started_at else 0.0
    if outcome is Outcome.COMPLETED:
        bus.emit(JobCompleted(**base, attempt=job.attempt + 1, duration=duration))
    elif state is State.CANCELLED or outcome is Outcome.CANCELLED:
        bus.emit(JobCancelled(**base, reason=settlement.reason or "asked"))
    elif outcome in (Outcome.FAILED, Outcome.DEAD, Outcome.CRASHED):
        _failed(bus, run, settlement, state, base, duration)
    else:
        bus.emit(_others(base, settlement))


def _failed(
    bus: Bus, run: Run, settlement: Settlement, state: State | None, base: dict[str, Any], duration: float
) -> None:
    attempt = run.job.attempt + 1
    failure = decode_failure(settlement.error) if settlement.error is not None else None
    kind, message = (failure.type, failure.message) if failure else ("crash", settlement.reason or "")
    dead = settlement.outcome is Outcome.DEAD or state is State.DEAD
    crashed = settlement.outcome is Outcome.CRASHED
    bus.emit(
        JobFailed(
            **base,
            attempt=attempt,
            duration=duration,
            error_type=kind,
            error=message,
            traceback=failure.traceback if failure else "",
            delay=None if dead else settlement.delay,
        )
    )
    if dead:
        reason = "crashed" if crashed else settlement.reason or "failed"
        bus.emit(JobDead(**base, attempt=attempt, reason=reason, error=f"{kind}: {message}"))
    elif not crashed:
        bus.emit(JobRetried(**base, attempt=attempt, delay=settlement.delay))


def _others(base: dict[str, Any], settlement: Settlement) -> Event:
    if settlement.outcome is Outcome.SNOOZED:
        return JobSnoozed(**base, delay=settlement.delay)
    if settlement.outcome is Outcome.PARKED:
        return JobParked(**base, reason=settlement.reason or "", delay=settlement.delay)
    return JobReleased(**base, reason=settlement.reason or "")
