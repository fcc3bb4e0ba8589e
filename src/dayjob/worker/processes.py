"""CPU-bound jobs, each alone in a child process: it may crash or be killed, and harms nobody else.

A thread of the pool takes the job, lends itself a child, and waits. What the job says comes through the channel and
goes on to the store under the parent's lease. At the time limit the child is killed: the attempt has failed, as with any
other kind. A child that dies by itself has crashed, and the job ran alone: that counts.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from contextlib import suppress
from threading import Condition
from typing import TYPE_CHECKING, Any

from dayjob.clock import SECOND
from dayjob.codec.failure import encode_failure
from dayjob.errors import JobCancelled, JobTimeout, LeaseLost, StoreError
from dayjob.events import Bus, ProcessDied
from dayjob.states import Outcome
from dayjob.store.records import Log, Progress, Settlement
from dayjob.worker.channel import Answer, Completing, Ended, Failed, Read, Ready, Save, Say, Tell, Work
from dayjob.worker.completions import announced, decide
from dayjob.worker.launch import Child, Death, Launcher
from dayjob.worker.run import TIMEOUT, Completion, Run, monotonic

if TYPE_CHECKING:
    from dayjob.worker.executor import Executor

COURTESY = 2 * SECOND
"""A job that is told to stop may end by itself for so long; then its child is killed. Not at the time limit."""
START_LIMIT = 60 * SECOND
LOOK = 0.25
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM})
"""What a machine says that has no descriptor, process or memory left for a child: it may have later, or another one has."""
TOO_LATE = "told to stop before a child was ready"


class Unstartable(Exception):
    """A pool child could not find its app, or its lifespan failed."""


class ProcessPool:
    """At most *most* children, started as they are needed.

    Args:
        launch: starts a child of a role.
    """

    def __init__(self, launch: Launcher, bus: Bus, most: int | None = None) -> None:
        self._launch, self._bus = launch, bus
        self._most = most or os.cpu_count() or 1
        self._idle: deque[Child] = deque()
        self._all: set[Child] = set()
        self._changed = Condition()
        self._running: dict[int, Child] = {}
        self._closed = False
        self.executor: Executor | None = None

    def stop(self) -> None:
        """End the children. One that still runs a job is killed."""
        with self._changed:
            self._closed = True
            children = list(self._all)
            idle = set(self._idle)
            self._idle.clear()
            self._changed.notify_all()
        for child in children:
            if child in idle:
                child.channel.close()  # it leaves its lifespan and ends
        deadline = monotonic() + 3 * SECOND
        for child in children:
            while child in idle and child.reap(wait=False) is None and monotonic() < deadline:
                with self._changed:
                    self._changed.wait(0.02)
            child.kill()
            child.reap()

    def interrupt(self, run: Run) -> None:
        """Tell the job; the thread that waits for it kills the child when it does not end soon."""
        child = self._running.get(run.job.entry)
        if child is not None:
            child.channel.send(Tell(run.stopping or ""))

    def kill(self, run: Run) -> None:
        """Kill the child in which *run* runs, and wait for its end."""
        child = self._running.get(run.job.entry)
        if child is not None:
            child.kill()
            child.reap()

    # -- one job ---------------------------------------------------------------------------------------------------

    def run(self, run: Run) -> None:
        """Run *run* in a child, to its end."""
        executor = self.executor
        assert executor is not None
        try:
            child = self._lend(run)
        except Exception as error:  # noqa: BLE001  # no child: the attempt has failed, and says why
            if run.over:
                return
            if isinstance(error, OSError) and error.errno in SHORTAGES:  # nothing is wrong with the job
                executor.park(run, error, monotonic())
            else:
                executor.fail(run, error, monotonic())
            return
        self._running[run.job.entry] = child
        try:
            told = run.stopping is not None or run.over
            if told:  # while its child was starting; or it was given back
                self._give_back(child)
                if not run.over:
                    executor.fail(run, Unstartable(TOO_LATE), monotonic())
                return
            run.started = monotonic()  # the limit counts from here, not from the start of the child
            sent = child.channel.send(Work(run.job, executor.stamp(), run.batch.worker))
            ended = self._attend(run, child) if sent else None
        finally:
            del self._running[run.job.entry]
        if ended is not None:
            self._give_back(child)
            if run.over:
                return
            run.failing, run.pauses = ended.failing, ended.pauses
            if ended.error:
                run.error = RuntimeError(ended.error)
            if run.completion is None:
                executor.end(run, ended.settlement)
            else:
                run.completion.committed, settlement = ended.committed, ended.settlement
                decide(executor, run, lambda: executor.end(run, settlement), ended.late)
        else:
            self._died(run, child)

    def _attend(self, run: Run, child: Child) -> Ended | None:
        """Serve the child until the job has ended; None when the child is gone, or was killed here."""
        limit = run.plan.timeout
        deadline = None if limit is None else run.started + int(limit * SECOND)
        while True:
            now = monotonic()
            if deadline is not None and now >= deadline and run.stopping is None:
                run.stopping, run.told_at = TIMEOUT, now
                run.told += 1
            if run.stopping == TIMEOUT or (run.stopping is not None and now >= run.told_at + COURTESY):
                return None
            patience = LOOK if deadline is None or run.stopping is not None else (deadline - now) / SECOND
            try:
                message = child.receive(min(LOOK, max(0.0, patience)))
            except TimeoutError:
                continue
            if message is None or isinstance(message, Ended):
                return message
            self._serve(run, child, message)

    def _serve(self, run: Run, child: Child, message: Any) -> None:
        try:
            if isinstance(message, Say):
                for write in message.writes:
                    if isinstance(write, Progress):
                        run.progress(write.done, write.total, write.note)
                    elif isinstance(write, Log):
                        run.log(write.level, write.message)
            elif isinstance(message, Save):
                run.save_checkpoint(message.value)
                child.channel.send(Answer(True))
            elif isinstance(message, Read):
                child.channel.send(Answer(True, run.read_checkpoint()))
            elif isinstance(message, Completing):
                run.check_lease()
                child.channel.send(Answer(True, logs=announced(run, Completion(message.settlement)).logs))
        except LeaseLost:
            child.channel.send(Tell("lost") if isinstance(message, Say) else Answer(False))
        except StoreError as error:
            if not isinstance(message, Say):
                child.channel.send(Answer(False, error=f"{type(error).__name__}: {error}"))

    def _died(self, run: Run, child: Child) -> None:
        """The child is gone without an answer: we killed it, or it crashed."""
        executor = self.executor
        assert executor is not None
        ours = run.stopping is not None
        child.kill(rest=True)
        self._remove(child)
        death = child.reap()
        assert death is not None
        if run.over:  # killed for one who has settled it
            return
        if not ours:
            self._bus.emit(ProcessDied(role="pool", pid=child.pid, death=death.how, peak_mb=death.peak_mb))
        if run.completion is not None:
            limit = executor.settings.max_error
            error = encode_failure(RuntimeError(f"the job's process ended: {death.how}"), limit)
            decide(executor, run, lambda: self._settle_death(executor, run, death, crashed=not ours), error)
        else:
            self._settle_death(executor, run, death, crashed=not ours)

    def _settle_death(self, executor: Executor, run: Run, death: Death, *, crashed: bool) -> None:
        if crashed:
            peak = "" if death.peak_mb is None else f", held up to {death.peak_mb:.0f} MB"
            job, now = run.job, executor.stamp()
            executor.end(
                run,
                Settlement(
                    job.id, job.entry, Outcome.CRASHED, run.started + executor.offset, now, reason=f"{death.how}{peak}"
                ),
            )
        elif run.stopping == TIMEOUT and run.plan.timeout is not None:
            executor.fail(run, JobTimeout(run.plan.timeout), monotonic())
        else:
            executor.fail(run, JobCancelled(run.job.id, run.job.task, run.stopping), monotonic())

    # -- children ----------------------------------------------------------------------------------------------------

    def _lend(self, run: Run) -> Child:
        """An idle child, or a new one, or the next to become idle."""
        with self._changed:
            while True:
                if self._closed or run.stopping is not None or run.over:
                    raise Unstartable(TOO_LATE)
                while self._idle:
                    child = self._idle.pop()
                    if child.reap(wait=False) is None:
                        return child
                    self._all.discard(child)
                if len(self._all) < self._most:
                    child = self._launch("pool", {})
                    self._all.add(child)
                    break
                self._changed.wait(LOOK)
        try:
            self._await_ready(run, child)
        except BaseException:
            self._remove(child)
            child.kill()
            child.reap()
            raise
        return child

    def _await_ready(self, run: Run, child: Child) -> None:
        limit = monotonic() + START_LIMIT
        while True:
            with suppress(TimeoutError):
                message = child.receive(LOOK)
                break
            now = monotonic()
            if run.over or (run.stopping is not None and now >= run.told_at + COURTESY):
                raise Unstartable(TOO_LATE)
            if now >= limit:
                raise Unstartable(f"the pool child was not ready after {START_LIMIT / SECOND:.0f} s")
        if isinstance(message, Failed):
            raise Unstartable(message.error)
        if not isinstance(message, Ready):
            death = child.reap()
            raise Unstartable(f"the pool child ended before it was ready: {death and death.how}")

    def _give_back(self, child: Child) -> None:
        with self._changed:
            self._idle.append(child)
            self._changed.notify()

    def _remove(self, child: Child) -> None:
        with self._changed:
            self._all.discard(child)
            self._changed.notify()
