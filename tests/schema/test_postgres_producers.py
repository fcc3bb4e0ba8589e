"""Jobs from SQL: what triggers and other languages may say, and what people write into the tables by themselves."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

import dayjob.store
from dayjob import App, Job
from dayjob.cli.shape import job_document
from dayjob.clock import from_stamp
from dayjob.codec import encode_untyped
from dayjob.store import open_store
from dayjob.store.records import NewRow, Want, WorkerInfo
from tests.contract.engines import Postgres

if "postgresql" not in dayjob.store.ENGINES:
    pytest.skip("this release has no PostgreSQL engine", allow_module_level=True)


@pytest.fixture
def app(place: Postgres) -> Iterator[App]:
    """An app on it, with tasks."""
    app = App(place.url)

    @app.task(name="ship", retry=False)
    async def ship(order: int, amount: Decimal, at: datetime | None = None, note: str = "") -> str:
        return f"{order} {amount} {at and at.isoformat()} {note}"

    @app.task(name="count")
    async def count() -> int:
        return 1

    yield app
    app.close()


def sql(place: Postgres, statement: str, *parameters: Any) -> Any:
    """The one value that *statement* answers."""
    [[value]] = place.server.sql(statement, *parameters, database=place.database)
    return value


def refused(place: Postgres, call: str, *parameters: Any) -> tuple[str, str]:
    """(what is said, the remedy) when *call* is refused; nothing was stored."""
    with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
        sql(place, f"SELECT dayjob.enqueue({call})", *parameters)

    assert sql(place, "SELECT count(*) FROM dayjob.job") == 0
    diagnosis = caught.value.diag
    return str(diagnosis.message_primary), str(diagnosis.message_hint)


# -- what can be said


def test_a_job_of_a_trigger_runs_with_the_arguments_of_its_row(place: Postgres, app: App) -> None:
    place.server.sql(
        """
        CREATE TABLE invoice (no int PRIMARY KEY, amount numeric, due timestamptz);
        CREATE FUNCTION invoice_came() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM dayjob.enqueue('ship', jsonb_build_object('order', NEW.no, 'amount', NEW.amount::text, 'at', NEW.due));
            RETURN NULL;
        END $$;
        CREATE TRIGGER enqueue AFTER INSERT ON invoice FOR EACH ROW EXECUTE FUNCTION invoice_came();
        INSERT INTO invoice VALUES (7, 9.90, '2030-02-03 04:05:06Z'), (8, 10, NULL);
        """,
        database=place.database,
    )

    app.worker().run_until_idle()

    results = sorted(job.result() for job in app.jobs.find(task="ship"))
    assert [result.split()[:2] for result in results] == [["7", "9.90"], ["8", "10"]]
    assert datetime.fromisoformat(results[0].split()[2]) == datetime(2030, 2, 3, 4, 5, 6, tzinfo=UTC)


def test_nothing_is_stored_when_the_transaction_is_rolled_back(place: Postgres) -> None:
    with psycopg.connect(place.url) as connection:
        connection.execute("SELECT dayjob.enqueue('count')")
        connection.rollback()

    assert sql(place, "SELECT count(*) FROM dayjob.job") == 0


def test_everything_that_can_be_said_is_stored(place: Postgres, app: App) -> None:
    before = datetime.now(UTC)
    id = sql(
        place,
        """SELECT dayjob.enqueue('count', queue => 'night', priority => -7, delay => '1 day 1 hour', max_attempts => 3,
            expires => '2 days', tags => '{vip,late,vip}', meta => '{"by": "trigger"}')""",
    )
    job: Job[Any] = app.jobs.get(id)

    assert (job.task, job.queue, job.priority, job.max_attempts, job.args) == ("count", "night", -7, 3, {})
    assert (job.tags, job.meta, job.state) == (("vip", "late"), {"by": "trigger"}, "scheduled")
    assert timedelta(0) <= job.run_at - before - timedelta(hours=25) < timedelta(minutes=1)
    row = app.store.get(str(id))
    assert row is not None
    assert row.expires_at is not None
    assert row.expires_at - row.created_at == 2 * 86_400_000_000
    assert app.jobs.count(tag="late") == 1


def test_a_time_is_the_same_moment_whatever_the_session_s_time_zone(place: Postgres, app: App) -> None:
    with psycopg.connect(place.url, autocommit=True) as connection:
        connection.execute("SET timezone = 'Asia/Kathmandu'")
        connection.execute("SET datestyle = 'SQL, DMY'")
        [id] = connection.execute(
            "SELECT dayjob.enqueue('count', run_at => '2031-02-03 04:05:06.000007Z')"
        ).fetchone() or [None]

    assert app.jobs.get(id).run_at == datetime(2031, 2, 3, 4, 5, 6, 7, tzinfo=UTC)


def test_the_payload_is_what_python_would_have_stored(place: Postgres, app: App) -> None:
    args = {"order": 7, "amount": "9.99", "note": 'Größe "\u2603"\n'}
    id = sql(place, "SELECT dayjob.enqueue('ship', %s)", Jsonb(args))
    row = app.store.get(str(id))

    assert row is not None
    assert app.jobs.get(id).args == {**args, "amount": Decimal("9.99"), "at": None}
    assert json.loads(row.payload) == json.loads(encode_untyped("ship", args, 10_000)) == args


def test_ids_are_uuids_of_version_7_that_rise(place: Postgres) -> None:
    ids = sql(place, "SELECT array_agg(dayjob.new_id() ORDER BY n) FROM generate_series(1, 500) AS n")
    stamps = [id.int >> 80 for id in ids]

    assert {(id.version, id.variant) for id in ids} == {(7, uuid.RFC_4122)}
    assert len(set(ids)) == 500
    assert stamps == sorted(stamps)
    assert abs(from_stamp(stamps[0] * 1000) - datetime.now(UTC)) < timedelta(minutes=1)


def test_an_id_of_its_own_makes_an_enqueue_repeatable(place: Postgres, app: App) -> None:
    id = uuid.uuid4()
    for _ in range(2):
        assert sql(place, "SELECT dayjob.enqueue('count', id => %s)", id) == id
    app.worker().run_until_idle()
    assert sql(place, "SELECT dayjob.enqueue('count', id => %s)", id) == id

    assert (app.jobs.count(), app.jobs.get(id).state) == (1, "completed")


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_an_id_stored_since_the_caller_s_snapshot_is_told_by_a_conflict_while_it_waits(
    place: Postgres, app: App, level: str
) -> None:
    with psycopg.connect(place.url, autocommit=True) as connection:
        connection.execute(f"BEGIN ISOLATION LEVEL {level}")  # type: ignore[arg-type]  # a str will do
        connection.execute("SELECT count(*) FROM dayjob.job")
        job = app.enqueue("count", id=uuid.uuid4())
        with pytest.raises(psycopg.errors.SerializationFailure):
            connection.execute("SELECT dayjob.enqueue('count', id => %s)", (job.id,))
        connection.execute("ROLLBACK")

    assert app.jobs.count() == 1


def test_a_sleeping_worker_hears_of_it(place: Postgres, app: App) -> None:
    ears = app.store.listen(["work"])
    try:
        sql(place, "SELECT dayjob.enqueue('count')")
        assert ears.wait(5.0)
    finally:
        ears.close()


# -- what is refused


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("NULL", "task NULL is no name"),
        ("''", "task '' is no name"),
        ("E'a\\n'", "task 'a\n' is no name"),
        ("repeat('x', 201)", "is no name"),
        ("'t', queue => 'a b'", "queue 'a b' is no name"),
        ("'t', queue => NULL", "queue NULL is no name"),
        ("'t', priority => 101", "priority 101"),
        ("'t', priority => NULL", "priority NULL"),
        ("'t', NULL", "args is NULL"),
        ("'t', '[1]'", "args is a JSON array"),
        ("'t', 'null'", "args is a JSON null"),
        ("""'t', '{"$v": 2}'""", "argument '$v'"),
        ("""'t', '{"": 2}'""", "argument ''"),
        ("""'t', '{"a b": 2}'""", "argument 'a b'"),
        ("'t', jsonb_build_object('x', repeat('x', 9992))", "args has 10001 bytes, the limit is 10000"),
        ("'t', run_at => 'infinity'", "run_at infinity"),
        ("'t', run_at => '-infinity'", "run_at -infinity"),
        ("'t', run_at => '10000-01-01Z'", "run_at"),
        ("'t', run_at => '4000-01-01 BC'", "run_at"),
        ("'t', run_at => now(), delay => '1 s'", "run_at and delay"),
        ("'t', delay => '-1 s'", "delay"),
        ("'t', delay => '9000 years'", "delay"),
        ("'t', expires => '0'", "expires"),
        ("'t', max_attempts => 0", "max_attempts 0"),
        ("'t', tags => '{a,NULL}'", "tag NULL is no name"),
        ("'t', tags => '{a b}'", "tag 'a b' is no name"),
        ("'t', tags => array(SELECT 't' || n FROM generate_series(1, 101) AS n)", "101 tags"),
        ("'t', meta => '1'", "meta is a JSON number"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_remedy(place: Postgres, call: str, said: str) -> None:
    problem, remedy = refused(place, call)

    assert problem.startswith("dayjob.enqueue: ")
    assert said in problem
    assert len(remedy) > 10


def test_an_interval_without_end_is_refused(place: Postgres) -> None:
    if place.major < 17:
        pytest.skip("intervals end there")
    for name in ("delay", "expires"):
        assert "infinity" in refused(place, f"'t', {name} => 'infinity'")[0]


def test_nul_cannot_be_said_in_sql(place: Postgres) -> None:
    with pytest.raises(psycopg.errors.UntranslatableCharacter):
        sql(place, """SELECT dayjob.enqueue('t', '{"note": "a\\u0000b"}')""")


def test_the_limit_of_arguments_can_be_raised_for_a_database(place: Postgres) -> None:
    place.server.sql(f"ALTER DATABASE {place.database} SET dayjob.max_payload = '20000'")

    assert sql(place, "SELECT dayjob.enqueue('t', jsonb_build_object('x', repeat('x', 12000)))")


def test_the_limit_of_another_namespace_has_a_name_of_its_own(place: Postgres) -> None:
    with closing(open_store(place.url, namespace="shop_jobs")) as store:
        store.migrate()
    large = "SELECT shop_jobs.enqueue('t', jsonb_build_object('x', repeat('x', 12000)))"
    with psycopg.connect(place.url, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
            connection.execute(large)
        connection.execute("SET shop_jobs.max_payload = '20000'")
        connection.execute(large)
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"^shop_jobs\.enqueue: task '' is no name"):
            connection.execute("SELECT shop_jobs.enqueue('')")

    assert str(caught.value.diag.message_primary).startswith("shop_jobs.enqueue: args has")
    assert "SET shop_jobs.max_payload =" in str(caught.value.diag.message_hint)


# -- what does not fit, or was never meant to be read


def test_arguments_that_fit_no_datetime_wait_for_code_that_they_fit_and_say_why(place: Postgres, app: App) -> None:
    args = """jsonb_build_object('order', 1, 'amount', '1', 'at', timestamptz {!r})"""
    bad = [
        sql(place, f"SELECT dayjob.enqueue('ship', {args.format(at)})")
        for at in ("infinity", "10001-01-01Z", "0044-03-15Z BC")
    ]
    good = sql(place, "SELECT dayjob.enqueue('count')")

    app.worker().run_until_idle()

    assert app.jobs.get(good).state == "completed"
    for id in bad:
        job = app.jobs.get(id)
        assert job.state == "scheduled"
        assert "at" in str(job.reason)


WRONG: dict[str, str] = {
    "bytes that are no JSON": r"payload = '\x00ff'",
    "bytes that are no UTF-8": r"""payload = '\x7b2261223a22ff227d'""",
    "no bytes": "payload = ''",
    "JSON that is no object": "payload = '[1]'",
    "nested for ever": "payload = convert_to(repeat('[', 9000), 'UTF8')",
    "options that are no JSON": r"options = '\xff'",
    "meta nested for ever": """meta = '{"a":' || repeat('[', 4000) || repeat(']', 4000) || '}'""",
    "an attempt too many": "attempt = 2147483647",
    "crashes too many": "crashes = 2147483647, suspect = false",
    "no attempt allowed": "max_attempts = -5",
    "a priority beyond all": "priority = 2147483647",
    "no task": "task = ''",
    "a task like none": "task = repeat('x', 100000)",
    "a time before time": "run_at = -62135596800000000, created_at = -62135596800000000",
    "a time after time": "expires_at = 253402300799999999, created_at = 253402300799999999",
    "the year 10000": "expires_at = 253402300800000000, created_at = 253402300800000000",
    "the end of all times": "expires_at = 9223372036854775807, created_at = 9223372036854775807",
    "the beginning of all times": "created_at = -9223372036854775808",
    "due at the end of all times": "run_at = 9223372036854775807",
    "due at the beginning of all times": "run_at = -9223372036854775808",
    "expired at the beginning of all times": "expires_at = -9223372036854775808",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_row_that_somebody_spoiled_stops_nobody_else(place: Postgres, app: App, name: str) -> None:
    before = app.enqueue("count")
    bad = app.enqueue("count")
    after = app.enqueue("count")
    place.server.sql(f"UPDATE dayjob.job SET {WRONG[name]} WHERE id = %s", bad.id, database=place.database)

    app.worker().run_until_idle()

    assert [before.refresh().state, after.refresh().state] == ["completed", "completed"]
    found = {shown["id"]: shown["state"] for shown in map(job_document, app.jobs.find())}
    assert app.jobs.find(tag="vip") == []
    assert set(found) == {before.id, bad.id, after.id}
    if name.startswith(("bytes", "no bytes", "JSON", "nested")):
        assert (bad.refresh().state, bad.reason) == ("dead", "unreadable")


@pytest.mark.parametrize(
    "change", ["tags = '{'", "tags = 'vip'", """tags = '{"vip": 1}'""", "meta = '{'", "meta = '[]'"]
)
def test_what_everybody_reads_to_find_a_job_cannot_be_spoiled(place: Postgres, app: App, change: str) -> None:
    job = app.enqueue("count", tags=["vip"], meta={"by": "web"})

    with pytest.raises((psycopg.errors.CheckViolation, psycopg.errors.InvalidTextRepresentation)):
        place.server.sql(f"UPDATE dayjob.job SET {change}", database=place.database)

    assert [found.id for found in app.jobs.find(tag="vip")] == [job.id]


def test_a_script_may_write_rows_by_hand_into_what_is_ready(place: Postgres, app: App) -> None:
    store = app.store
    store.beat(WorkerInfo(id="w", name="w", host="here", pid=1), [])
    store.enqueue([NewRow(str(uuid.uuid4()), "count", "default", b"{}")])
    place.server.sql(
        "INSERT INTO dayjob.ready (place, entry, id, priority, kind, queue) VALUES (99, 99, gen_random_uuid(), 0, 0, 'default')",
        database=place.database,
    )

    assert len(store.turn("w", 1, wants=[Want(None, 10)]).claimed) == 1
