"""Batches: one run of a task's function for many of its calls, each of which ends on its own.

@app.task(batch=100, batch_wait=0.5)
def send(calls: list[Call[Mail]]) -> None: ...

send.enqueue(Mail("ann@example.org"))         # one call is one job, with one argument: `value`
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from inspect import Parameter, Signature, signature
from types import UnionType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, Union, get_args, get_origin

from msgspec import Struct

from dayjob.clock import seconds
from dayjob.codec.hints import check_annotated, is_context, resolve
from dayjob.errors import ConfigError, shown
from dayjob.policies import check_int

if TYPE_CHECKING:
    from dayjob.context import JobContext

T = TypeVar("T")

LARGEST = 1_000
"""Calls in one batch at most: as many as one claim brings."""
WAIT = 0.5
LONGEST_WAIT = 60.0
"""Seconds that a claimed job may wait for company: no other worker can have it meanwhile."""


class Batching(Struct, frozen=True):
    """How calls are gathered: up to *size* of them, for at most *wait* seconds since the first was claimed."""

    size: int
    wait: float

    @classmethod
    def of(cls, task: str, size: object, wait: float | timedelta | None) -> Batching | None:
        """As `@task(batch=, batch_wait=)` says it; None when it says nothing."""
        if size is None:
            if wait is not None:
                raise ConfigError(
                    f"task {task!r}: batch_wait= belongs to batch=, which says how many calls come together"
                )
            return None
        size = check_int(f"task {task!r}: batch", size, 1, LARGEST)
        most = seconds(WAIT if wait is None else wait, "batch_wait")
        if most > LONGEST_WAIT:
            raise ConfigError(
                f"task {task!r}: batch_wait={most:g} is more than {LONGEST_WAIT:g} seconds: claimed jobs would wait while "
                "other workers are free"
            )
        return cls(size, most)


class Settler(Protocol):
    """Who learns how a call ended, at once."""

    def complete(self, call: Call[Any], result: Any) -> None:
        """*call* is done."""

    def fail(self, call: Call[Any], error: BaseException) -> None:
        """*call* ends with *error*."""

    def undisturbed(self) -> AbstractContextManager[None]:
        """A block in which nobody tells the function to stop: a call has ended and the worker knows, or neither."""


class Call(Generic[T]):
    """One job of a batch. The function of a batch task gets a list of them.

    What a call says of itself holds at once and for good; the others of its batch are not concerned.

    Attributes:
        value: the argument it was enqueued with. ctx: its own context: id, attempt, meta, progress, log, cancelled.
        settled: it has ended. result, error: with what, once it has.
    """

    __slots__ = ("_end", "_settler", "ctx", "error", "result", "value")

    ctx: JobContext[Any]

    def __init__(self, value: T, ctx: JobContext[Any] | None = None, *, settler: Settler | None = None) -> None:
        if ctx is None:
            from dayjob.context import JobContext  # it loads asyncio, which a mere producer does not need

            ctx = JobContext.detached("batch")
        self.value, self.ctx = value, ctx
        self._end = [None]  # taken once, by whoever is first: of several threads, too
        self.result: Any = None
        self.error: BaseException | None = None
        self._settler = settler

    def complete(self, result: Any = None) -> None:
        """This call is done, with *result*.

        Raises:
            ConfigError: it has ended already.
        """
        with self._undisturbed():
            self._take_end()
            self.result = result
            if self._settler is not None:
                self._settler.complete(self, result)

    def fail(self, error: BaseException) -> None:
        """This call ends as if a task of its own had raised *error*: it is tried again as the task's `retry` says.

        `RetryAfter`, `Snooze`, `CancelJob` and `Unrecoverable` mean what they always mean.

        Raises:
            ConfigError: it has ended already, or *error* is no exception.
        """
        if not isinstance(error, BaseException):
            raise ConfigError(f"call.fail takes an exception, not {shown(error)}")
        with self._undisturbed():
            self._take_end()
            self.error = error
            if self._settler is not None:
                self._settler.fail(self, error)

    def outcome(self, returned: Any) -> Any:
        """What the call has come to when its function, called with it alone, *returned* that; raises its error."""
        if not self.settled:
            (entry,) = entries(returned, 1)
            if isinstance(entry, BaseException):
                self.fail(entry)
            else:
                self.complete(entry)
        if self.error is not None:
            raise self.error
        return self.result

    @property
    def settled(self) -> bool:
        return not self._end

    def close(self) -> bool:
        """The worker ends it from here on; False: it has ended already."""
        try:
            self._end.pop()
        except IndexError:
            return False
        return True

    def _undisturbed(self) -> AbstractContextManager[None]:
        return nullcontext() if self._settler is None else self._settler.undisturbed()

    def _take_end(self) -> None:
        if not self.close():
            raise ConfigError(f"this call of the batch (job {self.ctx.id or 'none'}) has ended already: it ends once")

    def __repr__(self) -> str:
        return f"<Call {self.ctx.id or 'detached'} of {self.ctx.task}: {shown(self.value)}>"


def entries(returned: Any, count: int) -> list[Any]:
    """What a batch function *returned*, call by call: a result, or an exception for a call that failed.

    Raises:
        ConfigError: it is neither None nor a list with an entry for each of its *count* calls.
    """
    if returned is None:
        return [None] * count
    if not isinstance(returned, (list, tuple)):
        raise ConfigError(f"a batch returns None or a list with an entry for each of its calls, not {shown(returned)}")
    if len(returned) != count:
        raise ConfigError(f"the batch has {count:,} calls, and its function returned {len(returned):,} results")
    return list(returned)


def single(fn: Callable[..., Any], name: str) -> Callable[..., Any]:
    """What one call of the batch function *fn* looks like: a function of `value`, for its `Signature`.

    Raises:
        ConfigError: *fn* does not take `list[Call[...]]` and nothing else, or returns something else than a list or None.
    """
    parameters = list(signature(fn).parameters.values())
    check_annotated(parameters, name)
    hints = resolve(fn, name)
    taken = [hints[p.name] for p in parameters]
    if taken and is_context(taken[0]):
        raise ConfigError(f"task {name!r}: a batch has no context of its own: each of its calls has one, call.ctx")
    value = _value_of(taken[0]) if len(taken) == 1 and parameters[0].kind is not Parameter.KEYWORD_ONLY else None
    if value is None:
        raise ConfigError(
            f"task {name!r}: with batch= the function takes the list of its calls and nothing else: "
            f"def {getattr(fn, '__name__', 'task')}(calls: list[Call[Mail]]), where Mail is what one call is enqueued with"
        )

    def one(value: Any) -> None: ...

    result = _result_of(name, hints.get("return", Any))
    one.__annotations__ = {"value": value[0], "return": result}
    one.__signature__ = Signature(  # type: ignore[attr-defined]  # `inspect` asks a function for it
        [Parameter("value", Parameter.POSITIONAL_OR_KEYWORD, annotation=value[0])], return_annotation=result
    )
    return one


def _value_of(hint: Any) -> tuple[Any] | None:
    """The T of `list[Call[T]]`."""
    if get_origin(hint) is not list:
        return None
    (inner,) = get_args(hint)
    if inner is Call:
        return (Any,)
    return (get_args(inner)[0],) if get_origin(inner) is Call else None


def _result_of(name: str, hint: Any) -> Any:
    """The R of a function that returns `list[R]`, where exceptions stand for failed calls; anything, of one that returns
    None: its calls may say their results themselves."""
    if hint in (Any, None, type(None), list):
        return Any
    if get_origin(hint) is not list or len(get_args(hint)) != 1:
        raise ConfigError(
            f"task {name!r}: a batch returns None, or a list with a result for each call; not {shown(hint)}"
        )
    (inner,) = get_args(hint)
    if get_origin(inner) not in (Union, UnionType):
        return Any if _is_error(inner) else inner
    results = [part for part in get_args(inner) if not _is_error(part)]
    return Union[tuple(results)] if results else Any  # noqa: UP007  # made of parts that only run time knows


def _is_error(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseException)
