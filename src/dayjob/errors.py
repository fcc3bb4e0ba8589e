"""Every error that dayjob raises, in one tree.

Each carries its data as attributes, says what to do next, and survives copying between processes
(`copy`, `multiprocessing`): the attributes are the constructor's arguments.

    DayjobError
    ├ ConfigError(ValueError)      ├ PayloadError(ValueError): PayloadInvalid, PayloadTooLarge, PayloadNotSerializable
    ├ UnknownTask(LookupError)     ├ JobNotFound(LookupError)
    ├ JobFailed, JobCancelled, JobTimeout (the job's own limit)     WaitTimeout(TimeoutError): you waited too long
    ├ QueueFull, QueueClosed, JobExists, BreakerOpen                LimitTimeout(TimeoutError): a limit was not free
    └ StoreError ─ StoreUnavailable (repeat it), BadRow, TransactionExpired, NotCommitted, SchemaMismatch, NotSupported
    LeaseLost(BaseException): raised inside a job whose late write was refused
"""

from __future__ import annotations

from reprlib import Repr

_REPR = Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother, _REPR.maxlong = 3, 200, 200, 60


class DayjobError(Exception):
    """The root of all errors of dayjob."""


class ConfigError(DayjobError, ValueError):
    """A setting, option, name or call is wrong; nothing was written."""


class PayloadError(DayjobError, ValueError):
    """A job's arguments or result cannot be stored; nothing was written."""


class PayloadInvalid(PayloadError):
    """An argument does not fit the task's signature.

    Attributes:
        task: the task's name.
        argument: the parameter at fault, with a path inside it (`order.lines[3].sku`); None when it is not one.
        problem: what is wrong, in words.
    """

    def __init__(self, task: str, argument: str | None, problem: str) -> None:
        super().__init__(task, argument, problem)
        self.task, self.argument, self.problem = task, argument, problem

    def __str__(self) -> str:
        at = f", argument {self.argument!r}" if self.argument else ""
        return f"task {self.task!r}{at}: {self.problem}"


class PayloadTooLarge(PayloadError):
    """A payload is larger than the limit.

    Attributes:
        task: the task's name. size, limit: bytes.
    """

    def __init__(self, task: str, size: int, limit: int) -> None:
        super().__init__(task, size, limit)
        self.task, self.size, self.limit = task, size, limit

    def __str__(self) -> str:
        return (
            f"task {self.task!r}: the payload has {self.size:,} bytes, the limit is {self.limit:,}. "
            "Store the data elsewhere and pass a reference (an id, a path, an object key), "
            "or raise Settings(max_payload=...)."
        )


class PayloadNotSerializable(PayloadError):
    """A value has no JSON form.

    Attributes:
        task: the task's name. argument: the parameter, or `"return value"`. problem: what is wrong, in words.
    """

    def __init__(self, task: str, argument: str | None, problem: str) -> None:
        super().__init__(task, argument, problem)
        self.task, self.argument, self.problem = task, argument, problem

    def __str__(self) -> str:
        at = f", {self.argument}" if self.argument else ""
        return f"task {self.task!r}{at}: {self.problem}"


class UnknownTask(DayjobError, LookupError):
    """No task of this name is registered here.

    Attributes:
        task: the name that was asked for. known: names that are registered (the nearest few first).
    """

    def __init__(self, task: str, known: tuple[str, ...] = ()) -> None:
        super().__init__(task, known)
        self.task, self.known = task, known

    def __str__(self) -> str:
        near = f" Did you mean {', '.join(map(repr, self.known[:3]))}?" if self.known else ""
        return f"no task named {self.task!r} is registered; is its module in App(include=[...])?{near}"


class ScheduleNotFound(DayjobError, LookupError):
    """No schedule has this name.

    Attributes:
        name: what was asked for. near: names that it was perhaps meant to be.
    """

    def __init__(self, name: str, near: tuple[str, ...] = ()) -> None:
        super().__init__(name, near)
        self.name, self.near = name, near

    def __str__(self) -> str:
        hint = f"; did you mean {' or '.join(map(repr, self.near))}?" if self.near else ""
        return f"no schedule is named {shown(self.name)}{hint}"


class JobNotFound(DayjobError, LookupError):
    """No job has this id: it never existed, or its retention has passed.

    Attributes:
        id: the id that was asked for.
    """

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.id = id

    def __str__(self) -> str:
        return f"no job {self.id!r}: it never existed, was deleted, or its retention has passed"


class JobFailed(DayjobError):
    """The job whose result was awaited is dead.

    Attributes:
        id, task: the job. reason: why it is dead (`"failed"`, `"crashed"`, `"unrecoverable"` …).
        error: the last error as text, or None.
    """

    def __init__(self, id: str, task: str, reason: str | None = None, error: str | None = None) -> None:
        super().__init__(id, task, reason, error)
        self.id, self.task, self.reason, self.error = id, task, reason, error

    def __str__(self) -> str:
        return f"job {self.id} ({self.task}) is dead ({self.reason or 'failed'}): {self.error or 'no error recorded'}"


class JobCancelled(DayjobError):
    """The job whose result was awaited, or that looks at `ctx.raise_if_cancelled()`, was cancelled.

    Attributes:
        id, task: the job. reason: the reason given, or None.
    """

    def __init__(self, id: str, task: str, reason: str | None = None) -> None:
        super().__init__(id, task, reason)
        self.id, self.task, self.reason = id, task, reason

    def __str__(self) -> str:
        return f"job {self.id} ({self.task}) was cancelled" + (f": {self.reason}" if self.reason else "")


class JobTimeout(DayjobError):
    """An attempt ran longer than the job's own limit.

    Attributes:
        limit: the limit in seconds.
    """

    def __init__(self, limit: float) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"the attempt ran longer than its limit of {self.limit:g} s (timeout=)"


class WaitTimeout(DayjobError, TimeoutError):
    """You waited too long; the job itself goes on.

    Attributes:
        id: the job. timeout: seconds waited. state: the job's state when the wait ended.
    """

    def __init__(self, id: str, timeout: float, state: str | None = None) -> None:
        super().__init__(id, timeout, state)
        self.id, self.timeout, self.state = id, timeout, state

    def __str__(self) -> str:
        return f"job {self.id} is still {self.state or 'not finished'} after {self.timeout:g} s of waiting"


class QueueFull(DayjobError):
    """A queue is at its depth limit.

    Attributes:
        queue: its name. depth, limit: jobs.
    """

    def __init__(self, queue: str, depth: int, limit: int) -> None:
        super().__init__(queue, depth, limit)
        self.queue, self.depth, self.limit = queue, depth, limit

    def __str__(self) -> str:
        return f"queue {self.queue!r} holds {self.depth:,} jobs, its limit is {self.limit:,}"


class QueueClosed(DayjobError):
    """A queue takes no new jobs: it is being drained.

    Attributes:
        queue: its name.
    """

    def __init__(self, queue: str) -> None:
        super().__init__(queue)
        self.queue = queue

    def __str__(self) -> str:
        return f"queue {self.queue!r} takes no new jobs until it is resumed (dayjob queues resume {self.queue})"


class JobExists(DayjobError):
    """A job with this unique key is there already, and the key says to raise.

    Attributes:
        key: as it was given. id: the job that holds it.
    """

    def __init__(self, key: str, id: str) -> None:
        super().__init__(key, id)
        self.key, self.id = key, id

    def __str__(self) -> str:
        return f"the key {self.key!r} is held by job {self.id}"


class LimitTimeout(DayjobError, TimeoutError):
    """A limit around a call was not free in time.

    Attributes:
        limits: what was waited for, kind and key. timeout: seconds waited.
    """

    def __init__(self, limits: tuple[str, ...], timeout: float) -> None:
        super().__init__(limits, timeout)
        self.limits, self.timeout = limits, timeout

    def __str__(self) -> str:
        return f"{', '.join(self.limits)}: not free after {self.timeout:g} s of waiting"


class BreakerOpen(DayjobError):
    """The call was not made: what it depends on is failing. A job that does not catch it is snoozed until then.

    Attributes:
        key: the breaker. retry_in: seconds until it lets one through; None: until it is closed by hand.
    """

    def __init__(self, key: str, retry_in: float | None = None) -> None:
        super().__init__(key, retry_in)
        self.key, self.retry_in = key, retry_in

    def __str__(self) -> str:
        when = "until it is closed by hand" if self.retry_in is None else f"for another {self.retry_in:.1f} s"
        return f"the breaker {self.key!r} is open {when}"


class StoreError(DayjobError):
    """The store refused or failed."""


class StoreUnavailable(StoreError):
    """The store could not be reached or is locked; the outcome may be unknown. Repeating is safe."""


class BadRow(StoreError):
    """One row of a batch cannot be stored, whatever the store's condition: repeating the batch as it is does not help."""


class TransactionExpired(StoreError):
    """`ctx.transaction()` was open too long and was rolled back, with all that was written in it.

    Attributes:
        limit: seconds.
    """

    def __init__(self, limit: float) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"ctx.transaction() was open for more than {self.limit:g} s and was rolled back: do the slow part before it, "
            "or allow it more time, ctx.transaction(timeout=...)"
        )


class NotCommitted(StoreError):
    """A job called `ctx.complete_in(...)` and returned, but the transaction was rolled back, or never committed.

    Attributes:
        id: the job.
    """

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.id = id

    def __str__(self) -> str:
        return (
            f"job {self.id} returned after ctx.complete_in(...), but that transaction was not committed: the job is not "
            "completed. Commit before the function returns, and let errors out of it"
        )


class SchemaMismatch(StoreError):
    """The store's schema is older or newer than this code.

    Attributes:
        found: the schema's version, 0 when there is none. wanted: the version this code needs.
    """

    def __init__(self, found: int, wanted: int) -> None:
        super().__init__(found, wanted)
        self.found, self.wanted = found, wanted

    def __str__(self) -> str:
        if self.found > self.wanted:
            return (
                f"the store has schema {self.found}, this dayjob knows up to {self.wanted}: "
                "it was migrated by a newer release; upgrade dayjob here"
            )
        return f"the store has schema {self.found}, this dayjob needs {self.wanted}: run `dayjob migrate`"


class NotSupported(StoreError):
    """This engine or release cannot do what was asked; it is refused, never approximated.

    Attributes:
        option: what was asked for. why: the reason, and the way round where there is one.
    """

    def __init__(self, option: str, why: str = "not part of this release") -> None:
        super().__init__(option, why)
        self.option, self.why = option, why

    def __str__(self) -> str:
        return f"{self.option} is not supported: {self.why}"


class LeaseLost(BaseException):
    """A late write of this job was refused: its lease is gone and another worker may run it.

    A `BaseException`, so that `except Exception` in a task does not swallow it: stop, write nothing more.

    Attributes:
        id: the job. entry: the entry whose write was refused.
    """

    def __init__(self, id: str, entry: int) -> None:
        super().__init__(id, entry)
        self.id, self.entry = id, entry

    def __str__(self) -> str:
        return f"the lease on job {self.id} (entry {self.entry}) is lost; its write was refused"


def shown(value: object, width: int = 80) -> str:
    """*value* for an error message: a repr of at most *width* characters; never raises, never slow.

    `repr` is neither: of a huge int it raises, of a huge list it takes seconds, of a user's class it does anything.
    """
    try:
        text = _REPR.repr(value[: width + 1] if isinstance(value, (str, bytes)) else value)
    except Exception:  # noqa: BLE001  # whatever a user's __repr__ does, the error that is being written comes first
        return f"<{type(value).__name__}>"
    return text if len(text) <= width else text[: width - 1] + "…"
