"""Breakers: what fails again and again is left alone for a while, tried by one, and opened to all when that one succeeds."""

from __future__ import annotations

from typing import Any

from dayjob.states import State
from dayjob.store.gating import BreakerRow, Report
from tests.contract.gates.words import admit, breaker, gated, tokens
from tests.contract.scene import START, Puppet, Scene

BEHIND = gated(breaker())


def report(scene: Scene, failed: bool = True, times: int = 1, **rest: Any) -> list[BreakerRow]:
    given: dict[str, Any] = {"key": "stripe", "failures": 3, "within": 60.0, "cooldown": 30.0, **rest}
    return scene.store.report([Report(failed=failed, **given)] * times, now=scene.now)


def states(scene: Scene) -> list[str]:
    return [row.state for row in scene.store.breakers(now=scene.now)]


def probe(scene: Scene, ann: Puppet, failed: bool) -> str:
    """One job goes through while it is probed, its call fails or succeeds; the job's id."""
    [job] = ann.claim()
    assert ann.ids() == []
    report(scene, failed)
    ann.settle(job)
    return job.id


class TestOpening:
    def test_all_pass_while_it_is_closed(self, scene: Scene) -> None:
        ids = scene.jobs(5, gating=BEHIND)
        report(scene, times=2)

        assert scene.worker().ids() == ids

    def test_it_opens_at_so_many_failures_within_the_window(self, scene: Scene) -> None:
        report(scene, times=2)
        scene.advance(50)

        opened = report(scene)

        assert opened == [BreakerRow("stripe", "open", scene.now, scene.stamp(30), 3)]
        assert scene.store.breakers(now=scene.now) == opened
        scene.job(gating=BEHIND)
        assert scene.worker().ids() == []

    def test_failures_that_are_long_past_do_not_open_it(self, scene: Scene) -> None:
        report(scene, times=2)
        scene.advance(61)

        report(scene)

        [row] = scene.store.breakers(now=scene.now)
        assert (row.state, row.failures) == ("closed", 1)

    def test_it_opens_whoever_reports(self, scene: Scene) -> None:
        other = scene.engine.open()
        for store in (scene.store, other, scene.store):
            opened = store.report([Report("stripe", True, 3, 60.0, 30.0)], now=scene.now)

        assert [row.state for row in opened] == ["open"]

    def test_what_is_available_is_parked_and_spends_no_attempt(self, scene: Scene) -> None:
        ids = scene.jobs(3, gating=BEHIND)
        admit(scene)
        assert scene.state(ids[0]) is State.AVAILABLE

        report(scene, times=3)

        assert [scene.state(id) for id in ids] == [State.BLOCKED] * 3
        ann = scene.worker()
        assert ann.ids() == []
        row = scene.get(ids[0])
        assert (row.attempt, row.attempts, row.crashes) == (0, [], 0)
        assert tokens(scene) == {}

    def test_what_runs_goes_on(self, scene: Scene) -> None:
        id, ann = scene.job(gating=BEHIND), scene.worker()
        job = ann.take(id)
        report(scene, times=3)

        assert ann.settled(job) is True

    def test_workers_hear_that_something_changed(self, scene: Scene) -> None:
        ann = scene.worker()
        before = ann.turn(wants=[ann.want()]).control

        report(scene, times=3)

        assert ann.turn(wants=[ann.want()]).control != before

    def test_another_key_goes_on(self, scene: Scene) -> None:
        report(scene, times=3)
        id = scene.job(gating=gated(breaker("paypal")))

        assert scene.worker().ids() == [id]

    def test_nothing_is_left_of_a_breaker_whose_failures_are_past(self, scene: Scene) -> None:
        report(scene, times=2)
        scene.advance(61)

        assert scene.store.breakers(now=scene.now) == []


class TestProbing:
    def opened(self, scene: Scene, jobs: int = 4) -> tuple[list[str], Puppet]:
        report(scene, times=3)
        ids, bob = scene.jobs(jobs, gating=BEHIND), scene.worker("bob")
        assert bob.ids() == []
        scene.advance(30.01)
        return ids, bob

    def test_after_the_cooldown_one_at_a_time_goes_through(self, scene: Scene) -> None:
        ids, ann = self.opened(scene)

        assert ann.ids() == ids[:1]
        [row] = scene.store.breakers(now=scene.now)
        assert row.state == "probing"
        assert scene.worker("cid").ids() == []

    def test_a_turn_knows_when_the_cooldown_is_over(self, scene: Scene) -> None:
        report(scene, times=3)
        scene.job(gating=BEHIND)
        ann = scene.worker()

        assert ann.turn(wants=[ann.want()]).next_due == START + 30_000_000

    def test_a_success_closes_it_and_all_pass(self, scene: Scene) -> None:
        ids, ann = self.opened(scene)
        first = probe(scene, ann, failed=False)

        assert first == ids[0]
        assert ann.ids() == ids[1:]
        assert scene.store.breakers(now=scene.now) == []

    def test_the_failures_are_forgotten_then(self, scene: Scene) -> None:
        _, ann = self.opened(scene)
        probe(scene, ann, failed=False)
        report(scene, times=2)

        assert states(scene) == ["closed"]

    def test_a_failure_opens_it_for_another_cooldown(self, scene: Scene) -> None:
        ids, ann = self.opened(scene)
        probe(scene, ann, failed=True)

        assert ann.ids() == []
        [row] = scene.store.breakers(now=scene.now)
        assert (row.state, row.until) == ("open", scene.stamp(30))
        scene.advance(30.01)
        assert ann.ids() == ids[1:2]

    def test_a_probe_that_says_nothing_makes_room_for_the_next(self, scene: Scene) -> None:
        ids, ann = self.opened(scene)
        for id in ids:
            [job] = ann.claim()
            assert job.id == id
            ann.settle(job)

    def test_a_probe_whose_worker_died_makes_room_for_the_next(self, scene: Scene) -> None:
        ids, ann = self.opened(scene)
        ann.take(ids[0])
        ann.leave(death="signal 9 (SIGKILL)")

        assert scene.worker("cid", solo=True).ids() == ids[:1]

    def test_jobs_that_ran_since_before_it_opened_are_not_in_the_way_of_the_probe(self, scene: Scene) -> None:
        # Tokens of those that passed while it was closed count for the limit of one: the probe waits for the last of them.
        ann = scene.worker()
        long = ann.take(scene.job(gating=BEHIND))
        ids, bob = self.opened(scene)
        ann.settle(long)

        assert bob.ids() == ids[:1]


class TestByHand:
    def test_opened_by_hand_it_stays_open_until_it_is_closed_by_hand(self, scene: Scene) -> None:
        id, ann = scene.job(gating=BEHIND), scene.worker()
        scene.store.set_breaker("stripe", "open", now=scene.now)
        assert scene.store.breakers(now=scene.now) == [BreakerRow("stripe", "open", scene.now, None, 0)]

        scene.advance(3600)
        ann.beat()
        assert ann.ids() == []
        scene.store.set_breaker("stripe", "closed", now=scene.now)
        assert ann.ids() == [id]

    def test_opened_by_hand_it_parks_what_is_available(self, scene: Scene) -> None:
        id = scene.job(gating=BEHIND)
        admit(scene)
        scene.store.set_breaker("stripe", "open", now=scene.now)

        assert scene.state(id) is State.BLOCKED

    def test_closed_by_hand_all_pass_at_once_and_the_failures_are_forgotten(self, scene: Scene) -> None:
        report(scene, times=3)
        ids, ann = scene.jobs(3, gating=BEHIND), scene.worker()
        assert ann.ids() == []

        scene.store.set_breaker("stripe", "closed", now=scene.now)

        assert ann.ids() == ids
        assert scene.store.breakers(now=scene.now) == []
        report(scene, times=2)
        assert states(scene) == ["closed"]
