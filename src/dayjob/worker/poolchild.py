"""Inside a pool child: one CPU-bound job after the other, in the main thread, alone in its process.

The reader thread takes frames while a job runs: what the parent wants, and answers. The job's own writes go to the
parent, which holds the lease.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from contextvars import copy_context
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from dayjob.codec.failure import encode_failure
from dayjob.context import RUNNING
from dayjob.errors import LeaseLost, StoreUnavailable
from dayjob.states import Outcome, State
from dayjob.store.records import Checkpoint, Settlement, Write
from dayjob.worker import completions, outcomes
from dayjob.worker.channel import Answer, Channel, Completing, Ended, Failed, Read, Ready, Save, Say, Stop, Tell, Work
from dayjob.worker.hooks import attempt_async, attempt_sync
from dayjob.worker.run import LOST, Batch, Completion, Run, Slots, monotonic

if TYPE_CHECKING:
    from dayjob.app import App
    from dayjob.store.contract import Store


class PoolChild:
    """Serves one parent to its end. The `Home` of the runs in it."""

    def __init__(self, app: App, channel: Channel) -> None:
        self.app: Any = app
        self.state: Any = None
        self._channel = channel
        self.settings, self._registry, self._hooks = app.settings, app.registry, app.hooks
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._answers: SimpleQueue[Answer] = SimpleQueue()
        self._run: Run | None = None
        self._offset = 0
        self._rng = random.Random()

    def serve(self) -> int:
        """Work until the parent closes the channel; returns the exit code."""
        # A signal to the whole group or service is the parent's to answer. Handlers, unlike SIG_IGN, do not
        # survive into programs that the job starts.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: None)
        with asyncio.Runner() as runner:
            stack = AsyncExitStack()
            try:
                runner.run(self._enter(stack))
            except Exception as error:  # noqa: BLE001  # told to the parent, which fails the job with it
                self._channel.send(Failed(f"the lifespan failed: {type(error).__name__}: {error}"))
                return 78
            gc.freeze()
            self._channel.send(Ready())
            Thread(target=self._read, name="dayjob-parent", daemon=True).start()
            ours = os.getpid()
            while (work := self._work.get()) is not None:
                ended = self._ended(work, runner)
                if os.getpid() != ours:  # the job has forked, and this is the copy: it has nobody to tell
                    os._exit(0)
                self._channel.send(ended)
            runner.run(stack.aclose())
        return 0

    async def _enter(self, stack: AsyncExitStack) -> None:
        if self._hooks.lifespan is not None:
            manager = self._hooks.lifespan()
            if hasattr(manager, "__aenter__"):
                self.state = await stack.enter_async_context(manager)
            else:
                self.state = stack.enter_context(manager)

    def _read(self) -> None:
        while True:
            message = self._channel.receive()
            if isinstance(message, Work):
                self._work.put(message)
            elif isinstance(message, Answer):
                self._answers.put(message)
            elif isinstance(message, Tell):
                run = self._run
                if run is not None:
                    run.stopping = message.why
            elif message is None or isinstance(message, Stop):
                if self._run is not None:
                    os._exit(0)  # nobody is left to hear how the job ends
                self._work.put(None)
                return

    # -- one job -----------------------------------------------------------------------------------------------------

    def _ended(self, work: Work, runner: asyncio.Runner) -> Ended:
        job = work.job
        self._offset = work.stamp - monotonic()
        started = self.stamp()
        slots = Slots(None, 1)
        try:
            plan = self._registry.plan(job.task, job.queue, job.options)
        except Exception as error:  # noqa: BLE001  # the parent's code and ours may differ during a deploy
            return Ended(outcomes.settle_parked(job, started, f"{type(error).__name__}: {error}", self._rng))
        try:
            args = plan.decode(job.payload)
        except Exception as error:  # noqa: BLE001  # an upcaster is user code
            limit = self.settings.max_error
            return Ended(
                outcomes.settle_misfit(job, plan, error, started, self._rng, limit), f"{type(error).__name__}: {error}"
            )
        run = self._run = Run(job, plan, Batch(0, work.worker, 0), slots, self)
        run.started = monotonic()
        try:
            value = copy_context().run(self._call, run, args, runner)
        except BaseException as error:  # noqa: BLE001  # whatever a task raises is its outcome
            return self._failed(run, error, started)
        finally:
            self._run = None
        if run.lent is not None:
            run.lent.call_off()
            return self._failed(run, completions.not_committed(run), started)
        if run.completion is None:
            return self._completed(run, value, started)
        ended = self._failed(run, completions.not_committed(run), started)
        wrong = value is not None and not run.completion.said
        ended.late = encode_failure(completions.ignored(run), self.settings.max_error) if wrong else None
        return ended

    def _failed(self, run: Run, error: BaseException, started: int) -> Ended:
        limit = self.settings.max_error
        settlement = outcomes.settle_error(run, error, started, self.stamp(), self._rng, limit)
        ended = Ended(settlement, f"{type(error).__name__}: {error}", failing=run.failing, pauses=run.pauses)
        if run.completion is not None:
            ended.committed, ended.late = run.completion.committed, encode_failure(error, limit)
        return ended

    def _call(self, run: Run, args: tuple[Any, ...], runner: asyncio.Runner) -> Any:
        RUNNING.set(run)
        plan, arounds = run.plan, self._hooks.arounds

        def call() -> Any:
            return plan.fn(run.context(), *args) if plan.takes_context else plan.fn(*args)

        if self._hooks.needs_loop:
            return runner.run(attempt_async(arounds, run.context(), call))
        return attempt_sync(arounds, run.context(), call) if arounds else call()

    def _completed(self, run: Run, value: Any, started: int) -> Ended:
        job, plan, now = run.job, run.plan, self.stamp()
        try:
            result = plan.encode_result(value, self.settings.max_result)
        except Exception as error:  # noqa: BLE001  # whatever a user's value does when it is encoded, the job ends
            settlement = outcomes.settle_unserialisable(run, error, started, now, self.settings.max_error)
            return Ended(settlement, f"{type(error).__name__}: {error}")
        keep = plan.keep[State.COMPLETED]
        return Ended(Settlement(job.id, job.entry, Outcome.COMPLETED, started, now, result=result, keep=keep))

    # -- the home of the run -----------------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        return self.app.store  # type: ignore[no-any-return]  # the app is Any to its jobs

    def completing(self, run: Run, completion: Completion) -> Completion:
        """The parent has to know, should this process end right after the commit; and it has lines to go along."""
        self._channel.send(Completing(completion.settlement))
        answer = self._answers.get()
        if not answer.ok:
            run.stopping = LOST
            raise LeaseLost(run.job.id, run.job.entry)
        completion.logs = answer.logs
        run.completion = completion
        return completion

    def note(self, run: Run) -> None:
        """Pass on at once what the job says; the parent writes it, a few times a second."""
        writes = run.take_writes()
        if writes:
            self._channel.send(Say(writes))

    def record(self, run: Run, writes: list[Write]) -> bool:
        for write in writes:
            if isinstance(write, Checkpoint):
                self._channel.send(Save(write.value))
                answer = self._answers.get()
                if answer.error:
                    raise StoreUnavailable(answer.error)
                if not answer.ok:
                    return False
        return True

    def undisturbed(self, run: Run) -> AbstractContextManager[None]:
        return nullcontext()  # whoever is told to stop here is killed

    def recorded(self, run: Run) -> bytes | None:
        self._channel.send(Read())
        answer = self._answers.get()
        if answer.error:
            raise StoreUnavailable(answer.error)
        if not answer.ok:
            raise LeaseLost(run.job.id, run.job.entry)
        return answer.value

    def stamp(self) -> int:
        """The store's time by this process's monotonic clock."""
        return monotonic() + self._offset
