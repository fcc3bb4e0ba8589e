"""Calls of batch tasks that run together: in one place, by one call of the function, each ended on its own.

    claimed ─▶ Parcel, open ──full, its time is up, a suspect──▶ sealed ─▶ Slots.ready ─▶ the function
                                                                                             │
            executor.complete / fail of each member ◀── call.complete, call.fail, result, exception

Each member is a `Run` like any other: lease, fence, context, events and settlement are its own. The parcel is a `Run`,
too, so that whoever keeps time, cancels or gives up deals with it as with any; it is never settled itself.
"""

from __future__ import annotations

import inspect
from asyncio import CancelledError
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

from msgspec import structs

from dayjob.calls import Call, entries
from dayjob.codec.failure import decode_failure, encode_failure
from dayjob.context import RUNNING
from dayjob.directives import Unrecoverable
from dayjob.errors import ConfigError, JobCancelled, JobTimeout, LeaseLost
from dayjob.events import JobRaisedLate
from dayjob.states import Outcome
from dayjob.store.records import Settlement
from dayjob.worker import outcomes
from dayjob.worker.interrupt import Interrupted
from dayjob.worker.run import TIMEOUT, Completion, Run, monotonic

if TYPE_CHECKING:
    from dayjob.worker.executor import Executor

_APART = Completion(Settlement("", 0, Outcome.COMPLETED, 0, 0))
"""The executor finds parcels where it finds completions in transactions: no other job pays for being asked."""

Raised = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


class Parcel(Run):
    """Calls of one batch task that run together.

    Args:
        first: the run that opens it. seal_at: monotonic microseconds at which it waits for no more.
    Attributes:
        members: a run for each call, in the order of their claim.
        left: members that are claimed and not settled. sealed_at: when it was made ready, 0 before.
    """

    completion = _APART

    def __init__(self, executor: Executor, first: Run, seal_at: int) -> None:
        # It expired long ago: so the executor's short way is not for parcels, and asks no job for it.
        job = structs.replace(first.job, entry=-1, expires_at=0)
        fn = self.acall if first.plan.kind == "async" else self.call
        plan = structs.replace(first.plan, fn=fn, decode=_nothing)
        super().__init__(job, plan, first.batch, first.slots, executor)
        self._executor = executor
        self._fn = first.plan.fn
        self.members: list[Run] = []
        self.left = 0
        self.seal_at, self.sealed_at = seal_at, 0
        self._calls: dict[Run, Call[Any]] = {}
        self._verdicts: dict[Run, tuple[Any, BaseException | None]] = {}

    def add(self, run: Run) -> None:
        """Take *run* along."""
        run.parcel = self
        self.members.append(run)
        self.left += 1

    def unfinished(self) -> list[Run]:
        """The members whose end is not known."""
        return [run for run in self.members if not run.over and run.settlement is None]

    # -- running ---------------------------------------------------------------------------------------------------

    def begin(self, now: int) -> bool:
        """Start the clock of the members; False when none can start."""
        executor = self._executor
        for run in self.members:
            executor.begin(run, now)
        if not self.unfinished():
            self.over = True
            return False
        self.started = now
        return True

    def call(self) -> None:
        """Call the function for all members, in the thread that runs this."""
        with ExitStack() as stack:
            for run in self._open():
                self._enter(stack, run)
            calls = self._ready()
            try:
                self._judge(calls, self._fn(list(calls.values())) if calls else None)
            except BaseException as error:  # noqa: BLE001  # whatever a task raises is its outcome
                self._judge_error(calls, error)

    async def acall(self) -> None:
        """Call the function for all members, inside a loop."""
        async with AsyncExitStack() as stack:
            for run in self._open():
                await self._aenter(stack, run)
            calls = self._ready()
            try:
                returned = self._fn(list(calls.values())) if calls else None
                self._judge(calls, await returned if inspect.isawaitable(returned) else returned)
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001  # the same
                self._judge_error(calls, error)

    def _open(self) -> list[Run]:
        """Make a call of each member; what does not fit the task is parked by itself."""
        for run in self.unfinished():
            try:
                (value,) = run.plan.decode(run.job.payload)
            except Exception as misfit:  # noqa: BLE001  # an upcaster is user code
                self._executor.park(run, misfit, monotonic())
                continue
            self._calls[run] = Call(value, run.context(), settler=_Member(self._executor, run))
        return list(self._calls)

    def _ready(self) -> dict[Run, Call[Any]]:
        """The calls that the function gets, which is in none of them more than in the others."""
        RUNNING.set(None)
        return {run: call for run, call in self._calls.items() if run not in self._verdicts}

    # -- around each call ------------------------------------------------------------------------------------------

    def _enter(self, outer: ExitStack, run: Run) -> None:
        RUNNING.set(run)
        inner = ExitStack()
        try:
            with inner:
                for around in self._executor.hooks.arounds:
                    inner.enter_context(around(run.context()))
                inner = inner.pop_all()
        except Exception as error:  # noqa: BLE001  # this call fails before it began; the others go on
            self._verdicts[run] = (None, error)
            return

        def leave(kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
            RUNNING.set(run)
            raised = self._raised(run, error)
            try:
                self._left(run, raised, inner.__exit__(*raised))
            except BaseException as late:  # noqa: BLE001  # it is this call's error, and no other's
                self._left_badly(run, late)

        outer.push(leave)

    async def _aenter(self, outer: AsyncExitStack, run: Run) -> None:
        RUNNING.set(run)
        inner = AsyncExitStack()
        try:
            async with inner:
                for around in self._executor.hooks.arounds:
                    manager = around(run.context())
                    if hasattr(manager, "__aenter__"):
                        await inner.enter_async_context(manager)
                    else:
                        inner.enter_context(manager)
                inner = inner.pop_all()
        except Exception as error:  # noqa: BLE001  # the same
            self._verdicts[run] = (None, error)
            return

        async def leave(
            kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
        ) -> None:
            RUNNING.set(run)
            raised = self._raised(run, error)
            try:
                self._left(run, raised, await inner.__aexit__(*raised))
            except GeneratorExit:
                raise
            except BaseException as late:  # noqa: BLE001  # the same
                self._left_badly(run, late)

        outer.push_async_exit(leave)

    def _raised(self, run: Run, passing: BaseException | None) -> Raised:
        """What the hooks of a call get to see: its own error, or what ended the function."""
        call = self._calls[run]
        error = call.error if call.settled else self._verdicts.get(run, (None, passing))[1]
        if isinstance(error, (Interrupted, CancelledError)):
            limit = self.plan.timeout
            if self.stopping == TIMEOUT and limit is not None:
                error = JobTimeout(limit)
            elif isinstance(error, Interrupted):
                error = JobCancelled(run.job.id, run.job.task, self.stopping)
        return (None, None, None) if error is None else (type(error), error, error.__traceback__)

    def _left(self, run: Run, raised: Raised, swallowed: bool | None) -> None:
        if swallowed and raised[1] is not None:
            self._verdicts[run] = (None, None)  # a hook that swallows the error: the attempt counts as done

    def _left_badly(self, run: Run, error: BaseException) -> None:
        if not self._calls[run].settled:
            self._verdicts[run] = (None, error)
            return
        executor, job = self._executor, run.job
        failure = decode_failure(encode_failure(error, executor.settings.max_error))
        executor.bus.emit(
            JobRaisedLate(
                id=job.id,
                task=job.task,
                queue=job.queue,
                error_type=failure.type,
                error=failure.message,
                traceback=failure.traceback,
            )
        )

    # -- the end -----------------------------------------------------------------------------------------------------

    def _judge(self, calls: dict[Run, Call[Any]], returned: Any) -> None:
        try:
            results = entries(returned, len(calls))
        except ConfigError as error:  # the work is done: another attempt would do it twice
            raise Unrecoverable(str(error)) from error
        for run, entry in zip(calls, results, strict=True):
            self._verdicts[run] = (None, entry) if isinstance(entry, BaseException) else (entry, None)

    def _judge_error(self, calls: dict[Run, Call[Any]], error: BaseException) -> None:
        for run in calls:
            self._verdicts[run] = (None, error)

    def finish(self, now: int, error: BaseException | None = None) -> None:
        """The function has ended: so do all members that have not. *error*: what came up outside of it."""
        for run in self.unfinished():
            call = self._calls.get(run)
            if call is not None and not call.close():
                continue
            value, own = self._verdicts.get(run, (None, error))
            if own is None:
                self._executor.complete(run, value, now)
            else:
                self._fail(run, own, now)
        self.over = True

    def _fail(self, run: Run, error: BaseException, now: int) -> None:
        """End *run* by *error*. One that speaks of another member alone puts this one back: nobody has failed here."""
        if isinstance(error, (LeaseLost, JobCancelled)) and self._of_another(error.id, run):
            if run.stopping is None:
                offset = self._executor.offset
                settlement = outcomes.settle_released(run.job, now + offset, "batch", run.started + offset)
                self._executor.end(run, settlement)
                return
            error = Interrupted()
        self._executor.fail(run, error, now)

    def _of_another(self, id: str, run: Run) -> bool:
        return id != run.job.id and any(id == other.job.id for other in self.members)


class _Member:
    """Ends one call at once, as its function says."""

    __slots__ = ("_executor", "_run")

    def __init__(self, executor: Executor, run: Run) -> None:
        self._executor, self._run = executor, run

    def complete(self, call: Call[Any], result: Any) -> None:
        self._executor.complete(self._run, result, monotonic())

    def fail(self, call: Call[Any], error: BaseException) -> None:
        self._executor.fail(self._run, error, monotonic())

    def undisturbed(self) -> AbstractContextManager[None]:
        assert self._run.parcel is not None
        return self._executor.threads.undisturbed(self._run.parcel)


def _nothing(payload: bytes) -> tuple[Any, ...]:
    """The arguments of a parcel: it has the calls itself."""
    return ()
