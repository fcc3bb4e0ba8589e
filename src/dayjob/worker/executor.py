"""Runs jobs: hands each to the loop or to a thread, keeps its time, and turns its end into a settlement.

    pump ──feed──▶ Slots.ready ──take──▶ loop (async) │ threads (sync; CPU-bound: thread waits for a child process)
      ▲                                        │ value or error
      └─────────── Tray ◀── settlement ◀──────┘

A batch crosses from the pump's thread to the others once, and once back: whoever is done with a job takes the next
one by itself. What is done per job here is what a job costs; everything else is done per batch, in the pump.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from dayjob.clock import SECOND
from dayjob.config import Settings
from dayjob.errors import JobTimeout
from dayjob.events import Bus, JobInterrupted, JobStarted
from dayjob.events import LeaseLost as LeaseLostEvent
from dayjob.states import Outcome, State
from dayjob.store.contract import Jobs, Joining
from dayjob.store.records import Settlement, Write
from dayjob.worker import (
    completions,
    lent,  # noqa: F401  # else the first job that asks for a transaction imports it, in its own thread
    outcomes,
)
from dayjob.worker.limits import courteous
from dayjob.worker.loop import LoopPool
from dayjob.worker.parcels import Parcel
from dayjob.worker.run import LOST, SHUTDOWN, Completion, Run, Slots, monotonic
from dayjob.worker.threads import ThreadPool

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from dayjob.worker.hooks import Hooks
    from dayjob.worker.processes import ProcessPool

COMPLETED = Outcome.COMPLETED
_COMPLETED = State.COMPLETED


class Tray:
    """Ended runs on their way to the pump, which is woken when it sleeps and *enough* have come.

    `enough` is 0 while the pump is awake: it will look by itself. It sets the number before it sleeps and looks once
    more after that, so no end is missed.
    """

    __slots__ = ("enough", "items", "wake")

    def __init__(self) -> None:
        self.items: deque[Run] = deque()
        self.enough = 0
        self.wake: Callable[[], None] = _nobody

    def put(self, run: Run) -> None:
        self.items.append(run)
        if self.enough and len(self.items) >= self.enough:
            self.enough = 0
            self.wake()

    def quiet(self) -> None:
        """Whoever ran jobs has none left: what is here need not wait for company."""
        if self.enough and self.items:
            self.enough = 0
            self.wake()


def _nobody() -> None:
    """Nobody sleeps yet."""


class Place(Jobs, Joining, Protocol):
    """The store, as far as running jobs see it."""


class Executor:
    """The place where jobs run.

    Args:
        store: for what running jobs record.
        capacity: jobs at once, over all groups; threads are started as they are needed.
        processes: runs CPU-bound jobs, or None where child processes are not possible.
        note: called with a run that has something to record soon.
    Attributes:
        state: what the lifespan yielded. lease_until: monotonic microseconds; no job starts later.
        offset: the store's time minus the monotonic clock.
        mortal: the process ends with its worker; else a job that hangs for good is left to itself.
        stopped: nobody waits for ends any more.
    """

    def __init__(
        self,
        store: Place,
        settings: Settings,
        bus: Bus,
        hooks: Hooks,
        *,
        capacity: int,
        app: Any = None,
        processes: ProcessPool | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.store, self.settings, self.bus, self.hooks, self.app = store, settings, bus, hooks, app
        self.rng = rng or random.Random()
        self.state: Any = None
        self._max_result = settings.max_result
        self.tray = Tray()
        self.offset = 0
        self.lease_until = 0
        self.tells_started = False
        self.mortal = False
        self.closing = self.stopped = False
        self.note: Callable[[Run], None] = _drop
        self.processes = processes
        self.loop = LoopPool(self)
        self.threads = ThreadPool(self, capacity)

    # -- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Enter the lifespan; raises what it raises."""
        self.loop.start()
        if self.processes is not None:
            self.processes.executor = self

    def stop(self, patience: float = 5.0) -> None:
        """Leave the lifespan and end the threads. Jobs that still run are left to themselves."""
        self.stopped = True
        self.threads.stop()
        self.threads.join(patience)
        if self.processes is not None:
            self.processes.stop()
        self.loop.stop(patience)

    # -- in ------------------------------------------------------------------------------------------------------

    def feed(self, slots: Slots, runs: Sequence[Run]) -> None:
        """Make *runs* ready and see to it that free places get to know."""
        slots.ready.extend(runs)
        free = min(len(slots.free), len(runs))
        if not free:
            return
        kinds = {run.plan.kind for run in runs}
        if "async" in kinds:
            self.loop.wake(slots)
            kinds.discard("async")
        if kinds:
            self.threads.wake(slots, free)

    def close(self) -> None:
        """Start nothing more: what is on its way to a thread or to the loop goes back."""
        self.closing = True
        self.lease_until = -1

    def confirmed(self, until: int) -> None:
        """The store has confirmed our lease *until* then (monotonic microseconds)."""
        if not self.closing:
            self.lease_until = until

    def hand(self, run: Run) -> None:
        """Give *run*, together with the place it holds, to those who run its kind."""
        if run.plan.kind == "async":
            self.loop.put(run)
        else:
            self.threads.put(run)

    def begin(self, run: Run, now: int) -> bool:
        """Start the clock of *run*; False when it is over before it began."""
        job = run.job
        if job.expires_at is None and run.stopping is None and now <= self.lease_until and not self.tells_started:
            run.started = now
            return True
        if isinstance(run, Parcel):
            return run.begin(now)
        if job.expires_at is not None and job.expires_at <= now + self.offset:
            self.end(run, outcomes.settle_cancelled(job, run.plan, now + self.offset, "expired"))
        elif run.stopping is not None:
            self.fail(run, JobTimeout(0.0), now)  # told before it began: why it was told decides
        elif now > self.lease_until:
            # Nobody has confirmed our lease in time (a stopped process that was continued): others may hold the job.
            self.end(run, outcomes.settle_released(job, now + self.offset, SHUTDOWN if self.closing else "lease"))
        else:
            run.started = now
            if self.tells_started:
                waited = max(0, now + self.offset - job.run_at) / SECOND
                self.bus.emit(
                    JobStarted(id=job.id, task=job.task, queue=job.queue, attempt=job.attempt + 1, waited=waited)
                )
            return True
        return False

    # -- out -----------------------------------------------------------------------------------------------------

    def complete(self, run: Run, value: Any, now: int) -> None:
        """*run* returned *value*."""
        if run.lent is not None:
            completions.called_off(self, run, lambda: self.fail(run, completions.not_committed(run), now))
            return
        if run.completion is not None:
            if isinstance(run, Parcel):
                run.finish(now)
                return
            wrong = completions.ignored(run) if value is not None and not run.completion.said else None
            undone = completions.not_committed(run)
            completions.decide(self, run, lambda: self.fail(run, undone, now), wrong, returned=True)
            return
        job, plan, offset = run.job, run.plan, self.offset
        try:
            result = plan.encode_result(value, self._max_result)
        except Exception as error:  # noqa: BLE001  # whatever a user's value does when it is encoded, the job ends
            at = run.started + offset
            self.end(run, outcomes.settle_unserialisable(run, error, at, now + offset, self.settings.max_error))
            return
        run.settlement = Settlement(
            job.id,
            job.entry,
            COMPLETED,
            run.started + offset,
            now + offset,
            0.0,
            result,
            None,
            None,
            plan.keep[_COMPLETED],
        )
        tray = self.tray  # `put`, without the call
        tray.items.append(run)
        if tray.enough and len(tray.items) >= tray.enough:
            tray.enough = 0
            tray.wake()

    def complete_encoded(self, run: Run, result: bytes, now: int) -> None:
        """*run* returned in a pool child, which has encoded the value."""
        job, offset = run.job, self.offset
        keep = run.plan.keep[State.COMPLETED]
        self.end(
            run,
            Settlement(job.id, job.entry, COMPLETED, run.started + offset, now + offset, 0.0, result, None, None, keep),
        )

    def fail(self, run: Run, error: BaseException, now: int) -> None:
        """*run* raised *error*."""
        if run.lent is not None:
            completions.called_off(self, run, lambda: self.fail(run, error, now))
            return
        if isinstance(run, Parcel):
            run.finish(now, error)
            return
        if run.completion is not None:
            completions.decide(self, run, lambda: self.fail(run, error, now), error)
            return
        started = run.started + self.offset if run.started else 0
        self.end(run, outcomes.settle_error(run, error, started, now + self.offset, self.rng, self.settings.max_error))

    def park(self, run: Run, error: Exception, now: int) -> None:
        """*run* cannot be run here: its payload does not fit the task, or there is no process to be had."""
        run.error = error
        limit = self.settings.max_error
        self.end(run, outcomes.settle_misfit(run.job, run.plan, error, now + self.offset, self.rng, limit))

    def end(self, run: Run, settlement: Settlement | None) -> None:
        """*run* is over; without a *settlement* nothing may be written for it any more."""
        run.settlement = settlement
        run.over = True
        self.tray.put(run)

    def put_back(self, run: Run, stamp: int, why: str) -> None:
        """*run* goes back to its old place, or all members of a parcel; it has not begun."""
        for one in run.members or (run,):
            if one.settlement is None:
                self.end(one, outcomes.settle_released(one.job, stamp, why))
        run.over = True

    # -- telling jobs to stop --------------------------------------------------------------------------------------

    def running(self) -> list[Run]:
        """What runs now, as far as one can tell from outside."""
        return [*self.loop.running(), *self.threads.running()]

    def interrupt(self, run: Run, why: str) -> None:
        """Tell *run* to stop, once more if it was told before. What was said first stays said, but for a lost lease.

        A member of a parcel is only shown it, unless all the others are to stop as well.
        """
        self._mark(run, why)
        if isinstance(run, Parcel):
            for one in run.unfinished():
                if one.stopping is None:
                    self._mark(one, why)
        elif run.parcel is not None:
            if all(one.stopping is not None for one in run.parcel.unfinished()) and run.parcel.stopping is None:
                self.interrupt(run.parcel, why)
            return
        if not run.started:
            return
        if run.plan.kind == "async":
            self.loop.cancel(run)
        elif run.plan.kind == "thread":
            self.threads.interrupt(run)
            for one in run.members or (run,):
                if one.lent is not None:  # else it would hear of it at the end of its statement
                    one.lent.break_off()
        elif self.processes is not None:
            self.processes.interrupt(run)

    def _mark(self, run: Run, why: str) -> None:
        """Note on *run* that it is to stop, and tell of it; of a parcel its members tell."""
        if run.stopping is None:
            run.stopping, run.told_at = why, monotonic()
        elif why == LOST:
            run.stopping = LOST
        run.told += 1
        job = run.job
        if not run.members:
            self.bus.emit(JobInterrupted(id=job.id, task=job.task, queue=job.queue, why=run.stopping, times=run.told))

    def tell(self, run: Run, why: str) -> None:
        """Like `interrupt`, but a job that can look for itself is only shown it at first."""
        if run.stopping is None:
            run.stopping, run.told_at = why, monotonic()
            if courteous(run):
                return
        self.interrupt(run, why)

    def abandon(self, run: Run) -> bool:
        """Give up on stopping *run*; False when it has just ended after all."""
        for one in (run, *run.members):
            one.abandoned = True
        if run.plan.kind != "async" and run.thread is None:
            for one in (run, *run.members):
                one.abandoned = False
            return False
        if not self.mortal and run.plan.kind == "thread":
            # Nobody will replace this process: the job keeps its thread and its lease, others get its place.
            run.replaced = True
            for one in run.members or (run,):
                if one.settlement is None and not one.over:
                    one.replaced = True
                    run.slots.hung.add(one)
            self.threads.widen()
            run.slots.give()
            self.threads.wake(run.slots, 1)
        return True

    # -- what running jobs write -------------------------------------------------------------------------------------

    def stamp(self) -> int:
        return monotonic() + self.offset

    def record(self, run: Run, writes: list[Write]) -> bool:
        if self.store.record(run.lease, writes):
            return True
        if run.completion is None:
            self.refused(run, "record")
        return False

    def recorded(self, run: Run) -> bytes | None:
        return self.store.recorded(run.job.id)

    def undisturbed(self, run: Run) -> AbstractContextManager[None]:
        return self.threads.undisturbed(run.parcel or run)

    def completing(self, run: Run, completion: Completion) -> Completion:
        run.completion = completion
        return completion

    def refused(self, run: Run, write: str) -> None:
        """A late write of *run* was refused."""
        job = run.job
        self.bus.emit(LeaseLostEvent(id=job.id, task=job.task, queue=job.queue, entry=job.entry, write=write))


def _drop(run: Run) -> None:
    """Nobody records yet."""
