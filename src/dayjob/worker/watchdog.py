"""Looks at what runs from outside: ends what is over its time, reports a loop that stands still.

Ten looks a second while anything runs, each at most as long as the list of running jobs; no timer per job.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dayjob.clock import SECOND
from dayjob.events import Bus, JobAbandoned, LoopBlocked
from dayjob.service import Service
from dayjob.worker import limits
from dayjob.worker.limits import Step, due
from dayjob.worker.run import SHUTDOWN, Run, monotonic

if TYPE_CHECKING:
    from dayjob.worker.executor import Executor

LOOK = 0.1
IDLE = 5.0
PING_EVERY = 0.5


class Watchdog(Service):
    """Time limits, blocked loop, memory.

    Args:
        blocked_after: seconds without a turn of the loop that are reported.
        max_memory: megabytes of resident memory after which the process is to be recycled.
        busy: says whether there are jobs that run or are about to.
        on_hung: called with why the process must be replaced.
        on_memory: called with the megabytes reached.
    """

    def __init__(
        self,
        executor: Executor,
        bus: Bus,
        *,
        blocked_after: float,
        busy: Callable[[], bool],
        on_hung: Callable[[str], None],
        max_memory: float | None = None,
        on_memory: Callable[[float], None] | None = None,
    ) -> None:
        super().__init__("watchdog", bus)
        self._executor = executor
        self._blocked_after = int(blocked_after * SECOND)
        self._busy = busy
        self._on_hung, self._on_memory, self._max_memory = on_hung, on_memory, max_memory
        self._pinged = 0  # when the ping under way was sent, 0: none
        self._ponged = True
        self._next_ping = 0
        self._reported = False
        self._standing = 0  # how long the loop has stood still in no job, as far as we watched
        self._looked = 0
        self._given_up = False
        self._next_memory = 0
        self._asleep = False

    def look(self) -> None:
        """Jobs may be running from now on. From any thread."""
        if self._asleep:
            self._asleep = False
            self.kick()

    def tick(self) -> float:
        self._asleep = True  # before we look: whoever brings jobs after that wakes us
        busy = self._busy()
        self._asleep = not busy
        now = monotonic()
        if self._max_memory is not None and now >= self._next_memory:
            self._next_memory = now + SECOND
            self._check_memory(self._max_memory)
        runs = self._executor.running()
        blocker = self._blocked(now, busy)
        self._looked = now
        if self._given_up:
            self._take_back(now)
        for run in runs:
            step, why = due(run, now, blocks=run is blocker)
            if step is not Step.NOTHING:
                self._take(step, run, why, now)
        if busy or not self._ponged:
            return LOOK
        return IDLE if self._max_memory is None else 1.0

    # -- jobs that do not stop -------------------------------------------------------------------------------------

    def _take(self, step: Step, run: Run, why: str, now: int) -> None:
        executor = self._executor
        if step is Step.TELL:
            executor.interrupt(run, why)
        elif step is Step.CLOSE:
            executor.loop.close_run(run)
        elif step is Step.BREAK:
            executor.loop.break_into(run)
        else:
            job = run.job
            stack = executor.loop.stack() if run.plan.kind == "async" else executor.threads.stack(run)
            if not executor.abandon(run):
                return
            took = (now - run.started) / SECOND
            for one in run.members or (run,):
                if one.settlement is None:
                    told = one.job.id, one.job.task, one.job.queue
                    self.bus.emit(
                        JobAbandoned(id=told[0], task=told[1], queue=told[2], why=why, duration=took, stack=stack)
                    )
            self._on_hung(f"job {job.id} ({job.task}) does not stop")

    # -- the loop --------------------------------------------------------------------------------------------------

    def _blocked(self, now: int, busy: bool) -> Run | None:
        """The run in which the loop stands still, when it does for longer than is good; reports it once."""
        loop = self._executor.loop
        if self._ponged:
            self._reported = self._given_up = False
            self._standing = 0
            if busy and now >= self._next_ping:
                self._ponged, self._pinged = False, now
                self._next_ping = now + int(PING_EVERY * SECOND)
                loop.ping(self._pong)
            return None
        stood = now - self._pinged
        if stood < self._blocked_after:
            return None
        run = loop.current
        if not self._reported:
            self._reported = True
            self._tell(run, stood)
        # Looks that came late count little: then it was the process that stood still, not the loop.
        self._standing = 0 if run is not None else self._standing + min(now - self._looked, SECOND)
        if self._standing >= limits.FORCE and not self._given_up:
            self._given_up = True
            self._tell(None, stood)
            self._on_hung("the event loop stands still, and in no job")
        return run

    def _tell(self, run: Run | None, stood: int) -> None:
        job = None if run is None else run.job
        self.bus.emit(
            LoopBlocked(
                id=None if job is None else job.id,
                task=None if job is None else job.task,
                duration=stood / SECOND,
                stack=self._executor.loop.stack(),
            )
        )

    def _take_back(self, now: int) -> None:
        """The loop is given up: what has not begun there goes back, what has begun will not end."""
        executor = self._executor
        for run in executor.loop.take_back():
            executor.put_back(run, now + executor.offset, "blocked")
            run.slots.give()
            executor.threads.wake(run.slots, 1)
        if executor.mortal:
            for run in list(executor.loop.active):
                if not run.abandoned:
                    if run.stopping is None:
                        run.stopping, run.told_at = SHUTDOWN, now
                    for one in (run, *run.members):
                        one.abandoned = True

    def _pong(self) -> None:
        self._ponged = True

    # -- memory ----------------------------------------------------------------------------------------------------

    def _check_memory(self, most: float) -> None:
        used = resident_mb()
        if used > most and self._on_memory is not None:
            self._on_memory(used)


def resident_mb() -> float:
    """Resident memory of this process in megabytes; where the system tells no current figure, the largest so far."""
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    except (OSError, IndexError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024
    return pages * resource.getpagesize() / (1 << 20)
