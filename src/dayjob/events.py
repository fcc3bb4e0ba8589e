"""What happens, as typed values: the one source of logs, metrics and live views.

Business code calls no logger and counts nothing; it emits an event, and subscribers do the rest. Events carry names,
numbers and short texts, never arguments or results. They encode to JSON (`encode`), so that others may watch.

An event is emitted after the fact it tells: `job.completed` when the store has accepted the settlement.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Lock
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from dayjob.clock import wall


class Event(Struct, frozen=True, kw_only=True):
    """The root of all events. `at` is this process's wall clock, for show."""

    name: ClassVar[str] = ""
    at: int = msgspec.field(default_factory=wall)


# -- jobs --------------------------------------------------------------------------------------------------------


class JobEvent(Event, frozen=True, kw_only=True):
    """Something about one job."""

    id: str
    task: str
    queue: str


class JobEnqueued(JobEvent, frozen=True, kw_only=True):
    """A producer of this process stored a job. `outcome`: inserted, existing … `joined`: in the caller's transaction,
    which may still be rolled back."""

    name = "job.enqueued"
    outcome: str = "inserted"
    joined: bool = False


class JobStarted(JobEvent, frozen=True, kw_only=True):
    """An attempt begins. `waited`: seconds since the job was due."""

    name = "job.started"
    attempt: int
    waited: float


class JobProgress(JobEvent, frozen=True, kw_only=True):
    """The job said how far it is."""

    name = "job.progress"
    done: float
    total: float | None
    note: str


class JobLogged(JobEvent, frozen=True, kw_only=True):
    """The job wrote a line with `ctx.log`."""

    name = "job.logged"
    level: str
    message: str


class JobCompleted(JobEvent, frozen=True, kw_only=True):
    """The job is done."""

    name = "job.completed"
    attempt: int
    duration: float


class JobFailed(JobEvent, frozen=True, kw_only=True):
    """An attempt failed. `delay`: seconds until the next one, None when there is none and `job.dead` follows."""

    name = "job.failed"
    attempt: int
    duration: float
    error_type: str
    error: str
    traceback: str
    delay: float | None


class JobRetried(JobEvent, frozen=True, kw_only=True):
    """A failed job is scheduled for another attempt in `delay` seconds."""

    name = "job.retried"
    attempt: int
    delay: float


class JobDead(JobEvent, frozen=True, kw_only=True):
    """The job is in the dead-letter queue. `reason`: failed, unrecoverable, crashed …"""

    name = "job.dead"
    attempt: int
    reason: str
    error: str


class JobRaisedLate(JobEvent, frozen=True, kw_only=True):
    """The function raised after its job had completed in a transaction, or returned what nobody gets. It stays completed."""

    name = "job.raised_late"
    error_type: str
    error: str
    traceback: str


class JobSnoozed(JobEvent, frozen=True, kw_only=True):
    """The job put itself off; no attempt is spent."""

    name = "job.snoozed"
    delay: float


class JobParked(JobEvent, frozen=True, kw_only=True):
    """This worker cannot run the job: its task is unknown here, its payload no longer fits, or no process can be started for it. It waits."""

    name = "job.parked"
    reason: str
    delay: float


class JobReleased(JobEvent, frozen=True, kw_only=True):
    """The job went back unspent: shutdown, pause, or claimed too early."""

    name = "job.released"
    reason: str


class JobCancelled(JobEvent, frozen=True, kw_only=True):
    """The job is cancelled."""

    name = "job.cancelled"
    reason: str


class JobStalled(JobEvent, frozen=True, kw_only=True):
    """The worker that ran it is gone; the job was taken from it. `state`: available or dead."""

    name = "job.stalled"
    worker: str
    state: str
    crashes: int


class JobInterrupted(JobEvent, frozen=True, kw_only=True):
    """A running job was told to stop. `why`: timeout, cancel, shutdown, lost. `times`: how often by now."""

    name = "job.interrupted"
    why: str
    times: int


class JobAbandoned(JobEvent, frozen=True, kw_only=True):
    """A job did not stop when told. It goes on until its process is replaced, and runs nowhere else before."""

    name = "job.abandoned"
    why: str
    duration: float
    stack: str


class LeaseLost(JobEvent, frozen=True, kw_only=True):
    """A late write of the job was refused: another worker may run it. Its outcome here counts for nothing."""

    name = "lease.lost"
    entry: int
    write: str


# -- workers -----------------------------------------------------------------------------------------------------


class WorkerEvent(Event, frozen=True, kw_only=True):
    """Something about one worker process. `worker`: its incarnation's id."""

    worker: str


class WorkerStarted(WorkerEvent, frozen=True, kw_only=True):
    """A worker takes up work."""

    name = "worker.started"
    pid: int
    queues: str
    concurrency: int
    store: str
    solo: bool = False


class WorkerStopping(WorkerEvent, frozen=True, kw_only=True):
    """A worker claims nothing more. `why`: a signal, recycling, a job that hangs."""

    name = "worker.stopping"
    why: str
    running: int
    grace: float


class WorkerStopped(WorkerEvent, frozen=True, kw_only=True):
    """A worker has left in order. `released`: jobs handed back."""

    name = "worker.stopped"
    counts: dict[str, int]
    released: int


class WorkerLost(WorkerEvent, frozen=True, kw_only=True):
    """This worker was given up (no beat reached the store in time). Its jobs are stopped; it begins anew."""

    name = "worker.lost"
    running: int


class WorkerGone(WorkerEvent, frozen=True, kw_only=True):
    """A worker was given up or seen to die, and its jobs were taken from it."""

    name = "worker.gone"
    host: str
    pid: int
    jobs: int
    death: str | None


class ProcessDied(Event, frozen=True, kw_only=True):
    """A child process ended out of order. `role`: worker, solo, pool. `peak_mb`: largest resident memory, if known."""

    name = "process.died"
    role: str
    pid: int
    death: str
    peak_mb: float | None = None
    restart_in: float | None = None


class ProcessRecycled(Event, frozen=True, kw_only=True):
    """A worker process is replaced in order. `why`: jobs, memory, hung job, code changed."""

    name = "process.recycled"
    pid: int
    why: str


class SupervisorStopping(Event, frozen=True, kw_only=True):
    """A supervisor stops its worker processes."""

    name = "supervisor.stopping"
    why: str
    processes: int


class LoopBlocked(Event, frozen=True, kw_only=True):
    """The event loop did not turn for `duration` seconds. `id` and `task`: the job it stands in, when it is one."""

    name = "loop.blocked"
    id: str | None
    task: str | None
    duration: float
    stack: str


# -- the store and the services ----------------------------------------------------------------------------------


class StoreUnavailable(Event, frozen=True, kw_only=True):
    """A service cannot reach the store and repeats with back-off."""

    name = "store.unavailable"
    service: str
    error: str
    retry_in: float


class StoreAvailable(Event, frozen=True, kw_only=True):
    """The store answers again, after `outage` seconds."""

    name = "store.available"
    service: str
    outage: float


class StoreDurability(WorkerEvent, frozen=True, kw_only=True):
    """A worker that starts says how durable its store is. `crash_costs`: what a crash of the store loses, "nothing" at best."""

    name = "store.durability"
    store: str
    engine: str
    crash_costs: str


class StoreEndangered(WorkerEvent, frozen=True, kw_only=True):
    """What a worker that starts found wrong with its store: `warning` says what may lose jobs, and the remedy."""

    name = "store.endangered"
    store: str
    warning: str


class BreakerOpened(Event, frozen=True, kw_only=True):
    """A breaker opened: jobs behind it wait. `failures`: those in its window. `seconds`: until one is let through to try; None: by hand, until it is closed by hand."""

    name = "breaker.opened"
    key: str
    failures: int
    seconds: float | None


class BreakerClosed(Event, frozen=True, kw_only=True):
    """A breaker closed: jobs behind it go on."""

    name = "breaker.closed"
    key: str


class ServiceFailed(Event, frozen=True, kw_only=True):
    """A service's tick raised what it should not; it goes on with back-off. `traceback` is "" where the error says it all."""

    name = "service.failed"
    service: str
    error: str
    traceback: str


class HookFailed(Event, frozen=True, kw_only=True):
    """A user's hook raised; the job's outcome stands. `hook`: on_dead …"""

    name = "hook.failed"
    hook: str
    id: str
    error: str
    traceback: str


class LeaderElected(WorkerEvent, frozen=True, kw_only=True):
    """This worker keeps time from now on."""

    name = "leader.elected"
    term: int


class LeaderResigned(WorkerEvent, frozen=True, kw_only=True):
    """This worker keeps time no longer."""

    name = "leader.resigned"
    term: int
    why: str


class Pruned(Event, frozen=True, kw_only=True):
    """Finished jobs past their retention were deleted."""

    name = "store.pruned"
    jobs: int


class WritesTrimmed(Event, frozen=True, kw_only=True):
    """Notes of jobs (progress, logs) were dropped because the store did not take them in time."""

    name = "writes.trimmed"
    count: int


# -- outboxes ----------------------------------------------------------------------------------------------------


class OutboxTaken(Event, frozen=True, kw_only=True):
    """This relay delivers the outbox from now on. `in_flight`: rows of which the one before did not say that they arrived."""

    name = "outbox.taken"
    outbox: str
    relay: str
    in_flight: int


class OutboxRelayed(Event, frozen=True, kw_only=True):
    """Jobs of an outbox are in their store. `lag`: seconds since the oldest of them was written."""

    name = "outbox.relayed"
    outbox: str
    jobs: int
    lag: float


class OutboxSetAside(JobEvent, frozen=True, kw_only=True):
    """A row of an outbox cannot be delivered; the others go on. `error`: why."""

    name = "outbox.set_aside"
    outbox: str
    error: str


# -- schedules ---------------------------------------------------------------------------------------------------


class ScheduleEvent(Event, frozen=True, kw_only=True):
    """Something about one schedule. `scheduled_for`: the stamp of the tick."""

    schedule: str


class ScheduleTicked(ScheduleEvent, frozen=True, kw_only=True):
    """A tick made a job. `late`: seconds after the nominal time."""

    name = "schedule.ticked"
    id: str
    task: str
    scheduled_for: int
    late: float


class ScheduleSkipped(ScheduleEvent, frozen=True, kw_only=True):
    """A tick made no job, as the job before has not ended. `ticks`: how many."""

    name = "schedule.skipped"
    scheduled_for: int
    ticks: int = 1


class ScheduleMissed(ScheduleEvent, frozen=True, kw_only=True):
    """Nobody was there for `ticks` ticks. `made`: jobs that make up for them."""

    name = "schedule.missed"
    scheduled_for: int
    ticks: int
    made: int


class ScheduleOrphaned(ScheduleEvent, frozen=True, kw_only=True):
    """No live worker's code declares the schedule any more: it rests. `where`: where it was declared."""

    name = "schedule.orphaned"
    where: str


class ScheduleFailed(ScheduleEvent, frozen=True, kw_only=True):
    """A schedule cannot be read, or its job was refused. `error`: why."""

    name = "schedule.failed"
    error: str


def _catalogue(root: type[Event]) -> dict[str, type[Event]]:
    found = {root.name: root} if root.name else {}
    for kind in root.__subclasses__():
        found |= _catalogue(kind)
    return found


EVENTS: dict[str, type[Event]] = _catalogue(Event)
"""Every event by its name."""

_encoder = msgspec.json.Encoder()


def encode(event: Event) -> bytes:
    """*event* as one JSON object with its name under `event`."""
    return _encoder.encode({"event": event.name, **msgspec.structs.asdict(event)})


# -- the bus -----------------------------------------------------------------------------------------------------

Subscriber = Callable[[Any], object]


class Bus:
    """Who wants to hear what. Subscribers run in the thread that emits; they must be quick and must not wait.

    A subscriber that raises is reported once through the logging module and never hurts the emitter.
    """

    def __init__(self) -> None:
        self._subscribers: dict[str, tuple[Subscriber, ...]] = {}
        self._lock = Lock()
        self._reported: set[Subscriber] = set()

    def subscribe(self, name: str, subscriber: Subscriber) -> Callable[[], None]:
        """Call *subscriber* with each event of *name* (`"*"`: all). Returns what ends the subscription.

        Raises:
            ValueError: no event has this name.
        """
        if name != "*" and name not in EVENTS:
            raise ValueError(f"no event is named {name!r}; there are: {', '.join(sorted(EVENTS))}")
        with self._lock:
            self._subscribers[name] = (*self._subscribers.get(name, ()), subscriber)

        def unsubscribe() -> None:
            with self._lock:
                kept = tuple(other for other in self._subscribers.get(name, ()) if other is not subscriber)
                self._subscribers[name] = kept
                if not kept:
                    del self._subscribers[name]

        return unsubscribe

    def wants(self, name: str) -> bool:
        """True when somebody listens: the hot path asks before it builds an event."""
        return name in self._subscribers or "*" in self._subscribers

    def emit(self, event: Event) -> None:
        """Hand *event* to its subscribers, in the order of their subscription."""
        for name in (event.name, "*"):
            for subscriber in self._subscribers.get(name, ()):
                try:
                    subscriber(event)
                except Exception as error:  # noqa: BLE001  # whatever a subscriber does, the emitter goes on
                    self._report(subscriber, event, error)

    def _report(self, subscriber: Subscriber, event: Event, error: Exception) -> None:
        if subscriber in self._reported:
            return
        self._reported.add(subscriber)
        logging.getLogger("dayjob.events").error(
            "a subscriber to %s raised (reported once): %r", event.name, subscriber, exc_info=error
        )
