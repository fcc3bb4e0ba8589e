"""What a relay makes of an outbox: at least once, exactly one job, in order, and nothing blocks."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from dayjob.errors import BadRow, ConfigError, SchemaMismatch, StoreError, StoreUnavailable
from dayjob.events import OutboxSetAside
from dayjob.outbox import report
from dayjob.outbox.relay import WINDOW
from tests.contract.engines import Postgres18, Redis62, Valkey9
from tests.outbox.conftest import Scene


class Faulty:
    """The store, with faults at `enqueue`.

    Args:
        fault: called with the rows; what it raises is raised. after: raised when the rows are stored already.
    """

    def __init__(self, store: Any, fault: Any = None, after: Exception | None = None) -> None:
        self.store, self.fault, self.after = store, fault, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def enqueue(self, rows: Any, **options: Any) -> Any:
        if self.fault is not None:
            self.fault(rows)
        done = self.store.enqueue(rows, **options)
        if self.after is not None:
            raise self.after
        return done


def rows_left(scene: Scene, aside: int = 0) -> int:
    return int(scene.sql(f"SELECT count(*) FROM dayjob_outbox WHERE set_aside = {aside}")[0][0])


def test_jobs_come_to_the_store_under_their_ids_and_in_their_order(scene: Scene) -> None:
    ids = scene.put(*range(25))

    scene.relay(batch=10).tick()

    assert rows_left(scene) == 0
    assert sorted(ids) == scene.stored()
    assert list(range(25)) == scene.orders()


def test_options_travel_and_times_count_from_the_enqueue(scene: Scene) -> None:
    (id,) = scene.put(1, delay=3600, tags=["vip"], meta={"by": "web"}, priority=7, queue="mail")
    (gone,) = scene.put(2, expires=60)
    scene.sql("UPDATE dayjob_outbox SET created_at = created_at - 1800000000")

    scene.relay().tick()

    job = scene.app.jobs.get(id)
    wait = (job.run_at - job.created_at).total_seconds()
    assert (list(job.tags), job.meta, job.priority, job.queue) == (["vip"], {"by": "web"}, 7, "mail")
    assert 1790 < wait <= 1800
    scene.app.worker().run_until_idle()
    assert (str(scene.app.jobs.get(gone).state), scene.app.jobs.get(gone).reason) == ("cancelled", "expired")


def test_a_transaction_that_commits_late_is_found(scene: Scene) -> None:
    if scene.url.startswith("sqlite:"):
        pytest.skip("one writer at a time")
    with closing(scene.connect()) as slow:
        late = scene.send.using(outbox=slow).enqueue(order=1)
        scene.put(2)
        relay = scene.relay()
        relay.tick()
        slow.commit()

        relay.tick()

    assert late.id in scene.stored()
    assert len(scene.stored()) == 2


def test_a_relay_that_died_before_its_delete_makes_no_second_job(scene: Scene) -> None:
    ids = scene.put(1, 2, 3)
    dying = scene.relay("dying")
    dying._store = Faulty(scene.app.store, after=KeyboardInterrupt())  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        dying.tick()
    assert list(range(1, 4)) == scene.orders()  # they even completed meanwhile
    scene.free()

    scene.relay("next").tick()

    assert ids == scene.stored()
    assert rows_left(scene) == 0
    assert scene.orders() == []


def test_rows_sent_too_long_ago_are_looked_for_and_set_aside_where_nobody_knows(scene: Scene) -> None:
    known, unknown = scene.put(1, 2)
    dying = scene.relay("dying")

    def first_only(rows: Any) -> None:
        scene.app.store.enqueue(rows[:1])
        raise KeyboardInterrupt

    dying._store = Faulty(scene.app.store, first_only)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        dying.tick()
    past = round((WINDOW + 10) * 1_000_000)
    scene.sql(f"UPDATE dayjob_outbox_relay SET held_until = 0, sent_at = sent_at - {past}")
    (fresh,) = scene.put(3)

    scene.relay("next").tick()

    assert [known, fresh] == scene.stored()
    assert [(unknown,)] == scene.sql("SELECT job_id FROM dayjob_outbox WHERE set_aside = 1")


def test_two_relays_share_no_row_and_the_second_takes_over(scene: Scene) -> None:
    first, second = scene.relay("first"), scene.relay("second")
    scene.put(1)
    first.tick()
    scene.put(2)

    second.tick()
    assert (second.leads, rows_left(scene)) == (False, 1)

    first.close()
    second.tick()
    assert (second.leads, rows_left(scene)) == (True, 0)


def test_a_relay_that_lost_the_outbox_while_it_sent_does_no_harm(scene: Scene) -> None:
    ids = scene.put(1, 2)
    slow, quick = scene.relay("slow"), scene.relay("quick")

    def overtaken(rows: Any) -> None:
        scene.free()
        scene.put(3)
        quick.tick()

    slow._store = Faulty(scene.app.store, overtaken)  # type: ignore[assignment]
    slow.tick()

    assert not slow.leads
    assert ids == scene.stored()[:2]
    assert scene.orders() == [1, 2, 3]


def test_a_row_that_no_one_can_read_is_set_aside_and_the_others_go_on(scene: Scene) -> None:
    told: list[OutboxSetAside] = []
    scene.app.on("outbox.set_aside")(told.append)
    bad, newer, good = scene.put(1, 2, 3)
    scene.rewrite(bad, lambda _: b"{}")
    scene.rewrite(newer, lambda body: body.replace(b'"format":1', b'"format":9'))

    scene.relay().tick()

    assert [good] == scene.stored()
    assert [bad, newer] == [one.id for one in told]
    failed = scene.desk().failed()
    assert ["cannot be read" in failed[0].error, "upgrade" in failed[1].error] == [True, True]


@pytest.mark.parametrize(
    "error", [BadRow("too long"), StoreError("no"), RuntimeError("a bug")], ids=lambda e: type(e).__name__
)
def test_a_row_that_breaks_its_whole_batch_is_found_and_set_aside(scene: Scene, error: Exception) -> None:
    ids = scene.put(*range(9))
    relay = scene.relay()

    def stumble(rows: Any) -> None:
        if any(row.id == ids[4] for row in rows):
            raise error

    relay._store = Faulty(scene.app.store, stumble)  # type: ignore[assignment]
    relay.tick()

    assert [(ids[4],)] == scene.sql("SELECT job_id FROM dayjob_outbox WHERE set_aside = 1")
    assert scene.orders() == [0, 1, 2, 3, 5, 6, 7, 8]

    assert scene.desk().retry([ids[4]]) == 1
    scene.relay("relay").tick()
    assert sorted(ids) == scene.stored()


def test_a_store_that_takes_no_writes_sets_nothing_aside(scene: Scene) -> None:
    scene.put(1, 2, 3)
    relay = scene.relay()

    class ReadOnly(Faulty):
        def write(self, *_: Any, **__: Any) -> None:
            raise StoreError("read-only")

    def refuse(_: Any) -> None:
        raise StoreError("read-only")

    relay._store = ReadOnly(scene.app.store, refuse)  # type: ignore[assignment]
    with pytest.raises(StoreError, match="read-only"):
        relay.tick()

    assert (rows_left(scene), rows_left(scene, aside=1)) == (3, 0)


def test_an_outage_of_the_store_is_waited_for(scene: Scene) -> None:
    ids = scene.put(1, 2)
    relay = scene.relay()

    def away(_: Any) -> None:
        raise StoreUnavailable("away")

    relay._store = Faulty(scene.app.store, away)  # type: ignore[assignment]
    assert relay.attempt() is not None
    relay._store = scene.app.store
    relay.tick()

    assert ids == scene.stored()


def test_what_a_full_queue_does_not_take_waits_in_the_outbox_and_is_not_set_aside(scene: Scene) -> None:
    scene.app.queues.limit("default", max_depth=2)
    ids = scene.put(1, 2, 3, 4)
    elsewhere = scene.put(5, queue="other")
    relay = scene.relay()

    assert relay.attempt() is not None
    waiting = (rows_left(scene), rows_left(scene, aside=1))
    scene.app.worker().run_until_idle()
    relay.tick()

    assert waiting == (2, 0)
    assert rows_left(scene) == 0
    assert sorted([*ids, *elsewhere]) == sorted(scene.stored())


def test_lag_and_failures_are_told_in_the_store(scene: Scene) -> None:
    scene.app.open()
    bad, _ = scene.put(1, 2)
    scene.rewrite(bad, lambda _: b"\0")
    relay = scene.relay()
    relay.tick()
    scene.put(3, 4)
    scene.sql("UPDATE dayjob_outbox SET created_at = created_at - 90000000")
    relay._write_report(None)

    (told,) = report.read(scene.app.store)
    assert (told.waiting, told.failed, told.delivered, told.error) == (2, 1, 1, None)
    assert 89 < told.lag < 100
    assert "@" not in told.name


def test_an_outbox_without_tables_or_of_a_newer_release_is_refused(scene: Scene) -> None:
    scene.sql("UPDATE dayjob_outbox_relay SET version = 99")
    with pytest.raises(SchemaMismatch, match="newer release"):
        scene.relay().tick()
    scene.sql("DROP TABLE dayjob_outbox_relay")
    with pytest.raises(ConfigError, match="--migrate"):
        scene.relay().tick()


def test_an_idle_relay_writes_nothing(scene: Scene) -> None:
    if not scene.url.startswith("sqlite:"):
        pytest.skip("counted on SQLite")
    relay = scene.relay()
    relay.tick()
    with closing(sqlite3.connect(scene.url.removeprefix("sqlite:///"))) as watcher:
        before = watcher.execute("PRAGMA data_version").fetchone()
        for _ in range(20):
            relay.tick()

        assert before == watcher.execute("PRAGMA data_version").fetchone()


def test_an_outage_of_the_applications_database_is_waited_for_and_told(tmp_path: Path) -> None:
    engine = Postgres18(tmp_path)
    scene = Scene(engine.url, f"sqlite:///{tmp_path / 'jobs.db'}")
    relay = scene.relay()
    scene.put(1)
    relay.tick()
    relay._reported = float("-inf")
    with engine.outage():
        assert relay.attempt() is not None

        (told,) = report.read(scene.app.store)
        assert told.error is not None
        assert "postgresql://" in told.error
    scene.put(2)
    relay.tick()

    assert len(scene.stored()) == 2
    scene.close()
    engine.close()


@pytest.mark.parametrize("kind", [Postgres18, Valkey9, Redis62], ids=lambda kind: kind.name)
def test_the_queue_may_be_on_a_server_and_the_application_on_sqlite(tmp_path: Path, kind: type[Any]) -> None:
    engine = kind(tmp_path)
    engine.store()
    path = tmp_path / "shop.db"
    path.touch()
    scene = Scene(f"sqlite:///{path}", engine.url)
    scene.app.migrate()
    scene.put(*range(30))
    dying = scene.relay("dying", batch=7)
    dying._store = Faulty(scene.app.store, after=KeyboardInterrupt())  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        dying.tick()
    assert scene.orders() == list(range(7))
    scene.free()
    scene.put(30, queue="x" * 200)
    relay = scene.relay(batch=7)
    relay.tick()
    relay.close()

    assert scene.orders() == list(range(7, 31))
    assert len(scene.stored()) == 31
    (told,) = report.read(scene.app.store)
    assert (told.waiting, told.failed, told.silent) == (0, 0, False)
    scene.close()
    engine.close()


def test_a_relay_that_says_nothing_for_a_minute_is_called_silent(scene: Scene) -> None:
    relay = scene.relay()
    relay.tick()
    (fresh,) = report.read(scene.app.store)
    report.write(scene.app.store, structs.replace(fresh, at=fresh.at - 90_000_000))
    (stale,) = report.read(scene.app.store)

    assert (fresh.silent, stale.silent) == (False, True)
