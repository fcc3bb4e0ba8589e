"""Where jobs run in a simulated worker: what the executor takes for its loop and its threads.

A job is a strand. It is told to stop as the loop or a thread would: an exception is raised where it rests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dayjob.errors import LeaseLost
from dayjob.worker.interrupt import Interrupted
from dayjob.worker.run import Run, Slots
from tests.chaos.simulation.machine import Machine, Strand

if TYPE_CHECKING:
    from dayjob.worker.executor import Executor
    from tests.chaos.simulation.world import World


class Floor:
    """The loop (`LoopPool`); jobs for threads run here as well."""

    world: World

    def __init__(self, executor: Executor) -> None:
        self._executor, self._process = executor, Machine.present.process
        self.current: Run | None = None
        self.active: dict[Run, Strand] = {}
        self.handed: set[Run] = set()

    def start(self) -> None:
        pass

    def stop(self, patience: float) -> bool:
        return not self.active

    def take_back(self) -> list[Run]:
        return []

    def ping(self, pong: Callable[[], None]) -> None:
        pong()

    def stack(self, run: Run | None = None) -> str:
        return ""

    def running(self) -> list[Run]:
        return list(self.active)

    # -- in and out ------------------------------------------------------------------------------------------------

    def wake(self, slots: Slots, count: int = 1) -> None:
        for _ in range(min(len(slots.free), len(slots.ready))):
            self._process.start(lambda: self._serve(slots), "job")

    def _serve(self, slots: Slots) -> None:
        """A place, and the jobs that come to it."""
        while (run := slots.take()) is not None:
            self._attempt(run)
            if run.replaced:
                return
            slots.give()
        self._executor.tray.quiet()

    def _attempt(self, run: Run) -> None:
        executor, machine = self._executor, Machine.present
        if not executor.begin(run, machine.process.monotonic()):
            return
        strand = machine.strand
        assert strand is not None
        self.active[run] = strand
        run.thread = id(strand) if run.plan.kind == "thread" else None
        error: BaseException | None = None
        try:
            self.world.started(run)
            self.world.act(run)
        except (Exception, asyncio.CancelledError, Interrupted, LeaseLost) as raised:
            error = raised.with_traceback(None)  # to write it down costs more than all else of a job here
        del self.active[run]
        run.thread = None
        if error is None:
            executor.complete(run, None, machine.process.monotonic())
        else:
            executor.fail(run, error, machine.process.monotonic())

    # -- telling jobs to stop --------------------------------------------------------------------------------------

    def cancel(self, run: Run) -> None:
        if run in self.active:
            self.active[run].interrupt(asyncio.CancelledError())

    def interrupt(self, run: Run) -> None:
        if run in self.active:
            self.active[run].interrupt(Interrupted())

    def close_run(self, run: Run) -> None:
        run.abandoned = True
        self.interrupt(run)

    def break_into(self, run: Run) -> None:
        self.interrupt(run)


class Bell:
    """The threads (`ThreadPool`): they tell the floor."""

    def __init__(self, executor: Executor, most: int) -> None:
        self._floor: Any = executor.loop

    def stop(self) -> None:
        pass

    def join(self, timeout: float) -> bool:
        return not self._floor.active

    def widen(self) -> None:
        pass

    def running(self) -> list[Run]:
        return []

    def wake(self, slots: Slots, count: int) -> None:
        self._floor.wake(slots)

    def interrupt(self, run: Run) -> None:
        self._floor.interrupt(run)

    def stack(self, run: Run) -> str:
        return ""
