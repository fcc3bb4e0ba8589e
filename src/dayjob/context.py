"""What a running job can see and say: `JobContext`, and `current_job()` anywhere below it.

The context knows no store. What the job says goes to its *host*: the executor of the worker that runs it, in a pool
child the other end of a pipe, or nobody when the function was just called. Late writes are fenced: after the lease is
lost they raise `LeaseLost` inside the job.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol

from msgspec import json

from dayjob.clock import from_stamp, seconds
from dayjob.codec import encode_plain
from dayjob.errors import ConfigError, JobCancelled, NotSupported, shown

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from datetime import datetime, timedelta

    from typing_extensions import TypeVar

    from dayjob.gating import Breaker
    from dayjob.store.records import Claimed
    from dayjob.worker.lent import JobTransaction

    # A bare `JobContext` has a state of type object. Were it Any, mypy would take an Any in the function's type for a
    # reason to choose no overload of @task, and the task's calls would not be checked.
    StateT = TypeVar("StateT", default=object)
else:
    from typing import TypeVar

    StateT = TypeVar("StateT")


SCHEDULED_FOR = "dayjob.scheduled_for"
"""What a job of a schedule carries in its meta: the stamp of the nominal time."""
MAX_CHECKPOINT = 1_000_000
"""Bytes of an encoded checkpoint."""


class ContextHost(Protocol):
    """Who runs the job. Called from the job's own thread.

    Attributes:
        job: what was claimed. max_attempts: as it holds for this job.
        state: what the lifespan yielded. app: the App, or None.
        stopping: why the job was told to stop (`cancel`, `timeout`, `shutdown`, `lost`), else None.
    """

    @property
    def job(self) -> Claimed: ...
    @property
    def max_attempts(self) -> int: ...
    @property
    def state(self) -> Any: ...
    @property
    def app(self) -> Any: ...
    @property
    def stopping(self) -> str | None: ...

    def context(self) -> JobContext[Any]:
        """The one context of this attempt."""

    def progress(self, done: float, total: float | None, note: str) -> None:
        """Note how far the job is; written soon, the last one counts. Raises `LeaseLost`."""

    def log(self, level: str, message: str) -> None:
        """Note a line; written soon, in order. Raises `LeaseLost`."""

    def save_checkpoint(self, value: bytes) -> None:
        """Write *value*; durable when this returns. Raises `LeaseLost`, `StoreUnavailable`."""

    def read_checkpoint(self) -> bytes | None:
        """The value written last, by this or an earlier attempt."""

    def transaction(self, limit: float | None) -> Any:
        """A transaction of the store's own, at whose end the job completes."""

    def complete_in(self, connection: Any, result: Any) -> None:
        """Complete the job in the transaction of *connection*."""

    async def acomplete_in(self, connection: Any, result: Any) -> None:
        """Awaitable `complete_in`."""

    @property
    def breaker(self) -> Breaker | None:
        """The breaker of the job itself."""

    def undisturbed(self) -> AbstractContextManager[None]:
        """A block in which nobody tells the job to stop: what is half done there would be nobody's."""


RUNNING: ContextVar[ContextHost | None] = ContextVar("dayjob.running", default=None)
"""Who runs the job in this context. The executor sets it; the context object is only built when asked for."""


def current_job() -> JobContext[Any] | None:
    """The context of the job that runs here, in whatever function below it; None outside of any job."""
    host = RUNNING.get()
    return None if host is None else host.context()


_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


class JobLog:
    """`ctx.log`: lines that are stored with the job and logged. Same calls as a `logging.Logger`."""

    __slots__ = ("_host",)

    def __init__(self, host: ContextHost | None) -> None:
        self._host = host

    def debug(self, message: str, *args: object) -> None:
        self._write("debug", message, args)

    def info(self, message: str, *args: object) -> None:
        self._write("info", message, args)

    def warning(self, message: str, *args: object) -> None:
        self._write("warning", message, args)

    def error(self, message: str, *args: object) -> None:
        self._write("error", message, args)

    def exception(self, message: str, *args: object) -> None:
        """`error`, with the traceback of the exception being handled."""
        import traceback

        text = (str(message) % args if args else str(message)) + "\n" + traceback.format_exc()
        self._write("error", text.replace("%", "%%"), ())

    def critical(self, message: str, *args: object) -> None:
        self._write("critical", message, args)

    def _write(self, level: str, message: str, args: tuple[object, ...]) -> None:
        if self._host is None:
            logging.getLogger("dayjob.job").log(_LEVELS[level], message, *args)
            return
        text = str(message)
        if args:
            try:
                text = text % args
            except (TypeError, ValueError):  # as logging does: a wrong format must not fail the job
                text = f"{text} {shown(args, 500)}"
        # Stored as UTF-8: a lone surrogate (a file name, say) would be refused far from here.
        self._host.log(level, text.encode("utf-8", "backslashreplace").decode("utf-8"))


class JobContext(Generic[StateT]):
    """The job that runs, from inside. The first parameter of a task when annotated so.

    Attributes:
        id, task, queue: the job. attempt: 1 for the first. last_attempt: True when no other follows.
        meta: what producers stamped on it. state: what the app's `lifespan` yielded.
        app: the App. scheduled_for: nominal time of the schedule that made it, else None.
        idempotency_key: the same for all attempts of the job; a retry by hand of a finished job makes a new one.
        log: `.info(...)` and so on: stored with the job and logged.
    """

    __slots__ = ("_host", "_meta", "app", "attempt", "id", "idempotency_key", "log", "queue", "state", "task")

    state: StateT
    app: Any

    def __init__(self, host: ContextHost) -> None:
        job = host.job
        self._host: ContextHost | None = host
        self._meta: str | None = job.meta
        self.id, self.task, self.queue = job.id, job.task, job.queue
        self.attempt = job.attempt + 1
        self.idempotency_key = f"{job.id}:{job.round}" if job.round else job.id
        self.state, self.app = host.state, host.app
        self.log = JobLog(host)

    @classmethod
    def detached(cls, task: Any) -> JobContext[Any]:
        """The context of a direct call of *task*: no job is behind it, and nothing is recorded."""
        self: JobContext[Any] = cls.__new__(cls)
        self._host, self._meta = None, None
        self.id, self.task, self.queue = "", getattr(task, "name", str(task)), ""
        self.attempt, self.idempotency_key = 1, ""
        self.state, self.app = None, getattr(getattr(task, "host", None), "app", None)
        self.log = JobLog(None)
        return self

    @property
    def last_attempt(self) -> bool:
        return self._host is None or self.attempt >= self._host.max_attempts

    @property
    def meta(self) -> dict[str, Any]:
        return json.decode(self._meta) if self._meta else {}

    @property
    def scheduled_for(self) -> datetime | None:
        at = self.meta.get(SCHEDULED_FOR)
        return from_stamp(at) if isinstance(at, int) else None

    @property
    def cancelled(self) -> bool:
        """True once the job was told to stop: cancelled, out of time, worker shutting down, lease lost."""
        return self._host is not None and self._host.stopping is not None

    def raise_if_cancelled(self) -> None:
        """Raise `JobCancelled` when the job was told to stop. For loops in tasks that run in threads."""
        if self._host is not None and self._host.stopping is not None:
            raise JobCancelled(self.id, self.task, self._host.stopping)

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far the job is (*done* of *total*). Cheap: written about ten times a second at most.

        Raises:
            LeaseLost: the job was given to another worker meanwhile.
        """
        said: dict[str, Any] = {"done": done, "total": total}
        for what, value in said.items():
            if value is None and what == "total":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ConfigError(f"progress({what}=) must be a number, not {type(value).__name__} {shown(value)}")
            if not -1e300 < value < 1e300:
                raise ConfigError(f"progress({what}={value!r}) must be a finite number")
        if self._host is not None:
            text = str(note)[:1000].encode("utf-8", "backslashreplace").decode("utf-8")
            self._host.progress(float(done), None if total is None else float(total), text)

    async def aprogress(self, done: float, total: float | None = None, note: str = "") -> None:
        """`progress`, which never waits for the store."""
        self.progress(done, total, note)

    @property
    def checkpoint(self) -> Any:
        """The value saved last, by this attempt or an earlier one; None when there is none."""
        value = None if self._host is None else self._host.read_checkpoint()
        return None if value is None else json.decode(value)

    def save_checkpoint(self, value: Any) -> None:
        """Keep *value* (plain data, up to 1 MB as JSON) for a later attempt; durable when this returns.

        Raises:
            LeaseLost: the job was given to another worker meanwhile; nothing was written.
            ConfigError: *value* has no JSON form, several, or is too large.
        """
        encoded = encode_plain("checkpoint", value, MAX_CHECKPOINT)
        if self._host is not None:
            self._host.save_checkpoint(encoded)

    async def asave_checkpoint(self, value: Any) -> None:
        """`save_checkpoint` without blocking the event loop."""
        encoded = encode_plain("checkpoint", value, MAX_CHECKPOINT)
        if self._host is not None:
            await asyncio.to_thread(self._host.save_checkpoint, encoded)

    # -- completing in a transaction -----------------------------------------------------------------------------

    def transaction(self, timeout: float | timedelta | None = None) -> JobTransaction:
        """A transaction on a connection of dayjob's own, in which the job completes: `with` or `async with`.

            with ctx.transaction() as tx:
                tx.execute("UPDATE account SET balance = balance - ? WHERE id = ?", (amount, id))
                tx.result = "paid"

        At the end of the block the job completes and everything is committed in one. An error inside rolls everything
        back, and the attempt has failed as with any error. What the function raises afterwards is reported and changes
        nothing. Enqueues inside join it. In `async with` use `await tx.aexecute(...)`, which returns rows.

        Args:
            timeout: seconds the block may take; past that everything is rolled back. By default 1 on SQLite, where it
                holds the only write lock, and without limit elsewhere.
        Raises:
            LeaseLost: another worker may run the job; everything was rolled back. TransactionExpired: it took too long.
            StoreUnavailable: it could not begin, or its commit was not answered: then the worker finds out how it ended.
        """
        limit = None if timeout is None else seconds(timeout, "timeout", least=0.001)
        if self._host is not None:
            return self._host.transaction(limit)  # type: ignore[no-any-return]  # the host's own kind of it
        if self.app is None:
            raise ConfigError("ctx.transaction() needs an app with a store, and this context has none")
        return self.app.lend(limit)  # type: ignore[no-any-return]  # the app is Any to its context

    def complete_in(self, connection: Any, result: Any = None) -> None:
        """Complete the job in your transaction: your writes and the job's end are one commit.

        The caller commits, before the function returns. If it rolls back, the job is not completed; a function that
        returns nevertheless has failed with `NotCommitted`. What it raises after the commit is reported and changes
        nothing. In a direct call nothing happens.

        Args:
            connection: a psycopg, sqlite3, SQLAlchemy or Django connection or session, in a transaction, to the
                database in which the jobs are. result: the job's result.
        Raises:
            LeaseLost: another worker may run the job: let it out of your transaction, so that it rolls back.
            ConfigError: the connection cannot be used. PayloadError: *result* cannot be stored.
            StoreError: the statement failed.
        """
        if self._host is not None:
            self._host.complete_in(connection, result)

    async def acomplete_in(self, connection: Any, result: Any = None) -> None:
        """Awaitable `complete_in`; also takes asyncpg, async psycopg and async SQLAlchemy."""
        if self._host is not None:
            await self._host.acomplete_in(connection, result)

    # -- other releases ------------------------------------------------------------------------------------------

    def step(self, name: str, fn: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotSupported("ctx.step")

    async def astep(self, name: str, fn: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotSupported("ctx.astep")

    def spawn(self, job: Any) -> NoReturn:
        raise NotSupported("ctx.spawn")

    async def aspawn(self, job: Any) -> NoReturn:
        raise NotSupported("ctx.aspawn")

    def sleep(self, seconds: Any) -> NoReturn:
        raise NotSupported("ctx.sleep", "not part of this release; raise Snooze(seconds) to come back later")

    async def asleep(self, seconds: Any) -> NoReturn:
        raise NotSupported("ctx.asleep", "not part of this release; raise Snooze(seconds) to come back later")

    def wait_signal(self, name: str, timeout: Any = None) -> NoReturn:
        raise NotSupported("ctx.wait_signal")

    async def await_signal(self, name: str, timeout: Any = None) -> NoReturn:
        raise NotSupported("ctx.await_signal")

    def on_rollback(self, fn: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotSupported("ctx.on_rollback")
