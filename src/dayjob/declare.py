"""Declaring tasks: the `task` decorator that `App` and `Tasks` share, and `Tasks`, which needs no app."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, Unpack, overload

from dayjob.calls import Batching, Call
from dayjob.errors import ConfigError, DayjobError, shown
from dayjob.options import GROUP_KEYS, NOTHING, TASK_KEYS, TASKS_OWN, GroupOptions, Options, TaskOptions, normal
from dayjob.policies import check_name
from dayjob.schedule import CatchUp, Cron, Declared, Every, Overlap, When, rules
from dayjob.task import AsyncTask, Task, default_name, make_task, refuse_twice

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from dayjob.context import JobContext

_ANY_SIZE = 1 << 30
"""Bytes: how large the arguments may be is the app's to say, and it may be unknown yet."""

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class TaskDecorator(Protocol):
    """What `@tasks.task(...)` returns: a function in, a typed task out. The context is no argument of its calls."""

    @overload
    def __call__(self, fn: Callable[Concatenate[JobContext[Any], P], Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[JobContext[Any], P], R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Task[P, R]: ...


class BatchDecorator(Protocol):
    """What `@tasks.task(batch=...)` returns. A call of the task takes what `Call` is of; its result is one entry of the list."""

    @overload
    def __call__(self, fn: Callable[[list[Call[T]]], Coroutine[Any, Any, None]], /) -> AsyncTask[[T], None]: ...
    @overload
    def __call__(
        self, fn: Callable[[list[Call[T]]], Coroutine[Any, Any, Sequence[R | BaseException]]], /
    ) -> AsyncTask[[T], R]: ...
    @overload
    def __call__(self, fn: Callable[[list[Call[T]]], None], /) -> Task[[T], None]: ...
    @overload
    def __call__(self, fn: Callable[[list[Call[T]]], Sequence[R | BaseException]], /) -> Task[[T], R]: ...


class ScheduleDecorator(Protocol):
    """What `@app.cron(...)` returns: as `TaskDecorator`; a task comes out as it is."""

    @overload
    def __call__(self, fn: AsyncTask[P, R], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Task[P, R], /) -> Task[P, R]: ...  # type: ignore[overload-overlap]  # a task is no coroutine function
    @overload
    def __call__(self, fn: Callable[Concatenate[JobContext[Any], P], Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[JobContext[Any], P], R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Task[P, R]: ...


class Declaring:
    """The `task` decorator. A subclass says what becomes of the tasks (`_declared`)."""

    _prefix: str | None = None
    _group: Options = NOTHING
    _executor: Any = None

    @overload
    def task(self, fn: Callable[Concatenate[JobContext[Any], P], Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def task(self, fn: Callable[Concatenate[JobContext[Any], P], R], /) -> Task[P, R]: ...
    @overload
    def task(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def task(self, fn: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        *,
        batch: int,
        batch_wait: float | timedelta = ...,
        name: str | None = None,
        **options: Unpack[TaskOptions],
    ) -> BatchDecorator: ...
    @overload
    def task(self, *, name: str | None = None, **options: Unpack[TaskOptions]) -> TaskDecorator: ...

    def task(  # type: ignore[misc]  # mypy does not see that **options takes what Unpack[TaskOptions] names
        self,
        fn: Any = None,
        /,
        *,
        name: str | None = None,
        batch: int | None = None,
        batch_wait: float | timedelta | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any:
        """Decorator, with or without options: register a function as a task.

        Args:
            name: instead of prefix + function name (of a group with a prefix) or module + function name.
            batch: the function takes a list of up to so many calls (`Call`), which a worker gathers for at most
                batch_wait: seconds since the first, by default 0.5.
            options: see `TaskOptions`; they win over the group's.
        Raises:
            ConfigError: a parameter has no type hint or one that cannot travel, the name is taken or not allowed, an
                option makes no sense. NotSupported: an option of a later release.
        """
        said = normal(options, TASK_KEYS, "task()").over(self._group)
        own = {key: value for key, value in options.items() if key in TASKS_OWN and value is not None}
        own.setdefault("executor", self._executor)

        def declare(fn: Callable[..., Any]) -> Task[Any, Any]:
            if not callable(fn):
                raise ConfigError(
                    f"@task must decorate a function, not {shown(fn)}: options go by name, name={shown(fn)}"
                )
            called = default_name(fn, self._prefix) if name is None else name
            task = make_task(fn, called, said, {**own, "batching": Batching.of(called, batch, batch_wait)})
            self._declared(task)
            return task

        return declare if fn is None else declare(fn)

    def cron(
        self,
        expr: str,
        *,
        tz: str = "UTC",
        name: str | None = None,
        args: Mapping[str, Any] | None = None,
        overlap: Overlap = "skip",
        catch_up: CatchUp = "none",
        jitter: float | timedelta = 0.0,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> ScheduleDecorator:
        """Decorator: run a task by calendar. Registers the function as a task, too; above `@app.task` it only schedules.

        A task may have several schedules, each with a name of its own. Workers store what they declare when they start.

        Args:
            expr, tz: see `Cron`. name: of the schedule; by default the task's.
            args: the arguments of its jobs, in their JSON forms; parameters with defaults may be left out.
            overlap: when the job before has not ended: `skip` the tick, `queue` behind it, or `allow` both.
            catch_up: what is made up for when nobody was there (for more than a minute): nothing (`none`), the `latest` tick, or
                `all`, up to the latest 1,000.
            jitter: seconds by which jobs start later at most; the same for a given tick, whoever makes it.
            start, end: moments before and after which it does not tick.
        Raises:
            ConfigError: an argument makes no sense, or the task needs arguments that are not given.
        """
        return self._scheduled(
            Cron(expr, tz), name, args, overlap=overlap, catch_up=catch_up, jitter=jitter, start=start, end=end
        )

    def every(
        self,
        seconds: float | timedelta,
        *,
        name: str | None = None,
        args: Mapping[str, Any] | None = None,
        overlap: Overlap = "skip",
        catch_up: CatchUp = "none",
        jitter: float | timedelta = 0.0,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> ScheduleDecorator:
        """Decorator: run a task each so many seconds, without drift; as `cron` otherwise.

        Args:
            seconds: at least 1. They are counted from *start*, else from 1970 on: every 300 is on the five minutes of every hour.
        """
        when = Every(seconds, start)
        return self._scheduled(
            when, name, args, overlap=overlap, catch_up=catch_up, jitter=jitter, start=start, end=end
        )

    def _scheduled(
        self, when: When, name: str | None, args: Mapping[str, Any] | None, **policies: Any
    ) -> ScheduleDecorator:
        checked = rules(**policies)

        def declare(fn: Any) -> Any:
            task: Task[Any, Any] = fn if isinstance(fn, Task) else self.task(fn)
            named = check_name("schedule", task.name if name is None else name)
            given = dict(args or {})
            try:
                task.signature.encode_json(given, _ANY_SIZE)
            except DayjobError as error:
                raise ConfigError(
                    f"schedule {named!r}: its job cannot be made: {error}; args={{...}} gives arguments"
                ) from None
            if any(one.name == named for one in task.schedules):
                raise ConfigError(
                    f"task {task.name!r} has a schedule {named!r} already: give this one another, name=..."
                )
            task.schedules.append(Declared(named, when, checked, given))
            return task

        return declare

    def _declared(self, task: Task[Any, Any]) -> None:
        raise NotImplementedError


class Tasks(Declaring):
    """A group of tasks declared without an app, so that modules of tasks import no app. An including app finds it.

    Args:
        prefix: put before the function's name to make the task's; without it the module's name is.
        options: defaults for its tasks, see `GroupOptions`.
    """

    def __init__(self, *, prefix: str | None = None, **options: Unpack[GroupOptions]) -> None:
        if prefix is not None:
            check_name("task", f"{prefix}x")
        self._prefix = prefix
        self._group = normal(options, GROUP_KEYS, "Tasks()")
        self._executor = options.get("executor")
        self._tasks: dict[str, Task[Any, Any]] = {}

    def _declared(self, task: Task[Any, Any]) -> None:
        refuse_twice(task.name, self._tasks.get(task.name, task), task)
        self._tasks[task.name] = task

    def __iter__(self) -> Iterator[Task[Any, Any]]:
        return iter(list(self._tasks.values()))

    def __len__(self) -> int:
        return len(self._tasks)
