"""Lanes: those who share a queue take turns, and nobody waits for all that another has stored."""

from __future__ import annotations

from collections import Counter

from dayjob.states import Outcome
from tests.contract.gates.words import laned
from tests.contract.scene import Puppet, Scene


def lane_order(scene: Scene, ann: Puppet, limit: int) -> str:
    """The lanes of the next *limit* jobs, in the order of their claim, one by one."""
    lanes = []
    for _ in range(limit):
        gating = scene.get(ann.take().id).gating
        lanes.append(gating.lane if gating and gating.lane else "-")
    return "".join(lanes)


class TestTurns:
    def test_lanes_come_one_after_the_other(self, scene: Scene) -> None:
        scene.jobs(4, gating=laned("a"))
        scene.jobs(4, gating=laned("b"))
        scene.jobs(2, gating=laned("c"))

        assert lane_order(scene, scene.worker(), 10) == "abcabcabab"

    def test_lanes_of_one_call_come_one_after_the_other(self, scene: Scene) -> None:
        rows = [scene.row(gating=laned(lane)) for lane in "aaabbb"]
        scene.store.enqueue(rows, now=scene.now)

        assert lane_order(scene, scene.worker(), 6) == "ababab"

    def test_within_a_lane_the_first_goes_first(self, scene: Scene) -> None:
        ids = [scene.job(gating=laned("ab"[n % 2])) for n in range(20)]
        ann = scene.worker()

        claimed = ann.ids(20)

        assert [id for id in claimed if id in ids[::2]] == ids[::2]
        assert [id for id in claimed if id in ids[1::2]] == ids[1::2]

    def test_a_tenant_with_thousands_of_jobs_delays_another_by_a_few_places(self, scene: Scene) -> None:
        for _ in range(5):
            scene.jobs(1000, gating=laned("many"))
        ann = scene.worker()
        ann.claim(10)
        single = scene.job(gating=laned("one"))

        assert single in ann.ids(3)

    def test_each_of_many_small_tenants_is_served_in_the_first_round(self, scene: Scene) -> None:
        scene.jobs(500, gating=laned("many"))
        singles = [scene.job(gating=laned(f"tenant:{n}")) for n in range(20)]

        assert set(singles) <= set(scene.worker().ids(23))

    def test_jobs_that_come_due_together_do_not_keep_another_tenant_waiting(self, scene: Scene) -> None:
        scene.jobs(200, gating=laned("many"), delay=10.0)
        scene.advance(10)
        ann = scene.worker()
        ann.claim(5)
        single = scene.job(gating=laned("one"))

        assert single in ann.ids(3)

    def test_a_tenant_that_was_away_has_neither_credit_nor_debt(self, scene: Scene) -> None:
        ann = scene.worker()
        scene.jobs(3, gating=laned("a"))
        scene.jobs(20, gating=laned("b"))
        lane_order(scene, ann, 13)

        scene.jobs(5, gating=laned("a"))

        turns = Counter(lane_order(scene, ann, 10))
        assert abs(turns["a"] - turns["b"]) <= 1

    def test_a_tenant_that_was_alone_for_long_is_not_punished_for_it(self, scene: Scene) -> None:
        ann = scene.worker()
        scene.jobs(50, gating=laned("a"))
        lane_order(scene, ann, 45)
        scene.jobs(5, gating=laned("b"))

        turns = Counter(lane_order(scene, ann, 10))
        assert turns["a"] == turns["b"] == 5

    def test_a_released_job_of_a_lane_keeps_its_place(self, scene: Scene) -> None:
        scene.jobs(3, gating=laned("a"))
        scene.jobs(3, gating=laned("b"))
        ann = scene.worker()
        job = ann.take()
        ann.settle(job, Outcome.RELEASED)

        assert ann.take().id == job.id


class TestWeights:
    def test_a_lane_of_weight_three_gets_three_turns(self, scene: Scene) -> None:
        scene.jobs(40, gating=laned("a"))
        scene.jobs(40, gating=laned("b", weight=3))

        turns = Counter(lane_order(scene, scene.worker(), 40))

        assert 29 <= turns["b"] <= 31

    def test_no_weight_shuts_another_lane_out(self, scene: Scene) -> None:
        scene.jobs(500, gating=laned("heavy", weight=50))
        single = scene.job(gating=laned("one"))

        assert single in scene.worker().ids(60)


class TestLanesAndTheRest:
    def test_priority_goes_before_every_turn(self, scene: Scene) -> None:
        scene.jobs(2, gating=laned("a"))
        urgent = scene.jobs(3, gating=laned("a"), priority=5)
        scene.jobs(2, gating=laned("b"))

        assert scene.worker().ids(3) == urgent

    def test_turns_of_one_priority_do_not_count_at_another(self, scene: Scene) -> None:
        scene.jobs(10, gating=laned("a"), priority=5)
        a = scene.job(gating=laned("a"))
        b = scene.job(gating=laned("b"))
        ann = scene.worker()
        ann.claim(10)

        assert ann.ids() == [a, b]

    def test_turns_in_one_queue_do_not_count_in_another(self, scene: Scene) -> None:
        scene.jobs(10, queue="bulk", gating=laned("a"))
        scene.jobs(3, gating=laned("a"))
        scene.jobs(3, gating=laned("b"))
        ann = scene.worker()

        assert [scene.get(id).gating for id in ann.ids(4, "default")] == [laned(lane) for lane in "abab"]

    def test_jobs_without_a_lane_keep_the_order_of_their_arrival(self, scene: Scene) -> None:
        plain = [scene.job()]
        for _ in range(5):
            scene.jobs(2, gating=laned("a"))
            plain.append(scene.job())

        claimed = scene.worker().ids(100)

        assert len(claimed) == 16
        assert [id for id in claimed if id in plain] == plain

    def test_a_lane_is_no_key_and_no_gate(self, scene: Scene) -> None:
        ids = scene.jobs(5, gating=laned("a"))

        assert scene.worker().ids() == ids
        assert scene.store.gates(now=scene.now) == []
