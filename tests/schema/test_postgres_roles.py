"""The four roles: what each of them can do, and what it cannot."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

import dayjob.store
from dayjob import App, JobContext
from dayjob.errors import SchemaMismatch, StoreError, StoreUnavailable
from dayjob.store import open_store
from dayjob.store.contract import Store
from dayjob.store.migrate import Migration, migrations
from dayjob.store.postgres import PostgresStore, schema
from dayjob.store.records import Filter, NewRow, Want, WorkerInfo
from tests.contract import test_p4_rescued, test_p9_ambiguity
from tests.contract.engines import Postgres, Postgres15, Postgres18
from tests.contract.ids import numbered
from tests.contract.scene import Scene
from tests.servers.postgres import Server

if "postgresql" not in dayjob.store.ENGINES:
    pytest.skip("this release has no PostgreSQL engine", allow_module_level=True)

CALLS = {"versions", "home", "enqueue", "enqueue_rows", "accept_rows", "nobody"}
"""The functions that a producer may call."""


def person(server: Server, name: str, role: str | None = None) -> str:
    """A login role, a member of *role*; its name."""
    member = f"IN ROLE {role}" if role else ""
    server.sql(f"DO $$ BEGIN CREATE ROLE {name} LOGIN {member}; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    return name


class PostgresWithRoles(Postgres18):
    """A database whose roles are made; `open` gives handles of somebody who is a worker."""

    name = "postgres-roles"

    def store(self) -> Any:
        if self._database is None:
            self._database = self.server.create_database(template=self._template())
            with closing(open_store(self.server.url(self._database))) as store:
                store.migrate(part="roles")
            person(self.server, "some_worker", "dayjob_worker")
        return self.open()

    @property
    def url(self) -> str:  # type: ignore[override]
        return self.server.url(self.database, user="some_worker")


@pytest.fixture(params=(Postgres18, Postgres15), ids=lambda engine: engine.name)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Postgres]:
    """A migrated database with its roles, and people in them."""
    engine: Postgres = request.param(tmp_path)
    engine.store().migrate(part="roles")
    for role in schema.ROLES:
        person(engine.server, f"some_{role}", f"dayjob_{role}")
    person(engine.server, "stranger")
    yield engine
    engine.close()


def as_(place: Postgres, user: str) -> str:
    return place.server.url(place.database, user=user)


def tables(place: Postgres, user: str, privilege: str) -> set[str]:
    """The tables on which *user* has *privilege*."""
    rows = place.server.sql(
        "SELECT relname FROM pg_class WHERE relnamespace = 'dayjob'::regnamespace AND relkind IN ('r', 'p') "
        "AND has_table_privilege(%s, oid, %s) AND has_schema_privilege(%s, 'dayjob', 'USAGE')",
        user,
        privilege,
        user,
        database=place.database,
    )
    return {name for (name,) in rows}


def functions(place: Postgres, user: str) -> set[str]:
    """The functions that *user* may call."""
    rows = place.server.sql(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'dayjob'::regnamespace AND has_function_privilege(%s, oid, 'EXECUTE')",
        user,
        database=place.database,
    )
    return {name for (name,) in rows}


def refused(place: Postgres, user: str, statement: str) -> None:
    with psycopg.connect(as_(place, user)) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)  # type: ignore[arg-type]  # a str will do


# -- making them


def test_roles_are_made_once_and_nobody_can_log_in_as_one(place: Postgres) -> None:
    store = place.open()

    assert store.migrate(part="roles") == [f"dayjob_{role}" for role in schema.ROLES]
    found = place.server.sql(
        "SELECT rolcanlogin, rolsuper FROM pg_roles WHERE rolname = ANY (%s)", store.migrate(part="roles")
    )
    assert found == [(False, False)] * 4


def test_everything_belongs_to_the_owner(place: Postgres) -> None:
    owners = place.server.sql(
        """SELECT DISTINCT o::regrole::text FROM (
            SELECT nspowner FROM pg_namespace WHERE nspname = 'dayjob'
            UNION SELECT relowner FROM pg_class WHERE relnamespace = 'dayjob'::regnamespace
            UNION SELECT proowner FROM pg_proc WHERE pronamespace = 'dayjob'::regnamespace) AS x (o)""",
        database=place.database,
    )

    assert owners == [("dayjob_owner",)]


def test_before_the_schema_there_is_nothing_to_share_out(place: Postgres) -> None:
    with place.server.database() as empty, closing(open_store(place.server.url(empty))) as store:
        with pytest.raises(SchemaMismatch, match="run `dayjob migrate`"):
            store.migrate(part="roles")


def test_one_who_may_not_create_roles_is_told_so_and_nothing_has_changed(place: Postgres) -> None:
    with closing(open_store(as_(place, "some_worker"))) as store, pytest.raises(StoreError, match="may not do that"):
        store.migrate(part="roles")


def test_a_namespace_has_roles_of_its_own(place: Postgres) -> None:
    with closing(open_store(place.server.url(place.database), namespace="shop_jobs")) as store:
        store.migrate()
        assert store.migrate(part="roles") == [f"shop_jobs_{role}" for role in schema.ROLES]
    person(place.server, "shop_worker", "shop_jobs_worker")
    with closing(open_store(as_(place, "shop_worker"), namespace="shop_jobs")) as store:
        store.enqueue([NewRow(numbered(1), "t", "default", b"{}")])
    with closing(open_store(as_(place, "shop_worker"))) as store, pytest.raises(StoreError, match="may not do that"):
        store.enqueue([NewRow(numbered(1), "t", "default", b"{}")])


def test_an_admin_who_is_no_superuser_can_migrate_and_make_them(place: Postgres) -> None:
    person(place.server, "some_admin")
    place.server.sql("ALTER ROLE some_admin CREATEROLE")
    with place.server.database() as name:
        place.server.sql(f"ALTER DATABASE {name} OWNER TO some_admin")
        with closing(open_store(place.server.url(name, user="some_admin"), namespace="mine")) as store:
            store.migrate()
            store.migrate(part="roles")
            store.migrate(part="roles")
            assert store.enqueue([NewRow(numbered(1), "t", "default", b"{}")])[0].outcome == "inserted"


def test_the_command_makes_them_or_prints_the_sql_that_does(place: Postgres) -> None:
    def command(*args: str) -> tuple[int, str]:
        line = [sys.executable, "-m", "dayjob", "migrate", "--url", place.server.url(place.database), *args]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    status, printed = command("--roles", "--sql")
    assert status == 0
    place.server.sql(re.sub(r"^--.*$", "", printed, flags=re.MULTILINE), database=place.database)
    assert command("--roles")[1].startswith("role: dayjob_owner\nrole: dayjob_worker\n")
    assert "GRANT dayjob_worker TO" in command("--roles")[1]
    assert command("--roles", "--pre")[0] == 2
    assert command("--pre") == (0, "the schema is up to date\n")
    assert command("--post", "--check") == (0, "the schema is up to date\n")


# -- a stranger


def test_a_stranger_can_do_nothing_with_or_without_roles(place: Postgres) -> None:
    refused(place, "stranger", "SELECT dayjob.enqueue('t')")
    refused(place, "stranger", "SELECT count(*) FROM dayjob.job")
    assert functions(place, "stranger") == set()
    assert tables(place, "stranger", "SELECT") == set()

    with place.server.database() as name:
        with closing(open_store(place.server.url(name))) as store:
            store.migrate()
        found = place.server.sql(
            "SELECT count(*) FROM pg_proc WHERE pronamespace = 'dayjob'::regnamespace "
            "AND has_function_privilege('stranger', oid, 'EXECUTE')",
            database=name,
        )
    assert found == [(0,)]


# -- producer


def test_a_producer_enqueues_from_sql_and_from_python(place: Postgres) -> None:
    url = as_(place, "some_producer")
    app = App(url)
    with psycopg.connect(url) as connection:
        connection.execute("SELECT dayjob.enqueue('t', '{\"n\": 1}', delay => '1 hour')")
        with app.transaction(connection):
            app.enqueue("t", {"n": 2})
    first = app.enqueue("t", {"n": 3}, tags=["vip"], meta={"by": "web"}, priority=3, expires=60, id=numbered(9))
    again = app.enqueue("t", {"n": 3}, id=numbered(9))
    app.enqueue("t", {"n": 4}, delay=3600)
    app.close()

    assert (first.outcome, again.outcome) == ("inserted", "existing")
    with closing(open_store(place.server.url(place.database))) as store:
        rows = store.find(Filter()).jobs
        assert sorted((row.payload, str(row.state)) for row in rows) == [
            (b'{"n": 1}', "scheduled"), (b'{"n":2}', "available"), (b'{"n":3}', "available"), (b'{"n":4}', "scheduled"),
        ]  # fmt: skip
        [row] = [row for row in rows if row.id == numbered(9)]
        assert (row.tags, row.meta, row.priority) == ('["vip"]', '{"by":"web"}', 3)


def test_what_a_producer_enqueued_in_one_go_is_there_once_and_in_order(place: Postgres) -> None:
    with closing(open_store(as_(place, "some_producer"))) as store:
        rows = [NewRow(numbered(n), "t", "default", b"%d" % n) for n in range(2500)]
        outcomes = store.enqueue([*rows, rows[0]])
        assert [one.outcome for one in outcomes] == ["inserted"] * 2500 + ["existing"]
        assert store.enqueue(rows[:1], repeat=True)[0].outcome == "existing"
    with closing(open_store(as_(place, "some_worker"))) as store:
        store.beat(WorkerInfo(id="w", name="w", host="here", pid=1), [])
        claimed = store.turn("w", 1, wants=[Want(None, 2500)]).claimed
    assert [int(job.payload) for job in claimed] == list(range(2500))


def test_a_producer_wakes_a_sleeping_worker(place: Postgres) -> None:
    with (
        closing(open_store(as_(place, "some_worker"))) as worker,
        closing(open_store(as_(place, "some_producer"))) as producer,
    ):
        ears = worker.listen(["work"])
        producer.enqueue([NewRow(numbered(1), "t", "default", b"{}")])
        assert ears.wait(5.0)
        ears.close()


@pytest.mark.parametrize(
    "field",
    [
        {"task": ""}, {"task": None}, {"queue": "x" * 201}, {"queue": "a b"}, {"priority": 2**31 - 1}, {"max_attempts": -5},
        {"delay": -1.0}, {"delay": 1e10}, {"expires": -1.0}, {"run_at": 2**63 - 1}, {"tags": "no JSON"}, {"tags": "{}"},
        {"tags": "[1]"}, {"tags": '["a b"]'}, {"tags": str(["t"] * 101).replace("'", '"')}, {"meta": "no JSON"}, {"meta": "[]"},
    ],
    ids=lambda field: next(iter(field)),
)  # fmt: skip
def test_a_producer_stores_nothing_that_is_in_the_way_of_others(place: Postgres, field: dict[str, Any]) -> None:
    good = {"id": numbered(1), "task": "t", "queue": "q", "payload": "e30="}
    bad = {**good, "id": numbered(2), **field}

    with psycopg.connect(as_(place, "some_producer")) as connection, pytest.raises(psycopg.Error) as caught:
        connection.execute("SELECT dayjob.enqueue_rows(%s)", (Jsonb([good, bad]),))

    assert str(caught.value.sqlstate).startswith(("22", "23"))
    assert place.server.sql("SELECT count(*) FROM dayjob.job", database=place.database) == [(0,)]


def test_a_producer_does_not_say_what_time_it_is(place: Postgres) -> None:
    refused(place, "some_producer", "SELECT dayjob.enqueue_rows('[]', 1)")


def test_a_producer_can_do_nothing_else(place: Postgres) -> None:
    for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"):
        assert tables(place, "some_producer", privilege) == set()
    assert functions(place, "some_producer") == CALLS
    refused(place, "some_producer", "SELECT nextval('dayjob.entry')")
    refused(place, "some_producer", "CREATE TABLE dayjob.mine (n int)")
    with closing(open_store(as_(place, "some_producer"))) as store:
        for call in (store.queues, lambda: store.get(numbered(1)), lambda: store.turn("w", 1, wants=[Want(None, 1)])):
            with pytest.raises(StoreError, match="may not do that") as caught:
                call()
            assert not isinstance(caught.value, StoreUnavailable)


# -- viewer


def test_a_viewer_sees_everything_partitions_to_come_included(place: Postgres) -> None:
    app = App(as_(place, "some_worker"))

    @app.task(name="t")
    async def t() -> int:
        return 7

    job = t.enqueue()
    app.worker().run_until_idle()  # the day of its end has a new partition
    app.close()
    viewer = App(as_(place, "some_viewer"))
    seen = viewer.jobs.get(job.id)

    assert (seen.state, seen.result()) == ("completed", 7)
    assert viewer.jobs.count() == 1
    assert [queue.name for queue in viewer.queues.stats()] == ["default"]
    assert viewer.workers() == []
    viewer.close()
    assert tables(place, "some_viewer", "SELECT") == tables(place, "postgres", "SELECT")
    assert any(re.fullmatch(r"history_\d{8}", name) for name in tables(place, "some_viewer", "SELECT"))


def test_a_viewer_changes_nothing(place: Postgres) -> None:
    for privilege in ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"):
        assert tables(place, "some_viewer", privilege) == set()
    assert functions(place, "some_viewer") == {"versions", "clock", "depths"}
    with closing(open_store(as_(place, "some_viewer"))) as store:
        info = WorkerInfo(id="w", name="w", host="here", pid=1)
        row = NewRow(numbered(1), "t", "default", b"{}")
        for call in (lambda: store.enqueue([row]), lambda: store.pause("q", True), lambda: store.beat(info, [])):
            with pytest.raises(StoreError, match="may not do that"):
                call()


# -- worker


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[PostgresWithRoles]:
    """For the parts of the suite below, in place of all engines."""
    under_test = PostgresWithRoles(tmp_path)
    yield under_test
    under_test.close()


@pytest.fixture
def scene(engine: PostgresWithRoles) -> Scene:
    return Scene(engine)


@pytest.fixture
def other(scene: Scene) -> Store:
    return scene.engine.open()


class TestRescueAsAWorker(test_p4_rescued.TestP4Rescued):
    pass


class TestRepeatsAsAWorker(test_p9_ambiguity.TestP9Ambiguity):
    pass


def test_a_worker_does_all_that_workers_do(place: Postgres) -> None:
    app = App(as_(place, "some_worker"))

    @app.task(name="book", retry=2)
    def book(ctx: JobContext[Any], order: int) -> None:
        ctx.log.info("booking")
        ctx.progress(1, 2)
        if order == 0 and not ctx.last_attempt:
            raise ValueError("not yet")
        if order == 2:
            with ctx.transaction():
                app.enqueue("book", {"order": 3})

    jobs = [book.enqueue(order) for order in range(3)]
    paused = app.enqueue("book", {"order": 4}, queue="slow")
    app.queues.pause("slow")
    app.worker().run_until_idle()
    jobs[0].edit(run_at="now")
    app.worker().run_until_idle()

    ends = [(job.refresh().state, [(one.outcome, one.message) for one in job.attempts]) for job in jobs]
    done = ("completed", None)
    assert ends == [
        ("completed", [("failed", "not yet"), done]),
        ("completed", [done]),
        ("completed", [done]),
    ]
    assert app.jobs.count(state="completed") == 4
    assert len(jobs[0].logs()) == 2
    paused.cancel()
    app.jobs.delete(all=True)
    assert app.jobs.count() == 0
    app.close()


def test_a_worker_does_not_change_the_schema(place: Postgres) -> None:
    for privilege in ("TRUNCATE", "REFERENCES", "TRIGGER"):
        assert tables(place, "some_worker", privilege) == set()
    assert "schema" not in tables(place, "some_worker", "UPDATE") | tables(place, "some_worker", "DELETE")
    for statement in (
        "DROP TABLE dayjob.job",
        "CREATE TABLE dayjob.mine (n int)",
        "ALTER TABLE dayjob.job ADD COLUMN mine int",
        "CREATE OR REPLACE FUNCTION dayjob.clock() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'",
        "INSERT INTO dayjob.schema (version, part, name) VALUES (99, 'pre', 'x')",
        "SET ROLE dayjob_owner",
    ):
        refused(place, "some_worker", statement)


# -- owner

LATER = Migration(
    migrations("dayjob.store.postgres.migrations")[-1].version + 1,
    "later",
    "CREATE TABLE dayjob.shade (name text); CREATE FUNCTION dayjob.dark() RETURNS int LANGUAGE sql AS 'SELECT 1'",
)


@pytest.mark.parametrize("user", ["postgres", "some_owner"])
def test_what_a_migration_brings_is_shared_out_as_the_rest(place: Postgres, user: str) -> None:
    store = place.open()
    assert isinstance(store, PostgresStore)
    steps = [*migrations("dayjob.store.postgres.migrations"), LATER]
    with closing(open_store(as_(place, user))) as handle:
        assert isinstance(handle, PostgresStore)
        assert schema.migrate(handle.db, steps=steps) == ["later"]

    assert "shade" in tables(place, "some_worker", "INSERT") & tables(place, "some_viewer", "SELECT")
    assert "shade" not in tables(place, "some_viewer", "INSERT") | tables(place, "some_producer", "SELECT")
    assert "dark" in functions(place, "some_worker")
    assert "dark" not in functions(place, "stranger") | functions(place, "some_viewer")
    test_everything_belongs_to_the_owner(place)


def test_only_the_owner_may_migrate_and_the_owner_may_not_rule_the_server(place: Postgres) -> None:
    steps = [*migrations("dayjob.store.postgres.migrations"), LATER]
    with closing(open_store(as_(place, "some_worker"))) as handle:
        assert isinstance(handle, PostgresStore)
        with pytest.raises(StoreError, match="may not do that"):
            schema.migrate(handle.db, steps=steps)
    refused(place, "some_owner", "CREATE ROLE mine")
    refused(place, "some_owner", "CREATE SCHEMA mine")
