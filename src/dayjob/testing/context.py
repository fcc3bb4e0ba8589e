"""A context to call a task's function with, which keeps what the function does with it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.json import encode

from dayjob.context import RUNNING, JobContext
from dayjob.ids import new_id
from dayjob.store.records import Claimed

if TYPE_CHECKING:
    from dayjob.context import ContextHost
    from dayjob.gating import Breaker


class Line(NamedTuple):
    """A line written with `ctx.log`."""

    level: str
    message: str


class Recorder:
    """The host of a test's context: it keeps everything in lists."""

    def __init__(self, job: Claimed, max_attempts: int, state: Any, app: Any) -> None:
        self.job, self.max_attempts, self.state, self.app = job, max_attempts, state, app
        self.stopping: str | None = None
        self.lines: list[Line] = []
        self.steps: list[tuple[float, float | None, str]] = []
        self.saved: bytes | None = None
        self.completed: list[Any] = []
        self.own: TestContext | None = None

    def context(self) -> JobContext[Any]:
        assert self.own is not None
        return self.own

    def progress(self, done: float, total: float | None, note: str) -> None:
        self.steps.append((done, total, note))

    def log(self, level: str, message: str) -> None:
        self.lines.append(Line(level, message))

    def save_checkpoint(self, value: bytes) -> None:
        self.saved = value

    def read_checkpoint(self) -> bytes | None:
        return self.saved

    def transaction(self, limit: float | None) -> Any:
        return self.app.lend(limit)

    def complete_in(self, connection: Any, result: Any) -> None:
        self.completed.append(result)

    async def acomplete_in(self, connection: Any, result: Any) -> None:
        self.completed.append(result)

    breaker: Breaker | None = None

    def undisturbed(self) -> AbstractContextManager[None]:
        return nullcontext()


class TestContext(JobContext[Any]):
    """A context for `task.fn(ctx, ...)` in a test; in a `with`, `current_job()` gives it.

    Attributes:
        logged: lines written with `ctx.log`. progressed: (done, total, note) of each `ctx.progress`.
        completed: the result of each `ctx.complete_in`.
    """

    __slots__ = ("_recorder", "_tokens")
    __test__ = False  # no class of tests, whatever its name says to pytest

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder)
        self._recorder = recorder
        self._tokens: list[Token[ContextHost | None]] = []
        recorder.own = self

    @property
    def logged(self) -> list[Line]:
        return self._recorder.lines

    @property
    def progressed(self) -> list[tuple[float, float | None, str]]:
        return self._recorder.steps

    @property
    def completed(self) -> list[Any]:
        return self._recorder.completed

    def cancel(self, why: str = "cancel") -> None:
        """Tell the function to stop: `ctx.cancelled` is True, `ctx.raise_if_cancelled()` raises."""
        self._recorder.stopping = why

    def __enter__(self) -> TestContext:
        self._tokens.append(RUNNING.set(self._recorder))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        RUNNING.reset(self._tokens.pop())


def make_context(
    task: str,
    queue: str,
    *,
    attempt: int,
    max_attempts: int,
    meta: Mapping[str, Any] | None,
    state: Any,
    app: Any,
    checkpoint: Any,
) -> TestContext:
    """The context of an attempt that nobody stored."""
    claimed = Claimed(
        entry=1,
        id=new_id(),
        task=task,
        queue=queue,
        priority=0,
        attempt=attempt - 1,
        crashes=0,
        round=0,
        parked=0,
        max_attempts=None,
        created_at=0,
        run_at=0,
        expires_at=None,
        tags=None,
        meta=encode(dict(meta)).decode() if meta else None,
        options=None,
        recorded=checkpoint is not None,
        suspect=False,
        payload=b"{}",
    )
    recorder = Recorder(claimed, max_attempts, state, app)
    recorder.saved = None if checkpoint is None else encode(checkpoint)
    return TestContext(recorder)
