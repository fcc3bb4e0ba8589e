"""Connections that are lent to jobs: what one job does to its own, no other sees."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

import dayjob.store
from dayjob.errors import StoreError, StoreUnavailable
from dayjob.store.contract import Store
from dayjob.store.records import Statement
from tests.contract.engines import Postgres, PostgresBouncer

if "postgresql" not in dayjob.store.ENGINES:
    pytest.skip("this release has no PostgreSQL engine", allow_module_level=True)


@pytest.fixture
def store(place: Postgres) -> Store:
    return place.open()


def session_of(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """All that a session can be told, and all that it holds."""
    whole = connection.cursor(row_factory=psycopg.rows.tuple_row)
    settings = "SELECT json_object_agg(name, setting) FROM pg_settings WHERE name NOT LIKE 'transaction%'"
    return {
        "settings": whole.execute(settings).fetchall(),
        "who": whole.execute("SELECT session_user, current_user").fetchall(),
        "locks": whole.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()").fetchall(),
        "heard": whole.execute("SELECT pg_listening_channels()").fetchall(),
        "tables": whole.execute("SELECT relname FROM pg_class WHERE relpersistence = 't'").fetchall(),
        "cursors": whole.execute("SELECT name FROM pg_cursors WHERE is_holdable").fetchall(),
        "driver": (
            connection.row_factory, connection.cursor_factory, connection.autocommit, connection.isolation_level,
            connection.read_only, connection.deferrable, connection.prepare_threshold,
        ),
    }  # fmt: skip


def change(connection: psycopg.Connection[Any]) -> None:
    for statement in (
        "SET search_path TO tenant",
        "SET SESSION timezone TO 'Asia/Tokyo'",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET ROLE pg_monitor",
        "SELECT pg_advisory_lock(7)",
        "LISTEN news",
        "CREATE TEMP TABLE mine (i int)",
        "DECLARE held CURSOR WITH HOLD FOR SELECT 1",
        "PREPARE ours AS SELECT 1",
    ):
        connection.execute(statement)
    for _ in range(10):
        connection.execute("SELECT 'prepared by the driver'")
    connection.row_factory = dict_row
    connection.cursor_factory = psycopg.ClientCursor
    connection.prepare_threshold = 0


def test_nothing_that_a_job_does_to_its_session_reaches_the_next(place: Postgres, store: Store) -> None:
    first = store.begin()
    fresh, pid = session_of(first.connection), first.connection.info.backend_pid
    change(first.connection)
    assert session_of(first.connection) != fresh
    first.commit()
    second = store.begin()

    assert second.connection.info.backend_pid == pid
    assert session_of(second.connection) == fresh
    for _ in range(10):
        second.connection.execute("SELECT 'prepared by the driver'")
    second.commit()


def test_a_row_factory_of_the_jobs_does_not_change_what_dayjob_reads(store: Store) -> None:
    lent = store.begin()
    lent.connection.row_factory = dict_row
    lent.connection.cursor_factory = psycopg.ClientCursor

    assert lent.run(Statement("SELECT $1::int", (1,))) == [(1,)]
    lent.rollback()


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_who_keeps_a_connection_cannot_write_into_the_transaction_of_the_next_job(store: Store, end: str) -> None:
    first = store.begin()
    kept, pid = first.connection, first.connection.info.backend_pid
    cursor = kept.cursor()
    getattr(first, end)()
    second = store.begin()

    assert second.connection.info.backend_pid == pid
    uses: list[Callable[[], Any]] = [
        lambda: kept.execute("CREATE TABLE late (note text)"),
        lambda: cursor.execute("CREATE TABLE late (note text)"),
        kept.commit,
        kept.rollback,
    ]
    for use in uses:
        with pytest.raises(psycopg.OperationalError, match="closed"):
            use()
    kept.close()
    assert second.connection.execute("SELECT to_regclass('late')").fetchone() == (None,)
    second.commit()


def test_an_end_that_an_interrupt_has_cut_short_is_made_up_for(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lent = store.begin()
    lent.connection.execute("CREATE TABLE effect (note text)")

    def interrupted(connection: psycopg.Connection[Any]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.lender, "give_back", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lent.rollback()
    lent.rollback()

    assert (len(store.lender._lent), len(store.lender._idle)) == (0, 1)


def test_a_commit_that_the_server_refuses_is_told_from_one_that_it_does_not_answer(place: Postgres, store: Any) -> None:
    def deferred() -> Any:
        lent = store.begin()
        lent.connection.execute("CREATE TABLE parent (id int PRIMARY KEY)")
        lent.connection.execute("CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
        lent.connection.execute("INSERT INTO child VALUES (1)")
        return lent

    def serializable() -> Any:
        lent = [store.begin(), store.begin()]
        for i, one in enumerate(lent):
            one.connection.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            one.connection.execute("SELECT count(*) FROM effect")
            one.connection.execute(f"INSERT INTO effect VALUES ('{i}')")
        lent[0].commit()
        return lent[1]

    place.server.sql("CREATE TABLE effect (note text)", database=place.database)
    for begun, why in ((deferred, "foreign key constraint"), (serializable, "could not serialize")):
        lent = begun()
        with pytest.raises(StoreError, match=f"refused to commit.*{why}") as refused:
            lent.commit()
        assert not isinstance(refused.value, StoreUnavailable)
    assert len(store.lender._lent) == 0

    lent = store.begin()
    place.server.sql("SELECT pg_terminate_backend(%s)", lent.connection.info.backend_pid, database=place.database)
    with pytest.raises(StoreUnavailable, match="did not answer"):
        lent.commit()


def test_few_are_kept_and_none_that_nobody_needs(store: Any) -> None:
    def lend(count: int) -> None:
        for one in [store.begin() for _ in range(count)]:
            one.commit()

    lender = store.lender
    lend(20)
    assert len(lender._idle) == 4

    lender.sweep()
    unused = lender._idle[:2]
    lend(2)
    lender.sweep()
    assert len(lender._idle) == 2
    assert all(connection.closed for connection in unused)
    assert lender._sweeper is not None

    for _ in range(2):
        lender.sweep()
    assert (lender._idle, lender._sweeper) == ([], None)


def test_an_app_that_nobody_closed_is_not_kept_by_its_sweeper(place: Postgres) -> None:
    store: Any = dayjob.store.open_store(place.url)
    store.begin().commit()
    gone = weakref.ref(store.lender)
    assert store.lender._sweeper is not None
    del store
    gc.collect()

    assert gone() is None


def test_a_server_that_is_gone_is_noticed_as_soon_as_on_the_engines_own_connections(store: Any) -> None:
    """Nobody waits for a statement of a job whose server has vanished without a word."""
    lent = store.begin()
    with store.db.session() as own:
        wanted = {key: value for key, value in own.info.get_parameters().items() if key.startswith(("keep", "tcp"))}
    found = lent.connection.info.get_parameters()

    assert len(wanted) == 4
    assert {key: found.get(key) for key in wanted} == wanted
    lent.rollback()


def test_behind_a_pooler_none_is_kept(tmp_path: Path) -> None:
    """Whose session it was nobody knows, and nobody may begin it anew."""
    engine = PostgresBouncer(tmp_path)
    store: Any = engine.store()
    lent = store.begin()
    connection = lent.connection
    lent.commit()

    assert connection.closed
    assert store.lender._idle == []
    engine.close()
