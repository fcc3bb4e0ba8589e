"""The servers start, crash, come back, and leave nothing behind."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest

from tests.servers.bouncer import bouncer
from tests.servers.mariadb import mariadb
from tests.servers.needed import needed
from tests.servers.postgres import Server, postgres, programs

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=[18, 15])
def server(request: pytest.FixtureRequest) -> Server:
    return needed(lambda: postgres(request.param))


def test_a_server_is_of_the_version_that_was_asked_for_and_there_is_one(server: Server) -> None:
    assert postgres(server.major) is server
    assert server.sql("SHOW server_version")[0][0].startswith(f"{server.major}.")


def test_a_committed_row_survives_a_crash_of_the_server_at_the_same_address(server: Server) -> None:
    with server.database() as name:
        server.sql("CREATE TABLE fact (n int)", database=name)
        server.sql("INSERT INTO fact VALUES (1)", database=name)
        connection = psycopg.connect(server.url(name), autocommit=True)
        server.restart("immediate")

        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        assert server.sql("SELECT n FROM fact", database=name) == [(1,)]


def test_databases_begin_as_copies_and_end_whoever_uses_them(server: Server) -> None:
    first = server.create_database()
    server.sql("CREATE TABLE fact (n int)", database=first)
    second = server.create_database(template=first)
    user = psycopg.connect(server.url(second), autocommit=True)
    server.drop_database(second)

    with pytest.raises(psycopg.OperationalError):
        user.execute("SELECT 1")
    assert server.sql("SELECT datname FROM pg_database WHERE datname = %s", second) == []
    server.drop_database(first)


def test_version_15_sorts_and_prints_otherwise_than_18() -> None:
    old, new = needed(lambda: postgres(15)), needed(lambda: postgres(18))
    question = "SELECT array_agg(word ORDER BY word), '\\x00'::bytea::text FROM unnest(ARRAY['a', 'B']) word"

    assert old.sql(question) == [(["a", "B"], "\\000")]
    assert new.sql(question) == [(["B", "a"], "\\x00")]


@pytest.mark.processes
@pytest.mark.parametrize("signal", ["SIGKILL", "SIGINT", "SIGTERM"])
@pytest.mark.parametrize("start", [postgres, mariadb], ids=["postgres", "mariadb"])
def test_however_the_tests_end_no_server_stays(start: Callable[[], Any], signal: str) -> None:
    needed(start)
    script = (
        f"import os, signal; from {start.__module__} import {start.__name__}; s = {start.__name__}();"
        f"print(s.data.parent, s.port, flush=True); os.kill(os.getpid(), signal.{signal})"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    folder, port = done.stdout.split()
    deadline = time.monotonic() + 5
    while Path(folder).exists() and time.monotonic() < deadline:
        time.sleep(0.02)

    assert done.returncode != 0
    assert not Path(folder).exists()
    with socket.socket() as knock:
        assert knock.connect_ex(("127.0.0.1", int(port))) == errno.ECONNREFUSED


def test_mariadb_speaks_as_no_careless_program_expects() -> None:
    server = needed(mariadb)
    database = server.create_database()

    assert mariadb() is server
    with pytest.raises(pymysql.ProgrammingError, match="existiert nicht"):
        server.sql("SELECT * FROM nowhere", database)
    server.sql(f"DROP DATABASE {database}")


@pytest.mark.parametrize("major", [18, 15])
def test_behind_the_bouncer_a_connection_is_another_with_each_transaction(major: int) -> None:
    before = needed(lambda: bouncer(major))
    with before.server.database() as name:
        with psycopg.connect(before.url(name), autocommit=True) as one:
            one.execute("SET SESSION application_name = 'kept'")
            with psycopg.connect(before.url(name), autocommit=True) as other:
                with other.transaction():
                    [(first,)] = other.execute("SELECT pg_backend_pid()").fetchall()
                    [(second,)] = one.execute("SELECT pg_backend_pid()").fetchall()
                    [(again,)] = other.execute("SELECT pg_backend_pid()").fetchall()

    assert first == again != second


@pytest.mark.parametrize(
    ("everything_must_run", "ending"), [(False, pytest.skip.Exception), (True, pytest.fail.Exception)]
)
def test_a_missing_server_skips_a_test_and_fails_it_where_all_must_run(
    monkeypatch: pytest.MonkeyPatch, everything_must_run: bool, ending: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", "true" if everything_must_run else "")

    with pytest.raises(ending, match="pip install"):
        needed(lambda: programs(9))
