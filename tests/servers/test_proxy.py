"""The proxy does what it says; otherwise the tests of faults would prove nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from tests.servers.needed import needed
from tests.servers.postgres import Server, postgres
from tests.servers.proxy import Proxy


@pytest.fixture
def server() -> Server:
    return needed(postgres)


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
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


def test_a_cut_breaks_every_connection_and_new_ones_work(proxy: Proxy, url: str) -> None:
    connections = [psycopg.connect(url, autocommit=True) for _ in range(3)]
    cut = proxy.cut()
    for connection in connections:
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")

    assert cut == 3
    with psycopg.connect(url) as again:
        assert again.execute("SELECT 1").fetchall() == [(1,)]


def test_it_can_refuse_whoever_comes(proxy: Proxy, url: str) -> None:
    proxy.refusing = True
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    proxy.refusing = False

    psycopg.connect(url).close()


def test_what_a_black_hole_took_arrives_later(proxy: Proxy, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT 1")
        proxy.blackhole(0.3)
        begun = time.monotonic()
        rows = connection.execute("SELECT 2").fetchall()

        assert rows == [(2,)]
        assert time.monotonic() - begun >= 0.25


def test_a_late_line_is_late(proxy: Proxy, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        proxy.delay = 0.1
        begun = time.monotonic()
        connection.execute("SELECT 1")

        assert time.monotonic() - begun >= 0.2


def test_a_large_answer_and_a_cancel_go_through(proxy: Proxy, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        [(text,)] = connection.execute("SELECT repeat('x', 3000000)").fetchall()
        threading.Timer(0.1, connection.cancel_safe).start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(10)")

    assert len(text) == 3_000_000
