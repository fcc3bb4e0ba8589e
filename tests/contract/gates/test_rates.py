"""Rates: starts are counted, by the store's clock; no window is ever overfull, none needlessly empty, and nothing bursts."""

from __future__ import annotations

import random

import pytest

from dayjob.clock import SECOND
from dayjob.states import Outcome, State
from dayjob.store.gating import UNCLAIMED
from dayjob.store.records import Cancel
from tests.contract.gates.words import admit, concurrency, gated, rate, tokens
from tests.contract.scene import Scene


def fullest(starts: list[int], per: float) -> int:
    """The most starts in any window of *per* seconds."""
    window = round(per * SECOND)
    return max(sum(first <= each < first + window for each in starts) for first in starts)


class TestRate:
    def test_no_more_start_in_a_period_than_the_limit_says(self, scene: Scene) -> None:
        ids, ann = scene.jobs(9, gating=gated(rate(3, 10.0))), scene.worker()

        assert ann.ids() == ids[:3]
        scene.advance(9.99)
        assert ann.ids() == []
        scene.advance(0.02)
        assert ann.ids() == ids[3:6]

    def test_starts_are_counted_and_not_what_runs(self, scene: Scene) -> None:
        scene.jobs(2, gating=gated(rate(1, 10.0)))
        ann = scene.worker()
        ann.settle(ann.take())

        assert ann.ids() == []
        assert tokens(scene) == {"stripe": 1}

    @pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.RELEASED, Outcome.LOST, Outcome.CANCELLED])
    def test_a_start_counts_however_it_ended(self, scene: Scene, outcome: Outcome) -> None:
        id, ann = scene.job(gating=gated(rate(1, 10.0))), scene.worker()
        scene.job(gating=gated(rate(1, 10.0)))
        ann.settle(ann.take(id), outcome)

        assert ann.ids() == []
        scene.advance(9)
        assert ann.ids() == []

    def test_a_start_counts_though_its_worker_is_gone(self, scene: Scene) -> None:
        scene.jobs(2, gating=gated(rate(1, 60.0)))
        ann = scene.worker()
        ann.take()
        scene.crash(ann)

        assert scene.worker("bob").ids() == []

    def test_every_retry_is_a_start(self, scene: Scene) -> None:
        id, ann = scene.job(gating=gated(rate(1, 10.0))), scene.worker()
        for _ in range(3):
            ann.fail(ann.take(id), delay=1.0)
            scene.advance(1.01)
            assert ann.ids() == []
            assert scene.state(id) is State.BLOCKED
            scene.advance(9)

    def test_a_token_counts_from_the_start_and_not_from_the_admission(self, scene: Scene) -> None:
        first, second = scene.jobs(2, gating=gated(rate(1, 10.0)))
        admit(scene)
        scene.advance(UNCLAIMED - 1)
        ann = scene.worker()
        ann.take(first)

        scene.advance(9.9)
        assert ann.ids() == []
        scene.advance(0.2)
        assert ann.ids() == [second]

    def test_a_period_that_is_over_lets_in_all_at_once_though_not_all_of_it_was_used(self, scene: Scene) -> None:
        gating, ann = gated(rate(2)), scene.worker()
        scene.job(gating=gating)
        ann.settle(ann.take())
        scene.advance(10.01)
        ids = [scene.job(gating=gating), scene.job(gating=gating, queue="other")]

        assert ann.ids() == ids

    def test_a_start_does_not_hide_when_a_delay_is_over(self, scene: Scene) -> None:
        gating, ann = gated(rate(2)), scene.worker()
        first = scene.job(gating=gating)
        admit(scene)
        scene.store.delay_gate("rate", "stripe", 5.0, now=scene.now)
        second = scene.job(gating=gating)
        admit(scene)
        ran = ann.ids()  # an engine may take back who has passed

        assert ann.turn(wants=[ann.want()]).next_due == scene.stamp(5)
        scene.advance(5)
        assert ran + ann.ids() == [first, second]

    def test_a_turn_knows_when_the_next_may_start_whoever_took_the_last_token(self, scene: Scene) -> None:
        scene.job(gating=gated(rate(1)), priority=1)
        scene.job(gating=gated(rate(1)), queue="other")
        admit(scene)
        ann = scene.worker()

        assert ann.turn(wants=[ann.want(10)]).next_due == scene.stamp(10)
        scene.job(gating=gated(rate(1)), queue="third", priority=2)
        scene.advance(10)
        assert ann.turn(wants=[ann.want(10)]).next_due == scene.stamp(10)

    def test_each_token_comes_back_at_its_own_time(self, scene: Scene) -> None:
        ids, ann = scene.jobs(6, gating=gated(rate(3, 10.0))), scene.worker()
        for id in ids[:3]:
            assert ann.ids(1) == [id]
            scene.advance(3)

        scene.advance(1.01)  # 10.01 after the first start
        assert ann.ids() == [ids[3]]
        scene.advance(3)
        assert ann.ids() == [ids[4]]

    def test_two_rates_hold_both(self, scene: Scene) -> None:
        scene.jobs(20, gating=gated(rate(2, 1.0, "second"), rate(5, 60.0, "minute")))
        ann, starts = scene.worker(), []
        for _ in range(6):
            starts.append(len(ann.ids()))
            scene.advance(1.01)

        assert starts == [2, 2, 1, 0, 0, 0]

    def test_keys_have_rates_of_their_own(self, scene: Scene) -> None:
        rows = [scene.row(gating=gated(rate(1, 10.0, f"tenant:{n % 3}"))) for n in range(9)]
        scene.store.enqueue(rows, now=scene.now)

        assert scene.worker().ids() == [row.id for row in rows[:3]]

    def test_nothing_is_left_when_the_last_period_is_over(self, scene: Scene) -> None:
        scene.jobs(2, gating=gated(rate(2, 10.0)))
        ann = scene.worker()
        for job in ann.claim():
            ann.settle(job)
        scene.advance(10.01)

        assert scene.store.gates(now=scene.now) == []

    def test_the_gate_says_when_it_opens(self, scene: Scene) -> None:
        scene.jobs(3, gating=gated(rate(2, 10.0)))
        ann = scene.worker()
        ann.claim(1)
        [gate] = scene.store.gates(now=scene.now)
        assert (gate.gate, gate.opens) == (rate(2, 10.0), scene.stamp(10))

        opens = scene.stamp(10)
        scene.advance(2)
        ann.claim(1)

        [gate] = scene.store.gates(now=scene.now)
        assert (gate.taken, gate.waiting, gate.opens) == (2, 1, opens)


class TestReservations:
    def test_a_job_cancelled_before_its_start_gives_its_token_back_at_once(self, scene: Scene) -> None:
        first, second = scene.jobs(2, gating=gated(rate(1, 3600.0)))
        admit(scene)

        scene.act(Cancel(), first)

        assert scene.worker().ids() == [second]

    def test_a_token_that_nobody_claims_under_goes_to_the_next(self, scene: Scene) -> None:
        scene.job(queue="bulk", gating=gated(rate(1, 3600.0)))
        id = scene.job(gating=gated(rate(1, 3600.0)))
        admit(scene)
        scene.advance(UNCLAIMED + 0.5)
        admit(scene)

        assert scene.worker().ids(10, "default") == [id]

    def test_an_hour_without_workers_makes_no_burst(self, scene: Scene) -> None:
        scene.jobs(100, gating=gated(rate(3, 10.0)))
        for _ in range(60):
            admit(scene)
            scene.advance(60)
        ann = scene.worker()

        counts = []
        for _ in range(3):
            counts.append(len(ann.ids(100)))
            scene.advance(5.01)

        assert counts == [3, 0, 3]

    def test_no_window_is_overfull_however_admission_and_claims_fall(self, scene: Scene) -> None:
        chance = random.Random(7)
        scene.jobs(300, gating=gated(rate(5, 10.0)))
        workers, starts = [scene.worker("ann"), scene.worker("bob")], []
        for _ in range(150):
            scene.advance(chance.choice([0.0, 0.1, 0.7, 2.0, 4.9, 11.0]))
            if chance.random() < 0.5:
                admit(scene)
            worker = chance.choice(workers)
            for each in (scene.leader, *workers):
                each.beat()
            for job in worker.claim(chance.randint(1, 7)):
                starts.append(scene.now)
                if chance.random() < 0.7:
                    worker.settle(job, chance.choice([Outcome.COMPLETED, Outcome.RELEASED]))

        assert len(starts) > 50
        assert fullest(starts, 10.0) == 5


class TestFullUse:
    def test_who_asks_again_when_told_uses_the_whole_rate(self, scene: Scene) -> None:
        scene.jobs(500, gating=gated(rate(10, 1.0)))
        ann, starts = scene.worker(), []
        end = scene.stamp(30)
        while scene.now < end:
            turn = ann.turn(wants=[ann.want(3)])
            starts += [scene.now] * len(turn.claimed)
            if not turn.claimed:
                assert turn.next_due is not None
                assert turn.next_due > scene.now
                scene.now = turn.next_due
            ann.beat()

        assert fullest(starts, 1.0) == 10
        assert len(starts) >= 0.95 * 10 * 30

    def test_a_turn_knows_when_a_rate_opens(self, scene: Scene) -> None:
        scene.jobs(2, gating=gated(rate(1, 10.0)))
        ann = scene.worker()
        ann.claim()
        opens = scene.stamp(10)
        scene.advance(3)

        assert ann.turn(wants=[ann.want()]).next_due == opens
        assert admit(scene) == (0, opens)

    def test_of_a_rate_and_a_scheduled_job_the_earlier_is_told(self, scene: Scene) -> None:
        scene.jobs(2, gating=gated(rate(1, 10.0)))
        scene.job(delay=30.0)
        ann = scene.worker()
        ann.claim()
        assert ann.turn(wants=[ann.want()]).next_due == scene.stamp(10)

        scene.job(delay=4.0)

        assert ann.turn(wants=[ann.want()]).next_due == scene.stamp(4)

    def test_nobody_is_woken_for_a_rate_at_which_none_waits(self, scene: Scene) -> None:
        scene.jobs(1, gating=gated(rate(1, 10.0)))
        ann = scene.worker()
        ann.settle(ann.take())

        assert ann.turn(wants=[ann.want()]).next_due is None
        assert admit(scene) == (0, None)


class TestRatesChange:
    def test_a_higher_rate_acts_at_once(self, scene: Scene) -> None:
        ids, ann = scene.jobs(9, gating=gated(rate(1, 10.0))), scene.worker()
        ann.claim()

        scene.store.set_limit("rate", "stripe", 4, 10.0, now=scene.now)

        assert ann.ids() == ids[1:4]

    def test_a_lower_rate_counts_what_has_started(self, scene: Scene) -> None:
        scene.jobs(9, gating=gated(rate(4, 10.0)))
        ann = scene.worker()
        ann.claim(3)
        scene.store.set_limit("rate", "stripe", 2, 10.0, now=scene.now)

        assert ann.ids() == []
        scene.advance(10.01)
        assert len(ann.ids()) == 2

    def test_a_shorter_period_acts_at_once(self, scene: Scene) -> None:
        ids, ann = scene.jobs(2, gating=gated(rate(1, 3600.0))), scene.worker()
        ann.claim()
        scene.advance(2)
        assert ann.ids() == []

        scene.store.set_limit("rate", "stripe", 1, 1.0, now=scene.now)

        assert ann.ids() == [ids[1]]


class TestDelay:
    def test_what_a_downstream_asks_for_holds_all_of_its_key(self, scene: Scene) -> None:
        ids, ann = scene.jobs(2, gating=gated(rate(100, 1.0))), scene.worker()
        free = scene.job(gating=gated(rate(100, 1.0, "paypal")))
        scene.store.delay_gate("rate", "stripe", 30.0, now=scene.now)

        assert ann.ids() == [free]
        scene.advance(29.9)
        assert ann.ids() == []
        scene.advance(0.2)
        assert ann.ids() == ids

    def test_the_later_end_wins(self, scene: Scene) -> None:
        id, ann = scene.job(gating=gated(rate(100, 1.0))), scene.worker()
        scene.store.delay_gate("rate", "stripe", 30.0, now=scene.now)
        scene.store.delay_gate("rate", "stripe", 5.0, now=scene.now)

        scene.advance(29)
        assert ann.ids() == []
        scene.advance(1.1)
        assert ann.ids() == [id]

    def test_a_turn_knows_when_the_delay_is_over(self, scene: Scene) -> None:
        scene.job(gating=gated(rate(100, 1.0)))
        scene.store.delay_gate("rate", "stripe", 30.0, now=scene.now)
        ann = scene.worker()

        assert ann.turn(wants=[ann.want()]).next_due == scene.stamp(30)

    def test_a_gate_that_was_forgotten_meanwhile_has_its_numbers_afterwards(self, scene: Scene) -> None:
        ids, ann = scene.jobs(6, gating=gated(rate(2, 100.0)), delay=50.0), scene.worker()
        scene.store.prune(scene.term, [], now=scene.now)
        admit(scene)
        scene.store.delay_gate("rate", "stripe", 60.0, now=scene.now)

        scene.advance(55)
        assert ann.ids() == []
        scene.advance(6)
        started = []
        for _ in range(4):
            started += ann.ids()
            scene.advance(1)

        assert started == ids[:2]

    def test_a_limit_taken_back_is_what_the_jobs_say_though_the_gate_was_forgotten(self, scene: Scene) -> None:
        ids, ann = scene.jobs(4, gating=gated(concurrency("a", 3)), delay=50.0), scene.worker()
        scene.store.prune(scene.term, [], now=scene.now)
        admit(scene)
        scene.store.set_limit("concurrency", "a", 1, now=scene.now)
        scene.advance(60)
        assert ann.ids() == ids[:1]

        scene.store.set_limit("concurrency", "a", None, now=scene.now)

        assert ann.ids() == ids[1:3]
