"""The proxy does what it says, whatever the protocol; otherwise the tests of faults would prove nothing."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from redis import Connection, exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers.host import free_port
from tests.servers.line import Line
from tests.servers.needed import needed
from tests.servers.postgres import FORGETFUL, postgres, programs
from tests.servers.postgres import Server as PostgresServer
from tests.servers.proxy import Proxy, Way
from tests.servers.redis import Server as RedisServer
from tests.servers.redis import program, redis
from tests.servers.wire import Piece
from tests.servers.wire.postgres import PostgresWire
from tests.servers.wire.redis import RedisWire


class Postgres:
    """A client of PostgreSQL that sees an answer or an error, and nothing between."""

    dialect = PostgresWire
    broken = psycopg.OperationalError

    def __init__(self, port: int) -> None:
        self._connection = psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", autocommit=True)

    def ask(self, size: int = 1) -> int:
        """The length of what the server says when it is asked to say so much."""
        [(said,)] = self._connection.execute("SELECT repeat('x', %s)", [size]).fetchall()
        return len(said)

    def count(self) -> int:
        """One more than whoever counted last."""
        [(number,)] = self._connection.execute("SELECT nextval('counted')").fetchall()
        return int(number)

    def socket(self) -> socket.socket:
        """Another handle on its socket."""
        return patient(self._connection.fileno())

    def close(self) -> None:
        self._connection.close()

    @staticmethod
    def server() -> PostgresServer:
        server = needed(postgres)
        server.sql("CREATE SEQUENCE IF NOT EXISTS counted")
        return server

    @staticmethod
    def own_server() -> PostgresServer:
        return needed(lambda: PostgresServer(programs(18), FORGETFUL))


class Redis:
    """A client of Valkey, the same way."""

    dialect = RedisWire
    broken = exceptions.ConnectionError

    def __init__(self, port: int) -> None:
        self._connection: Any = Connection(port=port, protocol=2, socket_timeout=10, retry=Retry(NoBackoff(), 0))
        self.ask()

    def ask(self, size: int = 1) -> int:
        self._connection.send_command("EVAL", "return string.rep('x', ARGV[1])", 0, size)
        return len(self._connection.read_response())

    def count(self) -> int:
        self._connection.send_command("INCR", "counted")
        return int(self._connection.read_response())

    def socket(self) -> socket.socket:
        return patient(self._connection._sock.fileno())

    def close(self) -> None:
        self._connection.disconnect()

    @staticmethod
    def server() -> RedisServer:
        return needed(redis)

    @staticmethod
    def own_server() -> RedisServer:
        return RedisServer(needed(lambda: program("valkey-9")))


def patient(number: int) -> socket.socket:
    handle = socket.socket(fileno=os.dup(number))
    handle.settimeout(10)
    return handle


Client = type[Postgres] | type[Redis]


@pytest.fixture(params=[Postgres, Redis], ids=["postgres", "redis"])
def client(request: pytest.FixtureRequest) -> Client:
    kind: Client = request.param
    return kind


@pytest.fixture
def proxy(client: Client) -> Iterator[Proxy]:
    with Proxy(client.server().port, client.dialect, chance=random.Random(5)) as proxy:
        yield proxy


def duration(act: Callable[[], object]) -> float:
    begun = time.monotonic()
    act()
    return time.monotonic() - begun


def still_good(client: Client, connections: list[Any]) -> int:
    """How many of *connections* have an answer; the others must be broken."""
    good = 0
    for each in connections:
        try:
            good += each.ask()
        except client.broken:
            each.close()
    return good


def test_a_cut_breaks_every_connection_and_new_ones_work(client: Client, proxy: Proxy) -> None:
    there = [client(proxy.port) for _ in range(3)]
    cut = proxy.cut()

    assert (cut, still_good(client, there)) == (3, 0)
    with closing(client(proxy.port)) as again:
        assert again.ask() == 1
    assert proxy.connections == 4


def test_a_cut_can_take_one_and_leave_the_others(client: Client, proxy: Proxy) -> None:
    there = [client(proxy.port) for _ in range(3)]
    cut = proxy.cut(1)

    assert (cut, still_good(client, there)) == (1, 2)
    assert proxy.cut(9) == 2
    for each in there:
        each.close()


def test_a_cut_is_a_reset_and_no_orderly_end(client: Client, proxy: Proxy) -> None:
    with closing(client(proxy.port)) as connection, connection.socket() as line:
        proxy.cut()

        with pytest.raises(ConnectionResetError):
            line.recv(1)


def test_it_can_refuse_whoever_comes_and_those_who_are_there_do_not_mind(client: Client, proxy: Proxy) -> None:
    with closing(client(proxy.port)) as there:
        proxy.refusing = True
        with pytest.raises(client.broken):
            client(proxy.port)

        assert there.ask() == 1
        proxy.refusing = False
        client(proxy.port).close()


@pytest.mark.parametrize("ways", [(), (Way.REQUESTS,), (Way.REPLIES,)], ids=str)
def test_what_a_black_hole_took_arrives_later(client: Client, proxy: Proxy, ways: tuple[Way, ...]) -> None:
    with closing(client(proxy.port)) as connection:
        proxy.blackhole(0.3, *ways)
        took = duration(connection.ask)

        assert took >= 0.25


def test_a_line_that_is_half_open_carries_requests_whose_replies_do_not_come(client: Client, proxy: Proxy) -> None:
    with closing(client(proxy.port)) as connection, closing(client(client.server().port)) as beside:
        last = beside.count()
        proxy.blackhole(2.0, Way.REPLIES)
        waiting = threading.Thread(target=connection.count)
        waiting.start()
        while (now := beside.count()) == last + 1:  # nobody else has counted yet
            last = now

        assert waiting.is_alive()
        waiting.join()


def test_a_blackhole_inside_another_does_not_end_it(client: Client, proxy: Proxy) -> None:
    with closing(client(proxy.port)) as connection:
        proxy.blackhole(0.4)
        proxy.blackhole(0.1)

        assert duration(connection.ask) >= 0.35


def test_a_late_line_is_late_in_both_directions_until_it_is_not(client: Client, proxy: Proxy) -> None:
    with closing(client(proxy.port)) as connection:
        proxy.delay(0.1, 0.12)
        late = duration(connection.ask)
        proxy.delay(0)
        soon = min(duration(connection.ask) for _ in range(5))

        assert late >= 0.2
        assert soon < 0.1


def test_a_share_of_the_packets_is_late(client: Client, proxy: Proxy) -> None:
    with closing(client(proxy.port)) as connection:
        proxy.delay(0.1, share=0.3)
        times = [duration(connection.ask) for _ in range(20)]

        assert 0 < sum(took >= 0.1 for took in times) < 20


def test_large_answers_arrive_whole_also_late(client: Client, proxy: Proxy) -> None:
    with closing(client(proxy.port)) as connection:
        sizes = [connection.ask(3_000_000)]
        proxy.delay(0.001, 0.02, share=0.5)
        sizes.append(connection.ask(3_000_000))

        assert sizes == [3_000_000, 3_000_000]


def test_whoever_comes_when_no_server_is_there_is_cut_off(client: Client) -> None:
    with Proxy(free_port(), client.dialect) as proxy, pytest.raises(client.broken):
        client(proxy.port)


@pytest.mark.processes
def test_a_server_that_restarts_breaks_its_connections_and_is_reached_again(client: Client) -> None:
    with closing(client.own_server()) as server, Proxy(server.port, client.dialect) as proxy:
        before = client(proxy.port)
        server.restart()
        with pytest.raises(client.broken):
            before.ask()
        before.close()

        with closing(client(proxy.port)) as after:
            assert after.ask() == 1


def test_the_end_of_the_proxy_leaves_no_connection_behind_also_in_the_dark(client: Client) -> None:
    with Proxy(client.server().port, client.dialect) as proxy:
        connection = client(proxy.port)
        proxy.blackhole(60.0)
        waiting = threading.Thread(target=still_good, args=(client, [connection]))
        waiting.start()
    waiting.join(5.0)

    assert not waiting.is_alive()


@pytest.mark.parametrize("turns", range(5))
def test_the_end_of_the_proxy_waits_for_nobody_who_was_cut_while_connecting(turns: int) -> None:
    proxy = Proxy(Redis.server().port, RedisWire)

    def cut(line: Line, turns: int) -> None:
        if turns:
            proxy._loop.call_soon(cut, line, turns - 1)
        else:
            line.cut()

    class Cut(Line):
        """Is cut so many turns of the loop after it was accepted."""

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            cut(self, turns)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.servers.proxy.Line", Cut)
        with pytest.raises(exceptions.ConnectionError):
            Redis(proxy.port)

    assert duration(proxy.close) < 5.0


class Illiterate(RedisWire):
    """A dialect with a bug."""

    def replies(self, chunk: bytes) -> Iterator[Piece]:
        raise ValueError("illegible")


def test_what_a_dialect_cannot_read_is_told_at_the_end() -> None:
    proxy = Proxy(Redis.server().port, Illiterate)
    with pytest.raises(exceptions.ConnectionError):
        Redis(proxy.port)

    with pytest.raises(ValueError, match="illegible"):
        proxy.close()
