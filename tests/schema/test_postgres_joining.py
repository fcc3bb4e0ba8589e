"""Jobs on connections of callers: what only this engine has to get right."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import dayjob.store
from dayjob import App, JobContext
from dayjob.errors import ConfigError
from tests.contract.engines import Postgres, Postgres15, Postgres18

if "postgresql" not in dayjob.store.ENGINES:
    pytest.skip("this release has no PostgreSQL engine", allow_module_level=True)


@pytest.fixture(params=(Postgres18, Postgres15), ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Postgres]:
    """A migrated database."""
    engine: Postgres = request.param(tmp_path)
    engine.store()
    yield engine
    engine.close()


@pytest.fixture
def app(engine: Postgres) -> Iterator[App]:
    """An app on it."""
    with App(engine.url) as app:
        yield app


@pytest.fixture
def send(app: App) -> Any:
    """A task."""

    @app.task(name="shop.send")
    def send(order: int) -> int:
        return order

    return send


# -- where a connection leads


def test_another_installation_in_a_database_of_the_same_name_is_not_taken_for_ours(
    engine: Postgres, app: App, send: Any
) -> None:
    """Two servers may each have a database of that name. Or ours was made anew while we ran, and is taken for ours again."""
    with psycopg.connect(engine.url) as connection:
        send.using(conn=connection).enqueue(1)
    engine.server.sql("UPDATE dayjob.cluster SET id = gen_random_uuid()", database=engine.database)

    with (
        psycopg.connect(engine.url) as connection,
        pytest.raises(ConfigError, match=f"{engine.database} on 127.0.0.1:{engine.server.port}"),
    ):
        send.using(conn=connection).enqueue(2)
    with psycopg.connect(engine.url) as connection:
        job = send.using(conn=connection).enqueue(3)

    assert job.outcome == "inserted"
    assert app.jobs.count() == 2


def test_a_loop_does_not_stand_still_while_it_is_learnt_where_the_jobs_are(
    engine: Postgres, app: App, send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = app.store
    home, asked = store.db.home, []

    def observed() -> str:
        if not store.located:
            asked.append(threading.current_thread())
        return str(home())

    monkeypatch.setattr(store.db, "home", observed)

    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(engine.url) as connection:
            for order in (1, 2):
                await send.using(conn=connection).aenqueue(order)

    asyncio.run(main())

    assert len(asked) == 1
    assert asked[0] is not threading.main_thread()


# -- drivers


@pytest.mark.parametrize("verb", ["sync", "async"])
def test_in_a_pipeline_the_answer_is_waited_for(engine: Postgres, app: App, send: Any, verb: str) -> None:
    async def main() -> Any:
        async with await psycopg.AsyncConnection.connect(engine.url) as connection, connection.pipeline():
            return await send.using(conn=connection).aenqueue(1)

    if verb == "async":
        job = asyncio.run(main())
    else:
        with psycopg.connect(engine.url) as connection, connection.pipeline():
            job = send.using(conn=connection).enqueue(1)

    assert job.outcome == "inserted"
    assert job.refresh().state == "available"


def test_a_job_completes_in_a_pipeline(engine: Postgres, app: App) -> None:
    @app.task(name="shop.pay", retry=False)
    def pay(ctx: JobContext[Any]) -> Any:
        with psycopg.connect(engine.url) as connection, connection.pipeline():
            ctx.complete_in(connection, "paid")

    job = pay.enqueue()
    app.worker().run_until_idle()

    assert job.result(timeout=1) == "paid"
