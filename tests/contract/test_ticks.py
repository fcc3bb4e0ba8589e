"""Ticks: a schedule's record and its jobs are written in one; of two leaders at the same tick one makes the jobs."""

from __future__ import annotations

from functools import partial

import pytest

from dayjob.clock import SECOND
from dayjob.errors import BadRow
from dayjob.states import State
from dayjob.store.contract import Store
from dayjob.store.gating import Gate, Gating, Unique
from dayjob.store.records import EXISTING, INSERTED, Enqueued, Filter, NewRow, Record, Tick
from tests.contract.ids import named
from tests.contract.racing import at_once
from tests.contract.scene import Scene


def scheduled(scene: Scene, *keys: str) -> None:
    for key in keys:
        scene.store.write("schedule", key, b"0", now=scene.now)


def record(scene: Scene, key: str) -> Record:
    found = scene.store.read("schedule", key, now=scene.now)
    assert found is not None
    return found


class TestTicks:
    def test_a_tick_writes_the_record_and_stores_its_jobs(self, scene: Scene) -> None:
        scheduled(scene, "nightly")
        now, later = scene.row(id=named("now")), scene.row(id=named("later"), run_at=scene.now + 60 * SECOND)

        told = scene.store.tick([Tick("nightly", 1, b"1", (now, later))], now=scene.now)

        assert told == [[INSERTED, INSERTED]]
        assert record(scene, "nightly") == Record("schedule", "nightly", b"1", 2)
        rows = [scene.store.get(named(word)) for word in ("now", "later")]
        assert [row and row.state for row in rows] == [State.AVAILABLE, State.SCHEDULED]
        assert scene.worker().ids() == [named("now")]

    def test_a_tick_over_another_version_writes_nothing_and_keeps_its_neighbours_not_back(self, scene: Scene) -> None:
        scheduled(scene, "a", "b", "c", "d")
        scene.store.write("schedule", "b", b"edited", now=scene.now)
        ticks = [Tick(key, 1, b"1", (scene.row(id=named(key + "1")), scene.row(id=named(key + "2")))) for key in "abcd"]

        told = scene.store.tick([*ticks, Tick("unknown", 1, b"1", (scene.row(id=named("u")),))], now=scene.now)

        assert told == [[INSERTED] * 2, None, [INSERTED] * 2, [INSERTED] * 2, None]
        assert record(scene, "b").value == b"edited"
        assert record(scene, "d").version == 2
        assert scene.store.read("schedule", "unknown", now=scene.now) is None
        assert scene.worker().ids() == [named(key + n) for key in "acd" for n in "12"]

    def test_a_tick_repeated_after_a_lost_reply_makes_no_second_job(self, scene: Scene) -> None:
        scheduled(scene, "a")
        tick = Tick("a", 1, b"1", (scene.row(),))
        scene.store.tick([tick], now=scene.now)

        again = Tick("a", 1, b"1", (scene.row(),))
        assert scene.store.tick([tick, again], now=scene.now) == [None, None]
        assert scene.store.count(Filter()) == 1

    def test_jobs_of_a_tick_wait_at_their_gates_and_a_held_key_keeps_none_of_their_neighbours_back(
        self, scene: Scene
    ) -> None:
        scheduled(scene, "a", "b", "c")
        queued = Gating(gates=(Gate("order", "schedule:a"),))
        unique = Gating(unique=Unique("0" * 32, "k"))
        rows = [scene.row(id=named(f"a{n}"), gating=queued) for n in range(3)]
        keyed = [scene.row(id=named(f"b{n}"), gating=unique) for n in range(2)]

        told = scene.store.tick(
            [
                Tick("a", 1, b"1", tuple(rows)),
                Tick("c", 9, b"1", (scene.row(gating=unique),)),
                Tick("b", 1, b"1", tuple(keyed)),
            ],
            now=scene.now,
        )

        assert told == [[INSERTED] * 3, None, [INSERTED, Enqueued("existing", id=named("b0"))]]
        worker = scene.worker()
        first = worker.claim()
        assert {job.id for job in first} == {named("a0"), named("b0")}
        for n in (1, 2):
            assert worker.ids() == []
            worker.settle(next(job for job in first if job.id == named(f"a{n - 1}")))
            first = worker.claim()
            assert [job.id for job in first] == [named(f"a{n}")]

    def test_a_tick_without_jobs_only_writes_its_record(self, scene: Scene) -> None:
        scheduled(scene, "a", "b")

        assert scene.store.tick([Tick("a", 1, b"1"), Tick("b", 7, b"1")], now=scene.now) == [[], None]
        assert (record(scene, "a").version, record(scene, "b").version) == (2, 1)

    def test_of_two_leaders_at_the_same_ticks_each_is_made_by_one_of_them(self, scene: Scene, other: Store) -> None:
        keys = [f"s{n}" for n in range(40)]
        scheduled(scene, *keys)

        def lead(store: Store, order: int, round: int) -> list[bool]:
            ticks = [
                Tick(key, round, b"%d" % round, (NewRow(named(f"{key}/{round}/{order}"), "t", "q", b""),))
                for key in keys
            ]
            told = store.tick(ticks[::order], now=scene.now)[::order]
            return [one is not None for one in told]

        for round in range(1, 6):
            ones, others = at_once(partial(lead, scene.store, 1, round), partial(lead, other, -1, round))

            assert [a != b for a, b in zip(ones, others, strict=True)] == [True] * len(keys)
            assert scene.store.count(Filter()) == round * len(keys)

    def test_a_row_that_can_never_be_stored_leaves_records_and_neighbours_as_they_were(self, scene: Scene) -> None:
        scheduled(scene, "a", "b")
        bad = scene.row(run_at=2**70)

        with pytest.raises(BadRow):
            scene.store.tick([Tick("a", 1, b"1", (scene.row(),)), Tick("b", 1, b"1", (bad,))], now=scene.now)
        assert (record(scene, "a").version, record(scene, "b").version) == (1, 1)
        assert scene.store.count(Filter()) == 0

    def test_an_id_that_is_there_already_is_existing_and_its_neighbours_are_stored(self, scene: Scene) -> None:
        scheduled(scene, "a", "b")
        there, new = scene.row(id=named("there")), scene.row(id=named("new"))
        scene.store.enqueue([there], now=scene.now)

        told = scene.store.tick([Tick("a", 1, b"1"), Tick("b", 1, b"1", (there, new))], now=scene.now)

        assert told == [[], [EXISTING, INSERTED]]

    def test_a_tick_of_every_byte_and_many_shapes_comes_out_as_it_went_in(self, scene: Scene) -> None:
        keys = ["x y", "caf\u00e9'\"", "a:b", "z"]
        scheduled(scene, *keys)
        value, rows = bytes(range(256)), {}
        for n, key in enumerate(keys):
            rows[key] = scene.row(
                id=named(key), task=f"t{n}", queue=f"q{n % 2}", priority=n, payload=bytes([n]), meta='{"a":1}'
            )
        scene.store.write("schedule", keys[1], b"edited", now=scene.now)

        scene.store.tick([Tick(key, 1, value, (rows[key],)) for key in keys], now=scene.now)

        assert [record(scene, key).value == value for key in keys] == [True, False, True, True]
        for n, key in enumerate(keys):
            row = scene.store.get(named(key))
            found = row and (row.task, row.queue, row.priority, row.payload, row.meta)
            assert found == (None if n == 1 else (f"t{n}", f"q{n % 2}", n, bytes([n]), '{"a":1}'))
