"""Retention: finished jobs go by age, by count, each bound apart; ids stay findable (P9 tests that)."""

from __future__ import annotations

import pytest

from dayjob.states import Outcome, State
from dayjob.store.records import Bound, Cancel, Checkpoint, Filter, Log, Retry, Tally
from tests.contract.scene import Scene

DAY = 86400.0
ENDS = [Outcome.COMPLETED, Outcome.CANCELLED, Outcome.DEAD]


def finished(scene: Scene, count: int, end: Outcome = Outcome.COMPLETED, **fields: object) -> list[str]:
    """*count* jobs that ended one after the other, a second apart, in the order of the list."""
    keep = fields.pop("keep", None)
    ann, ids = scene.worker(f"finisher{scene.now}"), []
    for _ in range(count):
        id = scene.job(priority=100, **fields)
        ann.settle(ann.take(id), end, keep=keep)
        ids.append(id)
        scene.advance(1)
    return ids


def prune(scene: Scene, *bounds: Bound, limit: int = 1000) -> int | None:
    return scene.store.prune(scene.term, bounds, limit=limit, now=scene.now)


def left(scene: Scene, *ids: str) -> list[str]:
    return [id for id in ids if scene.store.get(id) is not None]


class TestRetention:
    @pytest.mark.parametrize("end", ENDS)
    def test_a_job_goes_when_its_time_is_over_and_not_before(self, scene: Scene, end: Outcome) -> None:
        ann, id = scene.worker(), scene.job()
        ann.settle(ann.take(id), end, keep=60.0)

        scene.advance(59.999)
        assert prune(scene) == 0
        assert left(scene, id) == [id]
        scene.advance(0.002)
        assert prune(scene) == 1
        assert left(scene, id) == []

    @pytest.mark.parametrize("end", ENDS)
    def test_without_a_time_a_job_stays_for_ever(self, scene: Scene, end: Outcome) -> None:
        ids = finished(scene, 3, end)
        scene.advance(1000 * DAY)

        assert prune(scene) == 0
        assert left(scene, *ids) == ids

    def test_kept_for_no_time_means_its_id_only(self, scene: Scene) -> None:
        for end in ENDS:
            [id] = finished(scene, 1, end, keep=0.0)

            assert left(scene, id) == []
            assert scene.store.count(Filter()) == 0
            assert scene.store.enqueue([scene.row(id=id)], repeat=True, now=scene.now)[0].outcome == "existing"

    @pytest.mark.parametrize("end", ENDS)
    def test_of_more_than_the_bound_the_newest_stay(self, scene: Scene, end: Outcome) -> None:
        ids = finished(scene, 5, end)

        assert prune(scene, Bound(State(end.value), 2)) == 3
        assert left(scene, *ids) == ids[3:]
        assert prune(scene, Bound(State(end.value), 2)) == 0

    def test_the_newest_is_the_last_that_finished_and_not_the_last_that_was_made(self, scene: Scene) -> None:
        ids, ann = scene.jobs(4), scene.worker()
        jobs = ann.claim(4)
        for n in (3, 1, 0, 2):
            ann.settle(jobs[n])
            scene.advance(1)

        prune(scene, Bound(State.COMPLETED, 2))

        assert left(scene, *ids) == [ids[0], ids[2]]

    def test_the_newest_is_the_last_that_finished_however_long_each_is_kept(self, scene: Scene) -> None:
        [oldest] = finished(scene, 1, keep=3 * DAY)
        [middle] = finished(scene, 1, keep=None)
        [newest] = finished(scene, 1, keep=DAY)
        ids = (oldest, middle, newest)

        prune(scene, Bound(State.COMPLETED, 2))
        assert left(scene, *ids) == [middle, newest]

        prune(scene, Bound(State.COMPLETED, 1))
        assert left(scene, *ids) == [newest]

    def test_a_job_that_ran_again_by_hand_counts_from_its_last_end(self, scene: Scene) -> None:
        ids, ann = finished(scene, 3), scene.worker("ann")
        scene.act(Retry(), ids[0])
        ann.settle(ann.take(ids[0]))

        prune(scene, Bound(State.COMPLETED, 2))

        assert left(scene, *ids) == [ids[0], ids[2]]

    def test_a_bound_on_one_state_spares_the_others(self, scene: Scene) -> None:
        done, cancelled, dead = (finished(scene, 2, end) for end in ENDS)

        assert prune(scene, Bound(State.CANCELLED, 0)) == 2
        assert left(scene, *done, *cancelled, *dead) == [*done, *dead]

    @pytest.mark.parametrize("task", [None, "charge"])
    def test_what_was_moved_to_another_store_goes_by_its_time_alone(self, scene: Scene, task: str | None) -> None:
        """No bound takes it, and it takes nobody's place."""
        mine = [scene.job(task="charge") for _ in range(3)]
        for n, id in enumerate(mine):
            scene.act(Cancel("mine"), id)
            scene.advance(1)
            if n == 0:
                moved = [scene.job(task="charge") for _ in range(3)]
                scene.act(Cancel("moved to redis://elsewhere/0", keep=7 * DAY), *moved)

        assert prune(scene, Bound(State.CANCELLED, 2, task=task)) == 1
        assert left(scene, *mine, *moved) == [*mine[1:], *moved]
        assert prune(scene, Bound(State.CANCELLED, 0, task=task)) == 2
        assert left(scene, *mine, *moved) == moved
        assert scene.store.count(Filter(states=(State.CANCELLED,))) == 3
        scene.advance(9 * DAY)
        scene.leader.beat()
        scene.store.prune(scene.leader.lead(), [], now=scene.now)
        assert left(scene, *moved) == []

    def test_a_bound_on_one_queue_spares_the_others(self, scene: Scene) -> None:
        mail, web = finished(scene, 3, queue="mail"), finished(scene, 3, queue="web")

        assert prune(scene, Bound(State.COMPLETED, 1, queue="mail")) == 2
        assert left(scene, *mail, *web) == [mail[2], *web]

    def test_a_bound_on_all_queues_spares_those_with_a_bound_of_their_own(self, scene: Scene) -> None:
        mail, web = finished(scene, 3, queue="mail"), finished(scene, 3, queue="web")

        assert prune(scene, Bound(State.COMPLETED, 1, exclude=("mail",)), Bound(State.COMPLETED, 2, queue="mail")) == 3
        assert left(scene, *mail, *web) == [*mail[1:], web[2]]

    def test_a_bound_without_a_queue_counts_each_queue_apart(self, scene: Scene) -> None:
        mail, web = finished(scene, 3, queue="mail"), finished(scene, 2, queue="web")

        assert prune(scene, Bound(State.COMPLETED, 1)) == 3
        assert left(scene, *mail, *web) == [mail[2], web[1]]

    def test_a_bound_on_one_task_spares_the_others(self, scene: Scene) -> None:
        charge, ship = finished(scene, 3, task="charge"), finished(scene, 3, task="ship")

        assert prune(scene, Bound(State.COMPLETED, 1, task="charge")) == 2
        assert left(scene, *charge, *ship) == [charge[2], *ship]

    def test_a_bound_on_task_and_queue_needs_both(self, scene: Scene) -> None:
        both = finished(scene, 2, task="charge", queue="mail")
        task = finished(scene, 2, task="charge", queue="web")
        queue = finished(scene, 2, task="ship", queue="mail")

        assert prune(scene, Bound(State.COMPLETED, 1, queue="mail", task="charge")) == 1
        assert left(scene, *both, *task, *queue) == [both[1], *task, *queue]

    def test_the_tightest_of_several_bounds_counts(self, scene: Scene) -> None:
        ids = finished(scene, 6, task="charge")

        prune(scene, Bound(State.COMPLETED, 5), Bound(State.COMPLETED, 2, task="charge"), Bound(State.COMPLETED, 4))

        assert left(scene, *ids) == ids[4:]

    def test_a_limit_takes_the_oldest_and_the_next_call_goes_on(self, scene: Scene) -> None:
        ids = finished(scene, 5)
        bound = Bound(State.COMPLETED, 0)

        assert prune(scene, bound, limit=2) == 2
        assert left(scene, *ids) == ids[2:]
        assert prune(scene, bound, limit=2) == 2
        assert prune(scene, bound, limit=2) == 1
        assert prune(scene, bound, limit=2) == 0

    def test_age_and_count_share_one_limit(self, scene: Scene) -> None:
        finished(scene, 3, keep=0.5)
        finished(scene, 3, task="other")

        assert prune(scene, Bound(State.COMPLETED, 0, task="other"), limit=4) == 4
        assert prune(scene, Bound(State.COMPLETED, 0, task="other"), limit=4) == 2

    def test_what_a_pruned_job_left_behind_goes_with_it(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        ann.record(job, Checkpoint(b"half"), Log(scene.now, "info", "line"))
        ann.settle(job, Outcome.DEAD, keep=1.0, error=b"boom")
        scene.advance(2)

        assert prune(scene) == 1
        assert (scene.store.recorded(id), scene.store.logs(id)) == (None, [])

    def test_cancelled_by_hand_and_by_time_are_under_retention_too(self, scene: Scene) -> None:
        by_hand, by_time = scene.job(), scene.job(expires=1.0)
        scene.act(Cancel(keep=60.0), by_hand)
        scene.advance(2)
        scene.store.stage(scene.term, now=scene.now)
        scene.advance(2 * DAY)

        assert prune(scene) == 2
        assert left(scene, by_hand, by_time) == []

    def test_the_counts_and_samples_of_a_week_are_kept(self, scene: Scene) -> None:
        ann = scene.worker()
        ann.beat(tallies=[Tally("mail", "completed", 1)])
        scene.job()
        scene.store.sample(scene.term, now=scene.now)
        first = scene.now
        scene.advance(6.9 * DAY)
        prune(scene)
        assert {sample.name for sample in scene.store.history(0)} >= {"completed", "depth:available"}

        scene.advance(0.2 * DAY)
        prune(scene)

        assert [sample for sample in scene.store.history(0) if sample.at <= first] == []

    def test_a_prune_in_the_middle_of_everything_touches_only_what_is_due(self, scene: Scene) -> None:
        running, waiting = scene.job(), scene.job(delay=60.0)
        ann = scene.worker()
        job = ann.take(running)
        old = finished(scene, 2, keep=10.0)
        scene.advance(11)

        assert prune(scene) == 2
        assert left(scene, running, waiting, *old) == [running, waiting]
        assert ann.settled(job) is True

    def test_a_stale_term_prunes_nothing(self, scene: Scene) -> None:
        ids = finished(scene, 2, keep=0.5)
        scene.advance(10)

        assert scene.store.prune(scene.term + 1, [], now=scene.now) is None
        assert scene.store.prune(scene.term - 1, [Bound(State.COMPLETED, 0)], now=scene.now) is None
        assert left(scene, *ids) == ids
