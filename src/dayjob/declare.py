"""Declaring tasks: the `task` decorator that `App` and `Tasks` share, and `Tasks`, which needs no app."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, Unpack, overload

from dayjob.errors import ConfigError, shown
from dayjob.options import GROUP_KEYS, NOTHING, TASK_KEYS, TASKS_OWN, GroupOptions, Options, TaskOptions, normal
from dayjob.policies import check_name
from dayjob.task import AsyncTask, Task, default_name, make_task, refuse_twice

if TYPE_CHECKING:
    from dayjob.context import JobContext

P = ParamSpec("P")
R = TypeVar("R")


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
    def task(self, *, name: str | None = None, **options: Unpack[TaskOptions]) -> TaskDecorator: ...

    def task(  # type: ignore[misc]  # mypy does not see that **options takes what Unpack[TaskOptions] names
        self, fn: Any = None, /, *, name: str | None = None, **options: Unpack[TaskOptions]
    ) -> Any:
        """Decorator, with or without options: register a function as a task.

        Args:
            name: instead of prefix + function name (of a group with a prefix) or module + function name.
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
            task = make_task(fn, default_name(fn, self._prefix) if name is None else name, said, own)
            self._declared(task)
            return task

        return declare if fn is None else declare(fn)

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
