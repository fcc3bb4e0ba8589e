"""Sync jobs, in threads; CPU-bound ones too, whose thread waits for a child process.

Threads take jobs from the slots by themselves, so a batch wakes at most as many threads as there are free places.
An interrupt may come at any bytecode: between `_attempt`'s call and `_seal` it belongs to the job, after `_seal` no
other is sent. A thread that does not stop is abandoned: it may end whenever it does, the process is replaced.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Lock, Thread, get_ident, local
from typing import TYPE_CHECKING, Any

from dayjob.context import RUNNING
from dayjob.errors import JobCancelled, JobTimeout
from dayjob.worker.hooks import attempt_async, attempt_sync
from dayjob.worker.interrupt import Interrupted, call_off, raise_in, timeout_type
from dayjob.worker.parcels import Parcel
from dayjob.worker.run import TIMEOUT, Run, Slots, monotonic

if TYPE_CHECKING:
    from dayjob.worker.executor import Executor


class ThreadPool:
    """Where sync jobs run: at most *most* threads, started as they are needed."""

    def __init__(self, executor: Executor, most: int) -> None:
        self._executor = executor
        self._most = most
        self._work: SimpleQueue[Run | Slots | None] = SimpleQueue()
        self._idle: deque[None] = deque()
        self._threads: list[Thread] = []
        self._starting = Lock()
        self._guard = Lock()  # an interrupt is sent only while its run is not sealed
        self._active: dict[int, Run] = {}
        self._sealed: dict[Run, type[BaseException] | None] = {}  # undisturbed ones, and what they are told afterwards
        self._own = local()
        self._closed = False

    def stop(self) -> None:
        """Idle threads end now, busy ones after their job."""
        self._closed = True
        for _ in range(len(self._threads)):
            self._work.put(None)

    def join(self, timeout: float) -> bool:
        """Wait for the threads; False when one still runs a job after *timeout* seconds."""
        deadline = monotonic() + int(timeout * 1e6)
        for thread in self._threads:
            thread.join(max(0.0, (deadline - monotonic()) / 1e6))
        return not any(thread.is_alive() for thread in self._threads)

    # -- in ------------------------------------------------------------------------------------------------------

    def wake(self, slots: Slots, count: int) -> None:
        """Up to *count* jobs of *slots* may find a place."""
        for _ in range(count):
            self._put(slots)

    def put(self, run: Run) -> None:
        """Run *run*, which holds a place."""
        self._put(run)

    def widen(self) -> None:
        """One thread is lost to a job that hangs; allow another in its stead."""
        self._most += 1

    def _put(self, item: Run | Slots) -> None:
        self._work.put(item)
        try:
            self._idle.pop()
        except IndexError:
            self._start_one()

    def _start_one(self) -> None:
        with self._starting:
            if len(self._threads) >= self._most or self._closed:
                return  # all are busy: whoever is done first takes it
            thread = Thread(target=self._main, name=f"dayjob-job-{len(self._threads) + 1}", daemon=True)
            self._threads.append(thread)
        thread.start()

    # -- telling jobs to stop --------------------------------------------------------------------------------------

    def running(self) -> list[Run]:
        return list(self._active.values())

    def interrupt(self, run: Run) -> None:
        """Raise inside *run*: first what it may handle, afterwards what `except Exception` lets through."""
        kind: type[BaseException] = Interrupted
        if run.stopping == TIMEOUT and run.told <= 1 and run.plan.timeout is not None:
            kind = timeout_type(run.plan.timeout)
        with self._guard:
            if run.thread is not None:
                raise_in(run.thread, kind)
            elif run in self._sealed:
                self._sealed[run] = kind

    @contextmanager
    def undisturbed(self, run: Run) -> Iterator[None]:
        """A block in the thread of *run* into which no interrupt comes: it is told when the block ends."""
        ident = get_ident()
        if run.thread != ident:  # in a loop, or in a thread of its own making: nobody interrupts it there
            yield
            return
        self._seal(run)
        self._sealed[run] = None
        try:
            yield
        finally:
            with self._guard:
                run.thread, kind = ident, self._sealed.pop(run)
                if kind is not None:
                    raise_in(ident, kind)

    def stack(self, run: Run) -> str:
        """Where *run* stands now."""
        frame = sys._current_frames().get(run.thread) if run.thread is not None else None
        return "".join(traceback.format_stack(frame)) if frame is not None else ""

    # -- a thread's life -------------------------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            self._take_work()
        finally:
            runner: asyncio.Runner | None = getattr(self._own, "runner", None)
            if runner is not None:
                runner.close()

    def _take_work(self) -> None:
        while True:
            item = self._work.get()
            if item is None:
                return
            if isinstance(item, Run):
                slots, run = item.slots, item
            else:
                slots, run = item, item.take()  # type: ignore[assignment]
            self._serve(slots, run)
            self._executor.tray.quiet()
            if self._closed:
                return
            self._idle.append(None)

    def _serve(self, slots: Slots, run: Run | None) -> None:
        """Run *run* and then what is ready, as long as there is a place."""
        executor = self._executor
        while run is not None:
            if run.plan.kind == "async":
                executor.hand(run)
            else:
                now = monotonic()
                if executor.begin(run, now):
                    self._attempt(run, now)
                if run.replaced:  # its place was given to others while it hung
                    return
                slots.give()
            run = slots.take()

    def _attempt(self, run: Run, now: int) -> None:
        executor = self._executor
        if run.plan.kind == "process":
            self._remote(run)
            return
        try:
            args = run.plan.decode(run.job.payload)
        except Exception as misfit:  # noqa: BLE001  # an upcaster is user code
            executor.park(run, misfit, now)
            return
        value: Any = None
        error: BaseException | None = None
        ident = get_ident()
        self._active[ident] = run
        run.thread = ident
        try:
            try:
                value = executor.loop.base.copy().run(self._call, run, args)
            except BaseException as raised:  # noqa: BLE001  # whatever a task raises is its outcome
                error = raised
            self._seal(run)
        except BaseException:  # noqa: BLE001  # an interrupt that came when the job had just ended: too late
            self._seal(run)
        self._active.pop(ident, None)
        if error is None:
            executor.complete(run, value, monotonic())
        else:
            executor.fail(run, error, monotonic())

    def _seal(self, run: Run) -> None:
        """From here on nobody interrupts *run*; what was sent and not raised yet is taken back."""
        with self._guard:
            ident, run.thread = run.thread, None
        if run.told:
            call_off(ident or get_ident())

    def _call(self, run: Run, args: tuple[Any, ...]) -> Any:
        RUNNING.set(run)
        plan = run.plan
        hooks = self._executor.hooks
        if not hooks.arounds:
            return plan.fn(run.context(), *args) if plan.takes_context else plan.fn(*args)
        if isinstance(run, Parcel):  # which enters them itself, for each call
            return self._runner().run(run.acall()) if hooks.needs_loop else run.call()

        def call() -> Any:
            try:
                return plan.fn(run.context(), *args) if plan.takes_context else plan.fn(*args)
            except Interrupted as error:
                raise _meant(run) from error

        if hooks.needs_loop:
            return self._runner().run(attempt_async(hooks.arounds, run.context(), call))
        return attempt_sync(hooks.arounds, run.context(), call)

    def _runner(self) -> asyncio.Runner:
        """The loop of this thread, in which async around hooks of sync jobs run."""
        runner: asyncio.Runner | None = getattr(self._own, "runner", None)
        if runner is None:
            runner = self._own.runner = asyncio.Runner()
        return runner

    def _remote(self, run: Run) -> None:
        """Let a child process run *run*, and wait for it."""
        processes = self._executor.processes
        if processes is None:
            self._executor.fail(run, RuntimeError("this worker cannot start child processes"), monotonic())
            return
        key = -get_ident()
        self._active[key] = run
        try:
            processes.run(run)
        finally:
            self._active.pop(key, None)


def _meant(run: Run) -> BaseException:
    """What the around hooks see of an interrupt."""
    if run.stopping == TIMEOUT and run.plan.timeout is not None:
        return JobTimeout(run.plan.timeout)
    return JobCancelled(run.job.id, run.job.task, run.stopping)
