"""What is special about applications on MySQL and MariaDB, which are reached through SQLAlchemy or Django."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy
from sqlalchemy.orm import Session

from dayjob import App, Settings
from dayjob.errors import ConfigError, StoreError
from dayjob.outbox.source import Source
from tests.outbox.conftest import Scene, on_mariadb
from tests.servers.mariadb import Server, mariadb
from tests.servers.needed import needed


@pytest.fixture
def server() -> Server:
    return needed(mariadb)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    yield from on_mariadb(tmp_path)


@pytest.fixture
def session(scene: Scene) -> Iterator[Session]:
    engine = sqlalchemy.create_engine(scene.url)
    with Session(engine) as made:
        yield made
    engine.dispose()


def test_jobs_follow_a_session_through_savepoints_commit_and_rollback(scene: Scene, session: Session) -> None:
    with scene.app.outbox(session):
        session.execute(sqlalchemy.text("INSERT INTO effect VALUES ('paid')"))
        scene.send.enqueue(order=1)
        with session.begin_nested() as savepoint:
            scene.send.enqueue(order=2)
            savepoint.rollback()
        with session.begin_nested():
            scene.send.enqueue(order=3)
        session.commit()
        scene.send.enqueue(order=4)
        session.rollback()

    scene.relay().tick()

    assert scene.orders() == [1, 3]
    assert scene.sql("SELECT note FROM effect") == [("paid",)]


def test_what_sql_would_stumble_over_arrives_unchanged(scene: Scene, session: Session) -> None:
    meta = {"note": "ä🙂 %s :p1 $1 \\ ' \" ; --"}
    job = scene.send.using(outbox=session, meta=meta, tags=["vip:1"]).enqueue(order=2**60 + 1)
    session.commit()

    scene.relay().tick()

    stored = scene.app.jobs.get(job.id)
    assert (stored.meta, list(stored.tags), stored.args) == (meta, ["vip:1"], {"order": 2**60 + 1})


def test_an_id_of_the_callers_own_waits_once_also_within_one_call(scene: Scene, session: Session) -> None:
    id, other = uuid4(), uuid4()
    with scene.app.outbox(session):
        first = scene.send.using(id=id).enqueue(order=1)
        calls = [scene.send.using(id=one).job(order=1) for one in (id, other, other)]
        outcomes = [job.outcome for job in scene.app.enqueue_many(calls)]
        session.commit()

    assert (first.outcome, outcomes) == ("inserted", ["existing", "inserted", "existing"])
    assert scene.sql("SELECT count(*) FROM dayjob_outbox") == [(2,)]


def test_many_large_jobs_go_in_statements_that_the_server_takes(scene: Scene, session: Session) -> None:
    app = App(scene.app.url, settings=Settings(max_payload=200_000))

    @app.task(name="shop.big")
    def big(text: str) -> None: ...

    with app.outbox(session):
        app.enqueue_many([big.job(text="x" * 100_000) for _ in range(100)])  # 13 MB; the server takes 8
        session.commit()

    scene.relay().tick()

    assert scene.app.jobs.count() == 100


def test_a_producer_needs_no_more_than_to_insert_and_for_ids_of_its_own_to_read_and_update_them(
    scene: Scene, server: Server
) -> None:
    database = scene.url.rpartition("/")[2]
    user = f"p_{database}"
    server.sql(f"CREATE USER {user}@'127.0.0.1'")
    server.sql(f"GRANT INSERT ON {database}.dayjob_outbox TO {user}@'127.0.0.1'")
    engine = sqlalchemy.create_engine(server.url(database, user=user))
    with Session(engine) as session:
        scene.send.using(outbox=session).enqueue(order=1)
        session.commit()
        with pytest.raises(StoreError, match="dayjob_outbox") as refused:
            scene.send.using(outbox=session, id=uuid4()).enqueue(order=2)
        assert "INSERT INTO" not in str(refused.value)  # nor what was to be inserted: a payload is nobody's to read
        session.rollback()
        server.sql(f"GRANT SELECT, UPDATE ON {database}.dayjob_outbox TO {user}@'127.0.0.1'")
        scene.send.using(outbox=session, id=uuid4()).enqueue(order=2)
        session.commit()
    engine.dispose()

    assert scene.sql("SELECT count(*) FROM dayjob_outbox") == [(2,)]


def test_a_connection_that_the_server_cut_is_opened_again(scene: Scene, server: Server) -> None:
    relay = scene.relay()
    relay.tick()
    ids = scene.put(1, 2)
    database = scene.url.rpartition("/")[2]
    for (number,) in server.sql(f"SELECT id FROM information_schema.processlist WHERE db = '{database}'"):
        server.sql(f"KILL {number}")

    assert relay.attempt() is not None
    assert relay.attempt() is not None
    assert ids == scene.stored()


def test_a_relay_does_not_make_producers_wait_while_it_sends(scene: Scene) -> None:
    scene.put(1, 2)
    desk = scene.desk("slow")
    assert desk.take(10) is not None
    began = time.monotonic()
    scene.put(3)

    assert time.monotonic() - began < 5
    with closing(scene.connect()) as slow:
        scene.send.using(outbox=slow).enqueue(order=4)  # and an open transaction stops no relay
        assert desk.settle([1, 2], {}, 10) is not None
        slow.rollback()
    scene.free()
    scene.relay().tick()
    assert scene.orders() == [3]


@pytest.mark.parametrize(
    ("url", "words"),
    [("mysql+nosuch://host/db", "must be installed"), ("mysql+aiomysql://host/db", "is an async driver")],
)
def test_a_driver_that_does_not_serve_is_named_with_the_remedy(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words), Source(url).transaction():
        pass
