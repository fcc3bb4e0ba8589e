"""`t`: what a test holds while an app is under test. The store is private and in memory; the pipeline is the real one.

with app.testing() as t:
    sign_up("ann@example.org")                       # the code under test enqueues
    t.assert_enqueued(send_welcome, args={"email": "ann@example.org"})
    t.drain()                                        # a real worker runs what is due
    t.clock.advance(60)                              # and later, what is due then
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from datetime import timedelta
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from dayjob.clock import seconds
from dayjob.directives import CancelJob, RetryAfter, Snooze
from dayjob.errors import BreakerOpen, ConfigError, JobCancelled, JobFailed, shown
from dayjob.job import Job
from dayjob.offload import offload, submit
from dayjob.policies import check_int
from dayjob.states import Outcome, State
from dayjob.store import open_store
from dayjob.task import BoundTask, NewJob, Task
from dayjob.testing.clock import VirtualClock
from dayjob.testing.context import TestContext, make_context
from dayjob.testing.stores import FaultyStore, OneJobStore, as_store, kill_while_running, waits

if TYPE_CHECKING:
    from dayjob.app import App
    from dayjob.context import JobContext
    from dayjob.store.contract import Store

R = TypeVar("R")
TaskLike = str | Task[Any, Any] | BoundTask[Any, Any] | None

_WRONG = (Outcome.FAILED, Outcome.DEAD, Outcome.PARKED, Outcome.CRASHED)


class Testing:
    """An app under test. Everything of the app works as always; attributes that are not here are the app's.

    Attributes:
        app: the app. clock: the time of its store, a `VirtualClock`. store: the private store.
    """

    __test__ = False  # no class of tests, whatever its name says to pytest

    def __init__(
        self, app: App, mode: Literal["manual", "inline"] = "manual", clock: VirtualClock | None = None
    ) -> None:
        if mode not in ("manual", "inline"):
            raise ConfigError(f"mode={shown(mode)} must be 'manual' or 'inline'")
        if clock is not None and not isinstance(clock, VirtualClock):
            raise ConfigError(f"clock must be a VirtualClock, not {shown(clock)}")
        self.app = app
        self.mode = mode
        self.clock = clock or VirtualClock()
        self._raised: dict[str, BaseException] = {}
        self._put_off = 0
        self._draining = Lock()
        self._again = False
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Testing:
        self._faulty = FaultyStore(open_store("sqlite:///:memory:", clock=self.clock, lease=self.app.settings.lease))
        self.store: Store = as_store(self._faulty)
        self.store.migrate()
        with contextlib.ExitStack() as stack:
            stack.callback(self.store.close)
            inline = self._run_inline if self.mode == "inline" else None
            stack.enter_context(self.app.substituted(self.store, stored=inline, guard=self._refuse_to_wait))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._faulty.down = False
        self._stack.close()

    async def __aenter__(self) -> Testing:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, at)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "store":
            raise AttributeError(name)
        return getattr(self.app, name)

    # -- what was enqueued -------------------------------------------------------------------------------------------

    def enqueued(
        self,
        task: TaskLike = None,
        *,
        args: Mapping[str, Any] | None = None,
        queue: str | None = None,
        tag: str | None = None,
        state: State | str | Sequence[State | str] | None = None,
        priority: int | None = None,
        meta: Mapping[str, Any] | None = None,
        delay: float | timedelta | None = None,
    ) -> list[Job[Any]]:
        """The jobs that were enqueued in this test, oldest first; in whatever state they are now.

        Args:
            task: a task, or its name. args, meta: only jobs with at least these.
            delay: only jobs that were put off for so long.
        """
        name = _name(task)
        found: list[Job[Any]] = []
        after: str | None = None
        while True:
            page = self.app.jobs.find(task=name, queue=queue, tag=tag, state=state, limit=1_000, after=after)
            found += page
            if (after := page.after) is None:
                break
        return [job for job in reversed(found) if _fits(job, args, priority, meta, delay)]

    def assert_enqueued(self, task: TaskLike = None, *, count: int | None = None, **conditions: Any) -> Job[Any]:
        """Fail unless a job that fits was enqueued; returns the newest.

        Args:
            task, conditions: as for `enqueued`. count: exactly so many; by default at least one.
        """
        __tracebackhide__ = True
        found = self.enqueued(task, **conditions)
        if not found or (count is not None and len(found) != count):
            wanted = "a job" if count is None else f"{count} jobs"
            raise AssertionError(f"expected {wanted} {_wish(task, conditions)}, found {len(found)}; {self._all()}")
        return found[-1]

    def refute_enqueued(self, task: TaskLike = None, **conditions: Any) -> None:
        """Fail if a job that fits was enqueued."""
        __tracebackhide__ = True
        found = self.enqueued(task, **conditions)
        if found:
            raise AssertionError(f"expected no job {_wish(task, conditions)}, found {len(found)}; {self._all()}")

    # -- running -----------------------------------------------------------------------------------------------------

    def drain(self, queue: str | None = None, *, raises: bool = True) -> Counter[str]:
        """Run what is due, and what that enqueues, until nothing is; returns how many jobs ended in which way.

        What fails is scheduled for its next attempt, which is due when the clock has been advanced.

        Args:
            queue: of this queue only. raises: raise afterwards what the first failing task raised.
        """
        __tracebackhide__ = True
        counts = self._work(self.store, queue, raises)
        return Counter({str(outcome): number for outcome, number in counts.items()})

    async def adrain(self, queue: str | None = None, *, raises: bool = True) -> Counter[str]:
        """Awaitable `drain`: the test's loop turns while it works."""
        return await offload(self.drain, queue, raises=raises)

    def run(self, job: Job[R] | NewJob[R] | str, *, raises: bool = True) -> Job[R]:
        """Run one job now and nothing else, also when it is scheduled or its queue paused; returns it, refreshed.

        What limits it must let it pass: `ConfigError` when they are taken.

        Args:
            job: the job or its id; or a call (`task.job(...)`), which is enqueued first.
            raises: raise what the task raised.
        """
        __tracebackhide__ = True
        job = self._waiting(job)
        ran = self._work(as_store(OneJobStore(self.store, job.id)), job.queue, raises)
        job.refresh()
        if job.state is State.BLOCKED and not ran:
            gates = () if job.gating is None else job.gating.gates
            held_by = ", ".join(f"{gate.kind} {gate.key}" for gate in gates) or f"queue {job.queue}, which is closed"
            raise ConfigError(f"job {job.id} is blocked, nothing lets it pass: {held_by}")
        return job

    async def arun(self, job: Job[R] | NewJob[R] | str, *, raises: bool = True) -> Job[R]:
        """Awaitable `run`."""
        return await offload(self.run, job, raises=raises)

    def context(
        self,
        task: TaskLike = None,
        *,
        attempt: int = 1,
        max_attempts: int = 5,
        meta: Mapping[str, Any] | None = None,
        state: Any = None,
        checkpoint: Any = None,
    ) -> TestContext:
        """A context to call a task's function with: `charge.fn(t.context(attempt=2), order_id=7)`.

        It keeps what the function does with it (`.logged`, `.progressed`, `.checkpoint`) and can be told to `.cancel()`.
        """
        check_int("attempt", attempt, 1, max_attempts)
        return make_context(
            _name(task) or "test",
            "default",
            attempt=attempt,
            max_attempts=max_attempts,
            meta=meta,
            state=state,
            app=self.app,
            checkpoint=checkpoint,
        )

    # -- accidents ---------------------------------------------------------------------------------------------------

    def crash(self, job: Job[Any] | NewJob[Any] | str) -> Job[Any]:
        """Let a worker die (SIGKILL) while it runs *job*; returns the job, refreshed.

        As in earnest, the first crash makes it a suspect, which next runs alone; each crash alone counts, and the
        third of those makes it dead, which its task's `on_dead` hook is told.
        """
        job = self._waiting(job)
        kill_while_running(self.store, job, "signal 9 (SIGKILL)")
        job.refresh()
        if job.state is State.DEAD:
            self._tell(job)
        return job

    @contextlib.contextmanager
    def store_down(self) -> Iterator[None]:
        """While the block runs, whoever needs the store gets `StoreUnavailable`, at once."""
        self._faulty.down = True
        try:
            yield
        finally:
            self._faulty.down = False

    # -- inside ------------------------------------------------------------------------------------------------------

    def _waiting(self, job: Job[R] | NewJob[R] | str) -> Job[R]:
        """The stored job, due now."""
        stored: Job[Any]
        if isinstance(job, NewJob):
            stored = self.app.enqueue_many([job])[0]
        else:
            stored = job if isinstance(job, Job) else self.app.jobs.get(job)
        stored.refresh()
        if not waits(stored.state):
            raise ConfigError(f"job {stored.id} is {stored.state}, not waiting" + _remedy(stored.state))
        if stored.state is State.SCHEDULED:
            stored.edit(run_at="now")
            stored.refresh()
        return cast("Job[R]", stored)

    def _run_inline(self, jobs: Sequence[Job[Any]]) -> None:
        """Run what is due; what jobs enqueue meanwhile is left to the one that is at it."""
        self._again = True
        while self._again and self._draining.acquire(blocking=False):
            try:
                self._again = False
                self._work(self.store, None, raises=True)
            finally:
                self._draining.release()

    def _tell(self, job: Job[Any]) -> None:
        """Call the `on_dead` hook, as the worker does that learns of the death."""
        task = self.app.jobs.task(job.task)
        if task is not None and task.dead_hook is not None:
            told = task.dead_hook(job, JobFailed(job.id, job.task, job.reason, job.attempts[-1].reason))
            if isinstance(told, Coroutine):
                submit(asyncio.run, told).result()

    def _refuse_to_wait(self) -> None:
        if not self.store.workers():
            raise ConfigError(
                "nothing runs jobs by itself in this test: t.drain() or t.run(job) first, then wait for it"
            )

    def _work(self, store: Store, queue: str | None, raises: bool) -> Counter[Outcome]:
        __tracebackhide__ = True
        self._raised.clear()
        self._put_off = 0
        worker = self.app.worker([queue] if queue is not None else None, grace=5.0)
        worker.store = store
        worker.hooks.arounds = (self._watch, *worker.hooks.arounds)
        counts = worker.run_until_idle()
        raised = dict(self._raised)
        if raises and raised:
            first, *others = raised.values()
            if others:
                first.add_note(f"{len(others)} more jobs raised in this drain")
            raise first
        if raises and sum(counts[outcome] for outcome in _WRONG) > self._put_off:
            raise self._unseen()
        return counts

    @contextlib.contextmanager
    def _watch(self, context: JobContext[Any]) -> Iterator[None]:
        """The outermost `around` of every attempt: keeps what the task raised, but for what it raised to say something."""
        try:
            yield
        except RetryAfter:
            self._put_off += 1
            raise
        except (Snooze, CancelJob, JobCancelled, BreakerOpen):
            raise
        except Exception as error:
            self._raised.setdefault(context.id, error)
            raise

    def _unseen(self) -> JobFailed:
        """What failed outside of the task's own code: in a child process, before its start, at its result."""
        jobs = [job for job in self.app.jobs.find(limit=1_000) if job.attempts and job.attempts[-1].outcome in _WRONG]
        last = max(jobs, key=lambda job: job.attempts[-1].finished_at)
        attempt = last.attempts[-1]
        text = f"{attempt.error_type}: {attempt.message}" if attempt.error_type else attempt.reason
        return JobFailed(last.id, last.task, attempt.outcome, text)

    def _all(self) -> str:
        jobs = self.enqueued()
        lines = "".join(f"\n  {job.task}({_arguments(job)}) {job.state}, queue {job.queue}" for job in jobs[:20])
        return f"enqueued were:{lines}" if jobs else "nothing was enqueued"


def _remedy(state: State) -> str:
    return "; job.retry() puts it back" if state.terminal else ""


def _name(task: TaskLike) -> str | None:
    if isinstance(task, BoundTask):
        return task.task.name
    return task.name if isinstance(task, Task) else task


def _fits(
    job: Job[Any],
    args: Mapping[str, Any] | None,
    priority: int | None,
    meta: Mapping[str, Any] | None,
    delay: float | timedelta | None,
) -> bool:
    if args is not None and not _within(args, job.args):
        return False
    if meta is not None and not _within(meta, job.meta):
        return False
    if priority is not None and job.priority != priority:
        return False
    return delay is None or abs((job.run_at - job.created_at).total_seconds() - seconds(delay, "delay")) < 0.001


def _within(part: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    return all(key in whole and whole[key] == value for key, value in part.items())


def _wish(task: TaskLike, conditions: Mapping[str, Any]) -> str:
    said = [f"of {_name(task)}"] if task is not None else []
    return " ".join([*said, *(f"with {key}={shown(value, 200)}" for key, value in conditions.items())]) or "at all"


def _arguments(job: Job[Any]) -> str:
    return ", ".join(f"{name}={shown(value, 60)}" for name, value in job.args.items())
