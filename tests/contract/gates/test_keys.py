"""Keys: of the jobs of one key, one waits or runs at a time, and who comes second is told who was first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from dayjob.clock import SECOND
from dayjob.errors import JobExists
from dayjob.states import Outcome, State
from dayjob.store.contract import Store
from dayjob.store.exits import MOVED
from dayjob.store.gating import Gate, Gating
from dayjob.store.records import Cancel, Delete, Edit, Enqueued, Filter, NewRow, Retry
from tests.contract.gates.words import concurrency, key_of, order, store_one, unique
from tests.contract.racing import at_once
from tests.contract.scene import START, Puppet, Scene


def second(scene: Scene, **rest: Any) -> Enqueued:
    """What becomes of one more row with the key."""
    return store_one(scene, scene.row(gating=unique(**rest)))


def inserted(scene: Scene, **rest: Any) -> bool:
    return second(scene, **rest).outcome == "inserted"


class TestOneHolder:
    def test_a_second_job_is_not_stored_and_names_the_first(self, scene: Scene) -> None:
        id = scene.job(gating=unique())

        answer = second(scene)

        assert (answer.outcome, answer.id, answer.error) == ("existing", id, None)
        assert scene.store.count(Filter()) == 1

    def test_another_key_is_free(self, scene: Scene) -> None:
        scene.job(gating=unique("order:7"))

        assert inserted(scene, key="order:70")

    def test_the_same_text_is_another_key_for_another_task(self, scene: Scene) -> None:
        scene.job(gating=unique("order:7", "shop.charge"))

        assert inserted(scene, key="order:7", task="shop.refund")

    def test_a_job_with_a_key_is_available_like_any_other(self, scene: Scene) -> None:
        ids = [scene.job(), scene.job(gating=unique()), scene.job()]

        assert scene.worker().ids() == ids

    def test_the_key_is_kept_with_the_job_through_its_life(self, scene: Scene) -> None:
        id, ann = scene.job(gating=unique(ttl=60.0)), scene.worker()
        assert scene.get(id).gating == unique(ttl=60.0)

        ann.settle(ann.take(id))

        assert scene.get(id).gating == unique(ttl=60.0)

    def test_rows_of_one_call_see_those_before_them(self, scene: Scene) -> None:
        rows = [scene.row(gating=unique(key)) for key in ("a", "b", "a", "b", "a")]

        answers = scene.store.enqueue(rows, now=scene.now)

        assert [answer.outcome for answer in answers] == ["inserted"] * 2 + ["existing"] * 3
        assert [answer.id for answer in answers[2:]] == [rows[0].id, rows[1].id, rows[0].id]

    def test_a_refusal_does_not_refuse_its_neighbours(self, scene: Scene) -> None:
        id = scene.job(gating=unique())
        rows = [scene.row(), scene.row(gating=unique(on_conflict="raise")), scene.row()]

        answers = scene.store.enqueue(rows, now=scene.now)

        assert [answer.outcome for answer in answers] == ["inserted", "refused", "inserted"]
        assert scene.worker().ids() == [id, rows[0].id, rows[2].id]


class TestUntil:
    @pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.DEAD, Outcome.CANCELLED])
    def test_the_key_is_free_when_its_job_has_ended(self, scene: Scene, outcome: Outcome) -> None:
        id, ann = scene.job(gating=unique()), scene.worker()
        job = ann.take(id)
        assert not inserted(scene)

        ann.settle(job, outcome)

        assert inserted(scene)

    @pytest.mark.parametrize(
        "outcome", [Outcome.FAILED, Outcome.SNOOZED, Outcome.PARKED, Outcome.RELEASED, Outcome.LOST]
    )
    def test_the_key_is_held_while_its_job_will_run_again(self, scene: Scene, outcome: Outcome) -> None:
        id, ann = scene.job(gating=unique()), scene.worker()

        ann.settle(ann.take(id), outcome, delay=60.0)

        assert second(scene).id == id

    def test_a_job_that_is_rescued_keeps_its_key(self, scene: Scene) -> None:
        id, ann = scene.job(gating=unique()), scene.worker()
        ann.take(id)
        scene.crash(ann)

        assert second(scene).id == id

    def test_until_started_the_key_is_free_with_the_claim(self, scene: Scene) -> None:
        id = scene.job(gating=unique(until="started"))
        assert not inserted(scene, until="started")

        scene.worker().take(id)

        assert inserted(scene, until="started")

    def test_until_started_a_job_that_failed_does_not_hold_it_again(self, scene: Scene) -> None:
        id, ann = scene.job(gating=unique(until="started")), scene.worker()
        ann.fail(ann.take(id), delay=60.0)

        assert inserted(scene, until="started")

    def test_the_end_of_the_first_does_not_free_the_key_of_its_successor(self, scene: Scene) -> None:
        id, ann = scene.job(gating=unique(until="started")), scene.worker()
        job = ann.take(id)
        successor = scene.job(gating=unique(until="started"))

        ann.settle(job)

        assert second(scene, until="started").id == successor

    def test_a_key_held_for_a_time_outlives_its_job(self, scene: Scene) -> None:
        id, ann = scene.job(gating=unique(until="expired", ttl=60.0)), scene.worker()
        ann.settle(ann.take(id))
        scene.advance(59)
        assert second(scene, until="expired", ttl=60.0).id == id

        scene.advance(2)

        assert inserted(scene, until="expired", ttl=60.0)

    def test_a_key_held_for_a_time_outlives_its_job_though_that_is_deleted(self, scene: Scene) -> None:
        id = scene.job(gating=unique(until="expired", ttl=60.0))
        scene.act(Delete(), id)

        assert not inserted(scene, until="expired", ttl=60.0)

    def test_a_key_is_free_after_its_time_though_its_job_waits(self, scene: Scene) -> None:
        id, ann = scene.job(gating=unique(ttl=60.0)), scene.worker()
        scene.advance(61)
        answer = second(scene, ttl=60.0)

        assert answer.outcome == "inserted"
        ann.settle(ann.take(id))
        assert not inserted(scene, ttl=60.0), "the first has freed the key of the second"


class TestWhoLeavesFreesTheKey:
    @pytest.mark.parametrize("delay", [None, 60.0])
    @pytest.mark.parametrize("action", [Cancel(), Delete()])
    def test_a_waiting_job_that_is_taken_away_frees_its_key(
        self, scene: Scene, action: Cancel | Delete, delay: float | None
    ) -> None:
        id = scene.job(gating=unique(), delay=delay)

        scene.act(action, id)

        assert inserted(scene)

    def test_a_job_that_expires_frees_its_key(self, scene: Scene) -> None:
        scene.job(gating=unique(), expires=10.0)
        scene.advance(11)
        scene.store.stage(scene.term, now=scene.now)

        assert inserted(scene)

    def test_a_job_cancelled_while_it_runs_frees_its_key_when_it_has_stopped(self, scene: Scene) -> None:
        id, ann = scene.job(gating=unique()), scene.worker()
        job = ann.take(id)
        scene.act(Cancel(), id)
        assert not inserted(scene)

        ann.fail(job)

        assert inserted(scene)

    def test_the_third_crash_frees_the_key(self, scene: Scene) -> None:
        id, solo = scene.job(gating=unique()), scene.worker(solo=True)
        for crash in range(3):
            solo.settle(solo.take(id, suspects=crash > 0), Outcome.CRASHED, reason="crashed")

        assert scene.state(id) is State.DEAD
        assert inserted(scene)

    def test_an_edit_keeps_the_key(self, scene: Scene) -> None:
        id = scene.job(gating=unique())
        scene.act(Edit(queue="other", priority=3), id)

        assert second(scene).id == id

    def test_deleting_a_finished_job_does_not_free_the_key_of_its_successor(self, scene: Scene) -> None:
        id, ann = scene.job(gating=unique()), scene.worker()
        ann.settle(ann.take(id))
        successor = scene.job(gating=unique())

        scene.act(Delete(), id)

        assert second(scene).id == successor


class TestConflict:
    def test_raise_refuses_with_the_key_as_given_and_the_holder(self, scene: Scene) -> None:
        id = scene.job(gating=unique())

        answer = second(scene, on_conflict="raise")

        assert answer.outcome == "refused"
        assert isinstance(answer.error, JobExists)
        assert (answer.error.key, answer.error.id) == ("order:7", id)

    def test_merge_leaves_the_holder_alone(self, scene: Scene) -> None:
        id = scene.job(gating=unique())
        before = scene.get(id)

        answer = second(scene, on_conflict="merge")

        assert (answer.outcome, answer.id) == ("existing", id)
        assert scene.get(id) == before

    def test_replace_puts_all_of_the_new_row_into_the_waiting_holder(self, scene: Scene) -> None:
        id = scene.job(gating=unique(), delay=60.0, payload=b"old", priority=1, tags='["old"]')
        entry = scene.get(id).entry
        scene.advance(5)
        new: dict[str, Any] = {"payload": b"new", "priority": 7, "tags": '["new"]', "meta": '{"a":1}', "options": b"{}"}

        answer = store_one(scene, scene.row(gating=unique(on_conflict="replace"), delay=30.0, expires=90.0, **new))

        row = scene.get(id)
        assert (answer.outcome, answer.id) == ("replaced", id)
        assert {name: getattr(row, name) for name in new} == new
        assert (row.run_at, row.expires_at, row.state) == (scene.stamp(30), scene.stamp(90), State.SCHEDULED)
        assert row.entry > entry
        assert row.created_at == START
        assert scene.store.count(Filter()) == 1

    def test_replace_by_a_row_without_a_time_lets_the_holder_run_now(self, scene: Scene) -> None:
        id = scene.job(gating=unique(), delay=60.0)

        assert second(scene, on_conflict="replace").outcome == "replaced"
        assert scene.worker().ids() == [id]

    def test_replace_by_a_row_with_a_time_puts_an_available_holder_off(self, scene: Scene) -> None:
        id = scene.job(gating=unique(), payload=b"old")
        store_one(scene, scene.row(gating=unique(on_conflict="replace"), delay=60.0, payload=b"new"))
        ann = scene.worker()

        assert ann.ids() == []
        scene.advance(60)
        assert ann.take(id).payload == b"new"

    def test_a_replaced_job_still_holds_the_key(self, scene: Scene) -> None:
        id = scene.job(gating=unique())
        for _ in range(3):
            assert second(scene, on_conflict="replace").id == id

        assert second(scene).id == id

    @pytest.mark.parametrize("policy", ["replace", "extend"])
    @pytest.mark.parametrize("gates", [(), (concurrency(limit=9),), (order(),)], ids=["free", "gate", "strict lane"])
    def test_a_holder_comes_where_the_row_would_have_come(
        self, scene: Scene, policy: str, gates: tuple[Gate, ...]
    ) -> None:
        rest = Gating(gates=gates)
        holder = scene.job(gating=Gating(key_of(on_conflict=policy), gates=gates), delay=30.0)
        before = scene.job(gating=rest)
        rows = [scene.row(gating=gating) for gating in (rest, scene.get(holder).gating, rest)]
        answers = scene.store.enqueue(rows, now=scene.now)
        ann, ran = scene.worker(), []
        for _ in range(4):
            ran.append(ann.take())
            ann.settle(ran[-1])

        assert [answer.outcome for answer in answers] == [
            "inserted",
            "replaced" if policy == "replace" else "extended",
            "inserted",
        ]
        assert [job.id for job in ran] == [before, rows[0].id, holder, rows[2].id]

    def test_extend_changes_the_time_alone(self, scene: Scene) -> None:
        id = scene.job(gating=unique(), delay=5.0, payload=b"old", priority=1)
        scene.advance(3)

        answer = store_one(scene, scene.row(gating=unique(on_conflict="extend"), delay=5.0, payload=b"new", priority=9))

        row = scene.get(id)
        assert (answer.outcome, answer.id) == ("extended", id)
        assert (row.payload, row.priority, row.run_at) == (b"old", 1, scene.stamp(5))

    @pytest.mark.parametrize("policy", ["replace", "extend"])
    def test_a_job_is_not_put_off_for_ever(self, scene: Scene, policy: str) -> None:
        debounce: dict[str, Any] = {"on_conflict": policy, "latest": 12.0}
        id = scene.job(gating=unique(**debounce), delay=5.0)
        for _ in range(3):
            scene.advance(4)
            if scene.stamp() < START + 12 * SECOND:
                store_one(scene, scene.row(gating=unique(**debounce), delay=5.0))

        assert scene.get(id).run_at == START + 12 * SECOND
        assert scene.worker().ids() == [id]

    @pytest.mark.parametrize("policy", ["replace", "extend"])
    def test_a_running_holder_is_left_alone(self, scene: Scene, policy: str) -> None:
        id, ann = scene.job(gating=unique(), payload=b"old"), scene.worker()
        job = ann.take(id)

        answer = store_one(scene, scene.row(gating=unique(on_conflict=policy), delay=60.0, payload=b"new"))

        assert (answer.outcome, answer.id) == ("existing", id)
        assert scene.get(id).payload == b"old"
        assert ann.settled(job) is True

    @pytest.mark.parametrize("policy", ["replace", "extend"])
    def test_a_holder_that_has_ended_is_left_alone(self, scene: Scene, policy: str) -> None:
        id, ann = scene.job(gating=unique(until="expired", ttl=60.0)), scene.worker()
        ann.settle(ann.take(id))

        answer = second(scene, until="expired", ttl=60.0, on_conflict=policy)

        assert (answer.outcome, answer.id, scene.state(id)) == ("existing", id, State.COMPLETED)

    def test_a_settlement_from_before_the_replacement_is_refused(self, scene: Scene) -> None:
        id, ann = scene.job(gating=unique()), scene.worker()
        job = ann.take(id)
        ann.settle(job, Outcome.RELEASED)
        second(scene, on_conflict="replace")

        assert ann.settled(job) is False


class TestRepeats:
    @pytest.mark.parametrize("policy", ["existing", "replace", "raise"])
    def test_a_repeated_enqueue_does_not_meet_its_own_key(self, scene: Scene, policy: str) -> None:
        row = scene.row(gating=unique(on_conflict=policy))
        store_one(scene, row)

        [answer] = scene.store.enqueue([row], repeat=True, now=scene.now)

        assert (answer.outcome, answer.error) == ("existing", None)

    def test_a_repeat_of_a_job_that_has_ended_does_not_take_its_key_again(self, scene: Scene) -> None:
        row, ann = scene.row(gating=unique()), scene.worker()
        store_one(scene, row)
        ann.settle(ann.take(row.id))

        [answer] = scene.store.enqueue([row], repeat=True, now=scene.now)

        assert answer.outcome == "existing"
        assert inserted(scene)


class TestRetry:
    def finished(self, scene: Scene, ann: Puppet, **fields: Any) -> str:
        id = scene.job(gating=unique(), **fields)
        ann.die(ann.take(id))
        return id

    def test_a_retried_job_takes_its_key_anew(self, scene: Scene) -> None:
        id = self.finished(scene, scene.worker())

        assert scene.act(Retry(), id) == [id]
        assert second(scene).id == id

    def test_a_retry_is_not_done_while_another_holds_the_key(self, scene: Scene) -> None:
        ann = scene.worker()
        id = self.finished(scene, ann)
        holder = scene.job(gating=unique())
        before = scene.get(id)

        assert scene.act(Retry(), id) == []

        assert scene.get(id) == before
        assert ann.ids() == [holder]

    def test_of_two_finished_jobs_with_one_key_one_is_retried(self, scene: Scene) -> None:
        ann = scene.worker()
        ids = [self.finished(scene, ann), self.finished(scene, ann)]

        touched = scene.act(Retry(), *ids)

        assert len(touched) == 1
        assert ann.ids() == touched

    def test_a_retry_that_cannot_be_does_not_keep_the_others_from_theirs(self, scene: Scene) -> None:
        ann = scene.worker()
        held = self.finished(scene, ann)
        scene.job(gating=unique())
        ann.claim()
        free = scene.job()
        ann.die(ann.take(free))

        assert scene.act(Retry(), held, free, limit=1) == [free]


class TestManyAtOnce:
    def producers(self, scene: Scene, other: Store, rows: list[NewRow]) -> list[Enqueued]:
        stores = [scene.store, other]
        calls: list[Callable[[], list[Enqueued]]] = [
            partial(stores[n % 2].enqueue, [row], now=scene.now) for n, row in enumerate(rows)
        ]
        return [answer for [answer] in at_once(*calls)]

    def test_fifty_producers_with_one_key_store_one_job(self, scene: Scene, other: Store) -> None:
        rows = [scene.row(gating=unique()) for _ in range(50)]

        answers = self.producers(scene, other, rows)

        [winner] = [row.id for row, answer in zip(rows, answers, strict=True) if answer.outcome == "inserted"]
        assert {answer.id for answer in answers if answer.outcome != "inserted"} == {winner}
        assert scene.store.count(Filter()) == 1

    def test_fifty_producers_who_replace_leave_one_job_that_one_of_them_gave(self, scene: Scene, other: Store) -> None:
        rows = [scene.row(gating=unique(on_conflict="replace"), payload=b"%d" % n) for n in range(50)]

        answers = self.producers(scene, other, rows)

        outcomes = sorted(answer.outcome for answer in answers)
        assert outcomes == ["inserted"] + ["replaced"] * 49
        [job] = scene.worker().claim()
        assert job.payload in {row.payload for row in rows}

    def test_keys_taken_in_opposite_order_lock_nobody_out(self, scene: Scene, other: Store) -> None:
        for n in range(10):
            keys = [f"{n}:{letter}" for letter in "abcdef"]
            there = [scene.row(gating=unique(key)) for key in keys]
            back = [scene.row(gating=unique(key)) for key in reversed(keys)]

            answers = at_once(
                partial(scene.store.enqueue, there, now=scene.now), partial(other.enqueue, back, now=scene.now)
            )

            stored = [answer.outcome for batch in answers for answer in batch]
            assert sorted(stored) == ["existing"] * 6 + ["inserted"] * 6

    def test_a_key_that_is_freed_just_now_is_never_held_by_two_or_lost(self, scene: Scene, other: Store) -> None:
        ann = scene.worker()
        scene.job(gating=unique())
        for _ in range(20):
            job = ann.take()
            calls: list[Callable[[], object]] = [
                partial(ann.settle, job),
                *[partial(other.enqueue, [scene.row(gating=unique())], now=scene.now) for _ in range(3)],
            ]
            at_once(*calls)

            store_one(scene, scene.row(gating=unique()))
            assert scene.store.count(Filter(states=(State.AVAILABLE,))) == 1


class TestCopies:
    def test_a_waiting_job_that_is_adopted_takes_its_key(self, scene: Scene) -> None:
        id = scene.job(gating=unique())
        [whole] = scene.store.export([id])
        scene.act(Cancel(MOVED + "redis://there"), id)

        scene.store.adopt([whole], now=scene.now)

        assert second(scene).id == id

    def test_a_job_whose_key_is_held_is_adopted_without_it(self, scene: Scene) -> None:
        id = scene.job(gating=unique())
        [whole] = scene.store.export([id])
        scene.act(Cancel(MOVED + "redis://there"), id)
        holder = scene.job(gating=unique())

        [answer] = scene.store.adopt([whole], now=scene.now)

        assert answer.outcome == "inserted"
        ann = scene.worker()
        assert ann.take(holder).id == holder
        ann.settle(ann.take(id))
        assert second(scene).id == holder
