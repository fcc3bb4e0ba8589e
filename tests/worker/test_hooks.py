"""lifespan, around and on_dead: who enters them, where, and what they see."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest

from dayjob import App, JobContext, JobTimeout
from dayjob.states import Outcome
from tests.worker.conftest import Witness

where: ContextVar[str] = ContextVar("where", default="nowhere")


def make(tmp_path: Path, **options: Any) -> App:
    app = App(f"sqlite:///{tmp_path}/jobs.db", **options)
    app.open()
    return app


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_lifespan_is_entered_once_and_its_value_is_the_state(tmp_path: Path, kind: str) -> None:
    log: list[str] = []

    @contextlib.contextmanager
    def sync_life() -> Iterator[dict[str, int]]:
        log.append("in")
        where.set("inside")
        yield {"answer": 42}
        log.append("out")

    @contextlib.asynccontextmanager
    async def async_life() -> AsyncIterator[dict[str, int]]:
        with sync_life() as state:
            await asyncio.sleep(0)
            yield state

    app = make(tmp_path, lifespan=sync_life if kind == "sync" else async_life)

    @app.task
    async def ask(ctx: JobContext[dict[str, int]]) -> tuple[int, str]:
        return ctx.state["answer"], where.get()

    @app.task
    def ask_in_thread(ctx: JobContext[dict[str, int]]) -> tuple[int, str]:
        return ctx.state["answer"], where.get()

    jobs = [ask.enqueue(), ask_in_thread.enqueue(), ask.enqueue()]
    app.worker().run_until_idle()

    assert [tuple(job.result(timeout=1)) for job in jobs] == [(42, "inside")] * 3
    assert log == ["in", "out"]


def test_a_lifespan_that_fails_is_raised_by_run_and_nothing_is_claimed(tmp_path: Path) -> None:
    @contextlib.contextmanager
    def closed() -> Iterator[None]:
        raise RuntimeError("closed today")
        yield

    app = make(tmp_path, lifespan=closed)

    @app.task
    async def noop() -> None: ...

    job = noop.enqueue()

    with pytest.raises(RuntimeError, match="closed today"):
        app.worker().run_until_idle()
    assert job.refresh().state == "available"
    assert app.workers() == []


def test_arounds_nest_in_their_order_in_the_jobs_own_thread_and_context(tmp_path: Path) -> None:
    app = make(tmp_path)
    log: list[str] = []
    threads: dict[str, set[int]] = {}

    @app.around
    def outer(ctx: JobContext[Any]) -> Iterator[None]:
        log.append(f"outer in {ctx.attempt}")
        where.set("around")
        threads.setdefault(ctx.task, set()).add(get_ident())
        yield
        log.append("outer out")

    @app.around
    @contextlib.contextmanager
    def inner(ctx: JobContext[Any]) -> Iterator[None]:
        log.append("inner in")
        yield
        log.append("inner out")

    @app.task(name="a")
    async def a() -> str:
        threads["a"].add(get_ident())
        await asyncio.sleep(0)
        return where.get()

    @app.task(name="b")
    def b() -> str:
        threads["b"].add(get_ident())
        return where.get()

    jobs = [a.enqueue(), b.enqueue()]
    app.worker(concurrency=1).run_until_idle()

    assert [job.result(timeout=1) for job in jobs] == ["around", "around"]
    assert log == ["outer in 1", "inner in", "inner out", "outer out"] * 2
    assert [len(found) for found in threads.values()] == [1, 1]


def test_async_arounds_surround_sync_tasks_too(tmp_path: Path) -> None:
    app = make(tmp_path)
    log: list[str] = []

    @app.around
    async def around(ctx: JobContext[Any]) -> AsyncIterator[None]:
        where.set("async around")
        await asyncio.sleep(0)
        log.append(f"in {ctx.task}")
        yield
        log.append(f"out {ctx.task}")

    @app.task(name="a")
    async def a() -> str:
        return where.get()

    @app.task(name="b")
    def b() -> str:
        return where.get()

    jobs = [a.enqueue(), b.enqueue()]
    app.worker(concurrency=1).run_until_idle()

    assert [job.result(timeout=1) for job in jobs] == ["async around"] * 2
    assert log == ["in a", "out a", "in b", "out b"]


@pytest.mark.parametrize("kind", ["async", "thread"])
def test_an_around_sees_the_error_and_the_time_limit_as_what_it_is(tmp_path: Path, kind: str) -> None:
    app = make(tmp_path)
    seen: list[str] = []

    @app.around
    @contextlib.contextmanager
    def around(ctx: JobContext[Any]) -> Iterator[None]:
        try:
            yield
        except (ValueError, JobTimeout) as error:
            seen.append(type(error).__name__)
            raise

    if kind == "async":

        @app.task(retry=False, name="t")
        async def task(hang: bool) -> None:
            if not hang:
                raise ValueError
            await asyncio.sleep(60)
    else:

        @app.task(retry=False, name="t")
        def task(hang: bool) -> None:
            if not hang:
                raise ValueError
            for _ in range(6000):
                __import__("time").sleep(0.01)

    app.enqueue_many([task.job(False), task.using(timeout=0.1).job(True)])
    counts = app.worker(concurrency=1).run_until_idle()

    assert counts == {Outcome.DEAD: 2}
    assert seen[0] == "ValueError"
    assert "JobTimeout" in seen[1]


def test_an_error_in_an_around_fails_the_attempt(tmp_path: Path) -> None:
    app = make(tmp_path)

    @app.around
    @contextlib.contextmanager
    def around(ctx: JobContext[Any]) -> Iterator[None]:
        raise LookupError("no tenant")
        yield

    @app.task(retry=False)
    async def noop() -> None: ...

    job = noop.enqueue()
    app.worker().run_until_idle()

    assert (job.refresh().state, job.attempts[0].message) == ("dead", "no tenant")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_on_dead_is_called_once_with_the_job_and_the_error(tmp_path: Path, kind: str) -> None:
    app = make(tmp_path)
    calls: list[tuple[str, str, str]] = []

    @app.task(retry=__import__("dayjob").Retry(max_attempts=3, backoff="fixed", base=0, jitter=0))
    async def fail() -> None:
        raise ValueError("bad luck")

    if kind == "sync":

        @fail.on_dead
        def dead(job: Any, error: BaseException) -> None:
            calls.append((job.id, str(job.state), repr(error)))
    else:

        @fail.on_dead
        async def dead_async(job: Any, error: BaseException) -> None:
            await asyncio.sleep(0)
            calls.append((job.id, str(job.state), repr(error)))

    job = fail.enqueue()
    app.worker().run_until_idle()

    assert calls == [(job.id, "dead", "ValueError('bad luck')")]


def test_an_on_dead_hook_that_raises_is_reported_and_hurts_nothing(tmp_path: Path) -> None:
    app = make(tmp_path)
    witness = Witness(app.bus)

    @app.task(retry=False)
    async def fail() -> None:
        raise ValueError

    @fail.on_dead
    def dead(job: Any, error: BaseException) -> None:
        raise OSError("no mail today")

    job = fail.enqueue()
    app.worker().run_until_idle()

    assert job.refresh().state == "dead"
    failed = witness.wait_for("hook.failed")
    assert (failed.hook, failed.id, failed.error) == ("on_dead", job.id, "OSError: no mail today")


def test_a_subscriber_that_raises_never_hurts_the_worker(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = make(tmp_path)

    @app.on("job.completed")
    def broken(event: Any) -> None:
        raise RuntimeError("broken subscriber")

    @app.task
    async def noop() -> None: ...

    app.enqueue_many([noop.job() for _ in range(3)])
    counts = app.worker().run_until_idle()

    assert counts == {Outcome.COMPLETED: 3}
    assert sum("broken" in record.getMessage() for record in caplog.records) == 1
