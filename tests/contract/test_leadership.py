"""Leadership rides on the beat: at most one leader, its term rises, and a stale term moves nothing (P3, P4)."""

from __future__ import annotations

import random

import msgspec
import pytest

from dayjob.states import Outcome, State
from dayjob.store.contract import Store
from dayjob.store.records import Bound
from tests.contract.engines import EngineUnderTest
from tests.contract.racing import at_once
from tests.contract.scene import BEAT, Puppet, Scene


@pytest.fixture
def crew(engine: EngineUnderTest) -> Scene:
    """A scene in which nobody leads yet."""
    return Scene(engine, led=False)


def upkeep(scene: Scene, term: int) -> list[object]:
    """The answers of every upkeep call under *term*."""
    return [
        scene.store.stage(term, now=scene.now),
        scene.store.rescue(term, now=scene.now),
        scene.store.prune(term, [Bound(State.COMPLETED, 0)], now=scene.now),
        scene.store.sample(term, now=scene.now),
    ]


class TestLeadership:
    def test_the_first_worker_that_beats_leads(self, crew: Scene) -> None:
        ann, bob = crew.worker("ann"), crew.worker("bob")

        assert ann.term is not None
        assert bob.term is None

    def test_a_solo_worker_never_leads(self, crew: Scene) -> None:
        # It lives for one suspect and may die of it.
        solo = crew.worker("solo", solo=True)
        assert solo.term is None

        assert crew.worker("ann").term is not None
        for _ in range(10):
            crew.advance(BEAT)
            assert solo.beat().term is None

    def test_a_leader_keeps_its_term_while_it_beats(self, crew: Scene) -> None:
        ann, bob = crew.worker("ann"), crew.worker("bob")
        first = ann.term
        for _ in range(100):
            crew.advance(BEAT)
            assert (bob.beat().term, ann.beat().term) == (None, first)

    def test_a_leader_that_leaves_is_followed_at_once_under_a_higher_term(self, crew: Scene) -> None:
        ann, bob = crew.worker("ann"), crew.worker("bob")
        first = ann.term
        assert first is not None
        ann.leave()

        assert bob.lead() > first

    def test_a_leader_reported_dead_is_followed_at_once(self, crew: Scene) -> None:
        ann, bob = crew.worker("ann"), crew.worker("bob")
        first = ann.term
        assert first is not None
        ann.leave(death="signal 9 (SIGKILL)")

        assert bob.lead() > first

    def test_a_silent_leader_is_followed_when_its_live_time_is_over(self, crew: Scene) -> None:
        ann, bob = crew.worker("ann"), crew.worker("bob")
        first, waited = ann.term, 0.0
        while bob.beat().term is None:
            crew.advance(BEAT)
            waited += BEAT

        assert first is not None
        assert bob.lead() > first
        assert 20.0 <= waited <= 25.0

    def test_a_leader_that_was_followed_learns_it_by_its_beat(self, crew: Scene) -> None:
        ann, bob = crew.worker("ann"), crew.worker("bob")
        while bob.beat().term is None:
            crew.advance(BEAT)

        assert ann.beat().term is None
        assert bob.lead() == bob.term

    def test_one_that_does_not_lead_may_leave_without_ending_anothers_term(self, crew: Scene) -> None:
        ann, bob = crew.worker("ann"), crew.worker("bob")
        term = ann.term
        bob.leave()

        assert ann.beat().term == term
        assert None not in upkeep(crew, ann.lead())

    @pytest.mark.parametrize("off", [-1, 1, 1000])
    def test_a_term_that_is_not_the_leaders_is_refused_by_every_upkeep_call(self, scene: Scene, off: int) -> None:
        assert upkeep(scene, scene.term + off) == [None] * 4

    def test_the_term_of_a_leader_that_left_is_refused(self, crew: Scene) -> None:
        ann = crew.worker("ann")
        term = ann.lead()
        ann.leave()

        assert upkeep(crew, term) == [None] * 4

    def test_the_term_of_a_leader_that_was_followed_is_refused(self, crew: Scene) -> None:
        ann, bob = crew.worker("ann"), crew.worker("bob")
        stale = ann.lead()
        while bob.beat().term is None:
            crew.advance(BEAT)

        assert upkeep(crew, stale) == [None] * 4
        assert None not in upkeep(crew, bob.lead())

    def test_a_stale_leader_stages_rescues_prunes_and_samples_nothing(self, crew: Scene) -> None:
        old, new, lost = crew.worker("old"), crew.worker("new"), crew.worker("lost")
        stale = old.lead()
        due, expired, running = crew.job(delay=1.0), crew.job(expires=1.0), crew.job(priority=5)
        lost.take(running)
        while new.beat().term is None:
            crew.advance(BEAT)
        done = crew.job(priority=9)
        new.settle(new.take(done), Outcome.COMPLETED, keep=0.001)
        crew.advance(1)
        before = crew.store.history(0)

        assert upkeep(crew, stale) == [None] * 4

        states = [crew.state(id) for id in (due, expired, running)]
        # A turn may have staged what was due; the rest only a leader does.
        assert states[1:] == [State.AVAILABLE, State.RUNNING]
        assert crew.state(done) is State.COMPLETED
        assert crew.store.history(0) == before

    def test_workers_that_all_beat_first_at_once_have_one_leader(self, crew: Scene) -> None:
        other = crew.engine.open()
        puppets = [Puppet(crew, f"w{n}", (crew.store, other)[n % 2]) for n in range(8)]

        beats = at_once(*[puppet.beat for puppet in puppets])

        assert len([beat for beat in beats if beat.term is not None]) == 1

    @pytest.mark.parametrize("seed", range(5))
    def test_two_leaders_never(self, crew: Scene, seed: int) -> None:
        # Workers stall, come back, leave and die at random: a term belongs to one worker, terms rise, and of all the
        # workers that believe to lead only one is believed by the store.
        rng = random.Random(seed)
        puppets = [Puppet(crew, f"w{n}", crew.store) for n in range(4)]
        owner: dict[int, str] = {}
        newest = 0
        for step in range(300):
            crew.advance(rng.choice([0.5, 2.0, 5.0, 9.0, 25.0]))
            n = rng.randrange(4)
            if rng.random() < 0.05:
                puppets[n].leave(rng.choice([None, "signal 9"]))
                puppets[n] = Puppet(crew, f"w{n}-{step}", crew.store)
            elif puppets[n].beat().lost:
                puppets[n] = Puppet(crew, f"w{n}-{step}", crew.store)
            term = puppets[n].term
            if term is not None:
                assert owner.setdefault(term, puppets[n].id) == puppets[n].id
                assert term >= newest
                newest = term
            believed = [p.term for p in puppets if p.term and crew.store.stage(p.term, now=crew.now) is not None]
            assert len(believed) <= 1
            assert [t for t in believed if t != newest] == []
            assert len([row for row in crew.store.workers(now=crew.now) if row.leader]) <= 1
        assert newest > 1

    def test_a_term_never_comes_again_when_all_workers_have_gone(self, crew: Scene) -> None:
        terms = []
        for n in range(3):
            ann = crew.worker(f"ann{n}")
            terms.append(ann.lead())
            ann.leave()
            if crew.engine.processes:
                crew.store.close()

        assert terms == sorted(set(terms))


class TestWorkers:
    """What is told of workers: `workers`, `pause` and what a beat answers."""

    def test_workers_are_listed_by_name_with_what_their_last_beat_told(self, scene: Scene, other: Store) -> None:
        zoe, ann = scene.worker("zoe"), scene.worker("ann", store=other)
        started = scene.now
        scene.jobs(3)
        ann.claim(2)
        scene.advance(3)
        ann.beat()

        rows = scene.store.workers(now=scene.now)

        assert [row.info for row in rows] == [ann.info, scene.leader.info, zoe.info]
        assert [row.leader for row in rows] == [False, True, False]
        assert [row.held for row in rows] == [2, 0, 0]
        assert [row.started_at for row in rows] == [started] * 3
        assert [row.last_beat for row in rows] == [scene.now, started, started]

    def test_a_settled_job_is_not_held(self, scene: Scene) -> None:
        scene.jobs(2)
        ann = scene.worker("ann")
        first, _ = ann.claim(2)
        ann.settle(first)

        assert [row.held for row in scene.store.workers(now=scene.now)] == [1, 0]

    @pytest.mark.parametrize("death", [None, "signal 9 (SIGKILL)"])
    def test_a_worker_that_left_is_not_listed(self, scene: Scene, death: str | None) -> None:
        scene.worker("ann").leave(death)

        assert [row.info for row in scene.store.workers(now=scene.now)] == [scene.leader.info]

    def test_pause_says_whether_it_changed_anything(self, scene: Scene) -> None:
        changes = [scene.store.pause("mail", paused, now=scene.now) for paused in (False, True, True, False, False)]

        assert changes == [False, True, False, True, False]

    def test_a_beat_tells_all_paused_queues(self, scene: Scene, other: Store) -> None:
        ann = scene.worker()
        scene.store.pause("mail", True, now=scene.now)
        other.pause("web", True, now=scene.now)
        assert ann.beat().paused == {"mail", "web"}

        scene.store.pause("mail", False, now=scene.now)
        assert ann.beat().paused == {"web"}

    def test_a_turn_tells_that_a_pause_or_resume_happened(self, scene: Scene, other: Store) -> None:
        ann = scene.worker()
        seen = [ann.turn().control]
        for paused in (True, False, True):
            other.pause("mail", paused, now=scene.now)
            seen.append(ann.turn().control)
            assert ann.beat().control == seen[-1]

        assert len(set(seen)) == 4

    def test_what_changes_nothing_is_no_news(self, scene: Scene) -> None:
        scene.jobs(3)
        ann = scene.worker()
        before = ann.turn().control
        scene.store.pause("mail", False, now=scene.now)
        ann.settle(ann.take())
        scene.job()
        ann.beat()

        assert ann.turn().control == before

    def test_what_a_worker_says_of_itself_may_change_with_each_beat(self, scene: Scene) -> None:
        ann = scene.worker("ann")
        ann.info = msgspec.structs.replace(ann.info, running=7, queues="mail:3")
        ann.beat()

        assert scene.store.workers(now=scene.now)[0].info == ann.info

    def test_empty_batches_are_forgotten(self, scene: Scene) -> None:
        # What stays behind of settled batches must not grow with the worker's age.
        ann = scene.worker()
        for _ in range(50):
            scene.jobs(2)
            for job in ann.claim(2):
                ann.settle(job)
        scene.advance(11)
        ann.beat()
        fresh = scene.job()

        assert ann.ids() == [fresh]
        assert scene.store.workers(now=scene.now)[0].held == 1
