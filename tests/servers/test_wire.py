"""The dialects know which reply is whose: that of an operation is lost when it was carried out, and no other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis, exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from dayjob.errors import StoreUnavailable
from dayjob.states import Outcome
from dayjob.store import open_store
from dayjob.store.contract import Store
from dayjob.store.records import Checkpoint, Lease, Progress
from tests.contract.engines import EngineUnderTest, Postgres18, Valkey9
from tests.contract.scene import Puppet, Scene
from tests.servers.needed import needed
from tests.servers.postgres import Server, postgres
from tests.servers.proxy import Proxy, Way
from tests.servers.redis import redis
from tests.servers.wire.operations import OPERATIONS
from tests.servers.wire.postgres import PostgresWire
from tests.servers.wire.redis import RedisWire, Values

# -- PostgreSQL


@pytest.fixture
def server() -> Server:
    return needed(postgres)


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port, PostgresWire) as proxy:
        yield proxy


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    with server.database() as name:
        server.sql("CREATE TABLE fact (n int PRIMARY KEY)", database=name)
        yield name


@pytest.fixture
def url(server: Server, proxy: Proxy, database: str) -> str:
    return server.url(database, port=proxy.port)


def stored(server: Server, database: str) -> list[int]:
    return [n for (n,) in server.sql("SELECT n FROM fact ORDER BY n", database=database)]


def test_a_lost_reply_was_committed_and_the_client_does_not_know(
    server: Server, proxy: Proxy, database: str, url: str
) -> None:
    lost = proxy.lose_replies("INSERT INTO fact", 1)
    connection = psycopg.connect(url, autocommit=True)
    before = connection.execute("SELECT 1").fetchall()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("INSERT INTO fact VALUES (%s)", [1])
    with psycopg.connect(url, autocommit=True) as again:
        again.execute("INSERT INTO fact VALUES (%s)", [2])

    assert before == [(1,)]
    assert lost.done.is_set()
    assert lost.texts == ["INSERT INTO fact VALUES ($1)"]
    assert stored(server, database) == [1, 2]


def test_inside_a_transaction_it_is_the_reply_of_the_commit_that_is_lost(
    server: Server, proxy: Proxy, database: str, url: str
) -> None:
    lost = proxy.lose_replies("INSERT INTO fact", 1)
    connection = psycopg.connect(url)
    rows = connection.execute("INSERT INTO fact VALUES (1) RETURNING n").fetchall()
    with pytest.raises(psycopg.OperationalError):
        connection.commit()

    assert rows == [(1,)]
    assert lost.done.is_set()
    assert stored(server, database) == [1]


def test_a_failed_transaction_is_no_lost_reply(server: Server, proxy: Proxy, database: str, url: str) -> None:
    lost = proxy.lose_replies("INSERT INTO fact", 1)
    with psycopg.connect(url, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.NotNullViolation):
            connection.execute("INSERT INTO fact VALUES (NULL)")

    assert lost.texts == []
    assert stored(server, database) == []


def test_what_was_rolled_back_is_no_lost_reply(server: Server, proxy: Proxy, database: str, url: str) -> None:
    lost = proxy.lose_replies("INSERT INTO fact", 1)
    with closing(psycopg.connect(url)) as connection:
        connection.execute("INSERT INTO fact VALUES (1)")
        connection.rollback()
        rows = connection.execute("SELECT n FROM fact").fetchall()

    assert (rows, lost.texts) == ([], [])


def test_no_more_replies_are_lost_than_were_asked_for(proxy: Proxy, url: str) -> None:
    """All are under way before the first one is lost."""
    lost = proxy.lose_replies("pg_sleep", 2)
    good: list[object] = []

    def ask() -> None:
        with closing(psycopg.connect(url, autocommit=True)) as connection, suppress(psycopg.OperationalError):
            good.append(connection.execute("SELECT pg_sleep(0.5)").fetchall())

    asking = [threading.Thread(target=ask) for _ in range(5)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()

    assert (len(lost.texts), len(good)) == (2, 3)


def test_a_prepared_statement_is_known_by_its_text(server: Server, proxy: Proxy, database: str, url: str) -> None:
    connection = psycopg.connect(url, autocommit=True)
    for n in range(3):
        connection.execute("INSERT INTO fact VALUES (%s)", [n], prepare=True)
    lost = proxy.lose_replies("INSERT INTO fact", 1)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("INSERT INTO fact VALUES (%s)", [3], prepare=True)

    assert lost.done.is_set()
    assert stored(server, database) == [0, 1, 2, 3]


def test_in_a_pipeline_the_reply_of_the_statement_itself_is_lost(
    server: Server, proxy: Proxy, database: str, url: str
) -> None:
    lost = proxy.lose_replies(r"VALUES \(2\)", 1)
    connection = psycopg.connect(url, autocommit=True)

    def store() -> None:
        with connection.pipeline() as pipeline:
            connection.execute("INSERT INTO fact VALUES (1)")
            pipeline.sync()
            connection.execute("INSERT INTO fact VALUES (2)")

    with pytest.raises(psycopg.OperationalError):
        store()

    assert lost.done.is_set()
    assert stored(server, database) == [1, 2]


def test_a_cancel_goes_through(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        threading.Timer(0.1, connection.cancel_safe).start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(10)")


# -- Redis


class Line:
    """A client behind a proxy, and one beside it."""

    def __init__(self, protocol: int) -> None:
        server = needed(redis)
        self.proxy = Proxy(server.port, RedisWire)
        database = server.database()
        never = Retry(NoBackoff(), 0)
        self.client: Any = Redis(port=self.proxy.port, db=database, protocol=protocol, retry=never)
        self.beside: Any = Redis(port=server.port, db=database)

    def close(self) -> None:
        self.client.close()
        self.beside.close()
        self.proxy.close()


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    with closing(Line(request.param)) as line:
        yield line


def test_a_command_whose_reply_is_lost_was_carried_out_once(line: Line) -> None:
    lost = line.proxy.lose_replies("^INCR", 1)
    with pytest.raises(exceptions.ConnectionError):
        line.client.incr("fact")

    assert lost.texts == ["INCRBY fact 1"]
    assert line.beside.get("fact") == b"1"
    assert line.client.incr("fact") == 2


def test_a_command_that_failed_is_no_lost_reply(line: Line) -> None:
    lost = line.proxy.lose_replies("^INCR", 1)
    line.client.set("fact", "word")
    with pytest.raises(exceptions.ResponseError):
        line.client.incr("fact")

    assert lost.texts == []
    with pytest.raises(exceptions.ConnectionError):
        line.client.incr("other")
    assert lost.texts == ["INCRBY other 1"]


def test_in_a_pipeline_what_comes_before_the_lost_reply_is_heard(line: Line) -> None:
    lost = line.proxy.lose_replies("^INCRBY second", 1)
    connection = line.client.connection_pool.get_connection()
    connection.send_packed_command(
        connection.pack_commands(
            [("HSET", "map", "a", "1"), ("HGETALL", "map"), ("INCRBY", "second", "2"), ("SET", "third", "3")]
        )
    )
    heard = [connection.read_response(), connection.read_response()]
    with pytest.raises(exceptions.ConnectionError):
        connection.read_response()
    connection.disconnect()

    assert heard[0] == 1
    assert heard[1] in ([b"a", b"1"], {b"a": b"1"})
    assert lost.texts == ["INCRBY second 2"]
    assert (line.beside.get("second"), line.beside.get("third")) == (b"2", b"3")


def test_what_is_published_is_no_reply(line: Line) -> None:
    """Were it counted as one, it would be lost in place of the reply to the PING."""
    with line.client.pubsub() as pubsub:
        pubsub.subscribe("one", "two")
        heard = [pubsub.get_message(timeout=5)["type"] for _ in range(2)]
        line.beside.publish("one", "news")
        heard.append(pubsub.get_message(timeout=5)["data"])
        lost = line.proxy.lose_replies("^PING", 1)
        line.proxy.blackhole(0.3, Way.REPLIES)  # both are asked for before either is heard
        line.beside.publish("two", "more")
        pubsub.ping()
        heard.append(pubsub.get_message(timeout=5)["data"])
        with pytest.raises(exceptions.ConnectionError):
            pubsub.connection.read_response()

    assert heard == ["subscribe", "subscribe", b"news", b"more"]
    assert lost.texts == ["PING"]


def test_values_end_where_they_end_however_they_are_cut_into_pieces() -> None:
    values = [
        b"+OK\r\n", b"-ERR no\r\n", b":1\r\n", b"$-1\r\n", b"$0\r\n\r\n", b"$4\r\n\r\n+O\r\n", b"*-1\r\n", b"*0\r\n",
        b"*2\r\n*2\r\n:1\r\n$1\r\na\r\n*0\r\n", b"%1\r\n+a\r\n~2\r\n_\r\n#t\r\n", b">2\r\n+message\r\n=5\r\ntxt:x\r\n",
        b"|1\r\n+ttl\r\n:3\r\n*1\r\n,1.5\r\n", b"PING now\r\n",
    ]  # fmt: skip
    whole = b"".join(values)

    for size in range(1, len(whole)):
        reader = Values()
        chunks = [whole[at : at + size] for at in range(0, len(whole), size)]
        assert [value for chunk in chunks for value in reader.feed(chunk)] == values


# -- dayjob's operations


@pytest.fixture(params=[("postgres", Postgres18, PostgresWire), ("redis", Valkey9, RedisWire)], ids=lambda one: one[0])
def behind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Scene, Store, Proxy]]:
    """The engine's name, a scene, and a store of it behind a proxy."""
    name, kind, dialect = request.param
    engine: EngineUnderTest = kind(tmp_path)
    with Proxy(engine.server.port, dialect) as proxy:  # type: ignore[attr-defined]
        scene = Scene(engine)
        url = engine.server.url(engine.database, port=proxy.port)  # type: ignore[attr-defined]
        with closing(open_store(url)) as store:
            yield name, scene, store, proxy
    engine.close()


def settles(outcome: Outcome, **fields: Any) -> Callable[[Store, Scene, Puppet], object]:
    def settle(store: Store, scene: Scene, ann: Puppet) -> object:
        return store.turn(ann.id, None, [ann.settlement(ann.batches[1][0], outcome, **fields)], now=scene.now)

    return settle


def records(store: Store, scene: Scene, ann: Puppet) -> object:
    job = ann.batches[1][0]
    return store.record(Lease(ann.id, job.id, job.entry), [Checkpoint(b"1"), Progress(1, 2)], now=scene.now)


CASES: dict[str, Callable[[Store, Scene, Puppet], object]] = {
    "enqueue one": lambda store, scene, ann: store.enqueue([scene.row()], now=scene.now),
    "enqueue many": lambda store, scene, ann: store.enqueue([scene.row(), scene.row()], now=scene.now),
    "enqueue again": lambda store, scene, ann: store.enqueue([scene.row(), scene.row()], repeat=True, now=scene.now),
    "claim": lambda store, scene, ann: store.turn(ann.id, 2, (), [ann.want()], now=scene.now),
    "settle completed": settles(Outcome.COMPLETED),
    "settle failed": settles(Outcome.FAILED, delay=1.0, error=b"x"),
    "record": records,
    "beat": lambda store, scene, ann: store.beat(ann.info, [1], now=scene.now),
}


@pytest.mark.parametrize("case", CASES)
def test_each_operation_is_known_by_its_looks(behind: tuple[str, Scene, Store, Proxy], case: str) -> None:
    name, scene, store, proxy = behind
    scene.job()
    ann = scene.worker()
    ann.take()
    scene.job()
    losses = {what: proxy.lose_replies(pattern[name], 1) for what, pattern in OPERATIONS.items()}

    with pytest.raises(StoreUnavailable):
        CASES[case](store, scene, ann)
    lost = {what for what, loss in losses.items() if loss.done.is_set()}
    wanted = {case.split()[0]}
    assert lost - wanted <= ({"claim"} if (name, case.split()[0]) == ("postgres", "settle") else set())
    assert wanted <= lost
