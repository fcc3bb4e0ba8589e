"""Strict lanes: one at a time and in order, also across retries, and nobody passes the first."""

from __future__ import annotations

import pytest

from dayjob.states import Outcome, State
from dayjob.store.records import Cancel, Delete
from tests.contract.gates.words import concurrency, gated, order, rate
from tests.contract.scene import Scene

STRICT = gated(order())


class TestStrictLane:
    def test_jobs_of_a_lane_run_one_at_a_time_and_in_order(self, scene: Scene) -> None:
        ids, ann = scene.jobs(5, gating=STRICT), scene.worker()

        for id in ids:
            [job] = ann.claim()
            assert job.id == id
            ann.settle(job)
        assert scene.store.gates(now=scene.now) == []

    @pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.SNOOZED, Outcome.PARKED])
    def test_nobody_passes_a_job_that_waits_for_its_retry(self, scene: Scene, outcome: Outcome) -> None:
        first, second = scene.jobs(2, gating=STRICT)
        ann = scene.worker()
        ann.settle(ann.take(first), outcome, delay=60.0)

        assert ann.ids() == []
        scene.advance(60)
        ann.settle(ann.take(first))
        assert ann.ids() == [second]

    def test_nobody_passes_a_job_that_is_released(self, scene: Scene) -> None:
        first, _ = scene.jobs(2, gating=STRICT)
        ann = scene.worker()
        ann.settle(ann.take(first), Outcome.RELEASED)

        assert ann.ids() == [first]

    def test_nobody_passes_a_job_that_is_rescued(self, scene: Scene) -> None:
        first, second = scene.jobs(2, gating=STRICT)
        ann = scene.worker("ann")
        ann.take(first)
        scene.crash(ann)
        bob, solo = scene.worker("bob"), scene.worker("solo", solo=True)

        assert bob.ids() == []
        solo.settle(solo.take(first))
        assert bob.ids() == [second]

    def test_a_more_urgent_job_does_not_pass(self, scene: Scene) -> None:
        first, ann = scene.job(gating=STRICT), scene.worker()
        urgent = scene.job(gating=STRICT, priority=100)

        ann.settle(ann.take(first))
        assert ann.ids() == [urgent]

    def test_a_more_urgent_job_does_not_take_the_turn_of_one_that_is_admitted(self, scene: Scene) -> None:
        first = scene.job(gating=STRICT)
        scene.store.admit(scene.term, now=scene.now)
        scene.job(gating=STRICT, priority=100)
        for _ in range(8):
            scene.store.admit(scene.term, now=scene.now)
            scene.advance(1)

        assert scene.worker().ids() == [first]

    def test_the_order_holds_over_queues(self, scene: Scene) -> None:
        ids = [scene.job(queue=queue, gating=STRICT) for queue in "baab"]
        ann = scene.worker()

        for id in ids:
            ann.settle(ann.take(id))

    def test_a_job_that_waits_elsewhere_holds_up_those_behind_it(self, scene: Scene) -> None:
        # Without this the second would pass while the first waits for another gate.
        ann = scene.worker()
        blocker = ann.take(scene.job(gating=gated(concurrency("k"))))
        first = scene.job(gating=gated(order(), concurrency("k")))
        second = scene.job(gating=STRICT)

        assert ann.ids() == []
        ann.settle(blocker)
        ann.settle(ann.take(first))
        assert ann.ids() == [second]

    def test_a_rate_that_is_closed_holds_up_the_lane(self, scene: Scene) -> None:
        ann = scene.worker()
        ann.settle(ann.take(scene.job(gating=gated(rate(1, 10.0)))))
        first, second = scene.job(gating=gated(order(), rate(1, 10.0))), scene.job(gating=STRICT)

        assert ann.ids() == []
        scene.advance(10.01)
        ann.settle(ann.take(first))
        assert ann.ids() == [second]

    def test_lanes_do_not_hinder_each_other(self, scene: Scene) -> None:
        rows = [scene.row(gating=gated(order(f"account:{n % 3}"))) for n in range(9)]
        scene.store.enqueue(rows, now=scene.now)

        assert scene.worker().ids() == [row.id for row in rows[:3]]

    @pytest.mark.parametrize("outcome", [Outcome.DEAD, Outcome.CANCELLED])
    def test_a_lane_goes_on_when_its_first_is_given_up(self, scene: Scene, outcome: Outcome) -> None:
        first, second = scene.jobs(2, gating=STRICT)
        ann = scene.worker()
        ann.settle(ann.take(first), outcome)

        assert ann.ids() == [second]

    @pytest.mark.parametrize("action", [Cancel(), Delete()])
    def test_a_lane_goes_on_when_the_job_it_waits_for_is_taken_away(
        self, scene: Scene, action: Cancel | Delete
    ) -> None:
        first, second = scene.jobs(2, gating=STRICT)
        ann = scene.worker()
        ann.fail(ann.take(first), delay=3600.0)
        assert ann.ids() == []

        scene.act(action, first)

        assert ann.ids() == [second]

    def test_a_job_for_later_does_not_hold_up_the_lane(self, scene: Scene) -> None:
        # It has no place before its time.
        later, now = scene.job(gating=STRICT, delay=3600.0), scene.job(gating=STRICT)
        ann = scene.worker()

        ann.settle(ann.take(now))
        assert scene.state(later) is State.SCHEDULED
        scene.advance(3600)
        assert ann.ids() == [later]

    def test_many_failures_in_a_row_change_no_order(self, scene: Scene) -> None:
        ids, ann = scene.jobs(4, gating=STRICT), scene.worker()
        for n, id in enumerate(ids):
            for _ in range(n):
                ann.fail(ann.take(id), delay=1.0)
                scene.advance(1)
            ann.settle(ann.take(id))

    def test_the_first_of_a_lane_is_as_urgent_at_other_gates_as_anybody(self, scene: Scene) -> None:
        ann = scene.worker()
        blocker = ann.take(scene.job(gating=gated(concurrency("k"))))
        plain = scene.job(gating=gated(concurrency("k")))
        urgent = scene.job(gating=gated(order(), concurrency("k")), priority=1)
        most = scene.job(gating=gated(concurrency("k")), priority=2)
        assert ann.ids() == []

        claimed = []
        for _ in range(3):
            ann.settle(blocker)
            blocker = ann.take()
            claimed.append(blocker.id)

        assert claimed == [most, urgent, plain]
