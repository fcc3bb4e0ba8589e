"""What `check` and `dayjob doctor` tell of a server, and that each warning's remedy is one."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

import dayjob.store
from dayjob.store import open_store
from dayjob.store.contract import Store
from dayjob.store.postgres import health
from tests.contract.engines import Postgres, PostgresBouncer
from tests.servers.needed import needed
from tests.servers.postgres import postgres

if "postgresql" not in dayjob.store.ENGINES:
    pytest.skip("this release has no PostgreSQL engine", allow_module_level=True)

HASTY = "the server does not wait for its disk"
"""The tests' servers do not, and are told so each time."""


@pytest.fixture
def engine(place: Postgres) -> Postgres:
    return place


@pytest.fixture
def store(engine: Postgres) -> Store:
    return engine.open()


def warnings(store: Store) -> list[str]:
    """All but the one that is always there."""
    told = store.check().warnings
    assert any(HASTY in one for one in told)
    return [one for one in told if HASTY not in one]


def the_one(store: Store) -> tuple[str, str]:
    """The only warning: what is wrong, and the remedy."""
    [told] = warnings(store)
    what, _, remedy = told.partition(": ")
    return what, remedy


def test_a_server_on_which_all_is_well_is_told_in_facts(engine: Postgres, store: Store) -> None:
    found = store.check()

    assert warnings(store) == []
    assert found.engine.startswith(f"PostgreSQL {engine.major}")
    assert found.schema == found.wanted
    assert set(found.facts) == {
        "connection", "round trip", "clock", "connections", "vacuum", "commits", "oldest transaction", "dead rows",
        "sizes", "history", "wake-ups",
    }  # fmt: skip
    assert found.facts["wake-ups"].startswith("LISTEN and NOTIFY")
    assert found.facts["connection"].startswith("direct, no TLS")
    assert re.search(r"\d+ of \d+ in use", found.facts["connections"])


def test_a_look_takes_no_time_and_changes_nothing(engine: Postgres, store: Store) -> None:
    def state() -> list[tuple[object, ...]]:
        counted = "SELECT last_value, is_called FROM dayjob.entry UNION ALL SELECT count(*), true FROM pg_class"
        return engine.server.sql(counted, database=engine.database)

    before, took = state(), []
    for _ in range(5):
        begun = time.monotonic()
        store.check()
        took.append(time.monotonic() - begun)

    assert min(took) < 0.15  # 0.012 on an idle machine
    assert state() == before


def test_a_database_without_dayjob_is_looked_at_all_the_same(engine: Postgres) -> None:
    with engine.server.database() as name, closing(open_store(engine.server.url(name))) as store:
        found = store.check()

    assert (found.schema, found.wanted > 0) == (0, True)
    assert "oldest transaction" in found.facts
    assert "dead rows" not in found.facts


# -- what holds back vacuum


def test_a_forgotten_transaction_is_named_with_the_way_to_end_it(
    engine: Postgres, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(engine.url + "?application_name=report") as forgotten:
        forgotten.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        forgotten.execute("SELECT 1")
        fact = store.check().facts["oldest transaction"]
        assert fact.startswith(f"session {forgotten.info.backend_pid} (report, idle in transaction) for 0.")
        assert warnings(store) == []  # it is young

        monkeypatch.setattr(health, "OLD", 0.0)
        what, remedy = the_one(store)
        assert f"session {forgotten.info.backend_pid} (report, idle in transaction) has kept vacuum" in what
        engine.server.sql(remedy)
        deadline = time.monotonic() + 5
        while warnings(store) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert warnings(store) == []
        forgotten.close()


def test_a_prepared_transaction_that_nobody_ends_is_named(
    engine: Postgres, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "OLD", -1.0)
    with psycopg.connect(engine.url, autocommit=True) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT pg_current_xact_id()")
        connection.execute("PREPARE TRANSACTION 'half a transfer'")
        what, remedy = the_one(store)
        connection.execute(remedy.partition(",")[0])  # type: ignore[arg-type]  # a str will do

    assert what.startswith("prepared transaction 'half a transfer' has kept vacuum")
    assert warnings(store) == []


@pytest.mark.parametrize("slot", ["", "doctors_slot"], ids=["feedback", "slot"])
def test_a_standby_that_holds_it_back_is_named(slot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = needed(postgres)
    monkeypatch.setattr(health, "FAR", -1)
    if slot:
        server.sql("SELECT pg_create_physical_replication_slot(%s, true)", slot)
    try:
        with server.database() as name, closing(server.standby()) as standby:
            standby.restart(
                "fast", hot_standby_feedback="on", primary_slot_name=slot, wal_receiver_status_interval="1s"
            )
            with closing(open_store(server.url(name))) as store:
                kind = "replication slot doctors_slot (active)" if slot else "standby"
                deadline = time.monotonic() + 12
                while not (found := [one for one in warnings(store) if one.startswith(kind)]):
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            assert "transactions: " in found[0]
            with closing(open_store(standby.url(name))) as store:
                told = store.check().warnings
            assert any("can only be read: give the URL of the primary" in one for one in told)
            assert any("LISTEN does not work here" in one for one in told)
    finally:
        if slot:
            server.sql("SELECT pg_drop_replication_slot(%s)", slot)


# -- tables


def test_dead_rows_are_counted_and_too_many_are_told(
    engine: Postgres, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(engine.url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO dayjob.ready (place, entry, id, priority, kind, queue) "
            "SELECT n, n, gen_random_uuid(), 0, 0, 'q' FROM generate_series(1, 700) AS n"
        )
        connection.execute("DELETE FROM dayjob.ready")
    deadline = time.monotonic() + 5
    while "ready 700" not in store.check().facts["dead rows"] and time.monotonic() < deadline:
        time.sleep(0.02)

    assert store.check().facts["dead rows"].startswith("ready 700")
    monkeypatch.setattr(health, "MANY", 500)
    what, remedy = the_one(store)
    assert what == '"dayjob".ready has 700 dead rows and 0 others'
    assert 'VACUUM "dayjob".ready' in remedy


def test_a_table_far_larger_than_its_rows_is_told(
    engine: Postgres, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "LITTLE", 100_000)
    for statement in (
        "INSERT INTO dayjob.ready (place, entry, id, priority, kind, queue) "
        "SELECT n, n, gen_random_uuid(), 0, 0, 'q' FROM generate_series(1, 3000) AS n",
        "DELETE FROM dayjob.ready WHERE place < 2995",
        "VACUUM ANALYZE dayjob.ready",
    ):
        engine.server.sql(statement, database=engine.database)

    assert '"dayjob".ready takes 2' in the_one(store)[0]
    engine.server.sql(the_one(store)[1].partition(" while")[0], database=engine.database)
    assert warnings(store) == []


def test_a_table_that_is_not_vacuumed_is_told(engine: Postgres, store: Store) -> None:
    engine.server.sql("ALTER TABLE dayjob.job SET (autovacuum_enabled = off)", database=engine.database)
    what, remedy = the_one(store)
    engine.server.sql(remedy, database=engine.database)

    assert what == 'autovacuum is off for "dayjob".job'
    assert warnings(store) == []


def test_a_day_of_the_history_that_should_be_gone_is_told(engine: Postgres, store: Store) -> None:
    engine.server.sql("SELECT dayjob.add_day('2020-02-03'), dayjob.add_day('2090-01-01')", database=engine.database)

    assert store.check().facts["history"] == "2 days, by when they go: 2020-02-03 to 2090-01-01"
    assert the_one(store)[0] == "the history of 2020-02-03 should be gone"


# -- the server


def test_connections_that_run_out_are_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "FULL", 0.0)
    what, remedy = the_one(store)

    assert what.endswith("connections are in use")
    assert "takes up to 9" in remedy


def test_a_clock_that_is_wrong_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "wall", lambda: time.time_ns() // 1000 - 90_000_000)

    assert the_one(store)[0].startswith("this process's wall clock is -90.")


def test_an_encoding_that_holds_not_every_text_is_told() -> None:
    server = needed(postgres)
    server.sql("DROP DATABASE IF EXISTS plain")
    server.sql("CREATE DATABASE plain ENCODING 'SQL_ASCII' TEMPLATE template0")
    try:
        with closing(open_store(server.url("plain"))) as store:
            assert the_one(store)[0] == "the database's encoding is SQL_ASCII"
    finally:
        server.drop_database("plain")


def test_autovacuum_that_is_off_is_told(engine: Postgres, store: Store) -> None:
    engine.server.sql("ALTER SYSTEM SET autovacuum = off")
    engine.server.sql("SELECT pg_reload_conf()")
    try:
        deadline = time.monotonic() + 5
        while not warnings(store) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert the_one(store)[0] == "autovacuum is off"
    finally:
        engine.server.sql("ALTER SYSTEM RESET autovacuum")
        engine.server.sql("SELECT pg_reload_conf()")


def test_behind_a_pooler_wake_ups_are_by_polling(tmp_path: Path) -> None:
    engine = PostgresBouncer(tmp_path)
    try:
        found = engine.store().check()
    finally:
        engine.close()

    assert found.facts["connection"].startswith("through a pooler")
    assert found.facts["wake-ups"].startswith("by polling, once a second")
    assert [one for one in found.warnings if HASTY not in one] == []


@pytest.mark.parametrize("role", ["viewer", "producer"])
def test_those_who_may_little_see_what_they_may(engine: Postgres, store: Store, role: str) -> None:
    store.migrate(part="roles")
    engine.server.sql(
        f"DO $$ BEGIN CREATE ROLE doctors_{role} LOGIN IN ROLE dayjob_{role}; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    )
    with closing(open_store(engine.server.url(engine.database, user=f"doctors_{role}"))) as theirs:
        found = theirs.check()

    assert found.schema == found.wanted
    assert set(found.facts) == set(store.check().facts)


def test_the_command_shows_facts_and_warnings_and_no_password(engine: Postgres) -> None:
    url = engine.server.url(engine.database, user="postgres:hunter2")
    done = subprocess.run(
        [sys.executable, "-m", "dayjob", "doctor", "--url", url], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1  # the disk is not waited for
    assert "hunter2" not in done.stdout + done.stderr
    assert f"ok  store     PostgreSQL {engine.major}" in done.stdout
    assert "ok  store     wake-ups: LISTEN and NOTIFY" in done.stdout
    assert f"!!  store     {HASTY}: fsync = on" in done.stdout
