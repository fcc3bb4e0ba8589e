"""`ctx.complete_in(...)`: with every kind of connection, a job is completed when its own transaction is committed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
import sqlalchemy

from dayjob import JobContext
from dayjob.errors import ConfigError, LeaseLost
from dayjob.states import Outcome
from dayjob.store.records import Filter, Lease, Settlement
from dayjob.worker import completions
from tests.transactions.conftest import TWICE, Stage
from tests.transactions.kinds import Psycopg, Side, at_once, settle

Body = Callable[[JobContext[Any], Side], Awaitable[Any]]


def ran(stage: Stage, body: Body, *, runs: int | None = None) -> tuple[Any, list[str], list[Any]]:
    """A job whose function is *body*, with a connection of its own: the job, names of what happened, and all events."""

    async def whole(ctx: JobContext[Any]) -> Any:
        async with stage.kind.opened(stage.url) as side:
            return await body(ctx, side)

    if stage.kind.awaited:

        @stage.app.task(name="shop.pay", retry=TWICE)
        async def pay(ctx: JobContext[Any]) -> Any:
            return await whole(ctx)
    else:

        @stage.app.task(name="shop.pay", retry=TWICE)
        def pay(ctx: JobContext[Any]) -> Any:
            return at_once(whole(ctx))

    seen: list[Any] = []
    stage.app.on("*")(lambda event: seen.append(event) if getattr(event, "id", "") == job.id else None)
    job: Any = pay.job()
    job = stage.app.enqueue_many([job])[0]
    stage.app.worker().run_until_idle()
    names = [event.name for event in seen if event.name not in ("job.enqueued", "job.started", "job.logged")]
    return job.refresh(), names, seen


def test_the_job_completes_with_its_writes(stage: Stage) -> None:
    async def body(ctx: JobContext[Any], side: Side) -> None:
        ctx.log.info("paying")
        await side.note("paid")
        await side.complete(ctx, {"receipt": 7})
        await side.commit()

    job, happened, _ = ran(stage, body)

    assert (job.state, job.attempt, job.result(timeout=1)) == ("completed", 1, {"receipt": 7})
    assert stage.effects() == ["paid"]
    assert [line.message for line in job.logs()] == ["paying"]
    assert happened == ["job.completed"]


def test_an_error_before_the_commit_undoes_both_and_the_attempt_fails(stage: Stage) -> None:
    async def body(ctx: JobContext[Any], side: Side) -> None:
        ctx.log.info("paying")
        await side.note(f"paid {ctx.attempt}")
        await side.complete(ctx, 1)
        if ctx.attempt == 1:
            await side.rollback()
            raise ZeroDivisionError
        await side.commit()

    job, happened, _ = ran(stage, body)

    assert (job.state, job.attempt) == ("completed", 2)
    assert [attempt.outcome for attempt in job.attempts] == ["failed", "completed"]
    assert stage.effects() == ["paid 2"]
    assert [line.message for line in job.logs()] == ["paying", "paying"]
    assert happened == ["job.failed", "job.retried", "job.completed"]


def test_an_error_after_the_commit_is_told_and_changes_nothing(stage: Stage) -> None:
    async def body(ctx: JobContext[Any], side: Side) -> None:
        await side.note("paid")
        await side.complete(ctx, 1)
        await side.commit()
        raise ZeroDivisionError("too late")

    job, happened, seen = ran(stage, body)
    [late] = [event for event in seen if event.name == "job.raised_late"]

    assert (job.state, job.result(timeout=1)) == ("completed", 1)
    assert stage.effects() == ["paid"]
    assert happened == ["job.raised_late", "job.completed"]
    assert (late.error_type, late.error) == ("ZeroDivisionError", "too late")
    assert "test_completion.py" in late.traceback


def test_who_returns_without_a_commit_has_failed_and_is_told_why(stage: Stage) -> None:
    async def body(ctx: JobContext[Any], side: Side) -> None:
        await side.note("paid")
        await side.complete(ctx, 1)
        await side.rollback()

    job, happened, _ = ran(stage, body)

    assert job.state == "dead"
    assert "NotCommitted" in job.error.type
    assert "Commit before the function returns" in job.error.message
    assert stage.effects() == []
    assert happened == ["job.failed", "job.retried", "job.failed", "job.dead"]


def test_a_lost_lease_refuses_the_whole(stage: Stage) -> None:
    told: list[BaseException] = []

    async def body(ctx: JobContext[Any], side: Side) -> None:
        if ctx.attempt == 1 and not told:
            take_away(stage, ctx)
            await side.note("paid")
            try:
                await side.complete(ctx, 1)
            except LeaseLost as error:
                told.append(error)
                await side.rollback()
                raise
        await side.note("paid again")
        await side.complete(ctx, 2)
        await side.commit()

    job, happened, _ = ran(stage, body)

    assert len(told) == 1
    assert (job.state, job.result(timeout=1)) == ("completed", 2)
    assert stage.effects() == ["paid again"]
    assert happened == ["lease.lost", "job.completed"]


def take_away(stage: Stage, ctx: JobContext[Any]) -> None:
    """Let the running job change hands: its worker gives it back without knowing."""
    run: Any = ctx._host
    store, lease = stage.app.store, run.lease
    now = store.now()
    released = Settlement(ctx.id, lease.entry, Outcome.RELEASED, 0, now, reason="taken away")
    assert store.turn(lease.worker, None, [released]).refused == []


def test_it_may_be_tried_again_after_a_conflict(stage: Stage) -> None:
    async def body(ctx: JobContext[Any], side: Side) -> None:
        for result in (1, 2):
            await side.note(f"paid {result}")
            await side.complete(ctx, result)
            if result == 1:
                await side.rollback()
        await side.commit()

    job, happened, _ = ran(stage, body)

    assert (job.state, job.attempt, job.result(timeout=1)) == ("completed", 1, 2)
    assert stage.effects() == ["paid 2"]
    assert happened == ["job.completed"]


def test_but_it_completes_once(stage: Stage) -> None:
    async def body(ctx: JobContext[Any], side: Side) -> str:
        await side.complete(ctx, "first")
        await side.commit()
        with pytest.raises(ConfigError, match="complete once"):
            await side.complete(ctx, "second")
        await side.rollback()
        with pytest.raises(ConfigError, match="in which the job completes"):
            ctx.save_checkpoint(1)
        return "third"

    job, happened, _ = ran(stage, body)

    assert job.result(timeout=1) == "first"
    assert happened == ["job.completed"]


def test_who_completes_twice_in_one_transaction_is_told_and_has_not_lost_the_job(stage: Stage) -> None:
    """A lost lease would spend no attempt, and be found again and again."""

    async def body(ctx: JobContext[Any], side: Side) -> None:
        await side.complete(ctx, "first")
        try:
            await side.complete(ctx, "second")
        except ConfigError:
            await side.rollback()
            raise

    job, happened, _ = ran(stage, body)

    assert (job.state, job.attempt, job.error.type) == ("dead", 2, "dayjob.errors.ConfigError")
    assert "has done so there already" in job.error.message
    assert happened == ["job.failed", "job.retried", "job.failed", "job.dead"]


def test_who_completes_on_a_snapshot_older_than_the_claim_is_told_and_has_not_lost_the_job(stage: Stage) -> None:
    if stage.kind is not Psycopg:
        pytest.skip("one kind of connection to PostgreSQL will do; SQLite lets nobody write on an old snapshot")
    with psycopg.connect(stage.url) as old:
        old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        old.execute("SELECT FROM effect")

        async def body(ctx: JobContext[Any], side: Side) -> None:
            ctx.complete_in(old)

        job, happened, _ = ran(stage, body)

    assert (job.state, job.attempt, job.error.type) == ("dead", 2, "dayjob.errors.ConfigError")
    assert "began before the job was claimed" in job.error.message
    assert happened == ["job.failed", "job.retried", "job.failed", "job.dead"]


def test_a_result_that_cannot_be_stored_touches_nothing(stage: Stage) -> None:
    async def body(ctx: JobContext[Any], side: Side) -> str:
        await side.note("written")
        with pytest.raises(ValueError, match="return value"):
            await side.complete(ctx, object())
        await side.commit()
        return "ordinary"

    job, happened, _ = ran(stage, body)

    assert job.result(timeout=1) == "ordinary"
    assert stage.effects() == ["written"]
    assert happened == ["job.completed"]


def test_jobs_enqueued_on_the_way_come_with_it(stage: Stage) -> None:
    async def body(ctx: JobContext[Any], side: Side) -> None:
        await side.enqueue(stage.send, 7)
        await side.complete(ctx)
        await side.commit()

    job, _, _ = ran(stage, body)

    assert job.state == "completed"
    assert stage.app.store.count(Filter(task="shop.send")) == 1


def test_who_waits_for_the_result_hears_it(stage: Stage) -> None:
    async def body(ctx: JobContext[Any], side: Side) -> None:
        await side.complete(ctx, "done")
        await side.commit()

    async def wait() -> Any:
        async def whole(ctx: JobContext[Any]) -> None:
            async with stage.kind.opened(stage.url) as side:
                await body(ctx, side)

        if stage.kind.awaited:

            @stage.app.task(name="shop.wait")
            async def waited(ctx: JobContext[Any]) -> str:
                return await whole(ctx)  # type: ignore[return-value]  # the result was given before
        else:

            @stage.app.task(name="shop.wait")
            def waited(ctx: JobContext[Any]) -> str:
                return at_once(whole(ctx))  # type: ignore[return-value]  # the result was given before

        worker = stage.app.worker()
        working = asyncio.create_task(worker.arun())
        job = await waited.aenqueue()
        try:
            return await job.aresult(timeout=5)
        finally:
            worker.stop(now=True)
            await working

    assert asyncio.run(wait()) == "done"


def test_lines_go_with_the_completion_whoever_was_about_to_write_them(stage: Stage) -> None:
    """The recorder writes ten times a second, and waits for this very transaction (SQLite), or for its job (PostgreSQL)."""

    async def body(ctx: JobContext[Any], side: Side) -> None:
        await side.note("paid")
        ctx.log.info("before")
        time.sleep(0.25)  # noqa: ASYNC251  # it is the only job, and the recorder's turn comes meanwhile
        await side.complete(ctx, 1)
        ctx.log.info("too late to be kept")
        time.sleep(0.25)  # noqa: ASYNC251  # the same
        await side.commit()

    trimmed: list[int] = []
    stage.app.on("writes.trimmed")(lambda event: trimmed.append(event.count))
    job, happened, _ = ran(stage, body)

    assert [line.message for line in job.logs()] == ["before"]
    assert happened == ["job.completed"]
    assert trimmed == [1]


def test_lines_that_are_being_written_are_not_written_twice(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    if stage.app.store.exclusive:
        pytest.skip("there they cannot be written before the end of this transaction")
    record, writing = stage.app.store.record, threading.Event()

    def slowly(lease: Lease, writes: Any, *, now: int | None = None) -> bool:
        writing.set()
        time.sleep(0.1)
        return record(lease, writes, now=now)

    monkeypatch.setattr(stage.app.store, "record", slowly)

    async def body(ctx: JobContext[Any], side: Side) -> None:
        ctx.log.info("once")
        assert writing.wait(5)
        await side.complete(ctx, 1)
        await side.commit()

    job, _, _ = ran(stage, body)

    assert [line.message for line in job.logs()] == ["once"]


def test_the_loop_goes_on_while_lines_are_being_written(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    if stage.app.store.exclusive or not stage.kind.awaited:
        pytest.skip("there is nothing to wait for, or no loop")
    record, writing, turned = stage.app.store.record, threading.Event(), threading.Event()

    def slowly(lease: Lease, writes: Any, *, now: int | None = None) -> bool:
        writing.set()
        turned.wait(10)
        return record(lease, writes, now=now)

    monkeypatch.setattr(stage.app.store, "record", slowly)
    monkeypatch.setattr(completions, "IN_FLIGHT", 5.0)
    took: list[float] = []

    async def body(ctx: JobContext[Any], side: Side) -> None:
        ctx.log.info("once")
        assert writing.wait(5)
        asyncio.get_running_loop().call_soon(turned.set)
        begun = time.monotonic()
        await side.complete(ctx, 1)
        took.append(time.monotonic() - begun)
        await side.commit()

    job, _, _ = ran(stage, body)

    assert took[0] < 5.0
    assert [line.message for line in job.logs()] == ["once"]


def test_a_transaction_that_stays_open_is_waited_for(stage: Stage) -> None:
    if stage.kind.system != "postgresql" or not stage.kind.awaited:
        pytest.skip("where one open transaction stops everybody, or the thread that ends it is the one that waits")
    ended: list[asyncio.Task[None]] = []
    completed = asyncio.Event()

    @stage.app.task(name="shop.later", retry=TWICE)
    async def later(ctx: JobContext[Any]) -> Any:
        side = stage.kind(stage.url)
        await side.open()
        await side.note("paid")
        await side.complete(ctx, "at last")

        async def end() -> None:
            await asyncio.sleep(0.3)
            await side.commit()
            await side.close()
            await settle()

        ended.append(asyncio.create_task(end()))
        completed.set()

    @stage.app.task(name="shop.last")
    async def last() -> None:
        async with asyncio.timeout(10):
            await completed.wait()
            await ended[0]

    seen: list[str] = []
    stage.app.on("*")(lambda event: seen.append(event.name) if getattr(event, "id", "") == job.id else None)
    [job, _] = stage.app.enqueue_many([later.job(), last.job()])
    stage.app.worker().run_until_idle()

    assert (job.refresh().state, job.attempt, job.result(timeout=1)) == ("completed", 1, "at last")
    assert stage.effects() == ["paid"]
    assert seen[-1] == "job.completed"
    assert "lease.lost" not in seen


def test_a_connection_that_commits_by_itself_is_refused(stage: Stage) -> None:
    if not hasattr(stage.kind, "bare"):
        pytest.skip("it begins a transaction by itself")

    async def body(ctx: JobContext[Any], side: Any) -> str:
        async with side.bare():
            with pytest.raises(ConfigError, match="Begin a transaction first"):
                await side.complete(ctx, 1)
        return "ordinary"

    job, happened, _ = ran(stage, body)

    assert job.result(timeout=1) == "ordinary"
    assert happened == ["job.completed"]


def test_a_library_whose_driver_commits_by_itself_is_refused(stage: Stage) -> None:
    """The library believes that it has begun a transaction, and rolls nothing back."""
    if not hasattr(stage.kind, "connect_args") or stage.kind.driver == "asyncpg":
        pytest.skip("no library, or a driver that is told of every transaction")
    by_itself = {"isolation_level": None} if stage.kind.system == "sqlite" else {"autocommit": True}
    stage.kind = type(stage.kind.__name__, (stage.kind,), {"connect_args": by_itself})

    async def body(ctx: JobContext[Any], side: Side) -> None:
        with pytest.raises(ConfigError, match="Begin a transaction first"):
            await side.complete(ctx, 1)
        await side.rollback()
        raise ZeroDivisionError

    job, happened, _ = ran(stage, body)

    assert job.state == "dead"
    assert happened == ["job.failed", "job.retried", "job.failed", "job.dead"]


def test_a_library_that_begins_by_hand_on_such_a_driver_is_not_refused(stage: Stage) -> None:
    """SQLAlchemy's own recipe for SQLite's savepoints."""
    if stage.kind.system != "sqlite" or not hasattr(stage.kind, "connect_args"):
        pytest.skip("nobody would")
    stage.kind = type(stage.kind.__name__, (stage.kind,), {"connect_args": {"isolation_level": None}})

    async def body(ctx: JobContext[Any], side: Side) -> None:
        engine = getattr(side._engine, "sync_engine", side._engine)  # type: ignore[attr-defined]  # told above

        @sqlalchemy.event.listens_for(engine, "begin")
        def begin(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

        await side.note("paid")
        await side.complete(ctx, 1)
        await side.commit()

    job, _, _ = ran(stage, body)

    assert job.result(timeout=1) == 1
    assert stage.effects() == ["paid"]


def test_the_lease_that_a_completion_names_is_the_runs_own(stage: Stage) -> None:
    seen: list[Lease] = []

    async def body(ctx: JobContext[Any], side: Side) -> None:
        seen.append(ctx._host.lease)  # type: ignore[union-attr]  # the host is a run
        await side.complete(ctx, 1)
        seen.append(stage.app.store.standing(seen[0]))  # type: ignore[arg-type]  # told below
        await side.commit()
        seen.append(stage.app.store.standing(seen[0]))  # type: ignore[arg-type]  # told below

    ran(stage, body)

    assert seen[1:] == ["open" if stage.kind.system == "postgresql" else "held", "completed"]
