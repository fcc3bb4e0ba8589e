"""P3 Fenced: a late write names worker, job and entry, and is refused when any of them no longer holds."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from dayjob.states import EFFECTS, Outcome, State
from dayjob.store.contract import Store
from dayjob.store.records import Cancel, Checkpoint, Claimed, Delete, Edit, Log, Progress, Retry
from tests.contract.scene import Puppet, Scene

each_outcome = pytest.mark.parametrize("outcome", list(Outcome))


def rescued(scene: Scene, ann: Puppet, job: Claimed) -> None:
    scene.crash(ann)


def reported_dead(scene: Scene, ann: Puppet, job: Claimed) -> None:
    ann.leave(death="signal 9 (SIGKILL)")


def left(scene: Scene, ann: Puppet, job: Claimed) -> None:
    ann.leave()


def released(scene: Scene, ann: Puppet, job: Claimed) -> None:
    ann.settle(job, Outcome.RELEASED)


def failed(scene: Scene, ann: Puppet, job: Claimed) -> None:
    ann.fail(job, delay=60.0)


def failed_and_due_again(scene: Scene, ann: Puppet, job: Claimed) -> None:
    ann.fail(job, delay=1.0)
    scene.advance(1)
    scene.store.stage(scene.term, now=scene.now)


def snoozed(scene: Scene, ann: Puppet, job: Claimed) -> None:
    ann.settle(job, Outcome.SNOOZED, delay=60.0)


def completed(scene: Scene, ann: Puppet, job: Claimed) -> None:
    ann.settle(job, Outcome.COMPLETED)


def completed_and_retried_by_hand(scene: Scene, ann: Puppet, job: Claimed) -> None:
    ann.settle(job, Outcome.COMPLETED)
    scene.act(Retry(), job.id)


def dead_and_retried_by_hand(scene: Scene, ann: Puppet, job: Claimed) -> None:
    ann.die(job)
    scene.act(Retry(), job.id)


def batch_never_listed(scene: Scene, ann: Puppet, job: Claimed) -> None:
    scene.advance(11)
    ann.beat(held=[])


def claimed_again_by_the_same_worker(scene: Scene, ann: Puppet, job: Claimed) -> None:
    ann.settle(job, Outcome.RELEASED)
    ann.take(job.id)


def claimed_again_by_another_worker(scene: Scene, ann: Puppet, job: Claimed) -> None:
    ann.settle(job, Outcome.RELEASED)
    scene.worker("bob").take(job.id)


def rescued_and_claimed_by_a_solo_worker(scene: Scene, ann: Puppet, job: Claimed) -> None:
    scene.crash(ann)
    scene.worker("solo", solo=True).take(job.id)


WAYS_TO_LOSE_A_LEASE: list[Callable[[Scene, Puppet, Claimed], None]] = [
    rescued,
    reported_dead,
    left,
    released,
    failed,
    failed_and_due_again,
    snoozed,
    completed,
    completed_and_retried_by_hand,
    dead_and_retried_by_hand,
    batch_never_listed,
    claimed_again_by_the_same_worker,
    claimed_again_by_another_worker,
    rescued_and_claimed_by_a_solo_worker,
]
each_way = pytest.mark.parametrize("lose", WAYS_TO_LOSE_A_LEASE, ids=lambda way: way.__name__)


def everything(scene: Scene, id: str) -> object:
    """All that can be read of a job."""
    return (scene.get(id), scene.store.logs(id), scene.store.recorded(id))


class TestP3Fenced:
    @each_way
    def test_a_late_settlement_is_refused_and_changes_nothing(
        self, scene: Scene, lose: Callable[[Scene, Puppet, Claimed], None]
    ) -> None:
        id, ann = scene.job(), scene.worker("ann")
        job = ann.take(id)
        lose(scene, ann, job)
        before = everything(scene, id)

        for outcome in Outcome:
            turn = ann.turn([ann.settlement(job, outcome, delay=1.0, error=b"late", result=b"late", reason="late")])

            assert turn.refused == [(id, job.entry)]
            assert turn.settled == []
            assert everything(scene, id) == before

    @each_way
    def test_a_late_progress_log_or_checkpoint_is_refused_and_changes_nothing(
        self, scene: Scene, lose: Callable[[Scene, Puppet, Claimed], None]
    ) -> None:
        id, ann = scene.job(), scene.worker("ann")
        job = ann.take(id)
        ann.record(job, Progress(1, 9), Log(scene.now, "info", "in time"), Checkpoint(b"in time"))
        lose(scene, ann, job)
        before = everything(scene, id)

        for write in (Progress(9, 9, "late"), Log(scene.now, "info", "late"), Checkpoint(b"late")):
            assert ann.record(job, write) is False
            assert everything(scene, id) == before

    @each_way
    def test_a_worker_whose_lease_went_still_settles_its_other_jobs_or_none(
        self, scene: Scene, lose: Callable[[Scene, Puppet, Claimed], None]
    ) -> None:
        # A refusal must be about that job: what the worker still holds is settled in the same turn.
        id, ann = scene.job(), scene.worker("ann")
        job = ann.take(id)
        lose(scene, ann, job)
        ann.beat()
        spare = scene.job(priority=50)
        others = ann.claim(1)

        turn = ann.turn([ann.settlement(each, Outcome.COMPLETED) for each in (job, *others)])

        assert turn.refused == [(id, job.entry)]
        assert scene.state(spare) is (State.COMPLETED if others else State.AVAILABLE)

    @each_outcome
    def test_another_worker_cannot_settle_a_job_though_it_knows_the_entry(self, scene: Scene, outcome: Outcome) -> None:
        id, ann, bob = scene.job(), scene.worker("ann"), scene.worker("bob")
        job = ann.take(id)

        assert bob.settled(job, outcome) is False
        assert ann.settled(job) is True
        assert scene.state(id) is State.COMPLETED

    @pytest.mark.parametrize("write", [Progress(1, 2), Checkpoint(b"x"), Log(1, "info", "x")])
    def test_another_worker_cannot_record_on_a_job_though_it_knows_the_entry(
        self, scene: Scene, write: Progress | Checkpoint | Log
    ) -> None:
        id, ann, bob = scene.job(), scene.worker("ann"), scene.worker("bob")
        job = ann.take(id)

        assert bob.record(job, write) is False
        assert (scene.get(id).progress, scene.store.recorded(id), scene.store.logs(id)) == (None, None, [])

    @each_outcome
    def test_a_guessed_entry_settles_nothing(self, scene: Scene, outcome: Outcome) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)

        for wrong in (job.entry - 1, job.entry + 1, 0, -1):
            guess = msgspec.structs.replace(job, entry=wrong)
            assert ann.settled(guess, outcome) is False
            assert ann.record(guess, Progress(1, 2)) is False
        assert scene.state(id) is State.RUNNING

    def test_the_entry_of_one_job_does_not_settle_another(self, scene: Scene) -> None:
        first, second = scene.jobs(2)
        ann = scene.worker()
        one, two = ann.claim(2)

        crossed = msgspec.structs.replace(one, entry=two.entry)

        assert ann.settled(crossed) is False
        assert [scene.state(first), scene.state(second)] == [State.RUNNING] * 2

    def test_a_job_that_never_existed_is_refused(self, scene: Scene) -> None:
        scene.job()
        ann = scene.worker()
        ghost = msgspec.structs.replace(ann.take(), id="no-such-job")

        assert ann.settled(ghost) is False
        assert ann.record(ghost, Progress(1, 2)) is False
        assert scene.store.get("no-such-job") is None

    def test_a_deleted_job_is_not_brought_back_by_a_late_settlement(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        ann.settle(job, Outcome.RELEASED)
        scene.act(Delete(), id)

        assert ann.settled(job) is False
        assert scene.store.get(id) is None

    def test_a_waiting_job_cannot_be_settled_by_its_current_entry(self, scene: Scene) -> None:
        # The entry alone is no lease: the job must run.
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        ann.settle(job, Outcome.RELEASED)
        waiting = msgspec.structs.replace(job, entry=scene.get(id).entry)

        assert ann.settled(waiting) is False
        assert ann.record(waiting, Progress(1, 2)) is False
        assert scene.state(id) is State.AVAILABLE

    def test_a_worker_given_up_cannot_settle_even_before_another_claims(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker("ann")
        job = ann.take(id)
        scene.crash(ann)

        assert ann.settled(job) is False
        assert ann.beat().lost is True
        assert ann.settled(job) is False
        assert scene.state(id) is State.AVAILABLE

    def test_a_settlement_repeated_after_a_lost_reply_harms_nothing(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        lost = ann.settlement(job, Outcome.COMPLETED, result=b"42")
        ann.turn([lost])
        before = everything(scene, id)

        turn = ann.turn([lost])

        assert turn.refused == [(id, job.entry)]
        assert everything(scene, id) == before

    @each_outcome
    def test_a_settlement_given_twice_in_one_turn_counts_once(self, scene: Scene, outcome: Outcome) -> None:
        id, ann = scene.job(), scene.worker()
        settlement = ann.settlement(ann.take(id), outcome, delay=60.0)

        ann.turn([settlement, settlement])

        row, effect = scene.get(id), EFFECTS[outcome]
        assert (row.attempt, row.crashes, row.state) == effect
        assert len(row.attempts) == (outcome is not Outcome.COMPLETED)

    @pytest.mark.parametrize("first", [Outcome.COMPLETED, Outcome.FAILED])
    def test_two_settlements_of_one_job_in_one_turn_are_settled_once(self, scene: Scene, first: Outcome) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        second = Outcome.CANCELLED if first is Outcome.FAILED else Outcome.FAILED

        ann.turn([ann.settlement(job, outcome, delay=60.0) for outcome in (first, second)])

        row = scene.get(id)
        assert (row.attempt, row.crashes, row.state) in (EFFECTS[first], EFFECTS[second])
        assert len(row.attempts) <= 1

    def test_one_refused_settlement_does_not_hold_up_its_neighbours(self, scene: Scene) -> None:
        ids, ann = scene.jobs(5), scene.worker()
        jobs = ann.claim(5)
        ann.settle(jobs[2], Outcome.RELEASED)

        turn = ann.turn([ann.settlement(job, Outcome.COMPLETED) for job in jobs])

        assert turn.refused == [(ids[2], jobs[2].entry)]
        assert [scene.state(id) for id in ids] == [
            State.COMPLETED,
            State.COMPLETED,
            State.AVAILABLE,
            State.COMPLETED,
            State.COMPLETED,
        ]

    def test_the_entry_only_rises(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker("ann")
        entries = []
        for outcome in (Outcome.RELEASED, Outcome.FAILED, Outcome.SNOOZED, Outcome.PARKED, Outcome.RELEASED):
            job = ann.take(id)
            entries.append(job.entry)
            ann.settle(job, outcome, delay=1.0)
            scene.advance(1)
        entries.append(scene.get(id).entry)
        ann.die(ann.take(id))
        scene.act(Retry(), id)
        entries.append(ann.take(id).entry)
        scene.crash(ann)
        entries.append(scene.worker("solo", solo=True).take(id).entry)

        assert entries == sorted(entries)
        assert len(set(entries)) >= len(entries) - 2  # two were read of a job that waited, and then claimed

    def test_two_jobs_never_share_an_entry(self, scene: Scene, other: Store) -> None:
        scene.jobs(5)
        other.enqueue([scene.row() for _ in range(5)], now=scene.now)
        ann = scene.worker()
        seen = []
        for _ in range(3):
            jobs = ann.claim(10)
            seen += [job.entry for job in jobs]
            ann.turn([ann.settlement(job, Outcome.RELEASED) for job in jobs])

        assert len(seen) == len(set(seen)) == 30

    def test_entries_go_on_rising_after_the_store_was_closed_and_emptied(self, scene: Scene) -> None:
        # A number counted from the rows at hand would fall back when the last row goes, and old fences would hold again.
        id, ann = scene.job(), scene.worker("ann")
        first = ann.take(id)
        ann.settle(first, keep=0.0)
        scene.store.prune(scene.term, [], now=scene.stamp(7200))
        if scene.engine.processes:
            scene.store.close()
        scene.job()

        assert ann.take().entry > first.entry

    @pytest.mark.parametrize("first", [{}, {"delay": 3600.0}])
    def test_entries_go_on_rising_after_the_highest_was_deleted_by_hand(
        self, scene: Scene, first: dict[str, float]
    ) -> None:
        scene.job()
        gone = scene.job(**first)
        highest = scene.get(gone).entry
        scene.act(Delete(), gone)

        assert scene.get(scene.job()).entry > highest

    def test_an_edit_of_an_available_job_gives_it_a_new_entry(self, scene: Scene) -> None:
        id = scene.job()
        before = scene.get(id).entry

        scene.act(Edit(payload=b"{}"), id)

        assert scene.get(id).entry > before

    def test_a_cancel_asked_for_does_not_break_the_lease(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        scene.act(Cancel(), id)

        assert ann.record(job, Progress(1, 2)) is True
        assert ann.settled(job) is True
        assert scene.state(id) is State.COMPLETED

    def test_refusals_over_two_handles_are_the_same(self, scene: Scene, other: Store) -> None:
        id, ann = scene.job(), scene.worker("ann")
        job = ann.take(id)
        other.leave(ann.id, death="signal 9 (SIGKILL)", now=scene.now)

        assert ann.settled(job) is False
        assert ann.record(job, Progress(1, 2)) is False
        assert ann.ids() == []
