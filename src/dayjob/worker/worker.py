"""A worker process and its life.

    main thread ── commands ──▶ Worker        signals, stop(), a job that hangs, memory, the last job
                                  │ starts, stops, in this order back
      ┌─────────┬─────────┬──────┴──┬──────────┬────────┬──────────┐
    executor  leases   recorder  watchdog   leader   suspects    pump
    (jobs)    (beat)   (progress) (limits)  (duties) (solo child) (turns)

Shutdown: stop claiming → wait for running jobs to one absolute deadline → cancel → flush → release the rest → leave.
A second signal moves the deadline to now.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from queue import SimpleQueue
from threading import Thread, current_thread, main_thread
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dayjob.clock import SECOND
from dayjob.errors import StoreError, StoreUnavailable
from dayjob.events import Bus, WorkerStarted, WorkerStopped, WorkerStopping
from dayjob.service import Service
from dayjob.services.announcer import Announcer
from dayjob.services.duties import duties, tell_gone
from dayjob.services.leader import Leader
from dayjob.states import Outcome
from dayjob.store.records import Gone, WorkerInfo
from dayjob.telemetry.relay import Relay
from dayjob.worker.deaths import Deaths
from dayjob.worker.durability import tell_durability
from dayjob.worker.executor import Executor
from dayjob.worker.groups import Queues, group_queues, queue_names, sendable
from dayjob.worker.hooks import Hooks
from dayjob.worker.launch import Child, Ref
from dayjob.worker.leases import Leases
from dayjob.worker.process import end_process, next_command, stop_signals, version
from dayjob.worker.processes import ProcessPool
from dayjob.worker.pump import Pump
from dayjob.worker.recorder import Recorder
from dayjob.worker.run import monotonic
from dayjob.worker.suspects import Suspects
from dayjob.worker.watchdog import Watchdog
from dayjob.worker.winding import Winding

if TYPE_CHECKING:
    from dayjob.config import Settings
    from dayjob.registry import Registry
    from dayjob.store.contract import Store

RECYCLE_GRACE = 300.0
"""Seconds that running jobs may go on in a process that is replaced: nothing is in a hurry then."""
LAST_WORDS = 10.0
"""Seconds for the end of a burst that was interrupted from the keyboard."""
SWITCH_INTERVAL = 0.0005
"""Seconds of the GIL per thread. The default of 5 ms would make each of the pump's calls wait so long beside CPU work."""


class Worker:
    """Runs jobs in this process until told to stop.

    Args:
        store, registry, settings, bus, hooks: the parts it joins.
        app: `ctx.app`. ref: where child processes find the app again; None: there can be none.
        queues: names, or names with a concurrency of their own (None: they share *concurrency*); None: all.
        grace: seconds running jobs may go on after `stop()`.
        max_jobs, max_memory: end, after draining, after so many jobs or above so many megabytes.
        solo: claims suspects only, one at a time.
        on_incarnation: told each id under which this worker works. on_leaving: told why it stops by itself, and whether
            another process should take its place.
    Attributes:
        ending: why it stopped: `stopped`, `idle`, or what made it end by itself.
        again: True when another process should take its place.
        replace: called at the end of `run`, right after a job was given back that hangs in here; must not return.
        id: the present incarnation. counts: settled jobs by outcome.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        settings: Settings,
        bus: Bus,
        hooks: Hooks,
        *,
        app: Any = None,
        ref: Ref | None = None,
        queues: Queues = None,
        concurrency: int | None = None,
        grace: float | timedelta | None = None,
        max_jobs: int | None = None,
        max_memory: float | None = None,
        solo: bool = False,
        rng: random.Random | None = None,
        on_incarnation: Callable[[str], None] | None = None,
        on_leaving: Callable[[str, bool], None] | None = None,
    ) -> None:
        self.store, self.registry, self.settings, self.bus, self.hooks = store, registry, settings, bus, hooks
        self.app, self.ref, self.solo = app, ref, solo
        self._queues = queues
        self.concurrency = 1 if solo else settings.concurrency if concurrency is None else concurrency
        seconds = settings.grace if grace is None else grace
        self._grace = seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds)
        self._max_jobs, self._max_memory = max_jobs, max_memory
        self._rng = rng or random.Random()
        self._on_incarnation, self._on_leaving = on_incarnation, on_leaving
        self._host, self._version = socket.gethostname(), version()
        self._commands: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._mortal = self._alone = self._begun = False
        self.id = self.ending = ""
        self.again = False
        self.replace: Callable[[], None] = end_process
        self._fatal: BaseException | None = None

    # -- the ways to run it ------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until told to stop: SIGTERM or SIGINT (a second one ends at once), `stop()`, or a limit.

        To be called in the main thread, the process is the worker's then: should a job hang for good, the process ends
        with exit code 75 when all others are done, so that whoever started it starts it again (`replace` may be set to
        something else that ends this process image). In any other thread signals are not handled, and a hanging job
        keeps its thread and its lease, but not its place.

        Raises:
            What the lifespan raises when it is entered; `SchemaMismatch`, when the store is not ours.
        """
        if current_thread() is main_thread():
            with stop_signals(lambda why, now: self.stop(now=now, why=why)):
                if self._work(mortal=True):
                    self._last_act()
                    self.replace()
        else:
            self._work()

    async def arun(self) -> None:
        """`run` beside the caller's event loop, which stays free; cancelling it stops the worker in order."""
        await self._beside(burst=False)

    async def arun_until_idle(self) -> Counter[Outcome]:
        """Awaitable `run_until_idle`."""
        await self._beside(burst=True)
        return self.counts

    async def _beside(self, *, burst: bool) -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def work() -> None:
            error: BaseException | None = None
            try:
                self._work(burst=burst)
            except BaseException as raised:  # noqa: BLE001  # carried over to the caller
                error = raised
            loop.call_soon_threadsafe(_finish, done, error)

        Thread(target=work, name="dayjob-worker", daemon=True).start()
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            self.stop()
            await done
            raise

    def run_until_idle(self) -> Counter[Outcome]:
        """Work until nothing is left that could be claimed now; returns how many jobs ended in which way.

        What is scheduled for later is not waited for.
        """
        self._work(burst=True)
        return self.counts

    def stop(self, *, now: bool = False, why: str = "stop()") -> None:
        """Ask for the end; with *now* without grace. Returns at once. From any thread or signal handler, repeatable."""
        self._commands.put(("now" if now else "stop", why))

    @property
    def counts(self) -> Counter[Outcome]:
        return self._pump.tallies.counts if self._begun else Counter()

    # -- its life ------------------------------------------------------------------------------------------------------

    def _work(self, *, burst: bool = False, mortal: bool = False) -> int:
        """From start to end; returns how many jobs still run, whose leases `_last_act` gives back (in a *mortal* process)."""
        interval = sys.getswitchinterval()
        self._mortal = mortal
        self._build(burst)
        self.executor.start()
        try:
            sys.setswitchinterval(min(interval, SWITCH_INTERVAL))
            if self._enlist(burst):
                if not burst:
                    gc.collect()
                    gc.freeze()  # what is here now stays: the collector need not look at it again
                for service in (self._leases, *self._aides, self._pump):
                    service.start()
                if not self.solo:
                    tell_durability(self.store, self.bus, self.id)
                self._obey()
        except KeyboardInterrupt:  # in a burst, whose signals are the caller's: no grace, but everything goes back
            self._wind("KeyboardInterrupt", 0.0)
            self._hurry()
            self._pump.finished.wait(LAST_WORDS)
            raise
        finally:
            hung = self._end()
            sys.setswitchinterval(interval)
            if not burst:
                gc.unfreeze()
        if self._fatal is not None:
            if hung:
                self._last_act()
            raise self._fatal
        return hung

    def _build(self, burst: bool) -> None:
        settings, bus = self.settings, self.bus
        self.id = str(uuid4())
        self.ending, self.again, self._fatal = "", False, None
        groups = group_queues(self._queues, self.concurrency)
        capacity = sum(slots.limit for slots in groups)
        processes = ProcessPool(self._launch, bus) if self.ref is not None else None
        self.executor = executor = Executor(
            self.store,
            settings,
            bus,
            self.hooks,
            capacity=capacity,
            app=self.app,
            processes=processes,
            rng=self._rng,
        )
        self._recorder = Recorder(executor, bus)
        executor.note = self._recorder.note
        executor.mortal = self._mortal
        self._deaths = Deaths(self.registry, executor, self.hooks, bus)
        self._suspects = self._make_suspects()
        self._watchdog = Watchdog(
            executor,
            bus,
            blocked_after=settings.blocked_after,
            busy=lambda: bool(self._pump.claims.held_jobs()),
            on_hung=lambda why: self._commands.put(("hung", why)),
            max_memory=self._max_memory,
            on_memory=lambda used: self._commands.put(("recycle", f"holds {used:.0f} MB")),
        )
        self._pump = Pump(
            self.store,
            self.registry,
            executor,
            self._recorder,
            bus,
            groups,
            worker=self.id,
            renew=self._renew,
            poll=settings.poll,
            solo=self.solo,
            burst=burst,
            max_jobs=self._max_jobs,
            on_suspects=self._suspects.wait_for if self._suspects is not None else None,
            elsewhere=lambda: self._suspects is not None and self._suspects.busy,
            on_alone=self._go_alone,
            on_dead=self._deaths.died,
            on_control=self._control,
            on_full=lambda: self._commands.put(("recycle", f"ran {self._max_jobs} jobs")),
            on_feed=self._watchdog.look,
            on_finished=lambda: self._commands.put(("done", "")),
            on_fatal=lambda error: self._commands.put(("fatal", error)),
        )
        self._relay = Relay(self.store, bus)
        declared = {} if self.solo or self.app is None else self.app.schedules.declared()
        self._announcers = (Announcer(self.store, bus, declared),) if declared else ()
        self._leader = Leader(
            duties(self.store, bus, settings, self.registry, self._deaths.crashed, declared),
            bus,
            lease=settings.lease,
            worker=self.id,
        )
        self._leases = Leases(
            self.store,
            self._pump,
            bus,
            every=settings.beat,
            info=self._info,
            sent=executor.confirmed,
            leads=self._leader.heard,
            on_fatal=lambda error: self._commands.put(("fatal", error)),
        )
        self._begun = True

    @property
    def _aides(self) -> tuple[Service, ...]:
        return self._recorder, self._watchdog, self._leader, self._relay, *self._announcers

    def _make_suspects(self) -> Suspects | None:
        if self.solo or self.ref is None or not self.store.processes:
            return None
        options: dict[str, Any] = {"queues": sendable(self._queues), "grace": self._grace}
        return Suspects(self._launch, self.store, self.bus, options, self._gone, lambda: self._pump.look_now())  # noqa: PLW0108  # made later

    def _enlist(self, burst: bool) -> bool:
        """Send the first beat; False when told to stop before the store answered."""
        while True:
            delay = self._leases.attempt()
            if self._leases.beaten:
                break
            if delay is None:  # the store is not ours, whatever else we were told meanwhile
                while self._fatal is None:
                    self._told_to_stop(0.0)
                return False
            if burst:
                raise StoreUnavailable(f"{self.store.url} does not answer")
            time_out = time.monotonic() + delay
            while (left := time_out - time.monotonic()) > 0:
                if self._told_to_stop(left):
                    return False
        if self._on_incarnation is not None:
            self._on_incarnation(self.id)
        if burst:
            for service in (*self._announcers, self._leader):
                service.attempt()  # what is overdue or stalled is to be seen by the first claim
        queues, slots, url = queue_names(self._queues), self._info().concurrency, self.store.url
        self.bus.emit(
            WorkerStarted(worker=self.id, pid=os.getpid(), queues=queues, concurrency=slots, store=url, solo=self.solo)
        )
        return True

    def _told_to_stop(self, wait: float) -> bool:
        command, what = self._next_command(wait)
        self._fatal = what if command == "fatal" else self._fatal
        self.ending = str(what)
        return command in ("stop", "now", "fatal")

    def _next_command(self, wait: float | None) -> tuple[str, Any]:
        return next_command(self._commands, wait)

    def _obey(self) -> None:
        """The main thread's part: carry out commands until the pump is done."""
        while True:
            winding = self._pump.winding
            command, what = self._next_command(None if winding is None else winding.patience())
            if command in ("done", ""):  # "": a pump in trouble must not keep a process that was told to go
                self.ending = self.ending or "idle"
                return
            if command == "fatal":
                self._fatal = what
                self.ending = f"{type(what).__name__}: {what}"
                if self._pump.stopping or not self._pump.running:
                    return
                self._wind(self.ending, 0.0)
            elif command == "stop":
                self._wind(str(what), self._grace)
            elif command == "now":
                self._wind(str(what), 0.0)
                self._hurry()
            elif command == "hung" and not self._mortal:
                continue  # this process is somebody else's: the job keeps what it has, and gets no company
            elif self._pump.winding is None:
                self.again = True
                self._wind(str(what), max(self._grace, RECYCLE_GRACE), again=True)

    def _wind(self, why: str, grace: float, *, again: bool = False) -> None:
        """Begin to end. Who is told to stop while it drains for a replacement, gets only the grace left."""
        deadline = monotonic() + int(grace * SECOND)
        winding = self._pump.winding
        if winding is not None:
            winding.grace_until = min(winding.grace_until, deadline)
            self._pump.kick()
            return
        self.ending = why
        running = len(self.executor.running())
        self.executor.close()
        self._pump.winding = Winding(deadline, mortal=self._mortal)
        self.bus.emit(WorkerStopping(worker=self.id, why=why, running=running, grace=grace))
        if self._on_leaving is not None:
            self._on_leaving(why, again)
        if self._suspects is not None:
            self._suspects.stop()
        self._pump.kick()

    def _hurry(self) -> None:
        winding = self._pump.winding
        if winding is not None:
            winding.hurry(monotonic())
        if self._suspects is not None:
            self._suspects.hurry()
        self._pump.kick()

    def _end(self) -> int:
        """Stop what was started, in the opposite order, and leave."""
        hung = len(self._pump.winding.hung) if self._pump.winding is not None else 0
        stuck = bool(hung or self._pump.claims.held_jobs() or self._pump.claims.hung_jobs())
        for service in (self._pump, *self._aides):
            service.stop()
        for service in (self._pump, *self._aides):
            service.join(5.0)
        self._pump.close()
        self._deaths.drain(10.0)
        if self._suspects is not None:
            self._suspects.stop()
            deadline = time.monotonic() + self._grace + 5.0
            while not self._suspects.join(0.0) and time.monotonic() < deadline:
                if self._next_command(0.05)[0] == "now":  # a second signal counts to the very end
                    self._hurry()
        if not hung:  # else they are kept to the last act, and renewed
            self._leave(stuck)
        self.executor.stop(0.2 if stuck else 5.0)
        if not hung:
            self._tell_end()
        while self._next_command(0)[0]:
            pass  # nothing of this life is for the next
        return hung

    def _last_act(self) -> None:
        """Let go of the jobs that hang here. Nothing may come between this and the end of the process."""
        winding = self._pump.winding
        if winding is not None and not self._leases.lost:
            winding.last_act(self._pump)
        self._tell_end()
        self._leave(True)

    def _leave(self, stuck: bool) -> None:
        self._leases.stop()
        self._leases.join(5.0)
        if not self._leases.beaten or self._leases.lost:
            return
        with suppress(StoreError):  # if it does not answer, the lease runs out by itself
            self._leases.tick()
            if not stuck or self._mortal:
                self.store.leave(self._pump.worker)
            # else a job goes on in this process, which lives on: its lease must run out, not be given away

    def _tell_end(self) -> None:
        if self._leases.beaten:
            counts = {str(outcome): number for outcome, number in self.counts.items()}
            self.bus.emit(WorkerStopped(worker=self.id, counts=counts, released=self.counts[Outcome.RELEASED]))

    # -- what its parts ask ----------------------------------------------------------------------------------------------

    def _info(self) -> WorkerInfo:
        return WorkerInfo(
            id=self._pump.worker,
            name=f"{self._host}-{os.getpid()}",
            host=self._host,
            pid=os.getpid(),
            queues=queue_names(self._queues),
            concurrency=sum(slots.limit for slots in self._pump.claims.groups),
            solo=self.solo or self._alone,
            expiry=self.settings.lease,
            version=self._version,
            running=len(self.executor.running()),
        )

    def _renew(self) -> str:
        self.id = self._leader.worker = str(uuid4())
        if self._on_incarnation is not None:
            self._on_incarnation(self.id)
        self._leases.kick()
        return self.id

    def _control(self, control: int) -> None:
        if control != self._leases.control:
            self._leases.kick()

    def _go_alone(self, alone: bool) -> bool:
        """The store must know before the first suspect is claimed, and after the last before any other job: only who is
        solo runs alone. False: it could not be told."""
        self._alone = alone
        with suppress(StoreError):
            self._leases.tick()
            return not self._leases.lost
        return False

    def _gone(self, gone: Gone, death: str) -> None:
        tell_gone(self.bus, gone, death, self._deaths.crashed)
        self.store.notify("work")
        self._pump.kick()

    def _launch(self, role: str, options: dict[str, Any]) -> Child:
        assert self.ref is not None
        return Child(role, self.ref, {**options, "url": getattr(self.app, "url", None)})


def _finish(done: asyncio.Future[None], error: BaseException | None) -> None:
    if error is None and not done.done():
        done.set_result(None)
    elif error is not None and not done.done():
        done.set_exception(error)
