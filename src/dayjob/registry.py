"""Which tasks there are, and how a claimed job of one is to be run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Unpack

from msgspec import UNSET, Struct, UnsetType

from dayjob.calls import Batching
from dayjob.config import Settings
from dayjob.errors import UnknownTask
from dayjob.gating import Breaker
from dayjob.gating.declared import breaker_of
from dayjob.options import NOTHING, QUEUE_KEYS, Options, QueueDefaults, normal
from dayjob.policies import Overrides, Retention, Retry, check_name, nearest
from dayjob.states import State
from dayjob.task import Kind, Task, TaskHost, refuse_twice


class Plan(Struct, frozen=True):
    """How to run a job of a task: everything an executor asks, worked out once.

    Attributes:
        fn: call it with `*decode(payload)`, after the context if `takes_context`.
        encode_result: (value, limit in bytes) -> bytes. timeout: seconds, None for no limit.
        keep: seconds a finished job is kept, by terminal state; None: for ever.
        batching: how calls of the task are gathered, None where each runs by itself. `fn` takes the list of them then.
        breaker: what it depends on; how its jobs end is reported.
        version handling is inside `decode`: it brings older payloads up.
    """

    task: Task[Any, Any]
    fn: Callable[..., Any]
    kind: Kind
    decode: Callable[[bytes], tuple[Any, ...]]
    encode_result: Callable[[Any, int], bytes]
    takes_context: bool
    retry: Retry
    timeout: float | None
    keep: dict[State, float | None]
    batching: Batching | None = None
    breaker: Breaker | None = None


class Registry:
    """The tasks of an app, by exact name. Payloads name tasks, never code.

    Args:
        settings: the farthest defaults. host: the app, for tasks to enqueue through.
    Attributes:
        guarded: True once a job was planned that has a breaker.
    """

    def __init__(self, settings: Settings | None = None, host: TaskHost | None = None) -> None:
        self.settings = settings or Settings()
        self._host = host
        self.guarded = False
        self._tasks: dict[str, Task[Any, Any]] = {}
        self._aliases: dict[str, Task[Any, Any]] = {}
        self._queues: dict[str, Options] = {}
        self._plans: dict[tuple[str, str, bytes | None], Plan] = {}

    def add(self, task: Task[Any, Any]) -> None:
        """Register *task* and bind it to the host; again is harmless.

        Raises:
            ConfigError: its name or an alias is taken by another function; both places are named.
        """
        for name in (task.name, *task.aliases):
            refuse_twice(name, self._tasks.get(name) or self._aliases.get(name) or task, task)
        self._tasks[task.name] = task
        self._aliases.update(dict.fromkeys(task.aliases, task))
        self._plans.clear()
        if self._host is not None:
            task.bind(self._host, self.queue_options)

    def get(self, name: str) -> Task[Any, Any]:
        """The task of this name or alias; `UnknownTask` with the names that are near."""
        task = self._tasks.get(name) or self._aliases.get(name)
        if task is None:
            near = nearest(name, self._tasks, 3)
            raise UnknownTask(name, tuple(near))
        return task

    def __contains__(self, name: str) -> bool:
        return name in self._tasks or name in self._aliases

    def __iter__(self) -> Iterator[Task[Any, Any]]:
        return iter(list(self._tasks.values()))

    def names(self) -> list[str]:
        """The names of all tasks, sorted, without aliases."""
        return sorted(self._tasks)

    # -- options -------------------------------------------------------------------------------------------------

    def queue_defaults(self, queue: str, /, **options: Unpack[QueueDefaults]) -> None:
        """What holds for jobs of *queue* where neither the job nor its task says anything."""
        self._queues[check_name("queue", queue)] = normal(options, QUEUE_KEYS, f"queue {queue!r}: defaults")
        self._plans.clear()
        for task in self:
            task.refresh()

    def queue_options(self, queue: str) -> Options:
        """The defaults of *queue*."""
        return self._queues.get(queue, NOTHING)

    def retentions(self) -> list[tuple[str | None, str | None, Retention]]:
        """Whose finished jobs are kept how: (queue, task, retention); both None: where nobody says anything."""
        queues = [(name, None, said.retention) for name, said in self._queues.items()]
        tasks = [(None, task.name, task.options.retention) for task in self]
        own = [(queue, task, kept) for queue, task, kept in [*queues, *tasks] if isinstance(kept, Retention)]
        return [(None, None, self.settings.retention), *own]

    def plan(self, name: str, queue: str, options: bytes | None = None) -> Plan:
        """How to run a job of task *name* from *queue* with *options* (`NewRow.options`).

        Raises:
            UnknownTask: no such task here. ValueError: *options* cannot be read.
        """
        key = (name, queue, options)
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= 10_000:  # each job with options of its own must not fill the memory
                self._plans.clear()
            plan = self._plans[key] = self._planned(self.get(name), queue, options)
        return plan

    def _planned(self, task: Task[Any, Any], queue: str, options: bytes | None) -> Plan:
        said = task.options.over(self.queue_options(queue))
        overrides = Overrides() if options is None else Overrides.from_bytes(options)
        retry = said.retry if isinstance(said.retry, Retry) else Retry()
        if not isinstance(overrides.retry, UnsetType):
            retry = overrides.retry.over(retry)
        timeout = self.settings.timeout if said.timeout is UNSET else said.timeout
        if overrides.timeout is not UNSET:
            timeout = overrides.timeout
        breaker = said.breaker if isinstance(said.breaker, Breaker) else None
        if overrides.breaker is not UNSET:
            breaker = breaker_of(overrides.breaker, breaker)
        self.guarded = self.guarded or breaker is not None
        return Plan(
            task=task,
            fn=task.signature.call if task.batching is None else task.fn,
            kind=task.kind,
            decode=task.signature.decode,
            encode_result=task.signature.encode_result,
            takes_context=task.signature.takes_context,
            retry=retry,
            timeout=timeout,
            keep=_keep(said.retention if isinstance(said.retention, Retention) else self.settings.retention, overrides),
            batching=task.batching,
            breaker=breaker,
        )


def _keep(retention: Retention, overrides: Overrides) -> dict[State, float | None]:
    states = (State.COMPLETED, State.CANCELLED, State.DEAD)
    if isinstance(overrides.keep, UnsetType):
        return {state: retention.age(state) for state in states}
    return dict(zip(states, overrides.keep, strict=True))
