"""Tokens for what is no job: the same gates around one call, wherever it is made."""

from __future__ import annotations

from functools import partial

import pytest

from dayjob.clock import SECOND
from dayjob.states import State
from dayjob.store.contract import Store
from tests.contract.gates.words import admit, concurrency, gated, rate, tokens
from tests.contract.racing import at_once
from tests.contract.scene import Scene

A, B = concurrency("a"), concurrency("b")


class TestTake:
    def test_a_call_and_a_job_share_the_limit(self, scene: Scene) -> None:
        assert scene.store.take([A], "call", 60.0, now=scene.now) is None
        id, ann = scene.job(gating=gated(A)), scene.worker()

        assert ann.ids() == []
        assert scene.store.give("call", now=scene.now) is True
        assert ann.ids() == [id]

    def test_who_comes_too_late_is_told_when_to_ask_again(self, scene: Scene) -> None:
        scene.worker().take(scene.job(gating=gated(A)))

        wait = scene.store.take([A], "call", 60.0, now=scene.now)

        assert wait is not None
        assert wait >= 0.001

    def test_all_or_none(self, scene: Scene) -> None:
        scene.store.take([A], "one", 60.0, now=scene.now)

        assert scene.store.take([B, A], "other", 60.0, now=scene.now) is not None
        assert tokens(scene) == {"a": 1}

    def test_taking_again_with_the_same_holder_takes_no_second_token(self, scene: Scene) -> None:
        a = concurrency("a", 2)
        for _ in range(3):
            assert scene.store.take([a], "call", 60.0, now=scene.now) is None

        assert tokens(scene) == {"a": 1}

    def test_a_gate_named_twice_is_taken_once(self, scene: Scene) -> None:
        a = concurrency("a", 2)

        assert scene.store.take([a, B, a], "call", 60.0, now=scene.now) is None
        assert tokens(scene) == {"a": 1, "b": 1}

    def test_taking_again_counts_the_time_anew(self, scene: Scene) -> None:
        stripe, holder = rate(1, 100.0), "call"
        scene.store.take([A, stripe], holder, 10.0, now=scene.now)
        id, ann = scene.job(gating=gated(A)), scene.worker()
        for _ in range(3):
            scene.advance(9)
            assert scene.store.take([A], holder, 10.0, now=scene.now) is None
            admit(scene)

        scene.advance(9)
        admit(scene)
        assert tokens(scene) == {"a": 1, "stripe": 1}
        assert ann.ids() == []
        scene.advance(1.5)
        admit(scene)
        assert ann.ids() == [id]

    def test_a_holder_that_died_loses_its_token_after_its_time(self, scene: Scene) -> None:
        scene.store.take([A], "call", 10.0, now=scene.now)
        id, ann = scene.job(gating=gated(A)), scene.worker()
        scene.advance(9)
        assert ann.ids() == []

        scene.advance(1.5)

        admit(scene)
        assert ann.ids() == [id]
        assert scene.store.give("call", now=scene.now) is False
        assert tokens(scene) == {"a": 1}

    def test_a_token_whose_time_is_over_is_as_good_as_one_that_was_never_taken(self, scene: Scene) -> None:
        gates = (concurrency(limit=2),)
        assert scene.store.take(gates, "a call", 5.0, now=scene.now) is None
        scene.advance(5.01)
        ids = [scene.job(gating=gated(*gates), queue=queue) for queue in ("default", "other")]

        assert scene.worker().ids() == ids

    def test_who_gives_back_after_its_time_is_told_that_it_had_nothing_any_more(self, scene: Scene) -> None:
        scene.store.take([A], "call", 10.0, now=scene.now)
        scene.advance(10.1)

        assert tokens(scene) == {}
        assert scene.store.give("call", now=scene.now) is False

    def test_a_rate_whose_time_is_longer_holds_nothing_for_it(self, scene: Scene) -> None:
        scene.store.take([A, rate(per=20.0)], "call", 10.0, now=scene.now)
        scene.advance(10.1)

        assert scene.store.give("call", now=scene.now) is False

    def test_who_asks_for_more_time_after_its_time_has_nothing_though_a_rate_of_it_lasts(self, scene: Scene) -> None:
        scene.store.take([A, rate(per=20.0)], "call", 10.0, now=scene.now)
        scene.advance(10.1)
        assert scene.store.take([A], "other", 10.0, now=scene.now) is None

        assert scene.store.take([A], "call", 10.0, now=scene.now) is not None

    def test_giving_twice_harms_nobody(self, scene: Scene) -> None:
        scene.store.take([A], "one", 60.0, now=scene.now)
        assert scene.store.give("one", now=scene.now) is True
        scene.store.take([A], "other", 60.0, now=scene.now)

        assert scene.store.give("one", now=scene.now) is False
        assert scene.store.give("nobody", now=scene.now) is False
        assert tokens(scene) == {"a": 1}

    def test_nothing_is_left_when_all_was_given_back(self, scene: Scene) -> None:
        for n in range(3):
            scene.store.take([concurrency("a", 5), B], f"call{n}", 60.0, now=scene.now)
            scene.store.give(f"call{n}", now=scene.now)

        assert scene.store.gates(now=scene.now) == []

    def test_a_rates_token_stays_until_its_time_though_it_is_given_back(self, scene: Scene) -> None:
        stripe = rate(1, 10.0)
        scene.store.take([stripe], "one", 60.0, now=scene.now)
        scene.advance(4)
        scene.store.give("one", now=scene.now)

        assert scene.store.take([stripe], "other", 60.0, now=scene.now) == pytest.approx(6.0, abs=0.01)
        scene.advance(6.01)
        assert scene.store.take([stripe], "other", 60.0, now=scene.now) is None

    def test_a_call_of_a_rate_holds_up_the_jobs_of_it(self, scene: Scene) -> None:
        scene.store.take([rate(1, 10.0)], "call", 60.0, now=scene.now)
        opens = scene.stamp(10)
        id, ann = scene.job(gating=gated(rate(1, 10.0))), scene.worker()

        assert ann.turn(wants=[ann.want()]).next_due == opens
        scene.now = opens + SECOND // 100
        assert ann.ids() == [id]

    def test_the_start_of_a_job_counts_for_the_next_call(self, scene: Scene) -> None:
        scene.job(gating=gated(rate(1, 10.0)))
        scene.worker().take()
        scene.advance(4)

        assert scene.store.take([rate(1, 10.0)], "call", 60.0, now=scene.now) == pytest.approx(6.0, abs=0.01)

    def test_a_gate_that_is_delayed_lets_no_call_through(self, scene: Scene) -> None:
        scene.store.delay_gate("rate", "stripe", 30.0, now=scene.now)

        assert scene.store.take([rate(100, 1.0)], "call", 60.0, now=scene.now) == pytest.approx(30.0, abs=0.01)
        assert tokens(scene) == {}

    def test_a_limit_that_was_set_holds_for_calls(self, scene: Scene) -> None:
        scene.store.set_limit("concurrency", "a", 2, now=scene.now)

        taken = [scene.store.take([A], f"call{n}", 60.0, now=scene.now) is None for n in range(3)]

        assert taken == [True, True, False]

    def test_of_many_at_once_so_many_pass_as_there_are_tokens(self, scene: Scene, other: Store) -> None:
        a = concurrency("a", 3)
        stores = [scene.store, other]

        answers = at_once(*[partial(stores[n % 2].take, [a], f"call{n}", 60.0, now=scene.now) for n in range(12)])

        assert sum(answer is None for answer in answers) == 3
        assert tokens(scene) == {"a": 3}

    def test_a_job_admitted_while_a_call_takes_the_last_token_has_it_or_has_not(
        self, scene: Scene, other: Store
    ) -> None:
        ann = scene.worker()
        for n in range(20):
            id = scene.job(gating=gated(A))

            wait, claimed = at_once(
                partial(other.take, [A], f"call{n}", 60.0, now=scene.now), lambda: ann.claim(1) or None
            )

            assert tokens(scene) == {"a": 1}
            assert (wait is None) != bool(claimed)
            scene.store.give(f"call{n}", now=scene.now)
            ann.settle(ann.batches[ann.number][0] if claimed else ann.take(id))
        assert scene.store.gates(now=scene.now) == []
        assert scene.state(id) is State.COMPLETED
