"""`ctx.transaction()`: dayjob's own connection, on which the job completes as the last statement."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dayjob import ConfigError, JobContext, Settings
from dayjob.errors import TransactionExpired
from dayjob.ids import new_id
from dayjob.store.records import Filter
from dayjob.testing import VirtualClock
from tests.contract.engines import EngineUnderTest, Postgres18, SqliteFile
from tests.transactions.conftest import TWICE, Stage
from tests.transactions.kinds import Psycopg, Sqlite3
from tests.transactions.test_completion import take_away


@pytest.fixture(params=[SqliteFile, Postgres18], ids=lambda engine: engine.name)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    engine: EngineUnderTest = request.param(tmp_path)
    found = Stage(engine, Sqlite3 if request.param is SqliteFile else Psycopg)
    with found.app:
        yield found
    engine.close()


def task(stage: Stage, body: Callable[[JobContext[Any], Any], Any], *, awaited: bool = False, **options: Any) -> Any:
    """A task that calls *body* inside its transaction, and *after* (an option) behind it."""
    after: Callable[[], Any] = options.pop("after", lambda: None)
    limit: float | None = options.pop("limit", None)

    if awaited:

        @stage.app.task(name="shop.pay", retry=TWICE)
        async def pay(ctx: JobContext[Any]) -> Any:
            async with ctx.transaction(timeout=limit) as tx:
                await body(ctx, tx)
            return after()
    else:

        @stage.app.task(name="shop.pay", retry=TWICE)
        def pay(ctx: JobContext[Any]) -> Any:
            with ctx.transaction(timeout=limit) as tx:
                body(ctx, tx)
            return after()

    return pay


def ran(stage: Stage, pay: Any) -> tuple[Any, list[str]]:
    seen: list[str] = []
    stage.app.on("*")(lambda event: seen.append(event.name))
    job = pay.enqueue()
    stage.app.worker().run_until_idle()
    happened = [name for name in seen if name.startswith(("job.", "lease."))]
    return job.refresh(), [name for name in happened if name not in ("job.enqueued", "job.started", "job.logged")]


PAID = "INSERT INTO effect VALUES ('paid')"


def test_the_job_completes_with_the_block(stage: Stage) -> None:
    def body(ctx: JobContext[Any], tx: Any) -> None:
        ctx.log.info("paying")
        tx.execute(PAID)
        assert tx.execute("SELECT count(*) FROM effect").fetchone() == (1,)
        tx.result = {"receipt": 7}

    job, happened = ran(stage, task(stage, body))

    assert (job.state, job.attempt, job.result(timeout=1)) == ("completed", 1, {"receipt": 7})
    assert stage.effects() == ["paid"]
    assert [line.message for line in job.logs()] == ["paying"]
    assert happened == ["job.completed"]


def test_and_so_it_does_when_awaited(stage: Stage) -> None:
    async def body(ctx: JobContext[Any], tx: Any) -> None:
        ctx.log.info("paying")
        await tx.aexecute(PAID)
        assert [tuple(row) for row in await tx.aexecute("SELECT count(*) FROM effect")] == [(1,)]
        await stage.send.aenqueue(1)
        tx.result = 7

    job, happened = ran(stage, task(stage, body, awaited=True))

    assert (job.state, job.result(timeout=1)) == ("completed", 7)
    assert stage.effects() == ["paid"]
    assert stage.app.store.count(Filter(task="shop.send")) == 1
    assert happened == ["job.completed", "job.completed"]


@pytest.mark.parametrize("awaited", [False, True])
def test_an_error_in_it_undoes_everything_and_the_attempt_fails(stage: Stage, awaited: bool) -> None:
    async def abody(ctx: JobContext[Any], tx: Any) -> None:
        await tx.aexecute(PAID)
        await stage.send.aenqueue(1)
        raise ZeroDivisionError

    def body(ctx: JobContext[Any], tx: Any) -> None:
        tx.execute(PAID)
        stage.send.enqueue(1)
        raise ZeroDivisionError

    job, happened = ran(stage, task(stage, abody if awaited else body, awaited=awaited))

    assert (job.state, job.error.type) == ("dead", "ZeroDivisionError")
    assert stage.effects() == []
    assert stage.app.store.count(Filter(task="shop.send")) == 0
    assert happened == ["job.failed", "job.retried", "job.failed", "job.dead"]


@pytest.mark.parametrize("awaited", [False, True])
def test_an_error_after_it_is_told_and_changes_nothing(stage: Stage, awaited: bool) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    async def abody(ctx: JobContext[Any], tx: Any) -> None:
        tx.result = 1

    def body(ctx: JobContext[Any], tx: Any) -> None:
        tx.result = 1

    job, happened = ran(stage, task(stage, abody if awaited else body, awaited=awaited, after=fail))

    assert (job.state, job.result(timeout=1)) == ("completed", 1)
    assert happened == ["job.raised_late", "job.completed"]


def test_a_value_that_nobody_gets_is_told(stage: Stage) -> None:
    job, happened = ran(stage, task(stage, lambda ctx, tx: None, after=lambda: "lost"))

    assert (job.state, job.result(timeout=1)) == ("completed", None)
    assert happened == ["job.raised_late", "job.completed"]


def test_a_lost_lease_undoes_everything(stage: Stage) -> None:
    taken: list[int] = []

    def body(ctx: JobContext[Any], tx: Any) -> None:
        if not taken:
            taken.append(1)
            if stage.kind is Psycopg:
                take_away(stage, ctx)
                tx.execute(PAID)
        tx.execute("INSERT INTO effect VALUES ('once')")
        tx.result = len(taken)

    if stage.kind is Sqlite3:  # there nobody can take it away in the middle: it is taken before

        @stage.app.task(name="shop.before", retry=TWICE)
        def pay(ctx: JobContext[Any]) -> None:
            if not taken:
                taken.append(1)
                take_away(stage, ctx)
                with ctx.transaction() as tx:
                    tx.execute(PAID)
            with ctx.transaction() as tx:
                tx.execute("INSERT INTO effect VALUES ('once')")
    else:
        pay = task(stage, body)

    job, happened = ran(stage, pay)

    assert job.state == "completed"
    assert stage.effects() == ["once"]
    assert happened == ["lease.lost", "job.completed"]


def test_past_its_limit_it_is_undone_and_the_error_says_so(stage: Stage) -> None:
    def body(ctx: JobContext[Any], tx: Any) -> None:
        tx.execute(PAID)
        give_up = time.monotonic() + 5
        while ctx.attempt == 1 and time.monotonic() < give_up:
            time.sleep(0.01)
            tx.execute("SELECT 1")

    job, happened = ran(stage, task(stage, body, limit=0.1))

    assert (job.state, job.attempt) == ("completed", 2)
    assert stage.effects() == ["paid"]
    assert "TransactionExpired" in job.attempts[0].error_type
    assert "0.1 s" in job.attempts[0].message
    assert happened == ["job.failed", "job.retried", "job.completed"]


def test_on_sqlite_a_second_is_enough(tmp_path: Path) -> None:
    """It holds the only write lock: others wait, and get through."""
    stage = Stage(SqliteFile(tmp_path), Sqlite3)
    began = threading.Event()

    def body(ctx: JobContext[Any], tx: Any) -> None:
        tx.execute(PAID)
        if ctx.attempt == 1:
            began.set()
            time.sleep(1.2)

    with stage.app:
        worker = stage.app.worker()
        pay = task(stage, body)
        job = pay.enqueue()
        thread = threading.Thread(target=worker.run_until_idle)
        thread.start()
        began.wait(5)
        before = time.monotonic()
        stage.send.enqueue(1)
        waited = time.monotonic() - before
        thread.join()

        assert 0.3 < waited < 2.0
        assert job.refresh().attempts[0].error_type.endswith("TransactionExpired")
        assert job.state == "completed"


def test_many_jobs_at_once_have_it_one_after_the_other(stage: Stage) -> None:
    """More than there are threads for dayjob's own work: nobody who waits may be in the way of who has it."""

    async def body(ctx: JobContext[Any], tx: Any) -> None:
        await tx.aexecute(f"INSERT INTO effect VALUES ('{ctx.id}')")
        await asyncio.sleep(0.01)
        await tx.aexecute("SELECT 1")

    pay = task(stage, body, awaited=True)
    jobs = stage.app.enqueue_many([pay.job() for _ in range(30)])
    counts = stage.app.worker(concurrency=20).run_until_idle()

    assert counts == {"completed": 30}
    assert stage.effects() == sorted(job.id for job in jobs)


def test_a_job_that_has_completed_makes_room_for_the_next_at_once(tmp_path: Path) -> None:
    """No turn settles it, and a turn is what asks for more."""
    stage = Stage(SqliteFile(tmp_path), Sqlite3)
    pay = task(stage, lambda ctx, tx: tx.execute(PAID))
    with stage.app:
        stage.app.settings = Settings(poll=5.0)
        jobs = stage.app.enqueue_many([pay.job() for _ in range(8)])
        before = time.monotonic()
        worker = stage.app.worker(concurrency=1)
        thread = threading.Thread(target=worker.run)
        thread.start()
        for job in jobs:
            job.join(timeout=5)
        took = time.monotonic() - before
        worker.stop(now=True)
        thread.join(10)

        assert took < 3.0


def test_one_that_is_cancelled_lets_go(stage: Stage) -> None:
    """The time limit strikes inside the block, while a statement is under way."""

    @stage.app.task(name="shop.slow", retry=TWICE, timeout=0.2)
    async def slow(ctx: JobContext[Any]) -> None:
        async with ctx.transaction(timeout=5) as tx:
            await tx.aexecute(PAID)
            if ctx.attempt == 1:
                await asyncio.sleep(5)

    job, _ = ran(stage, slow)

    assert (job.state, job.attempts[0].error_type) == ("completed", "dayjob.errors.JobTimeout")
    assert stage.effects() == ["paid"]


def endless(stage: Stage) -> str:
    if stage.kind is Sqlite3:
        return "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    return "SELECT pg_sleep(15)"


@pytest.mark.parametrize("awaited", [False, True])
def test_p2_a_statement_past_the_jobs_time_limit_has_ended_before_the_next_attempt(stage: Stage, awaited: bool) -> None:
    runs: list[float] = []

    @stage.app.task(name="shop.slow", retry=TWICE, timeout=0.3)
    async def aslow(ctx: JobContext[Any]) -> None:
        runs.append(time.monotonic())
        async with ctx.transaction(timeout=15) as tx:
            await tx.aexecute(PAID)
            if ctx.attempt == 1:
                await tx.aexecute(endless(stage))

    @stage.app.task(name="shop.slow_in_a_thread", retry=TWICE, timeout=0.3)
    def slow(ctx: JobContext[Any]) -> None:
        runs.append(time.monotonic())
        with ctx.transaction(timeout=15) as tx:
            tx.execute(PAID)
            if ctx.attempt == 1:
                tx.execute(endless(stage))

    job, happened = ran(stage, aslow if awaited else slow)

    assert (job.state, job.attempts[0].error_type) == ("completed", "dayjob.errors.JobTimeout")
    assert stage.effects() == ["paid"]
    assert runs[1] - runs[0] < 3.0
    assert happened == ["job.interrupted", "job.failed", "job.retried", "job.completed"]


def test_an_enqueue_in_it_is_broken_off_too(stage: Stage) -> None:
    """Another transaction has the id, and does not end."""
    if stage.kind is Sqlite3:
        pytest.skip("there nobody else can write meanwhile")
    id = new_id()

    @stage.app.task(name="shop.slow", retry=False, timeout=0.3)
    async def slow(ctx: JobContext[Any]) -> None:
        async with ctx.transaction():
            await stage.send.using(id=id).aenqueue(1)

    with stage.connect() as other:
        stage.send.using(conn=other, id=id).enqueue(1)
        before = time.monotonic()
        job, _ = ran(stage, slow)
        took = time.monotonic() - before

        assert (job.state, job.error.type) == ("dead", "dayjob.errors.JobTimeout")
        assert took < 3.0


def test_who_stops_waiting_for_a_statement_has_broken_off_the_whole(stage: Stage) -> None:
    @stage.app.task(name="shop.impatient", retry=False)
    async def impatient(ctx: JobContext[Any]) -> None:
        async with ctx.transaction(timeout=15) as tx:
            await tx.aexecute(PAID)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(tx.aexecute(endless(stage)), 0.1)

    job, _ = ran(stage, impatient)

    assert (job.state, stage.effects()) == ("dead", [])
    assert "broken off" in job.error.message


WAYS = ["raises", "returns", "interrupted on the way out"]


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("how", WAYS)
def test_whoever_ends_without_leaving_it_holds_nothing_any_more(
    stage: Stage, how: str, awaited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt may come at any moment of its end; and the next attempt must not meet it."""
    kept: list[Any] = []

    def enter(ctx: JobContext[Any]) -> Any:
        kept.append(ctx.transaction(timeout=15))
        if how.startswith("interrupted") and ctx.attempt == 1:
            kept[-1]._leave = lambda: 1 / 0
        return kept[-1]

    def leave(ctx: JobContext[Any]) -> bool:
        if ctx.attempt == 1 and how == "raises":
            raise ZeroDivisionError
        return ctx.attempt == 2 or how.startswith("interrupted")

    @stage.app.task(name="shop.astray", retry=TWICE)
    async def aastray(ctx: JobContext[Any]) -> None:
        tx = await enter(ctx).__aenter__()
        await tx.aexecute(PAID)
        if leave(ctx):
            await tx.__aexit__(None, None, None)

    @stage.app.task(name="shop.astray_in_a_thread", retry=TWICE)
    def astray(ctx: JobContext[Any]) -> None:
        tx = enter(ctx).__enter__()
        tx.execute(PAID)
        if leave(ctx):
            tx.__exit__(None, None, None)

    job, _ = ran(stage, aastray if awaited else astray)

    assert (job.state, job.attempt) == ("completed", 2)
    expected = "dayjob.errors.NotCommitted" if how == "returns" else "ZeroDivisionError"
    assert job.attempts[0].error_type == expected
    assert stage.effects() == ["paid"]


def test_one_that_is_cancelled_while_it_waits_its_turn_takes_none(tmp_path: Path) -> None:
    stage = Stage(SqliteFile(tmp_path), Sqlite3)

    @stage.app.task(name="shop.wait", retry=1, timeout=0.2)
    async def wait(ctx: JobContext[Any]) -> None:
        async with ctx.transaction():
            raise AssertionError("never entered")

    with stage.app:
        lending = stage.app.store.db._lending  # type: ignore[attr-defined]  # as if another job of the process had its turn
        job = wait.enqueue()
        assert lending.enter(stage, 1)
        stage.app.worker().run_until_idle()
        died = job.refresh().state
        lending.leave(stage)
        before = time.monotonic()
        stage.send.enqueue(1)

        assert died == "dead"
        assert time.monotonic() - before < 3  # with the turn lost, it would wait as long as for another process


def test_what_would_wait_for_itself_is_refused(stage: Stage) -> None:
    refused: list[str] = []

    def body(ctx: JobContext[Any], tx: Any) -> None:
        for wrong in (
            lambda: ctx.save_checkpoint(1),
            lambda: ctx.transaction().__enter__(),
            lambda: ctx.complete_in(tx.connection),
            tx.__enter__,
        ):
            with pytest.raises(ConfigError) as error:
                wrong()
            refused.append(str(error.value))

    job, _ = ran(stage, task(stage, body))

    assert job.state == "completed"
    assert len(refused) == 4


def test_after_its_block_it_writes_nothing_neither_by_itself_nor_into_the_transaction_of_another_job(
    stage: Stage,
) -> None:
    kept: list[Any] = []
    refused: list[str] = []

    def body(ctx: JobContext[Any], tx: Any) -> None:
        tx.execute(PAID)
        for old in kept:
            for use in (lambda: old.execute(PAID), lambda: old.connection):  # noqa: B023  # called here
                with pytest.raises(ConfigError, match="is over") as error:
                    use()
                refused.append(str(error.value))
        kept.append(tx)

    pay = task(stage, body, after=lambda: kept[-1].execute("INSERT INTO effect VALUES ('behind the block')"))
    for _ in range(2):
        job, happened = ran(stage, pay)

        assert job.state == "completed"
        assert "job.raised_late" in happened
    assert stage.effects() == ["paid", "paid"]
    assert len(refused) == 2


def test_and_so_it_is_when_awaited(stage: Stage) -> None:
    kept: list[Any] = []

    @stage.app.task(name="shop.pay", retry=TWICE)
    async def pay(ctx: JobContext[Any]) -> None:
        for wrong in (ZeroDivisionError, None):
            with suppress(ZeroDivisionError):
                async with ctx.transaction() as tx:
                    kept.append(tx)
                    if wrong:
                        raise wrong
            with pytest.raises(ConfigError, match="is over"):
                await tx.aexecute(PAID)

    job, happened = ran(stage, pay)

    assert (job.state, happened) == ("completed", ["job.completed"])
    assert stage.effects() == []


def test_a_second_one_is_refused_when_the_job_has_completed(stage: Stage) -> None:
    @stage.app.task(name="shop.twice")
    def twice(ctx: JobContext[Any]) -> None:
        with ctx.transaction() as tx:
            tx.execute(PAID)
        with pytest.raises(ConfigError, match="complete once"), ctx.transaction():
            raise AssertionError("never entered")

    job, happened = ran(stage, twice)

    assert job.state == "completed"
    assert happened == ["job.completed"]


def test_after_an_error_inside_it_may_be_tried_again(stage: Stage) -> None:
    @stage.app.task(name="shop.again")
    def again(ctx: JobContext[Any]) -> None:
        for wrong in (True, False):
            try:
                with ctx.transaction() as tx:
                    tx.execute(PAID)
                    if wrong:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                continue

    job, _ = ran(stage, again)

    assert job.state == "completed"
    assert stage.effects() == ["paid"]


def test_in_a_direct_call_the_writes_are_committed_and_nothing_completes(stage: Stage) -> None:
    def body(ctx: JobContext[Any], tx: Any) -> None:
        tx.execute(PAID)
        stage.send.enqueue(1)

    pay = task(stage, body)
    pay()

    assert stage.effects() == ["paid"]
    assert stage.app.jobs.count() == 1


def test_an_expired_one_says_so_in_a_direct_call_too(stage: Stage) -> None:
    def body(ctx: JobContext[Any], tx: Any) -> None:
        tx.execute(PAID)
        time.sleep(0.3)

    with pytest.raises(TransactionExpired):
        task(stage, body, limit=0.05)()
    assert stage.effects() == []


def test_a_context_without_an_app_has_none() -> None:
    with pytest.raises(ConfigError, match="needs an app"):
        JobContext.detached("task").transaction()
    JobContext.detached("task").complete_in(object(), 1)  # nothing to complete


class TestUnderTest:
    """With `app.testing()` tasks that complete in transactions run as they are."""

    def test_with_dayjobs_connection(self, stage: Stage) -> None:
        def body(ctx: JobContext[Any], tx: Any) -> None:
            tx.execute("CREATE TABLE effect (note text)")
            stage.send.enqueue(1)
            tx.result = 7

        pay = task(stage, body)
        with stage.app.testing(clock=VirtualClock()) as t:
            job = pay.enqueue()
            t.drain()

            assert job.refresh().result(timeout=1) == 7
            assert t.assert_enqueued(stage.send).state == "completed"

    @pytest.mark.parametrize("wrong", [False, True])
    def test_with_a_connection_of_their_own(self, stage: Stage, wrong: bool) -> None:
        @stage.app.task(name="shop.own", retry=1)
        def own(ctx: JobContext[Any]) -> Any:
            ctx.complete_in(object(), 7)
            if wrong:
                raise ZeroDivisionError

        with stage.app.testing() as t:
            job = own.enqueue()
            t.drain(raises=False)

            assert job.refresh().state == ("dead" if wrong else "completed")
            assert wrong or job.result(timeout=1) == 7

    def test_a_context_of_the_tests_own_keeps_what_was_completed(self, stage: Stage) -> None:
        @stage.app.task(name="shop.own")
        def own(ctx: JobContext[Any]) -> Any:
            ctx.complete_in(object(), 7)

        with stage.app.testing() as t:
            context = t.context(own)
            own.fn(context)

            assert context.completed == [7]
