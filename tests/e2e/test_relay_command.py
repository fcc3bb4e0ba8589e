"""`dayjob relay`, by subprocess."""

from __future__ import annotations

import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from dayjob import App
from tests.e2e.conftest import Project


@pytest.fixture
def shop(project: Project) -> Path:
    """A database of the application's with an outbox in it."""
    path = project.folder / "shop.db"
    sqlite3.connect(path).close()
    project("migrate")
    project("relay", "--from", "sqlite:///shop.db", "--migrate", status=0)
    return path


def put(path: Path, *names: str) -> list[str]:
    app = App("sqlite:///nowhere.db")
    with closing(sqlite3.connect(path)) as connection, app.outbox(connection):
        jobs = [app.enqueue("greet", {"name": name}) for name in names]
        connection.commit()
    return [job.id for job in jobs]


def test_it_delivers_what_is_there_and_stops(project: Project, shop: Path) -> None:
    (id,) = put(shop, "Ada")
    run = project("relay", "--from", "sqlite:///shop.db", "--burst", status=0)

    assert "delivered 1 job, set aside 0" in run.err
    assert project.state(id) == "available"


def test_it_goes_on_until_it_is_told_to_stop_and_hands_over(project: Project, shop: Path) -> None:
    going = project.start("relay", "--from", "sqlite:///shop.db", DAYJOB_LOG_LEVEL="DEBUG")
    going.said("outbox.taken")
    (id,) = put(shop, "Ada")
    going.said("outbox.relayed")
    going.process.send_signal(signal.SIGTERM)

    assert going.process.wait(10) == 0
    assert project.state(id) == "available"
    assert project("relay", "--from", "sqlite:///shop.db", "--burst").status == 0  # at once: the lease was given up


@pytest.mark.parametrize("burst", [False, True])
def test_told_to_stop_it_leaves_the_rest_to_the_next(project: Project, shop: Path, burst: bool) -> None:
    ids = put(shop, *map(str, range(6000)))
    words = ["relay", "--from", "sqlite:///shop.db", "--batch", "1", *(["--burst"] if burst else [])]
    going = project.start(*words)
    deadline = time.monotonic() + 15
    while len(left := rows(shop)) == len(ids):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    going.process.send_signal(signal.SIGTERM)

    assert going.process.wait(10) == (1 if burst else 0)
    assert 0 < len(rows(shop)) <= len(left)
    assert project("relay", "--from", "sqlite:///shop.db", "--burst").status == 0
    assert rows(shop) == []


def rows(path: Path) -> list[object]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT seq FROM dayjob_outbox").fetchall()


def test_stats_and_doctor_show_what_was_set_aside(project: Project, shop: Path) -> None:
    bad, _ = put(shop, "Ada", "Bob")
    with closing(sqlite3.connect(shop)) as connection:
        connection.execute("UPDATE dayjob_outbox SET body = x'00' WHERE job_id = ?", (bad,))
        connection.commit()
    project("relay", "--from", "sqlite:///shop.db", "--burst", status=0)
    (told,) = project("stats", "--json").json["outboxes"]
    listed = project("relay", "--from", "sqlite:///shop.db", "--failed", "--json").json

    assert (told["waiting"], told["failed"], told["delivered"]) == (0, 1, 1)
    assert "OUTBOX" in project("stats").out
    assert "1 job set aside" in project("doctor", status=1).out
    assert [bad] == [one["id"] for one in listed]
    assert "retried 1 job" in project("relay", "--from", "sqlite:///shop.db", "--retry", "all", status=0).err
    assert "discarded 0 jobs" in project("relay", "--from", "sqlite:///shop.db", "--discard", bad, "-y", status=1).err
    project("relay", "--from", "sqlite:///shop.db", "--burst", status=0)
    assert "discarded 1 job" in project("relay", "--from", "sqlite:///shop.db", "--discard", bad, "-y", status=0).err


def test_the_sql_is_printed_without_a_connection(project: Project) -> None:
    run = project("relay", "--from", "postgresql://nobody@nowhere.invalid/shop", "--sql", status=0)

    assert run.out.startswith("CREATE TABLE IF NOT EXISTS dayjob_outbox (")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("shop.db", "no URL of a database"),
        ("oracle://host/db", "not in oracle"),
        ("postgresql://[::1/db", "no URL of a database"),
        ("sqlite:///absent.db", "there is no file"),
        ("sqlite:///bare.db", "--migrate"),
        ("sqlite:///:memory:", "use a file"),
    ],
)
def test_a_wrong_source_is_named_at_once(project: Project, source: str, words: str) -> None:
    project("migrate")
    sqlite3.connect(project.folder / "bare.db").close()
    run = project("relay", "--from", source, status=2)

    assert words in run.err
