"""Every cell of the outcome table (`states.EFFECTS`), from every number of attempts and crashes before."""

from __future__ import annotations

import pytest

from dayjob.states import EFFECTS, MAX_CRASHES, TERMINAL, Outcome, State
from dayjob.store.records import Cancel, Checkpoint
from tests.contract.scene import Scene

each_outcome = pytest.mark.parametrize("outcome", list(Outcome))
PUT_BACK = [outcome for outcome in Outcome if not EFFECTS[outcome].state.terminal]


class TestOutcomes:
    @each_outcome
    @pytest.mark.parametrize(("attempts", "crashes"), [(0, 0), (2, 0), (0, 1), (0, 2), (3, 1), (1, 2)])
    def test_each_outcome_counts_as_the_table_says(
        self, scene: Scene, outcome: Outcome, attempts: int, crashes: int
    ) -> None:
        id = scene.aged(attempts, crashes)
        ann = scene.worker("ann", solo=True)
        job = ann.take(id, suspects=crashes > 0)
        assert (job.attempt, job.crashes) == (attempts, crashes)

        turn = ann.settle(job, outcome, delay=60.0, reason="because")

        effect = EFFECTS[outcome]
        third = outcome is Outcome.CRASHED and crashes + 1 == MAX_CRASHES
        state = State.DEAD if third else effect.state
        row = scene.get(id)
        assert (row.attempt, row.crashes, row.state) == (attempts + effect.attempt, crashes + effect.crashes, state)
        assert turn.refused == []
        assert turn.settled == ([(id, job.entry, State.DEAD)] if third else [])

    def test_the_table_is_the_published_one(self) -> None:
        assert EFFECTS == {
            Outcome.COMPLETED: (1, 0, State.COMPLETED),
            Outcome.FAILED: (1, 0, State.SCHEDULED),
            Outcome.DEAD: (1, 0, State.DEAD),
            Outcome.SNOOZED: (0, 0, State.SCHEDULED),
            Outcome.PARKED: (0, 0, State.SCHEDULED),
            Outcome.RELEASED: (0, 0, State.AVAILABLE),
            Outcome.CRASHED: (0, 1, State.AVAILABLE),
            Outcome.LOST: (0, 0, State.AVAILABLE),
            Outcome.CANCELLED: (0, 0, State.CANCELLED),
        }
        assert MAX_CRASHES == 3

    @pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.SNOOZED, Outcome.PARKED])
    def test_a_job_that_waits_again_is_due_after_its_delay_and_not_before(self, scene: Scene, outcome: Outcome) -> None:
        id, ann = scene.job(), scene.worker()
        ann.settle(ann.take(id), outcome, delay=60.5)

        assert scene.get(id).run_at == scene.stamp(60.5)
        scene.advance(60.4)
        assert ann.ids() == []
        scene.advance(0.1)
        assert ann.ids() == [id]

    @pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.SNOOZED, Outcome.PARKED])
    def test_without_a_delay_it_is_due_in_the_same_turn(self, scene: Scene, outcome: Outcome) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)

        turn = ann.turn([ann.settlement(job, outcome, delay=0.0)], [ann.want()])

        assert [again.id for again in turn.claimed] == [id]
        assert turn.claimed[0].entry > job.entry

    @pytest.mark.parametrize("outcome", [Outcome.RELEASED, Outcome.FAILED])
    def test_settle_comes_before_claim_in_one_turn(self, scene: Scene, outcome: Outcome) -> None:
        id, ann = scene.job(), scene.worker()
        spare = scene.job()
        job = ann.take(id)

        turn = ann.turn([ann.settlement(job, outcome, delay=0.0)], [ann.want(1)])

        # Released goes to its old place, ahead of the spare; failed goes behind it.
        assert [again.id for again in turn.claimed] == [id if outcome is Outcome.RELEASED else spare]

    @pytest.mark.parametrize("outcome", PUT_BACK)
    def test_a_job_put_back_has_a_new_entry_and_no_worker(self, scene: Scene, outcome: Outcome) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        ann.settle(job, outcome, delay=60.0)

        row = scene.get(id)
        assert row.entry > job.entry
        assert (row.worker, row.started_at, row.finished_at, row.keep_until) == (None, None, None, None)

    def test_a_completed_job_has_its_result_and_its_times(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        scene.advance(5)
        ann.settle(job, result=b"42", started_at=scene.stamp(-3), finished_at=scene.stamp(-1), keep=100.0)

        row = scene.get(id)
        assert (row.state, row.result, row.error, row.reason) == (State.COMPLETED, b"42", None, None)
        assert (row.started_at, row.finished_at) == (scene.stamp(-3), scene.stamp(-1))
        assert row.keep_until == scene.stamp(100)
        assert (row.worker, row.attempt, row.attempts) == (ann.info.name, 1, [])

    def test_a_dead_job_has_its_error_and_reason_and_no_end(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        ann.settle(ann.take(id), Outcome.DEAD, error=b"boom", reason="unrecoverable")

        row = scene.get(id)
        assert (row.state, row.error, row.result, row.reason) == (State.DEAD, b"boom", None, "unrecoverable")
        assert (row.finished_at, row.keep_until) == (scene.now, None)
        [attempt] = row.attempts
        assert (attempt.outcome, attempt.number, attempt.error) == (Outcome.DEAD, 1, b"boom")

    def test_a_cancelled_job_has_its_reason(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        ann.settle(ann.take(id), Outcome.CANCELLED, reason="changed my mind", keep=60.0)

        row = scene.get(id)
        assert (row.state, row.reason, row.keep_until) == (State.CANCELLED, "changed my mind", scene.stamp(60))

    @pytest.mark.parametrize("outcome", PUT_BACK)
    def test_a_checkpoint_survives_every_way_back(self, scene: Scene, outcome: Outcome) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        assert ann.record(job, Checkpoint(b"half")) is True
        ann.settle(job, outcome, delay=0.0)
        scene.store.stage(scene.term, now=scene.now)

        again = ann.take(id, suspects=scene.get(id).suspect)
        assert again.recorded is True
        assert scene.store.recorded(id) == b"half"

    def test_a_checkpoint_survives_a_rescue(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker("ann")
        ann.record(ann.take(id), Checkpoint(b"half"))
        scene.crash(ann)

        assert scene.worker("solo", solo=True).take(id).recorded is True
        assert scene.store.recorded(id) == b"half"

    def test_a_job_without_checkpoint_says_so(self, scene: Scene) -> None:
        id = scene.job()

        assert scene.worker().take(id).recorded is False
        assert scene.store.recorded(id) is None
        assert scene.store.recorded("no-such-job") is None


class TestOutcomesOfJobsAskedToStop:
    """A cancel that was asked for decides every outcome but success."""

    @each_outcome
    def test_a_job_asked_to_stop_is_cancelled_unless_it_completed(self, scene: Scene, outcome: Outcome) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        scene.act(Cancel(reason="enough"), id)

        turn = ann.settle(job, outcome, delay=60.0)

        state = State.COMPLETED if outcome is Outcome.COMPLETED else State.CANCELLED
        row = scene.get(id)
        assert (row.state, row.cancelling) == (state, False)
        assert turn.settled == ([] if EFFECTS[outcome].state is state else [(id, job.entry, State.CANCELLED)])
        if state is State.CANCELLED:
            assert row.reason == "enough"
            assert row.keep_until is not None

    @pytest.mark.parametrize("death", [None, "signal 9 (SIGKILL)"])
    @pytest.mark.parametrize("solo", [False, True])
    def test_a_job_asked_to_stop_is_cancelled_when_its_worker_goes(
        self, scene: Scene, death: str | None, solo: bool
    ) -> None:
        id = scene.aged(crashes=1) if solo else scene.job()
        ann = scene.worker("ann", solo=solo)
        ann.take(id)
        scene.act(Cancel(reason="enough"), id)

        gone = ann.leave(death)

        assert gone is not None
        assert [job.state for job in gone.jobs] == [State.CANCELLED]
        assert (scene.state(id), scene.get(id).reason) == (State.CANCELLED, "enough")

    def test_a_job_asked_to_stop_is_cancelled_when_its_worker_is_rescued(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker("ann")
        ann.take(id)
        scene.act(Cancel(reason="enough"), id)
        scene.crash(ann)

        assert (scene.state(id), scene.get(id).reason) == (State.CANCELLED, "enough")

    def test_a_third_crash_of_a_job_asked_to_stop_is_a_cancel(self, scene: Scene) -> None:
        id = scene.aged(crashes=MAX_CRASHES - 1)
        solo = scene.worker("solo", solo=True)
        job = solo.take(id)
        scene.act(Cancel(), id)
        solo.settle(job, Outcome.CRASHED)

        assert scene.state(id) is State.CANCELLED

    @each_outcome
    def test_every_outcome_leaves_a_known_state(self, scene: Scene, outcome: Outcome) -> None:
        id, ann = scene.job(), scene.worker()
        ann.settle(ann.take(id), outcome, delay=60.0)

        assert (scene.get(id).finished_at is not None) == (scene.state(id) in TERMINAL)
