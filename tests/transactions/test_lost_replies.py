"""A commit whose answer is lost: nobody here knows how it ended, and the job ends as the server decided."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from dayjob import JobContext, Retry
from tests.contract.engines import Postgres18
from tests.servers.proxy import Proxy
from tests.servers.wire.postgres import PostgresWire
from tests.transactions.conftest import Stage
from tests.transactions.kinds import Psycopg, settle

JOBS = 12
OFTEN = Retry(max_attempts=10, backoff="fixed", base=0, jitter=0)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Postgres18]:
    engine = Postgres18(tmp_path)
    yield engine
    engine.close()


@pytest.fixture
def proxy(engine: Postgres18) -> Iterator[Proxy]:
    with Proxy(engine.server.port, PostgresWire) as proxy:
        yield proxy


@pytest.fixture
def stage(engine: Postgres18) -> Iterator[Stage]:
    found = Stage(engine, Psycopg)
    with found.app:
        yield found


def bad_line(engine: Postgres18, proxy: Proxy) -> str:
    return engine.server.url(engine.database, port=proxy.port)


def test_in_a_transaction_of_the_tasks_own(stage: Stage, engine: Postgres18, proxy: Proxy) -> None:
    @stage.app.task(name="shop.pay", retry=OFTEN)
    def pay(ctx: JobContext[Any]) -> Any:
        with closing(psycopg.connect(bad_line(engine, proxy))) as connection:
            connection.execute("INSERT INTO effect VALUES (%s)", (ctx.id,))
            ctx.complete_in(connection, ctx.attempt)
            connection.commit()

    check(stage, proxy, pay)


def test_in_one_that_is_awaited(stage: Stage, engine: Postgres18, proxy: Proxy) -> None:
    @stage.app.task(name="shop.pay", retry=OFTEN)
    async def pay(ctx: JobContext[Any]) -> Any:
        connection = await asyncpg.connect(bad_line(engine, proxy))
        try:
            async with connection.transaction():
                await connection.execute("INSERT INTO effect VALUES ($1)", ctx.id)
                await ctx.acomplete_in(connection, ctx.attempt)
        finally:
            await connection.close()
            await settle()

    check(stage, proxy, pay)


def test_on_dayjobs_connection(engine: Postgres18, proxy: Proxy) -> None:
    stage = Stage(engine, Psycopg)
    stage.app.url = bad_line(engine, proxy)

    @stage.app.task(name="shop.pay", retry=OFTEN)
    def pay(ctx: JobContext[Any]) -> Any:
        with ctx.transaction() as tx:
            tx.execute("INSERT INTO effect VALUES (%s)", (ctx.id,))
            tx.result = ctx.attempt

    with stage.app:
        check(stage, proxy, pay)


def check(stage: Stage, proxy: Proxy, pay: Any) -> None:
    """Every job is completed in its first attempt, with its effect there once, though no commit was answered."""
    seen: list[str] = []
    for name in ("job.completed", "job.raised_late", "job.failed", "lease.lost"):
        stage.app.on(name)(lambda event: seen.append(event.name))
    loss = proxy.lose_replies("complete_job", JOBS)
    jobs = stage.app.enqueue_many([pay.job() for _ in range(JOBS)])
    stage.app.worker(concurrency=4).run_until_idle()

    assert len(loss.texts) == JOBS
    assert {(job.refresh().state, job.result(timeout=1)) for job in jobs} == {("completed", 1)}
    assert stage.effects() == sorted(job.id for job in jobs)
    assert sorted(seen) == ["job.completed"] * JOBS + ["job.raised_late"] * JOBS


def test_a_line_that_breaks_before_the_commit_leaves_nothing(stage: Stage, engine: Postgres18, proxy: Proxy) -> None:
    @stage.app.task(name="shop.pay", retry=OFTEN)
    def pay(ctx: JobContext[Any]) -> Any:
        with closing(psycopg.connect(bad_line(engine, proxy))) as connection:
            connection.execute("INSERT INTO effect VALUES (%s)", (str(ctx.attempt),))
            ctx.complete_in(connection, ctx.attempt)
            if ctx.attempt < 4:
                proxy.cut()
            connection.commit()

    job = pay.enqueue()
    stage.app.worker().run_until_idle()

    assert (job.refresh().state, job.attempt, job.result(timeout=1)) == ("completed", 4, 4)
    assert stage.effects() == ["4"]
