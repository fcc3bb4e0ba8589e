"""The PostgreSQL schema over releases: what the release before and the one after may do while it changes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

import dayjob.store
from dayjob import App
from dayjob.errors import SchemaMismatch, StoreError, StoreUnavailable
from dayjob.store import open_store
from dayjob.store.migrate import Migration, migrations
from dayjob.store.postgres import PostgresStore, schema
from dayjob.store.records import Filter, NewRow, Want, WorkerInfo
from tests.contract.engines import Postgres, Postgres15, Postgres18
from tests.contract.ids import numbered

if "postgresql" not in dayjob.store.ENGINES:
    pytest.skip("this release has no PostgreSQL engine", allow_module_level=True)

STEPS = migrations("dayjob.store.postgres.migrations")
NOW = STEPS[-1].version
ADDS = Migration(
    NOW + 1,
    "next_adds",
    "ALTER TABLE dayjob.job ADD COLUMN colour text;\n"
    "CREATE FUNCTION dayjob.colour() RETURNS text LANGUAGE sql AS $$ SELECT 'red; and blue' $$;",
)
REMOVES = Migration(NOW + 1, "next_adds.post", "DROP TABLE dayjob.paused;", "post")
ADDS_MORE = Migration(NOW + 2, "next_but_one", "CREATE TABLE dayjob.shade (name text PRIMARY KEY);")
LATER = [*STEPS, ADDS, REMOVES, ADDS_MORE]


@pytest.fixture(params=(Postgres18, Postgres15), ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Postgres]:
    """An empty database."""
    engine: Postgres = request.param(tmp_path)
    yield engine
    engine.close()


def release(engine: Postgres, version: int = NOW) -> PostgresStore:
    """A process of the release that works with schema *version*."""
    store = engine.open()
    assert isinstance(store, PostgresStore)
    store.db.wanted = version
    return store


def lives(store: PostgresStore, number: int) -> bool:
    """Whether *store* takes a job and hands it out."""
    store.enqueue([NewRow(numbered(number), "t", "default", b"{}")])
    store.beat(WorkerInfo(id=f"w{number}", name="w", host="here", pid=1), [])
    return len(store.turn(f"w{number}", 1, wants=[Want(None, 1)]).claimed) == 1


def test_migrate_names_what_it_applied_and_then_finds_nothing_left(engine: Postgres) -> None:
    store = engine.open()
    names = [step.name for step in STEPS]

    assert store.migrate(dry_run=True) == names
    assert store.migrate(part="post") == []
    assert store.migrate(part="pre") == [step.name for step in STEPS if step.part == "pre"]
    assert store.migrate() == [step.name for step in STEPS if step.part == "post"]
    assert store.migrate(dry_run=True) == []
    assert store.migration_sql() == ""


def test_looking_at_a_database_without_a_schema_makes_none(engine: Postgres) -> None:
    store = engine.open()

    assert store.migrate(dry_run=True)
    assert "CREATE TABLE" in store.migration_sql()
    assert store.check().schema == 0
    assert engine.server.sql("SELECT to_regnamespace('dayjob')", database=engine.database) == [(None,)]


@pytest.mark.parametrize("by", ["its owner", "a superuser", "its owner, by hand"])
def test_a_schema_that_somebody_made_beforehand_is_migrated(engine: Postgres, by: str) -> None:
    engine.server.sql(
        "DO $$ BEGIN CREATE ROLE some_app LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        database=engine.database,
    )
    with closing(open_store(engine.server.url(engine.database, user="some_app"))) as store:
        assert isinstance(store, PostgresStore)
        with pytest.raises(StoreError, match="let one who may run CREATE SCHEMA"):
            store.migrate()
        engine.server.sql("CREATE SCHEMA dayjob AUTHORIZATION some_app", database=engine.database)
        assert store.migrate(dry_run=True) == [step.name for step in STEPS]
        if by == "its owner, by hand":
            with psycopg.connect(engine.server.url(engine.database, user="some_app"), autocommit=True) as connection:
                connection.execute(store.migration_sql().encode())
        else:
            (store if by == "its owner" else engine.open()).migrate()

        assert store.migrate() == []
        assert lives(store, 1)


def test_the_release_before_works_between_the_parts_and_no_longer(engine: Postgres) -> None:
    old, new = release(engine), release(engine, NOW + 1)
    old.migrate()
    with pytest.raises(SchemaMismatch, match="run `dayjob migrate`"):
        lives(new, 1)

    assert schema.migrate(old.db, part="pre", steps=LATER[:-1]) == ["next_adds"]

    assert lives(old, 2)
    assert lives(release(engine), 3)  # also one that starts now
    assert lives(new, 4)
    assert new.check().schema == NOW + 1

    assert schema.migrate(new.db, part="post", steps=LATER[:-1]) == ["next_adds.post"]

    with pytest.raises(SchemaMismatch, match="newer release"):
        lives(release(engine), 5)


def test_a_running_process_of_the_release_before_says_why_it_ends(engine: Postgres) -> None:
    old = release(engine)
    old.migrate()
    assert not old.pause("nothing", False)
    schema.migrate(old.db, steps=LATER)

    with pytest.raises(SchemaMismatch, match="newer release; upgrade dayjob here") as caught:
        old.pause("nothing", True)

    assert caught.value.found == NOW + 1


def test_several_steps_are_applied_in_order_and_only_once(engine: Postgres) -> None:
    store = release(engine)
    store.migrate()

    assert schema.migrate(store.db, dry_run=True, steps=LATER) == ["next_adds", "next_adds.post", "next_but_one"]
    assert schema.migrate(store.db, part="pre", steps=LATER) == ["next_adds", "next_but_one"]
    assert schema.migrate(store.db, steps=LATER) == ["next_adds.post"]
    assert schema.migrate(store.db, steps=LATER) == []


def test_a_step_that_fails_leaves_nothing_of_itself(engine: Postgres) -> None:
    store = release(engine)
    store.migrate()
    broken = Migration(NOW + 2, "broken", "CREATE TABLE dayjob.half (n int); SELECT 1 / 0;")
    with pytest.raises(StoreError):
        schema.migrate(store.db, steps=[*STEPS, ADDS, broken])

    assert schema.migrate(store.db, dry_run=True, steps=[*STEPS, ADDS, broken]) == ["broken"]
    assert engine.server.sql("SELECT to_regclass('dayjob.half')", database=engine.database) == [(None,)]
    assert lives(store, 1)


def test_four_processes_that_migrate_at_once_apply_each_step_once(engine: Postgres) -> None:
    program = (
        "import sys; from dayjob.store import open_store; store = open_store(sys.argv[1]); store.migrate(dry_run=True); "
        "print('ready', flush=True); sys.stdin.readline(); print(len(store.migrate()))"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, engine.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()

    assert sum(int(child.communicate()[0]) for child in children) == len(STEPS)


def test_the_sql_for_people_who_run_it_themselves_is_all_of_it(engine: Postgres) -> None:
    with closing(open_store(engine.url, namespace="shop_jobs")) as store:
        for _ in range(2):  # the second time there is nothing
            engine.server.sql(store.migration_sql() or "SELECT 1", database=engine.database)

        assert store.migrate() == []
        assert store.enqueue([NewRow(numbered(1), "t", "default", b"{}")])[0].outcome == "inserted"


# -- while others work


def test_a_step_gives_way_to_those_who_work_and_tries_again(engine: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "TRIES", 2)
    store = release(engine)
    store.migrate()
    with psycopg.connect(engine.url) as reader:
        reader.execute("SELECT count(*) FROM dayjob.job")  # a report, which nobody ends
        with pytest.raises(StoreUnavailable, match="holds locks"):
            schema.migrate(store.db, steps=LATER)
        monkeypatch.setattr(schema, "TRIES", 20)
        migrating = threading.Thread(target=lambda: schema.migrate(store.db, steps=LATER))
        migrating.start()
        waits = []
        for number in range(3):
            begun = time.monotonic()
            assert lives(store, number)
            waits.append(time.monotonic() - begun)
        reader.rollback()
    migrating.join(15.0)

    assert max(waits) < 4.0  # not for as long as the reader reads
    assert schema.migrate(store.db, steps=LATER) == []


def test_jobs_run_on_while_the_next_release_adds_its_part(engine: Postgres) -> None:
    store = release(engine)
    store.migrate()
    app = App(engine.url)
    ran: list[int] = []

    @app.task(name="note")
    async def note(number: int) -> None:
        ran.append(number)

    app.enqueue_many([note.job(number) for number in range(400)])
    worker = app.worker(concurrency=5)
    working = threading.Thread(target=worker.run)
    working.start()
    try:
        assert schema.migrate(store.db, part="pre", steps=LATER) == ["next_adds", "next_but_one"]
        app.enqueue_many([note.job(number) for number in range(400, 500)])
        deadline = time.monotonic() + 15
        while app.jobs.count(state="completed") < 500 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        worker.stop()
        working.join(15.0)
        app.close()

    assert sorted(ran) == list(range(500))
    assert store.count(Filter()) == 500
