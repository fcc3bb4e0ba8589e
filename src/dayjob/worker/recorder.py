"""Writes down what running jobs say (progress, logs), soon and in batches, so that saying it costs a job nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from threading import Lock
from typing import TYPE_CHECKING

from dayjob.clock import SECOND
from dayjob.errors import BadRow, StoreError
from dayjob.events import Bus, JobLogged, JobProgress, WritesTrimmed
from dayjob.service import Service
from dayjob.store.records import Log, Progress, Write
from dayjob.worker.outcomes import unstorable
from dayjob.worker.run import LOST, Run, monotonic

if TYPE_CHECKING:
    from dayjob.worker.executor import Executor

EVERY = 0.1
IDLE = 60.0


class Recorder(Service):
    """Ten times a second writes what the runs that spoke have said since."""

    def __init__(self, executor: Executor, bus: Bus) -> None:
        super().__init__("recorder", bus)
        self._executor = executor
        self._spoke: deque[Run] = deque()
        self._writing = Lock()  # a run's lines stay in order: one flush at a time
        self._last = 0
        self.asleep = False

    def note(self, run: Run) -> None:
        """*run* has said something. Called by jobs, from any thread."""
        if not run.dirty and not run.completes():
            run.dirty = True
            self._spoke.append(run)
            if self.asleep:
                self.asleep = False
                self.kick()

    def wait(self, delay: float) -> None:
        self.asleep = delay >= IDLE
        if self.asleep and self._spoke:
            self.asleep = False
            return
        super().wait(delay)
        self.asleep = False

    def tick(self) -> float:
        now = monotonic()
        if now - self._last < EVERY * SECOND:
            return EVERY
        self._last = now
        for _ in range(len(self._spoke)):
            run = self._spoke.popleft()
            run.dirty = False
            self.flush(run)
        return EVERY if self._spoke else IDLE

    def flush(self, run: Run, *, finished: bool = False) -> None:
        """Write what *run* has said. Raises `StoreError`; nothing is lost then but the oldest of many lines (`BadRow`: these)."""
        with self._writing:
            if run.completes():  # its lines go with the completion, or wait until there is none
                return
            writes = run.take_writes(finished=finished)
            if not writes or run.stopping == LOST:
                return
            run.writing = writes
            try:
                held = self._executor.record(run, writes)
            except BadRow:
                raise
            except StoreError:
                trimmed = run.give_back(writes)
                if trimmed:
                    self.bus.emit(WritesTrimmed(count=trimmed))
                if not finished and not run.dirty:
                    run.dirty = True
                    self._spoke.append(run)
                raise
            finally:
                run.writing = None
        if held:
            self._tell(run, writes)
        elif not run.completes() and run.settlement is None and not run.over:
            self._executor.interrupt(run, LOST)

    def finish(self, runs: Iterable[Run]) -> None:
        """Write what ended *runs* have said, before their ends. Raises as `flush`, but never `BadRow`."""
        for run in runs:
            if run.spoke:
                try:
                    self.flush(run, finished=True)
                except Exception as error:
                    if not unstorable(error):
                        raise
                    self._report(error, 0.0)  # its words cannot be stored, but its end can

    def _tell(self, run: Run, writes: list[Write]) -> None:
        job = run.job
        for write in writes:
            if isinstance(write, Log) and self.bus.wants(JobLogged.name):
                self.bus.emit(
                    JobLogged(id=job.id, task=job.task, queue=job.queue, level=write.level, message=write.message)
                )
            elif isinstance(write, Progress) and self.bus.wants(JobProgress.name):
                self.bus.emit(
                    JobProgress(
                        id=job.id, task=job.task, queue=job.queue, done=write.done, total=write.total, note=write.note
                    )
                )
