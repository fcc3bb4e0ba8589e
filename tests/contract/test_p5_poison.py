"""P5 Poison is contained, neighbours are not punished: suspects run alone, and only a crash alone counts."""

from __future__ import annotations

import pytest

from dayjob.states import MAX_CRASHES, Outcome, State
from dayjob.store.contract import Store
from dayjob.store.records import Retry
from tests.contract.scene import Scene

KILLED = "signal 9 (SIGKILL)"


class TestP5Poison:
    def test_a_crash_makes_suspects_of_all_its_jobs_and_counts_for_none(self, scene: Scene) -> None:
        ids, ann = scene.jobs(3), scene.worker("ann")
        ann.claim(3)

        ann.leave(death=KILLED)

        for id in ids:
            row = scene.get(id)
            assert (row.state, row.suspect, row.crashes, row.attempt) == (State.AVAILABLE, True, 0, 0)

    def test_waiting_jobs_are_no_suspects(self, scene: Scene) -> None:
        ids, ann = scene.jobs(3), scene.worker("ann")
        ann.claim(1)
        ann.leave(death=KILLED)

        assert scene.worker("bob").ids() == ids[1:]

    def test_jobs_of_other_workers_are_no_suspects(self, scene: Scene) -> None:
        scene.jobs(2)
        ann, bob = scene.worker("ann"), scene.worker("bob")
        ann.claim(1)
        [theirs] = bob.claim(1)
        ann.leave(death=KILLED)

        assert scene.get(theirs.id).suspect is False
        assert bob.settled(theirs) is True

    def test_a_suspect_is_invisible_to_ordinary_workers(self, scene: Scene) -> None:
        scene.job(priority=100)
        ann, bob = scene.worker("ann"), scene.worker("bob")
        ann.claim()
        ann.leave(death=KILLED)
        innocent = scene.job()

        assert bob.ids() == [innocent]

    def test_a_solo_worker_takes_suspects_and_nothing_else(self, scene: Scene) -> None:
        suspect = scene.job()
        ann, solo = scene.worker("ann"), scene.worker("solo", solo=True)
        ann.claim()
        ann.leave(death=KILLED)
        scene.jobs(2, priority=100)

        [job] = solo.claim(10)
        assert (job.id, job.suspect, job.crashes) == (suspect, True, 0)

    def test_a_turn_says_whether_suspects_wait(self, scene: Scene) -> None:
        scene.job()
        ann, bob, solo = scene.worker("ann"), scene.worker("bob"), scene.worker("solo", solo=True)
        ann.claim()
        assert bob.turn(wants=[bob.want()]).suspects is False

        ann.leave(death=KILLED)
        assert bob.turn(wants=[bob.want()]).suspects is True

        solo.settle(solo.take())
        assert bob.turn(wants=[bob.want()]).suspects is False

    def test_a_solo_crash_counts_and_the_third_is_death(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker("ann")
        ann.claim()
        ann.leave(death=KILLED)
        for crash in range(1, MAX_CRASHES + 1):
            assert scene.state(id) is State.AVAILABLE
            solo = scene.worker(f"solo{crash}", solo=True)
            solo.take(id)
            gone = solo.leave(death=KILLED)
            assert gone is not None
            [told] = gone.jobs
            assert told.crashes == scene.get(id).crashes == crash

        row = scene.get(id)
        assert (row.state, row.reason, row.attempt) == (State.DEAD, "crashed", 0)
        assert told.state is State.DEAD
        assert scene.worker("again", solo=True).ids() == []

    def test_where_a_late_claim_gave_a_solo_worker_a_second_job_a_crash_counts_for_neither(self, scene: Scene) -> None:
        first, second = scene.aged(crashes=1), scene.aged(crashes=1)
        solo = scene.worker("solo", solo=True)
        solo.take(first)
        solo.claim(1)  # as if a request that was given up had come at last
        gone = solo.leave(death=KILLED)

        assert gone is not None
        assert sorted(job.id for job in gone.jobs) == sorted((first, second))
        assert [job.crashes for job in gone.jobs] == [1, 1]
        for id in (first, second):
            row = scene.get(id)
            assert (row.state, row.crashes, row.suspect) == (State.AVAILABLE, 1, True)
            assert row.attempts[-1].outcome is Outcome.LOST
        again = scene.worker("again", solo=True)
        again.take()
        again.leave(death=KILLED)
        assert sorted(scene.get(id).crashes for id in (first, second)) == [1, 2]

    def test_a_dead_suspect_says_how_its_process_died(self, scene: Scene) -> None:
        id = scene.aged(crashes=MAX_CRASHES - 1)
        solo = scene.worker("solo", solo=True)
        solo.take(id)
        solo.leave(death=KILLED)

        row = scene.get(id)
        told = f"{row.reason} {row.error!r} {row.attempts[-1].reason} {row.attempts[-1].error!r}"
        assert "SIGKILL" in told

    def test_a_solo_worker_that_falls_silent_counts_a_crash_too(self, scene: Scene) -> None:
        id = scene.aged(crashes=1)
        solo = scene.worker("solo", solo=True)
        solo.take(id)
        scene.crash(solo)

        row = scene.get(id)
        assert (row.state, row.crashes, row.suspect) == (State.AVAILABLE, 2, True)
        assert row.attempts[-1].outcome is Outcome.CRASHED

    def test_a_settled_crash_counts_like_a_solo_one(self, scene: Scene) -> None:
        # A pool child that ran one CPU-bound job and died is reported by its parent, which lives.
        id, ann = scene.job(), scene.worker("ann")
        job = ann.take(id)

        assert ann.settled(job, Outcome.CRASHED, reason=KILLED) is True
        row = scene.get(id)
        assert (row.state, row.crashes, row.suspect, row.attempt) == (State.AVAILABLE, 1, True, 0)

    def test_the_settlement_of_a_third_crash_is_told_that_it_was_death(self, scene: Scene) -> None:
        id = scene.aged(crashes=MAX_CRASHES - 1)
        solo = scene.worker("solo", solo=True)
        job = solo.take(id)

        turn = solo.settle(job, Outcome.CRASHED, reason=KILLED)

        assert turn.settled == [(id, job.entry, State.DEAD)]
        assert scene.get(id).reason == "crashed"

    def test_crashes_in_company_never_kill(self, scene: Scene) -> None:
        id = scene.job()
        for turn in range(MAX_CRASHES + 3):
            ann = scene.worker(f"w{turn}")
            ann.take(id, suspects=turn > 0)
            ann.leave(death=KILLED)

        row = scene.get(id)
        assert (row.state, row.crashes) == (State.AVAILABLE, 0)
        assert [attempt.outcome for attempt in row.attempts] == [Outcome.LOST] * (MAX_CRASHES + 3)

    def test_a_worker_told_to_stop_makes_no_suspects(self, scene: Scene) -> None:
        ids, ann = scene.jobs(3), scene.worker("ann")
        ann.claim(3)

        gone = ann.leave()

        assert gone is not None
        assert sorted(job.id for job in gone.jobs) == ids
        assert scene.worker("bob").ids() == ids
        for id in ids:
            row = scene.get(id)
            assert (row.suspect, row.crashes, row.attempt) == (False, 0, 0)

    def test_a_solo_worker_told_to_stop_counts_no_crash(self, scene: Scene) -> None:
        id = scene.aged(crashes=1)
        solo = scene.worker("solo", solo=True)
        solo.take(id)
        solo.leave()

        row = scene.get(id)
        assert (row.state, row.crashes, row.suspect) == (State.AVAILABLE, 1, True)

    def test_a_suspect_that_was_released_is_still_a_suspect(self, scene: Scene) -> None:
        id = scene.aged(crashes=1)
        solo = scene.worker("solo", solo=True)
        solo.settle(solo.take(id), Outcome.RELEASED)

        assert scene.worker("bob").ids() == []
        assert solo.ids() == [id]

    def test_a_suspect_that_proves_innocent_completes(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker("ann")
        ann.claim()
        ann.leave(death=KILLED)
        solo = scene.worker("solo", solo=True)

        assert solo.settled(solo.take(id)) is True
        assert (scene.state(id), scene.get(id).attempt) == (State.COMPLETED, 1)

    def test_the_report_of_a_death_and_the_sweep_count_one_crash(self, scene: Scene) -> None:
        id = scene.aged(crashes=1)
        solo = scene.worker("solo", solo=True)
        solo.take(id)
        solo.leave(death=KILLED)
        solo.leave(death=KILLED)
        scene.pass_time(60.0)

        assert scene.get(id).crashes == 2

    def test_a_death_reported_by_another_handle_rescues_at_once(self, scene: Scene, other: Store) -> None:
        id, ann = scene.job(), scene.worker("ann")
        ann.claim()

        gone = other.leave(ann.id, death=KILLED, now=scene.now)

        assert gone is not None
        assert (gone.worker, [job.id for job in gone.jobs]) == (ann.info, [id])
        assert scene.state(id) is State.AVAILABLE

    def test_the_death_of_an_unknown_worker_is_no_news(self, scene: Scene) -> None:
        assert scene.store.leave("worker-nobody", death=KILLED, now=scene.now) is None

    @pytest.mark.parametrize("death", [None, KILLED])
    def test_leaving_twice_is_harmless(self, scene: Scene, death: str | None) -> None:
        id, ann = scene.job(), scene.worker("ann")
        ann.claim()
        ann.leave(death)
        before = scene.get(id)

        again = ann.leave(death)

        assert again is None or again.jobs == []
        assert scene.get(id) == before

    @pytest.mark.parametrize("death", [None, KILLED])
    def test_a_worker_that_left_claims_nothing(self, scene: Scene, death: str | None) -> None:
        ann = scene.worker("ann")
        ann.leave(death)
        scene.job()

        assert ann.ids() == []

    def test_a_worker_reported_dead_that_still_beats_learns_it(self, scene: Scene) -> None:
        ann = scene.worker("ann")
        ann.leave(death=KILLED)

        assert ann.beat().lost is True

    def test_a_retry_by_hand_after_crashes_starts_with_none(self, scene: Scene) -> None:
        id = scene.aged(crashes=MAX_CRASHES)
        scene.act(Retry(), id)

        row = scene.get(id)
        assert (row.state, row.crashes, row.round) == (State.AVAILABLE, 0, 1)

    def test_suspects_are_claimed_in_the_order_of_their_priority_and_place(self, scene: Scene) -> None:
        low, high, last = scene.job(priority=-1), scene.job(priority=5), scene.job(priority=-1)
        ann, solo = scene.worker("ann"), scene.worker("solo", solo=True)
        ann.claim(3)
        ann.leave(death=KILLED)

        assert solo.ids(3) == [high, low, last]

    def test_a_suspect_is_not_taken_from_a_paused_queue(self, scene: Scene) -> None:
        id = scene.aged(crashes=1)
        solo = scene.worker("solo", solo=True)
        scene.store.pause("default", True, now=scene.now)
        assert solo.ids() == []

        scene.store.pause("default", False, now=scene.now)
        assert solo.ids() == [id]
