"""A stored job, as its owner holds it: what it was when it was last looked at, and the verbs to act on it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypedDict, TypeVar, Unpack, cast

from msgspec import Struct
from msgspec.json import decode as from_json

from dayjob.clock import from_stamp
from dayjob.codec import Failure, decode_failure
from dayjob.errors import JobCancelled, JobFailed
from dayjob.states import State

if TYPE_CHECKING:
    from dayjob.store.gating import Gating
    from dayjob.store.records import AttemptRow, JobRow, Log, NewRow, Progress

R = TypeVar("R")

EnqueueOutcome = Literal["inserted", "existing", "replaced", "extended", "merged"]


class Changes(TypedDict, total=False):
    """What an edit changes. run_at: an aware datetime, or `"now"`. args: all the arguments, by parameter name."""

    run_at: datetime | Literal["now"] | None
    priority: int | None
    queue: str | None
    args: Mapping[str, Any] | None


class JobHost(Protocol):
    """The app's side of a job: where it is looked up and acted on."""

    def load(self, id: str) -> JobRow: ...
    async def aload(self, id: str) -> JobRow: ...
    def made(self, row: NewRow, /) -> JobRow: ...
    def arguments(self, task: str, payload: bytes) -> dict[str, Any]: ...
    def value(self, task: str, result: bytes | None) -> Any: ...
    def attempts_of(self, task: str, queue: str) -> int | None: ...
    def wait(self, id: str, timeout: float | timedelta | None) -> JobRow: ...
    async def await_(self, id: str, timeout: float | timedelta | None) -> JobRow: ...
    def cancel(self, ids: str, /, *, reason: str | None = None) -> int: ...
    async def acancel(self, ids: str, /, *, reason: str | None = None) -> int: ...
    def retry(self, ids: str, /) -> int: ...
    async def aretry(self, ids: str, /) -> int: ...
    def edit(self, id: str, /, **changes: Unpack[Changes]) -> bool: ...
    async def aedit(self, id: str, /, **changes: Unpack[Changes]) -> bool: ...
    def logs(self, id: str, /) -> list[LogLine]: ...
    async def alogs(self, id: str, /) -> list[LogLine]: ...


class Attempt(Struct, frozen=True):
    """One ended claim of a job.

    Attributes:
        number: the attempt it was, 1 for the first. round: 0, then one more after each retry by hand.
        outcome: `completed`, `failed`, `dead`, `snoozed`, `parked`, `released`, `crashed`, `lost` or `cancelled`.
        started_at: None when it never started, or when nobody lived to say.
        reason: a word or short text why it ended so, where that is no error.
    """

    number: int
    round: int
    outcome: str
    started_at: datetime | None
    finished_at: datetime
    worker: str | None
    error_type: str | None = None
    message: str | None = None
    traceback: str | None = None
    reason: str | None = None


class LogLine(Struct, frozen=True):
    """A line that a job wrote with `ctx.log`."""

    at: datetime
    level: str
    message: str


class Job(Generic[R]):
    """A stored call of a task, whose result is an `R`.

    The attributes tell what was known when the job was enqueued, found or refreshed last; what was not known then (the
    store's own times of a job just enqueued, the attempts of one found in a list) is looked up once, when asked for.
    `refresh()` looks again.

    Attributes:
        id: UUID text.
        outcome: what the enqueue did (`inserted`, `existing` …); None for a job that was looked up.
    """

    __slots__ = ("__weakref__", "_full", "_host", "_new", "_row", "id", "outcome")

    def __init__(
        self,
        host: JobHost,
        id: str,
        row: JobRow | None = None,
        new: NewRow | None = None,
        outcome: EnqueueOutcome | None = None,
        full: bool = False,
    ) -> None:
        self._host = host
        self.id = id
        self.outcome = outcome
        self._row = row
        self._new = new
        self._full = full

    # -- what is known -----------------------------------------------------------------------------------------------

    def _seen(self) -> JobRow:
        """The row as last seen; for a job that was just inserted, what the enqueue knows of it."""
        if self._row is None:
            if self._new is not None and self.outcome == "inserted":
                self._row = self._host.made(self._new)
            else:
                return self._whole()
        return self._row

    def _whole(self) -> JobRow:
        """The row with nothing left out."""
        if self._row is None or not self._full:
            self._take(self._host.load(self.id))
        return cast("JobRow", self._row)

    def _take(self, row: JobRow) -> None:
        self._row, self._full, self._new = row, True, None

    @property
    def task(self) -> str:
        return self._new.task if self._new is not None else self._seen().task

    @property
    def queue(self) -> str:
        return self._seen().queue

    @property
    def state(self) -> State:
        return self._seen().state

    @property
    def reason(self) -> str | None:
        """Why it is dead or cancelled, in a word or a short text."""
        return self._seen().reason

    @property
    def priority(self) -> int:
        return self._seen().priority

    @property
    def attempt(self) -> int:
        """Attempts spent so far."""
        return self._seen().attempt

    @property
    def max_attempts(self) -> int | None:
        """Attempts in all; None when neither the job says it nor its task is known here."""
        row = self._seen()
        return row.max_attempts if row.max_attempts is not None else self._host.attempts_of(row.task, row.queue)

    @property
    def crashes(self) -> int:
        """How often its process died while it ran alone in it."""
        return self._seen().crashes

    @property
    def args(self) -> dict[str, Any]:
        """The arguments by parameter name; typed where the task is known here, else plain JSON values."""
        row = self._seen()
        return self._host.arguments(row.task, row.payload)

    @property
    def run_at(self) -> datetime:
        """When it is or was due."""
        return from_stamp(self._timed().run_at)

    @property
    def created_at(self) -> datetime:
        return from_stamp(self._timed().created_at)

    @property
    def started_at(self) -> datetime | None:
        return _moment(self._seen().started_at)

    @property
    def finished_at(self) -> datetime | None:
        return _moment(self._seen().finished_at)

    @property
    def expires_at(self) -> datetime | None:
        """When it is cancelled if it has not started by then."""
        return _moment(self._timed().expires_at)

    @property
    def worker(self) -> str | None:
        return self._seen().worker

    @property
    def progress(self) -> Progress | None:
        """How far it is: `.done`, `.total`, `.note`."""
        return self._seen().progress

    @property
    def tags(self) -> tuple[str, ...]:
        tags = self._seen().tags
        return tuple(from_json(tags)) if tags else ()

    @property
    def meta(self) -> dict[str, Any]:
        meta = self._seen().meta
        return from_json(meta) if meta else {}

    @property
    def error(self) -> Failure | None:
        """The error it died of, or the last one of a job that will be tried again."""
        row = self._seen()
        if row.error is not None:
            return decode_failure(row.error)
        if row.state in _SOUND or row.attempt + row.crashes == 0:
            return None
        return next((decode_failure(one.error) for one in reversed(self._whole().attempts) if one.error), None)

    @property
    def attempts(self) -> list[Attempt]:
        """Every ended claim, oldest first."""
        row = self._whole()
        attempts = [_attempt(one) for one in row.attempts]
        if row.state is State.COMPLETED and row.finished_at is not None:
            # Stores write no second row for a success: the job's own says it all.
            done = from_stamp(row.finished_at)
            attempts.append(Attempt(row.attempt, row.round, "completed", self.started_at, done, row.worker))
        return attempts

    @property
    def gating(self) -> Gating | None:
        """What it has to wait for before it may start: its key, lane and gates; None: nothing. See `app.limits.of(job)`."""
        return self._seen().gating

    @property
    def flow_id(self) -> str | None:
        """The flow it belongs to; None: to none."""
        return None

    def _timed(self) -> JobRow:
        row = self._seen()
        return row if row.created_at else self._whole()

    # -- verbs -------------------------------------------------------------------------------------------------------

    def refresh(self) -> Job[R]:
        """Look again; returns the job itself. `JobNotFound` when its retention has passed."""
        self._take(self._host.load(self.id))
        return self

    async def arefresh(self) -> Job[R]:
        """Awaitable `refresh`."""
        self._take(await self._host.aload(self.id))
        return self

    def join(self, timeout: float | timedelta | None = None) -> Job[R]:
        """Wait until it is completed, cancelled or dead; returns the job itself, refreshed.

        Args:
            timeout: seconds to wait at most; None waits for ever.
        Raises:
            WaitTimeout: it goes on, you waited too long.
            JobNotFound: it is gone.
        """
        self._take(self._host.wait(self.id, timeout))
        return self

    async def ajoin(self, timeout: float | timedelta | None = None) -> Job[R]:
        """Awaitable `join`."""
        self._take(await self._host.await_(self.id, timeout))
        return self

    def result(self, timeout: float | timedelta | None = None) -> R:
        """Wait for it like `join` and return what its function returned.

        Raises:
            JobFailed, JobCancelled: how it ended instead. WaitTimeout, JobNotFound: as `join`.
        """
        return self.join(timeout)._value()

    async def aresult(self, timeout: float | timedelta | None = None) -> R:
        """Awaitable `result`."""
        return (await self.ajoin(timeout))._value()

    def _value(self) -> R:
        row = self._whole()
        if row.state is State.DEAD:
            failure = self.error
            text = f"{failure.type}: {failure.message}" if failure else None
            raise JobFailed(self.id, row.task, row.reason, text)
        if row.state is State.CANCELLED:
            raise JobCancelled(self.id, row.task, row.reason)
        return cast("R", self._host.value(row.task, row.result))

    def cancel(self, *, reason: str | None = None) -> bool:
        """Cancel it: at once while it waits, within a second while it runs. False: it had finished or was asked."""
        return bool(self._host.cancel(self.id, reason=reason))

    async def acancel(self, *, reason: str | None = None) -> bool:
        """Awaitable `cancel`."""
        return bool(await self._host.acancel(self.id, reason=reason))

    def retry(self) -> bool:
        """Put a finished job back, or let a scheduled one run now; its history stays. False: it runs or waits already."""
        return bool(self._host.retry(self.id))

    async def aretry(self) -> bool:
        """Awaitable `retry`."""
        return bool(await self._host.aretry(self.id))

    def edit(self, **changes: Unpack[Changes]) -> bool:
        """Change what is given while the job waits (`run_at="now"` promotes it). False: it runs or has finished.

        Raises:
            ConfigError, PayloadError: a value makes no sense; nothing was changed.
        """
        return self._host.edit(self.id, **changes)

    async def aedit(self, **changes: Unpack[Changes]) -> bool:
        """Awaitable `edit`."""
        return await self._host.aedit(self.id, **changes)

    def logs(self) -> list[LogLine]:
        """What it wrote with `ctx.log`, oldest first."""
        return self._host.logs(self.id)

    async def alogs(self) -> list[LogLine]:
        """Awaitable `logs`."""
        return await self._host.alogs(self.id)

    # -- manners -----------------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, Job) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        row = self._row
        known = f" {row.task} {row.state}" if row else f" {self._new.task}" if self._new else ""
        return f"<Job {self.id}{known}>"


_SOUND = frozenset({State.COMPLETED, State.CANCELLED})


def _moment(stamp: int | None) -> datetime | None:
    return None if stamp is None else from_stamp(stamp)


def _attempt(row: AttemptRow) -> Attempt:
    failure = decode_failure(row.error) if row.error else None
    return Attempt(
        row.number,
        row.round,
        str(row.outcome),
        _moment(row.started_at),
        from_stamp(row.finished_at),
        row.worker,
        failure.type if failure else None,
        failure.message if failure else None,
        failure.traceback if failure else None,
        row.reason,
    )


def log_line(row: Log) -> LogLine:
    """The public form of a stored line."""
    return LogLine(from_stamp(row.at), row.level, row.message)
