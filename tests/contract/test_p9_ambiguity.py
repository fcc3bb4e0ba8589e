"""P9 Ambiguity is resolved: an enqueue whose reply was lost can be repeated, and there is one job."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import cast

import pytest

from dayjob.clock import SECOND
from dayjob.states import Outcome, State
from dayjob.store.contract import Store
from dayjob.store.records import Bound, Cancel, Filter, NewRow, Retry
from tests.contract import child
from tests.contract.ids import named
from tests.contract.racing import at_once
from tests.contract.scene import Puppet, Scene

HOUR = 3600.0
ENDS = [Outcome.COMPLETED, Outcome.DEAD, Outcome.CANCELLED]
each_end = pytest.mark.parametrize("end", ENDS)


def repeat(scene: Scene, *rows: NewRow) -> list[str]:
    return [answer.outcome for answer in scene.store.enqueue(rows, repeat=True, now=scene.now)]


def finish(ann: Puppet, row: NewRow, end: Outcome, keep: float | None = None) -> None:
    ann.settle(ann.take(row.id), end, keep=keep)


class TestP9Ambiguity:
    def test_a_repeated_enqueue_whose_first_never_arrived_stores_the_job(self, scene: Scene) -> None:
        row = scene.row()

        assert repeat(scene, row) == ["inserted"]
        assert scene.worker().ids() == [row.id]

    @pytest.mark.parametrize("flagged", [True, False])
    def test_a_repeated_enqueue_of_a_waiting_job_stores_nothing(self, scene: Scene, flagged: bool) -> None:
        row = scene.row()
        scene.store.enqueue([row], now=scene.now)
        before = scene.get(row.id)
        scene.advance(1)

        [answer] = scene.store.enqueue([row], repeat=flagged, now=scene.now)

        assert answer.outcome == "existing"
        assert answer.id in (None, row.id)
        assert scene.get(row.id) == before
        assert scene.worker().ids() == [row.id]

    @pytest.mark.parametrize("flagged", [True, False])
    def test_a_repeated_enqueue_of_a_running_job_stores_nothing(self, scene: Scene, flagged: bool) -> None:
        row, ann = scene.row(), scene.worker()
        scene.store.enqueue([row], now=scene.now)
        job = ann.take(row.id)

        [answer] = scene.store.enqueue([row], repeat=flagged, now=scene.now)

        assert answer.outcome == "existing"
        assert ann.settled(job) is True
        assert ann.ids() == []

    @pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.SNOOZED, Outcome.PARKED, Outcome.RELEASED])
    def test_a_repeated_enqueue_of_a_job_put_back_stores_nothing(self, scene: Scene, outcome: Outcome) -> None:
        row, ann = scene.row(), scene.worker()
        scene.store.enqueue([row], now=scene.now)
        ann.settle(ann.take(row.id), outcome, delay=60.0)
        before = scene.get(row.id)

        assert repeat(scene, row) == ["existing"]
        assert scene.get(row.id) == before

    @each_end
    def test_a_repeated_enqueue_of_a_finished_job_stores_nothing(self, scene: Scene, end: Outcome) -> None:
        row, ann = scene.row(), scene.worker()
        scene.store.enqueue([row], now=scene.now)
        finish(ann, row, end)
        before = scene.get(row.id)

        assert repeat(scene, row) == ["existing"]
        assert scene.get(row.id) == before
        assert ann.ids() == []

    @each_end
    @pytest.mark.parametrize("keep", [0.0, 0.001, 60.0])
    def test_a_repeated_enqueue_of_a_pruned_job_stores_nothing(self, scene: Scene, end: Outcome, keep: float) -> None:
        row, ann = scene.row(), scene.worker()
        scene.store.enqueue([row], now=scene.now)
        finish(ann, row, end, keep)
        ended = scene.now
        for later in (0.001, 61.0, 600.0, HOUR - 1):
            scene.now = ended + round(later * SECOND)
            scene.store.prune(scene.term, [], now=scene.now)
            assert (scene.store.get(row.id) is None) or keep > later

            assert repeat(scene, row) == ["existing"]
        assert ann.ids() == []

    @each_end
    def test_a_repeated_enqueue_of_a_job_pruned_by_count_stores_nothing(self, scene: Scene, end: Outcome) -> None:
        row, ann = scene.row(), scene.worker()
        scene.store.enqueue([row], now=scene.now)
        finish(ann, row, end)
        assert scene.store.prune(scene.term, [Bound(scene.state(row.id), 0)], now=scene.now) == 1
        assert scene.store.get(row.id) is None

        assert repeat(scene, row) == ["existing"]
        scene.advance(HOUR - 1)
        scene.store.prune(scene.term, [], now=scene.now)
        assert repeat(scene, row) == ["existing"]

    def test_the_hour_counts_from_the_end_of_the_job_and_not_from_its_beginning(self, scene: Scene) -> None:
        row, ann = scene.row(), scene.worker()
        scene.store.enqueue([row], now=scene.now)
        job = ann.take(row.id)
        scene.advance(10 * HOUR)
        ann.settle(job, keep=0.0)
        scene.advance(HOUR - 1)
        scene.store.prune(scene.term, [], now=scene.now)

        assert repeat(scene, row) == ["existing"]

    def test_an_id_that_ran_again_by_hand_is_findable_an_hour_after_its_last_end(self, scene: Scene) -> None:
        row, ann = scene.row(), scene.worker()
        scene.store.enqueue([row], now=scene.now)
        finish(ann, row, Outcome.DEAD)
        scene.advance(2 * HOUR)
        scene.act(Retry(), row.id)
        finish(ann, row, Outcome.COMPLETED, keep=0.0)
        scene.advance(HOUR - 1)
        scene.store.prune(scene.term, [], now=scene.now)

        assert repeat(scene, row) == ["existing"]

    def test_a_finished_job_that_is_kept_is_existing_however_old(self, scene: Scene) -> None:
        row, ann = scene.row(), scene.worker()
        scene.store.enqueue([row], now=scene.now)
        finish(ann, row, Outcome.DEAD)
        scene.advance(1000 * HOUR)
        scene.store.prune(scene.term, [], now=scene.now)

        assert repeat(scene, row) == ["existing"]

    def test_a_cancelled_waiting_job_is_not_stored_again_by_a_repeat(self, scene: Scene) -> None:
        row = scene.row()
        scene.store.enqueue([row], now=scene.now)
        scene.act(Cancel(), row.id)

        assert repeat(scene, row) == ["existing"]
        assert scene.state(row.id) is State.CANCELLED

    def test_of_a_batch_only_the_missing_rows_are_stored(self, scene: Scene) -> None:
        # The first batch was committed; the producer repeats it with rows that had not been sent.
        old, new, ann = [scene.row() for _ in range(3)], [scene.row() for _ in range(2)], scene.worker()
        scene.store.enqueue(old, now=scene.now)
        finish(ann, old[0], Outcome.COMPLETED, keep=0.0)

        answers = repeat(scene, old[0], new[0], old[1], new[1], old[2])

        assert answers == ["existing", "inserted", "existing", "inserted", "existing"]
        assert ann.ids() == [old[1].id, old[2].id, new[0].id, new[1].id]

    @each_end
    @pytest.mark.parametrize("retried", [True, False])
    def test_an_id_that_finished_and_is_stored_again_unflagged_harms_nobody(
        self, scene: Scene, end: Outcome, retried: bool
    ) -> None:
        # Without the flag a finished id need not be noticed. But then one job of that id remains in the end, and what
        # becomes of it must not hold up its neighbours.
        row, ann = scene.row(), scene.worker()
        scene.store.enqueue([row], now=scene.now)
        finish(ann, row, end)
        neighbour = scene.row(priority=-1)

        first, second = scene.store.enqueue([row, neighbour], now=scene.now)

        assert first.outcome in ("inserted", "existing")
        assert second.outcome == "inserted"
        if retried:
            scene.store.act(Filter(states=(State(end.value),)), Retry(), now=scene.now)
        jobs = ann.claim()
        turn = ann.turn([ann.settlement(job, Outcome.COMPLETED) for job in jobs])
        assert turn.refused == []
        assert scene.state(neighbour.id) is State.COMPLETED
        assert scene.state(row.id) is (State.COMPLETED if retried or first.outcome == "inserted" else State(end.value))
        assert len(scene.store.find(Filter()).jobs) == 2

    @pytest.mark.parametrize("flagged", [True, False])
    def test_an_id_given_twice_in_one_call_is_stored_once(self, scene: Scene, flagged: bool) -> None:
        first, second = scene.row(payload=b"first"), scene.row()
        twin = scene.row(id=first.id, payload=b"second")

        answers = scene.store.enqueue([first, second, twin], repeat=flagged, now=scene.now)

        assert [answer.outcome for answer in answers] == ["inserted", "inserted", "existing"]
        assert [(job.id, job.payload) for job in scene.worker().claim()] == [
            (first.id, b"first"),
            (second.id, second.payload),
        ]

    def test_an_existing_id_is_not_overwritten_by_another_payload(self, scene: Scene) -> None:
        id = scene.job(payload=b"first")

        [answer] = scene.store.enqueue([scene.row(id=id, payload=b"second", queue="elsewhere")], now=scene.now)

        assert answer.outcome == "existing"
        assert (scene.get(id).payload, scene.get(id).queue) == (b"first", "default")

    def test_repeats_from_threads_at_once_store_one_job_each(self, scene: Scene, other: Store) -> None:
        rows = [scene.row() for _ in range(50)]
        stores = [scene.store, other] * 3

        answers = at_once(*[partial(store.enqueue, rows, repeat=True, now=scene.now) for store in stores])

        for n in range(50):
            assert sorted(answer[n].outcome for answer in answers) == ["existing"] * 5 + ["inserted"]
        assert scene.worker().ids(100) == [row.id for row in rows]

    @pytest.mark.processes
    def test_repeats_from_processes_at_once_store_one_job_each(self, scene: Scene) -> None:
        if not scene.engine.processes:
            pytest.skip("only this process can open it")
        with ExitStack() as stack:
            children = [
                stack.enter_context(child.started("enqueue", scene.engine.url, "same-", "60", str(scene.now)))
                for _ in range(2)
            ]
            for each in children:
                child.go(each)
            first, second = (cast(list[str], child.answer(each)) for each in children)

        assert [sorted(pair) for pair in zip(first, second, strict=True)] == [["existing", "inserted"]] * 60
        assert scene.store.count(Filter()) == 60

    def test_an_id_is_matched_whole(self, scene: Scene) -> None:
        id = scene.job(id=named("order"))
        near = [id[:-1] + "0", "0" + id[1:], id[:19] + "0" + id[20:]]

        assert repeat(scene, *(scene.row(id=each) for each in near)) == ["inserted"] * 3
