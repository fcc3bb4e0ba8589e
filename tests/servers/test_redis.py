"""The Redis and Valkey servers start, crash, come back, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis, exceptions

from tests.servers.needed import needed
from tests.servers.redis import Server, program, redis

KINDS = {"valkey-9": "v=9.", "redis-7.0": "v=7.0.", "redis-6.2": "v=6.2."}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def server(kind: str) -> Server:
    return needed(lambda: redis(kind))


def test_a_server_is_of_the_version_that_was_asked_for_and_there_is_one(kind: str, server: Server) -> None:
    assert redis(kind) is server
    assert KINDS[kind] in server.version()
    assert (server.setting("appendonly"), server.setting("appendfsync")) == ("yes", "everysec")


def test_databases_are_empty_and_apart(server: Server) -> None:
    first, second = server.database(), server.database()
    server.do("SET", "fact", "1", database=first)

    assert server.do("GET", "fact", database=second) is None
    assert server.do("GET", "fact", database=first) == b"1"


def test_what_was_written_survives_a_crash_at_the_same_address(kind: str) -> None:
    server = Server(needed(lambda: program(kind)), appendfsync="always")
    try:
        before = server.url()
        server.do("SET", "fact", "1")
        server.restart()

        assert server.url() == before
        assert server.do("GET", "fact") == b"1"
    finally:
        server.close()
    with pytest.raises(exceptions.ConnectionError):
        server.do("PING")


def test_a_setting_is_another_for_a_while(server: Server) -> None:
    with server.set(maxmemory_policy="allkeys-lru"):
        assert server.setting("maxmemory-policy") == "allkeys-lru"

    assert server.setting("maxmemory-policy") == "noeviction"


def test_a_snapshot_that_takes_its_time_holds_all_that_was_written_before(tmp_path: Path) -> None:
    server = Server(needed(lambda: program("valkey-9")), rdb_key_save_delay="200000")  # us a key
    try:
        server.do("SET", "fact", "1")
        server.snapshot(tmp_path / "first")
        server.do("SET", "other fact", "1")
        server.snapshot(tmp_path / "second")
    finally:
        server.close()
    second = Server(program("valkey-9"), holds=tmp_path / "second")
    try:
        assert (tmp_path / "first").stat().st_size < (tmp_path / "second").stat().st_size
        assert second.do("MGET", "fact", "other fact") == [b"1", b"1"]
    finally:
        second.close()


def test_a_replica_follows(kind: str, server: Server) -> None:
    replica = Server(needed(lambda: program(kind)), of=server)
    try:
        with Redis(port=server.port) as client:
            client.set("fact", "1")
            assert client.wait(1, 10_000) == 1

        assert replica.do("GET", "fact") == b"1"
    finally:
        replica.close()
        server.do("DEL", "fact")
