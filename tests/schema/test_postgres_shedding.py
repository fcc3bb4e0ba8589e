"""Queues that drop their oldest: who makes room in transactions of callers, beside them, and at what price."""

from __future__ import annotations

import pytest

import dayjob.store
from dayjob.states import State
from dayjob.store.gating import QueueLimits
from dayjob.store.records import Filter
from tests.contract.gates.words import admit, laned, store_one, unique
from tests.contract.scene import Scene
from tests.contract.theirs import Theirs

if "postgresql" not in dayjob.store.ENGINES:
    pytest.skip("this release has no PostgreSQL engine", allow_module_level=True)


@pytest.fixture(autouse=True)
def _two_may_wait(scene: Scene) -> None:
    scene.store.limit_queue("default", QueueLimits(max_depth=2, when_full="drop_oldest"), now=scene.now)


def reasons(scene: Scene, *ids: str) -> list[str | None]:
    return [scene.get(id).reason for id in ids]


def test_what_came_in_transactions_makes_room_one_after_the_other(scene: Scene, app: Theirs) -> None:
    old = scene.job(priority=5)
    rows = [scene.row(priority=priority, delay=delay) for priority, delay in ((5, None), (-5, 60.0), (0, None))]
    app.enqueue(*rows[:2])
    app.commit()
    app.enqueue(rows[2])
    app.commit()

    admit(scene)

    assert reasons(scene, old, *(row.id for row in rows)) == ["shed", None, "shed", None]
    [shed] = [each for each in scene.store.history(0, "default") if each.name == "shed"]
    assert shed.value == 2


def test_what_came_in_a_transaction_makes_room_once(scene: Scene, app: Theirs) -> None:
    app.enqueue(*[scene.row() for _ in range(3)])
    app.commit()
    admit(scene)
    scene.store.limit_queue("default", QueueLimits(max_depth=1, when_full="drop_oldest"), now=scene.now)

    admit(scene)

    assert scene.store.count(Filter(states=(State.AVAILABLE,))) == 2


def test_what_came_in_a_transaction_is_as_old_as_any_other(scene: Scene, app: Theirs) -> None:
    rows = [scene.row(), scene.row()]
    app.enqueue(*rows)
    app.commit()

    scene.advance(1)
    new, newer = scene.job(), scene.job()

    assert reasons(scene, rows[0].id, rows[1].id, new, newer) == ["shed", "shed", None, None]


def test_a_job_in_somebodys_hands_is_passed_by(scene: Scene, app: Theirs) -> None:
    oldest, old = scene.job(gating=unique()), scene.job()
    app.enqueue(scene.row(gating=unique(on_conflict="extend"), delay=60.0))

    new = scene.job()

    app.commit()
    assert reasons(scene, oldest, old, new) == [None, "shed", None]


def test_the_key_of_one_that_the_same_call_sheds_is_free_for_the_next(scene: Scene) -> None:
    holder, _ = scene.job(gating=unique()), scene.job()
    row = scene.row(gating=unique())

    answers = scene.store.enqueue([scene.row(), row], now=scene.now)

    assert [answer.outcome for answer in answers] == ["inserted"] * 2
    assert store_one(scene, scene.row(gating=unique())).id == row.id
    assert scene.get(holder).reason == "shed"


def test_rows_of_lanes_make_room_for_each_other(scene: Scene) -> None:
    rows = [scene.row(gating=laned(lane)) for lane in "aabb"]

    scene.store.enqueue(rows, now=scene.now)

    assert reasons(scene, *(row.id for row in rows)) == ["shed", "shed", None, None]
    assert scene.worker().ids() == [rows[2].id, rows[3].id]


def test_only_who_finds_it_full_waits_for_the_turn(scene: Scene, app: Theirs) -> None:
    app.connection.execute("SELECT dayjob.take_turn()")
    rows = [scene.row() for _ in range(3)]

    outcomes = [store_one(scene, row).outcome for row in rows]

    app.rollback()
    assert outcomes == ["inserted", "inserted", "refused"]
    assert store_one(scene, rows[2]).outcome == "inserted"
    assert reasons(scene, rows[0].id, rows[1].id, rows[2].id) == ["shed", None, None]


def held(scene: Scene, app: Theirs, count: int) -> list[str]:
    """So many jobs in somebody's hands, until *app* commits."""
    names = [f"order:{n}" for n in range(count)]
    ids = [scene.job(gating=unique(name)) for name in names]
    app.enqueue(*[scene.row(gating=unique(name, on_conflict="extend"), delay=60.0) for name in names])
    return ids


@pytest.mark.parametrize("count", [11, 101])
def test_however_many_are_in_somebodys_hands_the_next_one_goes(scene: Scene, app: Theirs, count: int) -> None:
    scene.store.limit_queue("default", QueueLimits(max_depth=count + 1, when_full="drop_oldest"), now=scene.now)
    ids = held(scene, app, count)
    free = scene.job()

    new = scene.job()

    assert reasons(scene, free, new) == ["shed", None]
    app.commit()
    assert {scene.state(id) for id in ids} == {State.SCHEDULED}


def test_where_all_are_in_somebodys_hands_the_oldest_goes_when_they_are_let_go(scene: Scene, app: Theirs) -> None:
    oldest, old = held(scene, app, 2)
    new = scene.job()
    admit(scene)
    assert scene.store.count(Filter(queue="default")) == 3

    app.commit()
    admit(scene)
    admit(scene)

    assert reasons(scene, oldest, old, new) == ["shed", None, None]


def test_who_takes_the_place_of_one_for_whom_nobody_had_gone_waits_for_them_himself(scene: Scene, app: Theirs) -> None:
    oldest, old = held(scene, app, 2)
    new = scene.job()
    newer = scene.job()
    assert reasons(scene, new, newer) == ["shed", None]

    app.commit()
    admit(scene)

    assert reasons(scene, oldest, old, newer) == ["shed", None, None]


def test_who_comes_after_a_transaction_is_not_shed_for_what_came_in_it(scene: Scene, app: Theirs) -> None:
    rows = [scene.row() for _ in range(4)]
    app.enqueue(*rows)
    app.commit()
    new = scene.job()

    admit(scene)

    assert reasons(scene, *(row.id for row in rows), new) == ["shed", "shed", "shed", None, None]
