"""P4 Rescued soon: liveness is per worker, by its beat, in live time; a lost claim reply strands nothing."""

from __future__ import annotations

import pytest

from dayjob.states import Outcome, State
from dayjob.store.contract import Store
from dayjob.store.records import Cancel, Log, Progress
from tests.contract.scene import BEAT, EXPIRY, Puppet, Scene

HOUR = 3600.0


class TestP4Rescued:
    @pytest.mark.parametrize("beat_phase", [0.0, 1.7, 4.9])
    @pytest.mark.parametrize("sweep_phase", [0.1, 2.5, 4.9])
    def test_a_crashed_workers_jobs_are_available_again_within_30_s(
        self, scene: Scene, beat_phase: float, sweep_phase: float
    ) -> None:
        ann = scene.worker("ann")
        id = scene.job()
        ann.take(id)
        died = scene.now
        moments = sorted(
            [(beat_phase + BEAT * n, "beat") for n in range(7)] + [(sweep_phase + BEAT * n, "sweep") for n in range(7)]
        )

        back = None
        for offset, what in moments:
            scene.now = died + round(offset * 1e6)
            if what == "beat":
                scene.leader.lead()
            elif scene.rescue():
                back = offset
                break

        assert back is not None
        assert EXPIRY <= back <= 30.0
        assert scene.state(id) is State.AVAILABLE

    @pytest.mark.parametrize("beat_phase", [0.1, 2.5, 4.9])
    @pytest.mark.parametrize("sweep_lag", [0.0, 4.9])
    def test_jobs_of_a_crashed_leader_are_available_again_within_30_s(
        self, scene: Scene, beat_phase: float, sweep_lag: float
    ) -> None:
        bob = scene.worker("bob")
        id = scene.job()
        scene.leader.take(id)
        died = scene.now

        back = None
        for n in range(7):
            scene.now = died + round((beat_phase + BEAT * n) * 1e6)
            if (term := bob.beat().term) is not None:
                scene.advance(sweep_lag)
                assert [gone.worker.id for gone in scene.store.rescue(term, now=scene.now) or []] == [scene.leader.id]
                back = (scene.now - died) / 1e6
                break

        assert back is not None
        assert EXPIRY <= back <= 30.0
        assert scene.state(id) is State.AVAILABLE

    def test_a_worker_that_beats_is_never_rescued_however_long_its_job(self, scene: Scene) -> None:
        ann = scene.worker("ann")
        job = ann.take(scene.job())

        gone = scene.pass_time(2 * HOUR, ann)

        assert gone == []
        assert ann.record(job, Progress(1, 2)) is True
        assert ann.settled(job) is True

    def test_a_worker_is_not_given_up_before_its_expiry(self, scene: Scene) -> None:
        ann = scene.worker("ann")
        job = ann.take(scene.job())

        assert scene.pass_time(EXPIRY - 0.1) == []
        assert ann.beat().lost is False
        assert ann.settled(job) is True

    def test_a_late_beat_before_the_rescue_keeps_the_jobs(self, scene: Scene) -> None:
        # Expired is not given up: as long as nobody swept, the beat of a slow worker renews everything.
        ann = scene.worker("ann")
        job = ann.take(scene.job())
        for _ in range(8):
            scene.advance(BEAT)
            scene.leader.beat()

        beat = ann.beat()

        if not beat.lost:
            assert scene.rescue() == []
            assert ann.settled(job) is True

    def test_each_worker_expires_by_its_own_expiry(self, scene: Scene) -> None:
        patient = Puppet(scene, "patient", scene.store, expiry=60.0)
        hasty = Puppet(scene, "hasty", scene.store, expiry=10.0)
        patient.beat()
        hasty.beat()

        assert [gone.worker.name for gone in scene.pass_time(30.0)] == ["hasty"]
        assert [gone.worker.name for gone in scene.pass_time(40.0)] == ["patient"]

    def test_a_rescue_says_who_was_given_up_and_what_was_taken(self, scene: Scene) -> None:
        ann = scene.worker("ann")
        running, cancelling = scene.job(task="a.b", queue="q"), scene.job()
        ann.claim(2)
        scene.act(Cancel(), cancelling)
        last = scene.now

        [gone] = scene.crash(ann)

        assert (gone.worker, gone.last_beat) == (ann.info, last)
        told = {job.id: job for job in gone.jobs}
        assert set(told) == {running, cancelling}
        assert (told[running].task, told[running].queue, told[running].worker) == ("a.b", "q", ann.id)
        assert (told[running].state, told[running].crashes) == (State.AVAILABLE, 0)
        assert told[cancelling].state is State.CANCELLED

    def test_a_worker_without_jobs_is_given_up_too(self, scene: Scene) -> None:
        ann = scene.worker("ann")

        [gone] = scene.crash(ann)

        assert gone.jobs == []
        assert [row.info.id for row in scene.store.workers(now=scene.now)] == [scene.leader.id]

    def test_a_worker_is_given_up_once(self, scene: Scene) -> None:
        ann = scene.worker("ann")
        scene.crash(ann)

        assert scene.pass_time(HOUR) == []

    def test_a_worker_given_up_learns_it_and_claims_nothing_more(self, scene: Scene) -> None:
        ann = scene.worker("ann")
        scene.crash(ann)
        scene.job()

        for _ in range(2):
            beat = ann.beat()
            assert beat.lost is True
            assert (beat.cancelled, beat.paused, beat.term) == ((), frozenset(), None)
            assert ann.ids() == []
        assert ann.info not in [row.info for row in scene.store.workers(now=scene.now)]

    def test_a_worker_given_up_comes_back_under_a_new_id(self, scene: Scene) -> None:
        ann = scene.worker("ann")
        scene.crash(ann)
        id = scene.job()

        assert scene.worker("ann-again").ids() == [id]

    def test_a_worker_that_never_beat_claims_nothing(self, scene: Scene) -> None:
        scene.job()

        assert scene.worker(beat=False).ids() == []

    def test_an_attempt_is_written_for_each_rescued_job(self, scene: Scene) -> None:
        ann = scene.worker("ann")
        id = scene.job()
        ann.take(id)
        last = scene.now
        scene.crash(ann)

        [attempt] = scene.get(id).attempts
        assert (attempt.outcome, attempt.number, attempt.worker) == (Outcome.LOST, 1, ann.info.name)
        assert last < attempt.finished_at <= scene.now

    def test_rescued_jobs_keep_their_place(self, scene: Scene) -> None:
        # They are suspects, so it is among suspects that the order shows.
        ann, solo = scene.worker("ann"), scene.worker("solo", solo=True)
        ids = scene.jobs(3)
        ann.claim(3)
        scene.pass_time(30.0, solo)

        assert solo.ids(3) == ids

    # -- outages

    @pytest.mark.parametrize("outage", [25.0, 60.0, HOUR, 30 * 24 * HOUR])
    def test_an_outage_longer_than_the_expiry_rescues_nobody_healthy(self, scene: Scene, outage: float) -> None:
        ann, bob = scene.worker("ann"), scene.worker("bob")
        jobs = [ann.take(scene.job()), bob.take(scene.job())]

        scene.advance(outage)

        assert scene.rescue() == []
        assert ann.beat().lost is False
        assert scene.rescue() == []
        scene.advance(BEAT - 0.1)
        assert bob.beat().lost is False
        assert scene.pass_time(60.0, ann, bob) == []
        assert ann.settled(jobs[0]) is True
        assert bob.settled(jobs[1]) is True

    def test_workers_that_come_back_from_an_outage_one_after_the_other_are_all_kept(self, scene: Scene) -> None:
        # Each comes back within a beat of the first; the sweep runs in between each time.
        crew = [scene.worker(f"w{n}") for n in range(5)]
        for puppet in crew:
            puppet.take(scene.job())
        scene.advance(4.0)
        scene.leader.beat()
        scene.advance(HOUR)

        scene.leader.lead()
        assert scene.rescue() == []
        for puppet in crew:
            scene.advance(0.9)
            assert puppet.beat().lost is False
            assert scene.rescue() == []

    def test_an_outage_does_not_save_who_died_in_it(self, scene: Scene) -> None:
        ann, bob = scene.worker("ann"), scene.worker("bob")
        lost, kept = scene.job(), scene.job()
        ann.take(lost)
        bob.take(kept)
        scene.advance(HOUR)

        gone = scene.pass_time(30.0, bob)

        assert [each.worker.id for each in gone] == [ann.id]
        assert (scene.state(lost), scene.state(kept)) == (State.AVAILABLE, State.RUNNING)

    def test_several_outages_add_up_to_nothing(self, scene: Scene) -> None:
        ann = scene.worker("ann")
        job = ann.take(scene.job())
        for _ in range(10):
            scene.advance(HOUR)
            scene.leader.lead()
            assert scene.rescue() == []
            scene.advance(1.0)
            assert ann.beat().lost is False

        assert ann.settled(job) is True

    def test_an_outage_changes_no_leader(self, scene: Scene) -> None:
        ann = scene.worker("ann")
        term = scene.term

        scene.advance(HOUR)

        assert ann.beat().term is None
        assert scene.leader.lead() == term

    def test_a_store_without_beats_rescues_nobody_though_turns_go_on(self, scene: Scene) -> None:
        # The beat threads starve while the pumps work: nobody's silence counts then.
        ann = scene.worker("ann")
        job = ann.take(scene.job())
        for _ in range(30):
            scene.advance(BEAT)
            ann.turn()
            assert scene.rescue() == []

        assert ann.settled(job) is True

    def test_a_worker_whose_own_beats_fail_is_given_up_though_its_turns_arrive(self, scene: Scene) -> None:
        # The beat alone is the sign of life, or a pump could keep a process alive whose beat thread died.
        ann = scene.worker("ann")
        job = ann.take(scene.job())
        gone = []
        for _ in range(6):
            ann.turn()
            ann.record(job, Log(scene.now, "info", "still here"))
            gone += scene.pass_time(BEAT)

        assert [each.worker.id for each in gone] == [ann.id]
        assert ann.settled(job) is False


class TestP4ClaimNumbers:
    """P4: each claim is numbered by the worker, and repeating a number returns the same batch."""

    def test_a_claim_whose_reply_was_lost_is_answered_again(self, scene: Scene) -> None:
        ids, ann = scene.jobs(5), scene.worker()
        first = ann.claim(3)

        again = ann.repeat(1, ann.want(3))

        assert again == first
        assert [job.id for job in again] == ids[:3]

    def test_all_wants_of_a_claim_are_one_batch(self, scene: Scene) -> None:
        ids = [*scene.jobs(2, queue="a"), *scene.jobs(2, queue="b"), *scene.jobs(2, queue="c")]
        ann = scene.worker("ann")
        wants = [ann.want(5, queue) for queue in "abc"]
        first = ann.turn(wants=wants).claimed
        assert [job.id for job in first] == ids

        assert ann.turn(wants=wants, number=1).claimed == first
        assert scene.store.workers(now=scene.now)[0].held == 6
        gone = ann.leave(death="signal 9 (SIGKILL)")
        assert gone is not None
        assert sorted(job.id for job in gone.jobs) == ids
        assert [scene.state(id) for id in ids] == [State.AVAILABLE] * 6

    def test_a_repeated_claim_number_claims_nothing_new(self, scene: Scene) -> None:
        ids, ann = scene.jobs(5), scene.worker()
        ann.claim(2)

        assert [job.id for job in ann.repeat(1, ann.want(5))] == ids[:2]
        assert [scene.state(id) for id in ids[2:]] == [State.AVAILABLE] * 3

    def test_what_a_repeat_of_an_empty_claim_returns_is_held_under_that_number(self, scene: Scene) -> None:
        # An engine need not remember a claim that took nothing; the repeat may then be the first.
        ann = scene.worker()
        assert ann.ids() == []
        scene.jobs(2)

        batch = ann.repeat(1)

        assert ann.repeat(1) == batch
        assert len(batch) + len(ann.claim()) == 2

    def test_a_repeated_claim_leaves_out_what_was_settled(self, scene: Scene) -> None:
        ids, ann = scene.jobs(3), scene.worker()
        jobs = ann.claim(3)
        ann.settle(jobs[0])
        ann.settle(jobs[1], Outcome.RELEASED)

        assert [job.id for job in ann.repeat(1)] == [ids[2]]

    def test_a_repeated_claim_whose_jobs_are_all_settled_claims_nothing_new(self, scene: Scene) -> None:
        scene.jobs(4)
        ann = scene.worker()
        for job in ann.claim(2):
            ann.settle(job)

        assert ann.repeat(1) == []

    def test_a_repeated_turn_settles_once_and_claims_once(self, scene: Scene) -> None:
        first, second = scene.jobs(2)
        ann = scene.worker()
        done = ann.settlement(ann.take(first), Outcome.FAILED, delay=60.0)
        lost = ann.turn([done], [ann.want(1)], 2)

        again = ann.turn([done], [ann.want(1)], 2)

        assert [job.id for job in lost.claimed] == [job.id for job in again.claimed] == [second]
        assert again.refused == [(first, done.entry)]
        assert scene.get(first).attempt == 1

    def test_an_older_number_returns_its_own_batch(self, scene: Scene) -> None:
        ids, ann = scene.jobs(6), scene.worker()
        ann.claim(2)
        ann.claim(2)

        assert [job.id for job in ann.repeat(1)] == ids[:2]
        assert [job.id for job in ann.repeat(2)] == ids[2:4]

    def test_an_older_number_does_not_return_a_job_that_the_worker_claimed_again_since(self, scene: Scene) -> None:
        # Returned twice, it would run twice in one process, and both runs could settle it.
        id, ann = scene.job(), scene.worker()
        ann.settle(ann.take(id), Outcome.RELEASED)
        ann.take(id)

        assert ann.repeat(1) == []
        assert [job.id for job in ann.repeat(2)] == [id]

    def test_two_workers_use_the_same_numbers_apart(self, scene: Scene) -> None:
        ids = scene.jobs(4)
        ann, bob = scene.worker("ann"), scene.worker("bob")

        assert ann.ids(2) == ids[:2]
        assert bob.ids(2) == ids[2:]
        assert [job.id for job in ann.repeat(1)] == ids[:2]

    def test_a_repeat_after_the_worker_was_given_up_returns_nothing(self, scene: Scene) -> None:
        scene.job()
        ann = scene.worker("ann")
        ann.claim()
        scene.crash(ann)

        assert ann.repeat(1) == []

    def test_a_lost_claim_reply_strands_nothing_while_the_worker_lives(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        ann.claim()
        ann.batches.clear()  # the reply never came

        scene.advance(BEAT)
        ann.beat()
        assert scene.state(id) is State.RUNNING
        scene.advance(BEAT + 0.1)
        ann.beat()

        row = scene.get(id)
        assert (row.state, row.attempt, row.crashes, row.suspect) == (State.AVAILABLE, 0, 0, False)
        assert scene.worker("bob").ids() == [id]

    def test_a_batch_is_not_released_while_its_reply_may_be_under_way(self, scene: Scene) -> None:
        ann = scene.worker()
        scene.job()
        ann.claim()

        scene.advance(9.9)
        ann.beat(held=[])

        assert [job.id for job in ann.repeat(1)] != []

    def test_a_batch_that_is_listed_is_held_for_ever(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)

        scene.pass_time(HOUR, ann)

        assert ann.settled(job) is True

    def test_only_the_batch_that_is_not_listed_is_released(self, scene: Scene) -> None:
        ids, ann = scene.jobs(3), scene.worker()
        for _ in range(3):
            ann.claim(1)

        scene.advance(10.1)
        ann.beat(held=[1, 3])

        assert [scene.state(id) for id in ids] == [State.RUNNING, State.AVAILABLE, State.RUNNING]

    def test_a_worker_that_listed_a_batch_before_it_knew_the_reply_was_lost_strands_nothing(self, scene: Scene) -> None:
        # It listed the number while it still waited for the reply, and gave up waiting later.
        id, ann = scene.job(), scene.worker()
        ann.claim()
        scene.pass_time(60.0, ann)

        for _ in range(3):
            scene.advance(BEAT)
            ann.beat(held=[])

        assert scene.state(id) is State.AVAILABLE

    def test_a_job_released_for_a_lost_reply_is_in_its_old_place(self, scene: Scene) -> None:
        ids, ann = scene.jobs(3), scene.worker()
        ann.claim(1)
        scene.advance(10.1)
        ann.beat(held=[])

        assert scene.worker("bob").ids(3) == ids

    def test_the_reply_that_comes_after_all_settles_nothing(self, scene: Scene) -> None:
        ann = scene.worker()
        id = scene.job()
        late = ann.take(id)
        scene.advance(10.1)
        ann.beat(held=[])

        assert ann.settled(late) is False
        assert ann.take(id).entry > late.entry

    def test_another_workers_beat_does_not_speak_for_my_batches(self, scene: Scene, other: Store) -> None:
        ann, bob = scene.worker("ann"), scene.worker("bob", store=other)
        job = ann.take(scene.job())
        scene.advance(BEAT)
        ann.beat()
        scene.advance(6.0)

        bob.beat(held=[])

        assert ann.settled(job) is True

    def test_a_released_batch_counts_no_attempt_and_no_crash(self, scene: Scene) -> None:
        id = scene.aged(attempts=2)
        ann = scene.worker()
        ann.claim()
        scene.advance(10.1)
        ann.beat(held=[])

        row = scene.get(id)
        assert (row.attempt, row.crashes, row.suspect) == (2, 0, False)

    def test_cancel_of_a_job_whose_claim_reply_was_lost_is_not_forgotten(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        ann.claim()
        scene.act(Cancel(), id)
        scene.advance(10.1)
        ann.beat(held=[])

        assert scene.state(id) is State.CANCELLED
