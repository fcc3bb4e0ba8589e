"""Who is told of what, and who is taken for a listener."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

import dayjob.store
from dayjob import App
from dayjob.errors import StoreUnavailable
from dayjob.store.records import NewRow
from tests.contract.engines import Postgres
from tests.contract.ids import numbered

if "postgresql" not in dayjob.store.ENGINES:
    pytest.skip("this release has no PostgreSQL engine", allow_module_level=True)


@pytest.fixture
def open_connection(place: Postgres) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(place.url) as connection:
        yield connection


def test_p11_one_who_looks_for_listeners_is_not_taken_for_one(
    place: Postgres, open_connection: psycopg.Connection[Any]
) -> None:
    store = place.open()
    told = open_connection.execute("SELECT bool_and(dayjob.nobody(k)) FROM generate_series(10, 14) AS k").fetchone()
    assert told == (True,)

    with psycopg.connect(place.url) as another:  # while that transaction is open
        assert another.execute("SELECT dayjob.nobody(10)").fetchone() == (True,)
    assert store.listening("event") is False
    assert store.listening("done") is False


def test_p11_one_who_looks_does_not_keep_anybody_from_listening(
    place: Postgres, open_connection: psycopg.Connection[Any]
) -> None:
    store = place.open()
    open_connection.execute("SELECT dayjob.nobody(k) FROM generate_series(10, 14) AS k")

    ear = store.listen(["work", "event"])

    assert store.listening("event") is True
    with psycopg.connect(place.url) as another:
        assert another.execute("SELECT dayjob.nobody(14)").fetchone() == (False,)
    ear.close()


def test_p11_storing_one_job_wakes_who_sleeps_in_the_same_call(place: Postgres) -> None:
    store, ear = place.open(), place.open().listen(["work"])
    heard: list[tuple[str, bytes]] = []
    sleeper = threading.Thread(target=lambda: heard.extend(ear.wait(10.0)))
    sleeper.start()
    with psycopg.connect(place.url, autocommit=True) as connection:
        for _ in range(1000):
            if connection.execute("SELECT dayjob.nobody(10)").fetchone() == (False,):
                break
            time.sleep(0.005)

    store.enqueue([NewRow(numbered(1), "t", "mail", b"{}")])
    sleeper.join(5.0)

    assert heard == [("work", b"mail")]
    ear.close()


def test_a_line_that_broke_writes_nothing_into_files_that_were_opened_since(place: Postgres, tmp_path: Path) -> None:
    store = place.open()
    for topics in (["work"], ["work", "event"]):
        ear = store.listen(topics)
        [line] = [thread for thread in threading.enumerate() if thread.name == "dayjob-ears"]
        place.server.terminate(place.database)
        line.join(5.0)
        files = [os.open(tmp_path / str(n), os.O_RDWR | os.O_CREAT) for n in range(20)]
        with pytest.raises(StoreUnavailable):
            ear.wait(5.0)
        ear.close()

        assert [os.fstat(file).st_size for file in files] == [0] * 20
        for file in files:
            os.close(file)


@pytest.mark.parametrize(
    "said", ["w.0,a", "w+0,\u2603", "e.0,/w==", "e=[]", "e={", 'e={"event":[1]}', "d.0,/w==", "d", "x", ""]
)
def test_what_others_say_on_the_channel_breaks_no_line(place: Postgres, said: str) -> None:
    store, app = place.open(), App(place.url)
    with closing(app), closing(store.listen(["work"])) as ear, app.events() as events:
        job = app.enqueue("t", {})
        waiting = threading.Thread(target=job.join, args=(10.0,))
        waiting.start()
        while not store.listening("done"):
            time.sleep(0.01)
        with psycopg.connect(place.url, autocommit=True) as stranger:
            stranger.execute("SELECT pg_notify('dayjob', %s)", (said,))
        store.notify("work", b"hello")
        heard = []
        while b"hello" not in heard:
            heard += [data for _, data in ear.wait(5.0)]
        job.cancel()
        waiting.join(10.0)

        assert not waiting.is_alive()
        assert {event.name for event in events.take(1.0)} <= {"job.enqueued", "job.cancelled"}
