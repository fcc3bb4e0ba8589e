"""Keys where the holder changes between the look at its key and what is done with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import psycopg
import pytest

import dayjob.store
from dayjob.states import State
from dayjob.store.gating import Gating
from dayjob.store.records import Delete, Enqueued, NewRow
from tests.contract.gates.words import admit, gated, order, store_one, unique
from tests.contract.scene import Scene
from tests.contract.theirs import theirs

if "postgresql" not in dayjob.store.ENGINES:
    pytest.skip("this release has no PostgreSQL engine", allow_module_level=True)


def holding(scene: Scene, statement: str) -> psycopg.Connection[Any]:
    """Somebody's transaction that has executed *statement*, and is open."""
    connection = psycopg.connect(scene.engine.url)
    connection.execute(statement)
    return connection


@contextmanager
def stopped(scene: Scene, call: Callable[[], Any], lock: str) -> Iterator[Future[Any]]:
    """*call* is made in a thread, and waits for what *lock* has locked until this block is left."""
    with ThreadPoolExecutor(1) as pool, psycopg.connect(scene.engine.url, autocommit=True) as watcher:
        with holding(scene, lock) as holder:
            future, deadline = pool.submit(call), monotonic() + 10.0
            while not _waits(watcher):
                assert not future.done(), "it waited for nothing"
                assert monotonic() < deadline
                sleep(0.005)
            yield future
            holder.commit()


def _waits(watcher: psycopg.Connection[Any]) -> bool:
    select = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return watcher.execute(select).fetchone() is not None


LOOKED = "SELECT pg_advisory_xact_lock(hashtext('dayjob'), 20)"
"""Stops who has looked at the key, found the holder, and is about to change it."""


def meets(scene: Scene, row: NewRow) -> Callable[[], Enqueued]:
    return lambda: scene.engine.open().enqueue([row], now=scene.now)[0]


@pytest.mark.parametrize("policy", ["replace", "extend"])
class TestTheHolderChanges:
    def test_it_starts_and_its_key_is_free(self, scene: Scene, policy: str) -> None:
        holder, ann = scene.job(gating=unique(until="started")), scene.worker()
        row = scene.row(gating=unique(until="started", on_conflict=policy), payload=b"new")

        with stopped(scene, meets(scene, row), LOOKED) as answer:
            ann.take(holder)

        assert answer.result().outcome == "inserted"
        assert scene.get(row.id).payload == b"new"
        assert store_one(scene, scene.row(gating=unique())).id == row.id

    def test_it_starts_and_keeps_its_key(self, scene: Scene, policy: str) -> None:
        holder, ann = scene.job(gating=unique()), scene.worker()
        row = scene.row(gating=unique(on_conflict=policy))

        with stopped(scene, meets(scene, row), LOOKED) as answer:
            ann.take(holder)

        assert (answer.result().outcome, answer.result().id) == ("existing", holder)
        assert scene.store.get(row.id) is None

    def test_it_ends(self, scene: Scene, policy: str) -> None:
        holder, ann = scene.job(gating=unique()), scene.worker()
        row = scene.row(gating=unique(on_conflict=policy))

        with stopped(scene, meets(scene, row), LOOKED) as answer:
            ann.settle(ann.take(holder))

        assert answer.result().outcome == "inserted"
        assert ann.ids() == [row.id]

    def test_it_is_deleted(self, scene: Scene, policy: str) -> None:
        holder = scene.job(gating=unique(), delay=60.0)
        row = scene.row(gating=unique(on_conflict=policy))

        with stopped(scene, meets(scene, row), LOOKED) as answer:
            scene.act(Delete(), holder)

        assert answer.result().outcome == "inserted"

    def test_it_ends_in_a_transaction_of_the_applications(self, scene: Scene, policy: str) -> None:
        ann = scene.worker()
        job = ann.take(scene.job(gating=unique()))
        row = scene.row(gating=unique(on_conflict=policy))

        with theirs(scene) as app, stopped(scene, meets(scene, row), LOOKED) as answer:
            assert app.complete(ann, job)
            app.commit()

        assert answer.result().outcome == "inserted"

    def test_it_comes_back_when_another_has_its_key(self, scene: Scene, policy: str) -> None:
        holder, ann = scene.job(gating=unique(until="started"), payload=b"old"), scene.worker()
        row = scene.row(gating=unique(until="started", on_conflict=policy), payload=b"new", delay=60.0)

        with stopped(scene, meets(scene, row), LOOKED) as answer:
            job = ann.take(holder)
            another = scene.job(gating=unique(until="started"))
            ann.fail(job, delay=5.0)

        assert answer.result().id == another
        assert scene.state(another) is State.SCHEDULED
        assert (scene.get(holder).payload, scene.get(holder).run_at) == (b"old", scene.stamp(5))

    def test_it_comes_and_is_let_in_just_now(self, scene: Scene, policy: str) -> None:
        with theirs(scene) as app:
            app.enqueue(holder := scene.row(gating=unique()))
            app.commit()
        row = scene.row(gating=unique(on_conflict=policy))

        with stopped(scene, meets(scene, row), LOOKED) as answer:
            admit(scene)

        assert answer.result().id == holder.id
        assert answer.result().outcome == {"replace": "replaced", "extend": "extended"}[policy]
        assert scene.worker().ids() == [holder.id]


@pytest.mark.parametrize("gating", [unique(), Gating(unique=unique().unique, gates=gated(order()).gates)])
def test_a_row_that_is_stored_while_its_repeat_waits_for_the_key_keeps_it(scene: Scene, gating: Gating) -> None:
    row = scene.row(gating=gating)
    with theirs(scene) as app:
        app.enqueue(row)
        with stopped(scene, meets(scene, row), "SELECT 1") as answer:
            app.commit()

    assert answer.result().outcome == "existing"
    assert store_one(scene, scene.row(gating=unique())).id == row.id


def test_a_key_comes_free_with_a_start_though_its_job_came_in_the_middle_of_the_claim(scene: Scene) -> None:
    first, ann = scene.job(queue="a"), scene.worker()
    claim = lambda: ann.turn(wants=[ann.want(1, "a"), ann.want(1, "b")]).claimed  # noqa: E731

    with stopped(scene, claim, "SELECT 1 FROM dayjob.ready FOR UPDATE") as claimed:
        second = scene.job(queue="b", gating=unique(until="started"))

    assert [job.id for job in claimed.result()] == [first, second]
    assert store_one(scene, scene.row(gating=unique())).outcome == "inserted"


def test_a_key_whose_time_is_up_is_free_though_its_next_holder_came_to_nothing_while_it_started(scene: Scene) -> None:
    """A claim passes by the key that another is taking over: that one rolls back, and nobody is kept out by what is left."""
    holder, ann = scene.job(gating=unique(until="started", ttl=10.0)), scene.worker()
    scene.advance(11)
    with theirs(scene) as app:
        assert app.enqueue(scene.row(gating=unique()))[0].outcome == "inserted"
        ann.take(holder)
        app.rollback()

    assert store_one(scene, scene.row(gating=unique())).outcome == "inserted"
