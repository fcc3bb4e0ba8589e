"""Jobs on connections of callers: what only this engine has to get right."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import dayjob.store
from dayjob import App, JobContext
from dayjob.errors import ConfigError
from tests.contract.engines import Postgres

if "postgresql" not in dayjob.store.ENGINES:
    pytest.skip("this release has no PostgreSQL engine", allow_module_level=True)


@pytest.fixture
def app(place: Postgres) -> Iterator[App]:
    """An app on it."""
    with App(place.url) as app:
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
    place: Postgres, app: App, send: Any
) -> None:
    """Two servers may each have a database of that name. Or ours was made anew while we ran, and is taken for ours again."""
    with psycopg.connect(place.url) as connection:
        send.using(conn=connection).enqueue(1)
    place.server.sql("UPDATE dayjob.cluster SET id = gen_random_uuid()", database=place.database)

    with (
        psycopg.connect(place.url) as connection,
        pytest.raises(ConfigError, match=f"{place.database} on 127.0.0.1:{place.server.port}"),
    ):
        send.using(conn=connection).enqueue(2)
    with psycopg.connect(place.url) as connection:
        job = send.using(conn=connection).enqueue(3)

    assert job.outcome == "inserted"
    assert app.jobs.count() == 2


def test_a_loop_does_not_stand_still_while_it_is_learnt_where_the_jobs_are(
    place: Postgres, app: App, send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = app.store
    home, asked = store.db.home, []

    def observed() -> str:
        if not store.located:
            asked.append(threading.current_thread())
        return str(home())

    monkeypatch.setattr(store.db, "home", observed)

    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(place.url) as connection:
            for order in (1, 2):
                await send.using(conn=connection).aenqueue(order)

    asyncio.run(main())

    assert len(asked) == 1
    assert asked[0] is not threading.main_thread()


# -- drivers


@pytest.mark.parametrize("verb", ["sync", "async"])
def test_in_a_pipeline_the_answer_is_waited_for(place: Postgres, app: App, send: Any, verb: str) -> None:
    async def main() -> Any:
        async with await psycopg.AsyncConnection.connect(place.url) as connection, connection.pipeline():
            return await send.using(conn=connection).aenqueue(1)

    if verb == "async":
        job = asyncio.run(main())
    else:
        with psycopg.connect(place.url) as connection, connection.pipeline():
            job = send.using(conn=connection).enqueue(1)

    assert job.outcome == "inserted"
    assert job.refresh().state == "available"


def test_a_job_completes_in_a_pipeline(place: Postgres, app: App) -> None:
    @app.task(name="shop.pay", retry=False)
    def pay(ctx: JobContext[Any]) -> Any:
        with psycopg.connect(place.url) as connection, connection.pipeline():
            ctx.complete_in(connection, "paid")

    job = pay.enqueue()
    app.worker().run_until_idle()

    assert job.result(timeout=1) == "paid"


# -- what a transaction holds


@pytest.mark.parametrize("how", ["python", "sql"])
def test_the_locks_of_a_transaction_do_not_grow_with_the_days_of_the_history(
    place: Postgres, app: App, send: Any, how: str
) -> None:
    """Each lock beyond the server's table of them is an error, in whatever transaction it happens to be."""
    place.server.sql(
        "SELECT dayjob.add_day(current_date + day) FROM generate_series(0, 29) AS day", database=place.database
    )
    held = "SELECT count(*) FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation WHERE l.pid = %s AND relname ~ '^history_2'"

    with psycopg.connect(place.url) as connection:
        for order in range(10):  # more often than a plan is made anew
            if how == "python":
                send.using(conn=connection).enqueue(order)
            else:
                connection.execute("SELECT dayjob.enqueue('shop.send', '{\"order\": 1}')")
        [[locks]] = place.server.sql(held, connection.info.backend_pid, database=place.database)

    assert locks == 0
    assert app.jobs.count() == 10


@pytest.mark.parametrize("how", ["python", "sql"])
def test_an_id_of_ones_own_is_still_found_among_finished_jobs(place: Postgres, app: App, send: Any, how: str) -> None:
    job = send.enqueue(1)
    app.worker().run_until_idle()

    with psycopg.connect(place.url) as connection:
        if how == "python":
            assert send.using(conn=connection, id=job.id).enqueue(1).outcome == "existing"
        else:
            connection.execute("SELECT dayjob.enqueue('shop.send', '{\"order\": 1}', id => %s)", (job.id,))

    assert app.jobs.count(state="available") == 0
    assert job.refresh().state == "completed"


def test_a_transaction_with_an_enqueue_cannot_be_prepared_and_the_server_says_so(
    place: Postgres, app: App, send: Any
) -> None:
    """As the guide tells, with the remedy."""
    with psycopg.connect(place.url) as connection:
        send.using(conn=connection).enqueue(1)
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="NOTIFY"):
            connection.execute("PREPARE TRANSACTION 'order 7'")

    assert app.jobs.count() == 0
