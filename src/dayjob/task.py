"""Tasks and calls of them: `Task`, `NewJob` (a call not stored yet), and `task.using(...)`.

A task knows how its calls become payloads; where they are stored is its host's matter (`TaskHost`: the app).
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Protocol, TypeVar, Unpack
from weakref import WeakSet

from msgspec import UNSET, Struct

from dayjob.calls import Batching, Call, single
from dayjob.codec import Signature
from dayjob.config import Settings
from dayjob.errors import ConfigError, shown
from dayjob.options import FIELDS, JOB_KEYS, NOTHING, JobOptions, Options, normal
from dayjob.policies import DEFAULT_QUEUE, Overrides, Retry, check_int, check_name

if TYPE_CHECKING:
    from dayjob import schedule
    from dayjob.codec.signature import Upcaster
    from dayjob.context import JobContext
    from dayjob.gating import Declared
    from dayjob.job import Job

P = ParamSpec("P")
R = TypeVar("R")
DeadHookT = TypeVar("DeadHookT", bound=Callable[..., Any])
UpcasterT = TypeVar("UpcasterT", bound=Callable[[dict[str, Any]], dict[str, Any]])

Kind = Literal["async", "thread", "process"]


class TaskHost(Protocol):
    """The app, as its tasks see it."""

    settings: Settings

    def store(self, new: NewJob[R]) -> Job[R]:
        """Store *new* durably."""

    async def astore(self, new: NewJob[R]) -> Job[R]:
        """Store *new* durably, without blocking the loop."""


class Includer(Protocol):
    """An app with modules to import when a task is first needed."""

    def import_included(self) -> None:
        """Import them, and bind the tasks found there."""


INCLUDERS: WeakSet[Includer] = WeakSet()
"""Apps that have not imported yet what they include: it may import the app's own module, so it waits for first use."""


class NewJob(Struct, Generic[R], gc=False):
    """A call of a task that is not stored yet. `app.enqueue_many` takes many; `.enqueue()` stores this one.

    Attributes:
        task_name: the task's name. payload: its arguments, encoded. task: the task, None when its code is not here.
        queue, priority, tags: as they will be stored. meta: the same; hooks of `app.on_enqueue` write into it.
        delay: seconds from now until it is due. run_at: the stamp of that; wins. Both None: at once.
        expires: seconds from now; not started by then it is cancelled.
        max_attempts, overrides: what `using()` changed and its worker must know.
        id: the caller's own id, which makes the enqueue repeatable, or None. said: the options of `using()`.
        gating: what it has to wait for, or None.
    """

    task_name: str
    payload: bytes
    task: Task[Any, R] | None = None
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    delay: float | None = None
    run_at: int | None = None
    expires: float | None = None
    max_attempts: int | None = None
    tags: tuple[str, ...] = ()
    overrides: Overrides | None = None
    id: str | None = None
    said: Options = NOTHING
    gating: Declared | None = None
    meta: dict[str, Any] = {}  # msgspec makes a new one for each

    def using(self, **options: Unpack[JobOptions]) -> NewJob[R]:
        """The same call with other options; what was stamped on `meta` stays."""
        said = normal(options, JOB_KEYS, "using()").over(self.said)
        template = _Template(self.task, said)
        new = template.new(self.task_name, self.payload)
        new.meta = {**self.meta, **new.meta}
        return new

    def enqueue(self) -> Job[R]:
        """Store it durably, and return the job."""
        return self._bound().store(self)

    async def aenqueue(self) -> Job[R]:
        """Awaitable `enqueue`."""
        return await self._bound().astore(self)

    def _bound(self) -> TaskHost:
        if self.task is None:
            raise ConfigError(
                f"this call of {self.task_name!r} was made by name: use app.enqueue({self.task_name!r}, ...)"
            )
        return self.task.bound()


class _Template:
    """All of a `NewJob` but its payload, for one task and what was said for the job: worked out once, used often."""

    __slots__ = ("meta", "said", "task", "values")

    def __init__(self, task: Task[Any, Any] | None, said: Options) -> None:
        declared = NOTHING if task is None else task.options
        queue = said.over(declared).queue
        queue = DEFAULT_QUEUE if queue is UNSET else queue
        defaults = NOTHING if task is None or task.queue_options is None else task.queue_options(queue)
        all_said = said.over(declared.over(defaults))
        overrides = said.overrides()
        gating = all_said.declared()
        if gating is not None and task is not None:
            gating.check(task.name, task.signature)
        self.task, self.said = task, said
        self.meta = _or(all_said.meta, {})
        self.values = (
            queue,
            _or(all_said.priority, 0),
            _or(all_said.delay, gating.wait() if gating is not None and all_said.run_at is UNSET else None),
            _or(all_said.run_at, None),
            _or(all_said.expires, None),
            said.retry.max_attempts if isinstance(said.retry, Retry) else None,
            _or(all_said.tags, ()),
            overrides if overrides != Overrides() else None,
            _or(all_said.id, None),
            said,
            gating,
        )

    def new(self, name: str, payload: bytes) -> NewJob[Any]:
        if self.meta:
            return NewJob(name, payload, self.task, *self.values, dict(self.meta))
        return NewJob(name, payload, self.task, *self.values)


def _or(value: Any, default: Any) -> Any:
    return default if value is UNSET else value


class Task(Generic[P, R]):
    """A function that was registered, and its options. Made by `@app.task` or `@tasks.task`.

    Calling it just calls the function, with a detached context. `R` is what the job's result is: for an async
    function what awaiting it gives.

    Attributes:
        name: unique in an app. fn: the function. kind: how it is executed. version: of its payload's shape.
        options: as declared, with what its group says. aliases: earlier names. where: its file and line.
        host: the app, None while its `Tasks` is not included in one.
        dead_hook: what `on_dead` registered, or None. batching: how its calls are gathered; None: each runs by itself.
        schedules: what `cron` and `every` declared on it.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str,
        options: Options = NOTHING,
        *,
        executor: Kind | None = None,
        version: int = 1,
        aliases: Sequence[str] = (),
        batching: Batching | None = None,
    ) -> None:
        self.name = check_name("task", name)
        self.kind = _kind(fn, self.name, executor)
        self.fn = fn
        self.batching = batching
        self.version = check_int(f"task {self.name!r}: version", version, 1, 1_000_000)
        if batching is not None and self.kind == "process":
            raise ConfigError(f'task {self.name!r}: batch= and executor="process" do not go together: use a thread')
        self.signature = Signature(fn if batching is None else single(fn, self.name), self.name, self.version)
        self.options = options
        check_gating(self, options)
        if isinstance(aliases, str):
            raise ConfigError(f"task {self.name!r}: aliases={shown(aliases)} must be a list of names")
        self.aliases = tuple(check_name("task", alias) for alias in aliases)
        self.where = _where(fn)
        self.host: TaskHost | None = None
        self.queue_options: Callable[[str], Options] | None = None
        self.dead_hook: Callable[[Any, BaseException], Awaitable[None] | None] | None = None
        self.schedules: list[schedule.Declared] = []
        self.epoch = 0  # rises when templates made before are out of date
        self._limit = 0  # bytes of a payload; the host's to say
        self._template: _Template | None = None
        functools.update_wrapper(self, fn, updated=())  # the function's own attributes must not hide the task's

    # -- calls ---------------------------------------------------------------------------------------------------

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now; nothing is stored. A batch function is called with this one call."""
        if self.batching is not None:
            from dayjob.context import JobContext

            return self.alone(JobContext.detached(self), *args, **kwargs)  # type: ignore[no-any-return]
        if self.signature.takes_context:
            from dayjob.context import JobContext

            return self.fn(JobContext.detached(self), *args, **kwargs)  # type: ignore[no-any-return]
        return self.fn(*args, **kwargs)  # type: ignore[no-any-return]

    def alone(self, context: JobContext[Any], value: Any) -> Any:
        """Call a batch function with one call, which has *context*; its result, or its error is raised."""
        call = Call(value, context)
        return call.outcome(self.fn([call]))

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Store a call of the task durably, and return the job.

        Raises:
            PayloadError: an argument cannot travel; nothing was written. StoreUnavailable: the store cannot be reached.
            ConfigError: the task belongs to no app yet.
        """
        return self.bound().store(self.job(*args, **kwargs))

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Awaitable `enqueue`; never blocks the event loop."""
        return await self.bound().astore(self.job(*args, **kwargs))

    def job(self, *args: P.args, **kwargs: P.kwargs) -> NewJob[R]:
        """A call not stored yet, for `app.enqueue_many`; checked and encoded as `enqueue` does."""
        return self.new(self.signature.encode(args, kwargs, self._limit or self.limit()))

    def using(self, **options: Unpack[JobOptions]) -> BoundTask[P, R]:
        """The task with other options for the jobs enqueued through what is returned."""
        return BoundTask(self, normal(options, JOB_KEYS, "using()"))

    def new(self, payload: bytes) -> NewJob[R]:
        """A call not stored yet, with arguments that are encoded already."""
        template = self._template
        if template is None:
            template = self._template = _Template(self, NOTHING)
        return template.new(self.name, payload)

    # -- declaring -----------------------------------------------------------------------------------------------

    def on_dead(self, hook: DeadHookT) -> DeadHookT:
        """Decorator: call *hook* `(job, error)`, sync or async, once when a job of this task dies."""
        if not callable(hook):
            raise ConfigError(f"@{self.name}.on_dead must decorate a function, not {shown(hook)}")
        if self.dead_hook is not None:
            raise ConfigError(f"task {self.name!r} has an on_dead hook already: {shown(self.dead_hook)}")
        self.dead_hook = hook
        return hook

    def upcast(self, version: int) -> Callable[[UpcasterT], UpcasterT]:
        """Decorator: the function turns the arguments (a dict, JSON forms) of *version* into those of the next."""
        check_int(f"task {self.name!r}: upcast(version)", version, 1, 1_000_000)
        if version >= self.version:
            raise ConfigError(
                f"task {self.name!r}: upcast({version}) leads to version {version + 1}, "
                f"but the task is at {self.version}: declare it with version={version + 1}"
            )

        def register(fn: UpcasterT) -> UpcasterT:
            upcasters: dict[int, Upcaster] = self.signature.upcasters
            if version in upcasters:
                raise ConfigError(f"task {self.name!r} has an upcast({version}) already")
            upcasters[version] = fn
            return fn

        return register

    # -- belonging -----------------------------------------------------------------------------------------------

    def bind(self, host: TaskHost, queue_options: Callable[[str], Options]) -> None:
        """From now on *host* stores the calls of this task. The last app that includes it wins."""
        self.host, self.queue_options = host, queue_options
        self._limit = host.settings.max_payload
        self.refresh()

    def refresh(self) -> None:
        """Forget what was worked out from options that have changed since."""
        self.epoch += 1
        self._template = None

    def limit(self) -> int:
        """Bytes that a payload may have."""
        if self.host is None:
            self._look_for_host()
        return self._limit or Settings().max_payload

    def _look_for_host(self) -> None:
        """One of the apps may include this module by a pattern that it has not followed yet."""
        for app in list(INCLUDERS):
            app.import_included()

    def bound(self) -> TaskHost:
        """The host; `ConfigError` when there is none yet."""
        if self.host is None:
            self._look_for_host()
        if self.host is None:
            raise ConfigError(
                f"task {self.name!r} ({self.where}) belongs to no app yet: include its module, "
                f"App(include=[{self.fn.__module__!r}]), or its group, app.include(tasks)"
            )
        return self.host

    def __repr__(self) -> str:
        return f"<Task {self.name}({', '.join(self.signature.params)})>"


class AsyncTask(Task[P, R]):
    """A task whose function is async: calling it gives a coroutine."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # type: ignore[override]  # R is what a job's result is, for both kinds
        return super().__call__(*args, **kwargs)  # type: ignore[return-value]  # the function is async

    async def alone(self, context: JobContext[Any], value: Any) -> Any:
        """Awaitable `Task.alone`."""
        call = Call(value, context)
        return call.outcome(await self.fn([call]))


class BoundTask(Generic[P, R]):
    """What `task.using(...)` returns: the task with other options for the jobs enqueued through it."""

    __slots__ = ("_epoch", "_template", "said", "task")

    def __init__(self, task: Task[P, R], said: Options) -> None:
        self.task, self.said = task, said
        said.overrides()  # refuses now what cannot be stored with a job
        check_gating(task, said)
        self._epoch = -1
        self._template: _Template | None = None

    def using(self, **options: Unpack[JobOptions]) -> BoundTask[P, R]:
        """These options, and more; the later wins."""
        return BoundTask(self.task, normal(options, JOB_KEYS, "using()").over(self.said))

    def job(self, *args: P.args, **kwargs: P.kwargs) -> NewJob[R]:
        """As `Task.job`, with these options."""
        task = self.task
        return self.new(task.signature.encode(args, kwargs, task._limit or task.limit()))

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """As `Task.enqueue`, with these options."""
        return self.task.bound().store(self.job(*args, **kwargs))

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Awaitable `enqueue`."""
        return await self.task.bound().astore(self.job(*args, **kwargs))

    def new(self, payload: bytes) -> NewJob[R]:
        """As `Task.new`, with these options."""
        task = self.task
        template = self._template
        if template is None or self._epoch != task.epoch:
            self._epoch = task.epoch
            template = self._template = _Template(task, self.said)
        return template.new(task.name, payload)

    def __repr__(self) -> str:
        said = ", ".join(
            f"{name}={shown(getattr(self.said, name))}" for name in FIELDS if getattr(self.said, name) is not UNSET
        )
        return f"<{self.task!r} using {said}>"


def check_gating(task: Task[Any, Any], said: Options) -> None:
    """Refuse keys that name arguments which *task* does not have."""
    gating = said.declared()
    if gating is not None:
        gating.check(task.name, task.signature)


def unknown_job(
    name: str, payload: bytes, queue_options: Callable[[str], Options], **options: Unpack[JobOptions]
) -> NewJob[Any]:
    """A call by name of a task whose code is not here."""
    said = normal(options, JOB_KEYS, "enqueue()")
    queue = DEFAULT_QUEUE if said.queue is UNSET else said.queue
    new = _Template(None, said.over(queue_options(queue))).new(check_name("task", name), payload)
    new.said, new.overrides = said, None if said.overrides() == Overrides() else said.overrides()
    return new


def refuse_twice(name: str, first: Task[Any, Any], second: Task[Any, Any]) -> None:
    """Raise `ConfigError` when *second* would take the *name* of *first*, another task."""
    if first is second:
        return
    remedy = "give one of them another, name=..."
    if first.where == second.where:
        remedy = "that line ran twice: is its module imported under two names, or the function made in a loop?"
    raise ConfigError(f"the task name {name!r} is taken by {first.where}, and again by {second.where}: {remedy}")


def make_task(fn: Callable[..., Any], name: str, options: Options, own: dict[str, Any]) -> Task[Any, Any]:
    """The `Task` or `AsyncTask` for *fn*."""
    made = AsyncTask if inspect.iscoroutinefunction(fn) else Task
    return made(fn, name, options, **own)


def default_name(fn: Callable[..., Any], prefix: str | None) -> str:
    """The name of a task that was given none: *prefix* + function name; without a prefix, module + function name.

    A module that was started as a script is `__main__` only there: its real name is found, or the task refused, since
    its worker would know it by another name.
    """
    name = getattr(fn, "__name__", None)
    if not isinstance(name, str):
        raise ConfigError(f"{shown(fn)} has no name: give the task one, name=...")
    if prefix is not None:
        return prefix + name
    module = getattr(fn, "__module__", None) or ""
    return f"{_real_name(fn, name) if module == '__main__' else module}.{name}"


def _real_name(fn: Callable[..., Any], name: str) -> str:
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # python -m package.module
        return str(spec.name)
    file = getattr(main, "__file__", None)
    if not file or not Path(file).is_file():
        raise ConfigError(
            f"the task {name!r} is defined in an interactive session or in text given to Python, where no worker can "
            "find it: put it into a module, or give it a name (name=...) and run its worker in this process"
        )
    root, parts = Path(file).resolve().parent, [Path(file).stem]
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    return ".".join(parts)


def _kind(fn: Callable[..., Any], name: str, executor: str | None) -> Kind:
    if isinstance(fn, type) or not callable(fn):
        raise ConfigError(f"task {name!r} must be a function, not {shown(fn)}")
    if isinstance(fn, Task):
        raise ConfigError(
            f"task {name!r}: the function is a task already ({fn.name!r}); for a second name use aliases="
        )
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise ConfigError(f"task {name!r} is a generator: calling it would run nothing. Return a list, or spawn jobs")
    is_async = inspect.iscoroutinefunction(fn)
    if executor is None:
        return "async" if is_async else "thread"
    if executor not in ("async", "thread", "process"):
        raise ConfigError(f'task {name!r}: executor={shown(executor)} must be "async", "thread" or "process"')
    if is_async != (executor == "async"):
        what = "is async and runs on the event loop" if is_async else "is not async and would block the event loop"
        raise ConfigError(f"task {name!r} {what}: executor={executor!r} does not fit")
    return executor  # type: ignore[return-value]  # one of the three, by the line above


def _where(fn: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else str(getattr(fn, "__module__", "unknown place"))
