"""From what a task returned or raised to its settlement. Pure: no store, no thread, no clock."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from dayjob.codec.failure import encode_failure
from dayjob.codec.untyped import decode_untyped
from dayjob.directives import CancelJob, RetryAfter, Snooze, Unrecoverable
from dayjob.errors import BadRow, BreakerOpen, JobCancelled, JobTimeout, LeaseLost, PayloadError
from dayjob.states import Outcome, State
from dayjob.store.records import Settlement
from dayjob.worker.breakers import judge
from dayjob.worker.run import CANCEL, LOST, SHUTDOWN, TIMEOUT

if TYPE_CHECKING:
    from dayjob.registry import Plan
    from dayjob.store.records import Claimed
    from dayjob.worker.run import Run

PARK_FIRST = 2.0
PARK_LONGEST = 600.0
"""A parked job is looked at after 2 s, then 4, 8 … 600: a deploy in progress costs seconds, a missing task little."""
BROKEN = 10.0
"""Seconds after which a job looks again that met a breaker which somebody opened by hand."""


def settle_error(
    run: Run, error: BaseException, started_at: int, finished_at: int, rng: random.Random, max_error: int
) -> Settlement | None:
    """How *run* ends that raised *error*; None when nothing may be written for it.

    Why it was told to stop decides first: a job that was interrupted may raise anything.
    """
    job, plan = run.job, run.plan
    if isinstance(error, LeaseLost) or run.stopping == LOST:
        return None

    def end(outcome: Outcome, reason: str | None = None, **fields: object) -> Settlement:
        if reason is not None:
            fields["reason"] = _clean(reason)
        return Settlement(job.id, job.entry, outcome, started_at, finished_at, **fields)  # type: ignore[arg-type]

    if run.stopping == CANCEL or (isinstance(error, JobCancelled) and run.stopping is None):
        return end(Outcome.CANCELLED, keep=plan.keep[State.CANCELLED])
    if run.stopping == SHUTDOWN:
        return end(Outcome.RELEASED, reason=SHUTDOWN)
    error = _meant(run, error)
    if isinstance(error, Snooze):
        return end(Outcome.SNOOZED, delay=error.seconds)
    if isinstance(error, CancelJob):
        return end(Outcome.CANCELLED, reason=error.reason or "by the task", keep=plan.keep[State.CANCELLED])
    run.error = recorded = _recorded(error)
    judge(run, error, recorded, finished_at)
    encoded = encode_failure(recorded, max_error)
    if isinstance(error, Unrecoverable):
        return end(Outcome.DEAD, error=encoded, reason="unrecoverable", keep=plan.keep[State.DEAD])
    delay = _delay(run, error, finished_at, rng)
    if delay is None:
        return end(Outcome.DEAD, error=encoded, reason="failed", keep=plan.keep[State.DEAD])
    return end(Outcome.FAILED, error=encoded, delay=delay)


def _clean(reason: str) -> str:
    """*reason* as any engine can store it."""
    return reason[:500].replace("\0", "\u2400").encode("utf-8", "backslashreplace").decode("utf-8")


def _meant(run: Run, error: BaseException) -> BaseException:
    """What *error* means for the job: its time was up, or what it depends on is known to be failing."""
    limit = run.plan.timeout
    if run.stopping == TIMEOUT and limit is not None and not isinstance(error, JobTimeout):
        return _timeout(limit, error)
    if isinstance(error, BreakerOpen):
        return Snooze(BROKEN if error.retry_in is None else max(error.retry_in, 1.0))
    return error


def _timeout(limit: float, error: BaseException) -> JobTimeout:
    timeout = JobTimeout(limit)
    timeout.__cause__ = error
    return timeout


def _recorded(error: BaseException) -> BaseException:
    """A directive stands for its cause, where it has one."""
    if isinstance(error, (RetryAfter, Unrecoverable)) and error.__cause__ is not None:
        return error.__cause__
    return error


def _delay(run: Run, error: BaseException, now: int, rng: random.Random) -> float | None:
    job = run.job
    if isinstance(error, RetryAfter):
        return error.delay(now) if job.attempt + 1 < run.max_attempts else None
    if not isinstance(error, Exception):
        # sys.exit() or a stray CancelledError inside a task is a failure like any other: `retry_on=(Exception,)`
        # must not make it final.
        error = RuntimeError(f"the task raised {type(error).__name__}: {error}")
    return run.plan.retry.next(job.attempt + 1, error, rng, job.max_attempts)


def settle_parked(job: Claimed, now: int, why: str, rng: random.Random) -> Settlement:
    """*job* cannot run here: its task is unknown, its payload does not fit, or no process can be started. It waits, longer
    each time."""
    delay = min(PARK_LONGEST, PARK_FIRST * 2 ** min(job.parked, 20)) * (1 + rng.random() / 5)
    return Settlement(job.id, job.entry, Outcome.PARKED, 0, now, delay=delay, reason=_clean(why))


UNREADABLE = "unreadable"


def settle_misfit(job: Claimed, plan: Plan, error: Exception, now: int, rng: random.Random, limit: int) -> Settlement:
    """The payload of *job* does not fit the task here. It waits for code that it fits; bytes that are no JSON object
    (only who writes into the store by other means leaves such) fit none: dead at once."""
    try:
        readable = isinstance(decode_untyped(job.payload), dict)
    except ValueError:
        readable = False
    if readable:
        return settle_parked(job, now, str(error) if isinstance(error, PayloadError) else _named(error), rng)
    encoded, keep = encode_failure(error, limit), plan.keep[State.DEAD]
    return Settlement(job.id, job.entry, Outcome.DEAD, 0, now, error=encoded, reason=UNREADABLE, keep=keep)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def settle_released(job: Claimed, now: int, why: str, started_at: int = 0) -> Settlement:
    """*job* goes back to its old place, unspent."""
    return Settlement(job.id, job.entry, Outcome.RELEASED, started_at, now, reason=why)


def settle_cancelled(job: Claimed, plan: Plan, now: int, why: str) -> Settlement:
    """*job* is cancelled before it started."""
    return Settlement(job.id, job.entry, Outcome.CANCELLED, 0, now, reason=why, keep=plan.keep[State.CANCELLED])


UNSETTLED = "unsettled"


def unstorable(error: Exception) -> bool:
    """True when *error* is about a row, as the engine itself says: it has encoded them, and calls nothing else so.

    Whatever else it raises says nothing of a row, and repeating is all there is to do.
    """
    return isinstance(error, BadRow)


def settle_unsettled(run: Run, settlement: Settlement, error: BaseException, limit: int) -> Settlement:
    """The store cannot take *settlement*: the job is dead, and says why."""
    job, keep = run.job, run.plan.keep[State.DEAD]
    started, finished = settlement.started_at, settlement.finished_at
    encoded = encode_failure(error, limit)
    return Settlement(job.id, job.entry, Outcome.DEAD, started, finished, error=encoded, reason=UNSETTLED, keep=keep)


def settle_unserialisable(run: Run, error: BaseException, started_at: int, finished_at: int, limit: int) -> Settlement:
    """The task is done, but what it returned cannot be stored: dead at once, as another attempt would do the work twice."""
    run.error = error
    job, keep = run.job, run.plan.keep[State.DEAD]
    encoded = encode_failure(error, limit)
    return Settlement(
        job.id, job.entry, Outcome.DEAD, started_at, finished_at, error=encoded, reason="result", keep=keep
    )
