"""More keys than one turn looks at: the most urgent pass first all the same, and who is let in is not more than is of use."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest

from dayjob.clock import SECOND
from dayjob.states import State
from dayjob.store.records import Action, Cancel, Edit
from tests.contract.gates.words import admit, concurrency, gated, order, rate, tokens
from tests.contract.scene import START, Puppet, Scene

MANY = 2_300


def of_keys(scene: Scene, numbers: Iterable[int], priority: int | None = None) -> list[str]:
    """A job of a key of its own for each number, of that priority, or of three in turn."""
    rows = [
        scene.row(gating=gated(concurrency(f"key{n}")), priority=n % 3 if priority is None else priority)
        for n in numbers
    ]
    for start in range(0, len(rows), 1000):
        scene.store.enqueue(rows[start : start + 1000], now=scene.now)
    return [row.id for row in rows]


def emptied(puppet: Puppet, limit: int) -> list[str]:
    """All that can be claimed, a few turns without a job included."""
    found: list[str] = []
    dry = 0
    while dry < 3:
        ids = puppet.ids(limit)
        found += ids
        dry = 0 if ids else dry + 1
    return found


class TestVeryManyKeys:
    @pytest.mark.parametrize("limit", [7, 400])
    def test_each_job_is_claimed_once(self, scene: Scene, limit: int) -> None:
        ids = of_keys(scene, range(MANY))
        found = emptied(scene.worker(), limit)

        assert len(found) == MANY
        assert set(found) == set(ids)
        assert sum(tokens(scene).values()) == 1000, "as many as are told of"

    @pytest.mark.parametrize("keys", [3, 60, 250, 900])
    def test_jobs_of_keys_that_are_not_short_of_tokens_come_in_their_order(self, scene: Scene, keys: int) -> None:
        chance = Random(keys)
        rows = [scene.row(gating=gated(concurrency(f"key{chance.randrange(keys)}", 5000))) for _ in range(MANY)]
        for start in range(0, MANY, 500):
            scene.store.enqueue(rows[start : start + 500], now=scene.now)
        ann, found = scene.worker(), list[str]()
        while ids := ann.ids(chance.choice([10, 100, 500, 600, 1000])):
            found += ids

        assert found == [row.id for row in rows]

    def test_the_most_urgent_of_a_thousand_come_first(self, scene: Scene) -> None:
        ids = of_keys(scene, range(990))
        urgent = [id for n, id in enumerate(ids) if n % 3 == 2]

        assert scene.worker().ids(330) == urgent

    def test_who_comes_with_more_urgency_passes_those_that_wait_to_be_looked_at(self, scene: Scene) -> None:
        of_keys(scene, range(900), priority=0)
        ann = scene.worker()
        ann.ids(10)
        of_keys(scene, range(1000, 1900), priority=0)
        [urgent] = of_keys(scene, [5000], priority=1)

        assert ann.ids(3)[0] == urgent

    def test_and_so_does_one_that_waited_at_a_gate(self, scene: Scene) -> None:
        of_keys(scene, range(900), priority=0)
        ann = scene.worker()
        held = ann.take(scene.job(gating=gated(concurrency("busy")), priority=2))
        id = scene.job(gating=gated(concurrency("busy")), priority=1)
        ann.ids(10)
        of_keys(scene, range(1000, 1900), priority=0)
        ann.ids(10)
        ann.settle(held)

        assert ann.ids(3)[0] == id

    def test_and_one_whom_time_lets_in(self, scene: Scene) -> None:
        of_keys(scene, range(900), priority=0)
        ann = scene.worker()
        ann.take(scene.job(gating=gated(rate()), priority=2))
        id = scene.job(gating=gated(rate()), priority=1)
        ann.ids(10)
        of_keys(scene, range(1000, 1900), priority=0)
        ann.ids(10)
        scene.advance(11)

        assert ann.ids(3)[0] == id

    def test_one_of_a_strict_order_does_not_pass_its_first(self, scene: Scene) -> None:
        of_keys(scene, range(900), priority=0)
        first, second = (scene.job(gating=gated(order()), priority=priority) for priority in (0, 9))
        of_keys(scene, range(1000, 1900), priority=0)
        ann = scene.worker()
        found = emptied(ann, 100)

        assert first in found
        assert second not in found
        assert len(found) == 1801

    def test_nobody_takes_a_token_before_the_first_of_a_line_that_is_looked_at_later(self, scene: Scene) -> None:
        ann = scene.worker()
        of_keys(scene, range(500), priority=0)
        assert len(ann.ids(500)) == 500
        pool = concurrency("pool", 600)
        firsts, seconds = (
            [scene.row(gating=gated(concurrency(f"key{n}", 1 if n < 500 else 2), pool)) for n in range(start, end)]
            for start, end in ((0, 1200), (500, 1000))
        )
        for rows in (firsts[:600], firsts[600:], seconds):
            scene.store.enqueue(rows, now=scene.now)

        assert [id for _ in range(3) for id in ann.ids(700)] == [row.id for row in firsts[500:1100]]

    def test_who_finds_nothing_for_others_come_first_is_told_to_come_again(self, scene: Scene) -> None:
        of_keys(scene, range(3000), priority=1)
        mine = scene.job(queue="mine", gating=gated(concurrency("mine")))
        ann = scene.worker()
        for _ in range(10):
            turn = ann.turn(wants=[ann.want(10, "mine")])
            if turn.claimed:
                break
            assert turn.next_due is not None
            assert turn.next_due <= scene.stamp(1)
            scene.advance(1)

        assert [job.id for job in turn.claimed] == [mine]


class TestWhoIsFirstInALine:
    @pytest.mark.parametrize("change", [Cancel(), Edit(run_at=START + 3600 * SECOND), Edit(gating=gated())])
    def test_when_the_first_leaves_it_the_line_is_as_urgent_as_the_next(self, scene: Scene, change: Action) -> None:
        a, b = concurrency("a"), concurrency("b")
        ann = scene.worker()
        held = ann.take(scene.job(gating=gated(a)))
        first, second = scene.job(gating=gated(a), priority=5), scene.job(gating=gated(a))
        other = scene.job(gating=gated(a, b), priority=3)
        admit(scene)
        scene.act(change, first)

        ann.settle(held)  # no sweep: that would take the token back from one who is less urgent

        assert (scene.state(other), scene.state(second)) == (State.AVAILABLE, State.BLOCKED)
