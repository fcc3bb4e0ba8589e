"""A URL that does not work, or works oddly: a typed error that names the remedy, or no difference at all."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache

import pytest

import dayjob.store
from dayjob.errors import SchemaMismatch, StoreError, StoreUnavailable
from dayjob.states import Outcome, State
from dayjob.store import open_store
from dayjob.store.contract import Store
from dayjob.store.records import Filter, NewRow, Settlement, Want, WorkerInfo
from tests.contract.ids import numbered
from tests.servers.host import free_port
from tests.servers.needed import needed
from tests.servers.postgres import Server, postgres

if "postgresql" not in dayjob.store.ENGINES:
    pytest.skip("this release has no PostgreSQL engine", allow_module_level=True)


@pytest.fixture
def server() -> Server:
    return needed(postgres)


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    """A migrated database."""
    with server.database() as name:
        with closing(open_store(server.url(name))) as store:
            store.migrate()
        yield name


def one_job(store: Store, number: int = 1) -> None:
    """A job goes all the way, at the store's own clock."""
    id, worker = numbered(number), f"worker-{number}"
    store.enqueue([NewRow(id, "t", "default", bytes(range(256)), meta='{"by":"\u2603"}')])
    store.beat(WorkerInfo(id=worker, name=worker, host="here", pid=1), [])
    [job] = store.turn(worker, 1, wants=[Want(None, 1)]).claimed
    turn = store.turn(worker, settlements=[Settlement(id, job.entry, Outcome.COMPLETED, store.now(), store.now())])

    assert turn.refused == []
    row = store.get(id)
    assert row is not None
    assert (row.state, row.payload, row.meta) == (State.COMPLETED, bytes(range(256)), '{"by":"\u2603"}')
    assert abs(row.created_at - time.time() * 1e6) < 60e6


def told(url: str, *, within: float = 7.0) -> str:
    """What the user is told who enqueues there; no password is in it."""
    begun = time.monotonic()
    with closing(open_store(url)) as store:
        with pytest.raises(StoreError) as caught:
            store.enqueue([NewRow(numbered(1), "t", "default", b"{}")])

    assert time.monotonic() - begun < within
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in store.url
    return f"{type(caught.value).__name__}: {caught.value}"


# -- addresses that do not work


def test_a_wrong_password(server: Server, database: str) -> None:
    said = told(server.url(database, user="guarded:hunter2"))

    assert said.startswith("StoreError")
    assert "password is wrong" in said


def test_no_password_where_one_is_needed(server: Server, database: str) -> None:
    said = told(server.url(database, user="guarded"))

    assert said.startswith("StoreError")
    assert "password" in said
    assert "PGPASSWORD" in said


def test_the_right_password_works_and_is_not_shown(server: Server, database: str) -> None:
    server.sql("GRANT ALL ON SCHEMA dayjob TO guarded", database=database)
    with closing(open_store(server.url(database, user="guarded:right"))) as store:
        assert "right" not in store.url
        with pytest.raises(StoreError, match="role"):
            store.enqueue([NewRow(numbered(1), "t", "default", b"{}")])


def test_an_unknown_role(server: Server, database: str) -> None:
    said = told(server.url(database, user="nobody_knows"))

    assert said.startswith("StoreError")
    assert "nobody_knows" in said


def test_an_unknown_database(server: Server) -> None:
    said = told(server.url("no_such_database"))

    assert said.startswith("StoreError")
    assert "createdb" in said


def test_an_unknown_host() -> None:
    said = told("postgresql://postgres@no-such-host.invalid/app")

    assert said.startswith("StoreUnavailable")
    assert "no-such-host.invalid" in said


def test_a_port_where_nobody_listens() -> None:
    said = told(f"postgresql://postgres@127.0.0.1:{free_port()}/app", within=1.0)

    assert said.startswith("StoreUnavailable")
    assert "refused" in said


def test_a_host_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        said = told(f"postgresql://postgres@127.0.0.1:{silent.getsockname()[1]}/app")

    assert said.startswith("StoreUnavailable")


def test_a_server_that_demands_tls(server: Server, database: str) -> None:
    said = told(server.url(database, user="encrypted"))

    assert said.startswith("StoreError")
    assert "sslmode=require" in said


def test_a_server_without_tls_where_the_url_demands_it(server: Server, database: str) -> None:
    said = told(server.url(database) + "?sslmode=require")

    assert "SSL" in said


def test_a_role_that_is_not_let_in_from_here(server: Server, database: str) -> None:
    said = told(server.url(database, user="unwelcome"))

    assert said.startswith("StoreError")
    assert "pg_hba.conf" in said


def test_a_database_without_dayjob_in_it(server: Server) -> None:
    with server.database() as name, closing(open_store(server.url(name))) as store:
        for call in (
            store.queues,
            lambda: store.count(Filter()),
            lambda: store.enqueue([NewRow(numbered(1), "t", "q", b"")]),
        ):
            with pytest.raises(SchemaMismatch, match="run `dayjob migrate`"):
                call()
        assert server.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'dayjob'", database=name) == [(0,)]


def newer(server: Server, database: str, *parts: str) -> None:
    """A later release has migrated these parts."""
    for part in parts:
        server.sql("INSERT INTO dayjob.schema (version, part, name) VALUES (999, %s, 'later')", part, database=database)


def test_a_schema_newer_than_the_code(server: Server, database: str) -> None:
    newer(server, database, "pre", "post")
    said = told(server.url(database))
    with closing(open_store(server.url(database))) as store:
        with pytest.raises(SchemaMismatch, match="upgrade dayjob"):
            store.migrate()

    assert said.startswith("SchemaMismatch")
    assert "upgrade dayjob" in said


def test_a_schema_to_which_a_newer_release_has_only_added(server: Server, database: str) -> None:
    newer(server, database, "pre")
    with closing(open_store(server.url(database))) as store:
        one_job(store)


# -- servers that only read


@pytest.mark.parametrize("how", ["database", "role", "server"])
def test_a_database_that_only_reads(server: Server, database: str, how: str) -> None:
    with closing(open_store(server.url(database))) as store:
        one_job(store)
    url = server.url(database)
    if how == "database":
        server.sql(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    elif how == "role":
        server.sql("CREATE ROLE reader LOGIN SUPERUSER")
        server.sql("ALTER ROLE reader SET default_transaction_read_only = on")
        url = server.url(database, user="reader")
    else:
        url += "?options=-c%20default_transaction_read_only%3Don"
    try:
        said = told(url)
        with closing(open_store(url)) as store:
            assert store.count(Filter()) == 1
    finally:
        server.sql("DROP ROLE IF EXISTS reader")

    assert said.startswith("StoreError")
    assert "read-only" in said
    assert "primary" in said


def test_a_standby_shows_jobs_and_takes_none(server: Server, database: str) -> None:
    with closing(open_store(server.url(database))) as store:
        one_job(store)
    with closing(server.standby()) as standby:
        said = told(standby.url(database))
        with closing(open_store(standby.url(database))) as store:
            assert store.count(Filter()) == 1
            with pytest.raises(StoreError, match="primary"):
                store.turn("w", 1, wants=[Want(None, 1)])

    assert said.startswith("StoreError")
    assert "primary" in said


# -- servers that work oddly

ODD: dict[str, str] = {
    "time zone": "timezone = 'Asia/Kathmandu'",
    "date style": "datestyle = 'SQL, DMY'",
    "search path": "search_path = 'elsewhere, public'",
    "an empty search path": "search_path = ''",
    "statement time-out": "statement_timeout = '40ms'",
    "lock time-out": "lock_timeout = '1ms'",
    "idle time-out": "idle_in_transaction_session_timeout = '1ms'",
    "serializable": "default_transaction_isolation = 'serializable'",
    "deferrable": "default_transaction_deferrable = on",
    "commits that do not wait": "synchronous_commit = off",
    "escaped bytes": "bytea_output = 'escape'",
    "escaped strings": "standard_conforming_strings = off",
    "another encoding": "client_encoding = 'LATIN1'",
    "another null": "transform_null_equals = on",
    "few digits": "extra_float_digits = -15",
    "warnings as results": "client_min_messages = 'debug1'",
    "row security": "row_security = off",
    "no plan of custom": "plan_cache_mode = 'force_custom_plan'",
}


@cache
def odd_role(server: Server, name: str) -> str:
    role = "odd_" + name.replace(" ", "_").replace("-", "_")
    server.sql(f"CREATE ROLE {role} LOGIN SUPERUSER")
    server.sql(f"ALTER ROLE {role} SET {ODD[name]}")
    return role


@pytest.mark.parametrize("name", ODD)
def test_what_a_role_has_been_given_makes_no_difference(server: Server, database: str, name: str) -> None:
    server.sql("CREATE SCHEMA elsewhere CREATE TABLE job (id int) CREATE TABLE ready (id int)", database=database)
    server.sql(
        "CREATE FUNCTION elsewhere.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT timestamptz '2000-01-01' $$",
        database=database,
    )
    with closing(open_store(server.url(database, user=odd_role(server, name)))) as store:
        one_job(store)
        one_job(store, 2)


def test_a_commit_waits_for_the_disk_whatever_the_role_says(server: Server, database: str) -> None:
    # What is not yet written is lost in a crash: 0 of 50, time and again.
    url = server.url(database, user=odd_role(server, "commits that do not wait"))
    for round in range(3):
        with closing(open_store(url)) as store:
            for n in range(50):
                store.enqueue([NewRow(numbered(1000 * round + n), "t", "q", b"")])
            server.restart("immediate")
        with closing(open_store(url)) as store:
            assert store.count(Filter()) == 50 * (round + 1)


def test_a_role_that_may_not_write_is_told_so(server: Server, database: str) -> None:
    server.sql("DROP ROLE IF EXISTS poor")
    server.sql("CREATE ROLE poor LOGIN")
    with closing(open_store(server.url(database, user="poor"))) as store:
        calls: list[Callable[[], object]] = [store.queues, lambda: store.enqueue([NewRow(numbered(1), "t", "q", b"")])]
        for call in calls:
            with pytest.raises(StoreError, match="may not do that") as caught:
                call()
            assert not isinstance(caught.value, StoreUnavailable)
