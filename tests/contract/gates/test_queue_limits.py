"""What holds for a whole queue: how much may wait in it, how much runs of it, and whether it takes anything new."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from dayjob.errors import QueueClosed, QueueFull
from dayjob.states import Outcome, State
from dayjob.store.contract import Store
from dayjob.store.gating import Gating, QueueLimits
from dayjob.store.records import Cancel, Edit, Filter
from tests.contract.gates.words import admit, concurrency, gated, laned, order, store_one, tokens, unique
from tests.contract.racing import at_once
from tests.contract.scene import Scene

WAITING = (State.AVAILABLE, State.SCHEDULED, State.BLOCKED)


def limit(scene: Scene, queue: str = "default", **limits: Any) -> None:
    scene.store.limit_queue(queue, QueueLimits(**limits), now=scene.now)


def wait_in(scene: Scene, queue: str = "default") -> int:
    return scene.store.count(Filter(queue=queue, states=WAITING))


class TestDepth:
    def test_a_full_queue_refuses_the_row_and_says_so(self, scene: Scene) -> None:
        limit(scene, max_depth=2)
        scene.jobs(2)

        answer = store_one(scene, row := scene.row())

        assert answer.outcome == "refused"
        assert isinstance(answer.error, QueueFull)
        assert (answer.error.queue, answer.error.depth, answer.error.limit) == ("default", 2, 2)
        assert scene.store.get(row.id) is None

    def test_one_call_fills_it_up_and_stores_its_neighbours(self, scene: Scene) -> None:
        limit(scene, max_depth=2)
        rows = [scene.row(queue=queue) for queue in ("default", "other", "default", "default", "other")]

        answers = scene.store.enqueue(rows, now=scene.now)

        assert [answer.outcome for answer in answers] == ["inserted"] * 3 + ["refused", "inserted"]

    def test_whatever_waits_counts_and_what_runs_does_not(self, scene: Scene) -> None:
        limit(scene, max_depth=4)
        running, ann = scene.job(), scene.worker()
        ann.take(running)
        scene.job(), scene.job(delay=60.0)
        scene.jobs(2, gating=gated(concurrency()))

        assert isinstance(store_one(scene, scene.row()).error, QueueFull)

    def test_a_claim_makes_room(self, scene: Scene) -> None:
        limit(scene, max_depth=1)
        scene.job()
        scene.worker().take()

        assert store_one(scene, scene.row()).outcome == "inserted"

    def test_a_job_that_comes_back_is_not_refused(self, scene: Scene) -> None:
        limit(scene, max_depth=1)
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        scene.job()

        assert ann.fail(job, delay=5.0) is True
        assert scene.state(id) is State.SCHEDULED

    def test_a_repeat_of_what_is_stored_is_not_refused(self, scene: Scene) -> None:
        limit(scene, max_depth=1)
        row = scene.row()
        store_one(scene, row)

        [answer] = scene.store.enqueue([row], repeat=True, now=scene.now)

        assert (answer.outcome, answer.error) == ("existing", None)

    def test_a_refused_row_leaves_its_key_free(self, scene: Scene) -> None:
        limit(scene, max_depth=1)
        id = scene.job()
        assert store_one(scene, scene.row(gating=unique())).outcome == "refused"
        scene.act(Cancel(), id)

        assert store_one(scene, scene.row(gating=unique())).outcome == "inserted"

    def test_who_waits_is_refused_by_the_store_and_asks_again(self, scene: Scene) -> None:
        limit(scene, max_depth=1, when_full="wait")
        scene.job()

        assert isinstance(store_one(scene, scene.row()).error, QueueFull)

    def test_many_producers_at_once_do_not_overfill_it(self, scene: Scene, other: Store) -> None:
        limit(scene, max_depth=20)
        stores = [scene.store, other]
        rows = [scene.row() for _ in range(80)]

        def produce(which: int) -> list[str]:
            return [stores[which % 2].enqueue([row], now=scene.now)[0].outcome for row in rows[which::8]]

        outcomes = [outcome for each in at_once(*[partial(produce, n) for n in range(8)]) for outcome in each]

        over = 8 if scene.store.system == "postgresql" else 0  # to within a batch of each producer
        assert 20 <= wait_in(scene) <= 20 + over
        assert outcomes.count("inserted") == wait_in(scene)


class TestShedding:
    def test_the_oldest_of_the_least_urgent_makes_room(self, scene: Scene) -> None:
        limit(scene, max_depth=3, when_full="drop_oldest")
        urgent, oldest, young = scene.job(priority=1), scene.job(), scene.job()

        new = scene.job()

        assert [scene.state(id) for id in (urgent, oldest, young, new)] == [
            State.AVAILABLE, State.DEAD, State.AVAILABLE, State.AVAILABLE
        ]  # fmt: skip
        assert scene.get(oldest).reason == "shed"
        assert scene.get(oldest).attempt == 0

    def test_a_scheduled_one_that_is_less_urgent_goes_before_those_that_could_run(self, scene: Scene) -> None:
        limit(scene, max_depth=3, when_full="drop_oldest")
        scene.job(queue="other", priority=-5, delay=30.0)
        later, last = scene.job(priority=-1, delay=60.0), scene.job(priority=-1, delay=20.0)
        urgent = scene.job(priority=1)

        shed_by = {scene.job(): [later], scene.job(): [later, last]}

        assert [scene.get(id).reason for id in (later, last, urgent, *shed_by)] == ["shed", "shed", None, None, None]

    def test_who_goes_is_decided_row_by_row(self, scene: Scene) -> None:
        limit(scene, max_depth=2, when_full="drop_oldest")
        old, urgent = scene.job(priority=0), scene.job(priority=1)
        rows = [scene.row(priority=priority) for priority in (-1, 1, 0, 0, 1)]

        scene.store.enqueue(rows, now=scene.now)

        assert [scene.get(id).reason for id in (old, urgent, *(row.id for row in rows))] == [
            "shed", "shed", "shed", None, "shed", "shed", None
        ]  # fmt: skip

    def test_a_batch_larger_than_the_queue_loses_none_without_a_trace(self, scene: Scene) -> None:
        limit(scene, max_depth=2, when_full="drop_oldest")
        ids = scene.jobs(5)

        assert wait_in(scene) == 2
        assert [scene.get(id).reason for id in ids].count("shed") == 3

    def test_what_runs_is_not_shed(self, scene: Scene) -> None:
        limit(scene, max_depth=1, when_full="drop_oldest")
        running, ann = scene.job(), scene.worker()
        job = ann.take(running)
        scene.jobs(3)

        assert ann.settled(job) is True

    def test_a_shed_job_frees_its_key_and_its_token(self, scene: Scene) -> None:
        limit(scene, max_depth=1, when_full="drop_oldest")
        scene.job(gating=gated(concurrency()))
        scene.store.admit(scene.term, now=scene.now)
        assert tokens(scene) == {"tenant:1": 1}

        keyed = scene.job(gating=unique())
        assert tokens(scene) == {}
        scene.job()

        assert scene.get(keyed).reason == "shed"
        assert store_one(scene, scene.row(gating=unique())).outcome == "inserted"

    def test_a_row_whose_key_was_held_by_what_the_same_call_sheds_is_not_lost(self, scene: Scene) -> None:
        limit(scene, max_depth=1, when_full="drop_oldest")
        holder = scene.job(gating=unique(on_conflict="replace"), payload=b"1")

        row = scene.row(gating=unique(on_conflict="replace"), payload=b"2")
        answer = scene.store.enqueue([scene.row(), row], now=scene.now)[1]

        kept = scene.get(holder if answer.outcome == "replaced" else row.id)
        assert kept.payload == b"2"

    def test_sheds_are_counted(self, scene: Scene) -> None:
        limit(scene, max_depth=1, when_full="drop_oldest")
        scene.jobs(3)

        counted = [each for each in scene.store.history(0, "default") if each.name == "shed"]
        assert sum(each.value for each in counted) == 2


class TestConcurrencyOfAQueue:
    def test_no_more_of_a_queue_run_than_its_limit_whoever_claims(self, scene: Scene) -> None:
        ids = scene.jobs(6)
        limit(scene, concurrency=2)
        ann, bob = scene.worker("ann"), scene.worker("bob")

        assert ann.ids(1) == ids[:1]
        assert bob.ids() == ids[1:2]
        assert ann.ids() == []
        ann.settle(ann.batches[1][0])
        assert bob.ids() == ids[2:3]

    def test_two_wishes_of_one_turn_share_it(self, scene: Scene) -> None:
        scene.jobs(6)
        limit(scene, concurrency=3)
        ann = scene.worker()

        assert len(ann.turn(wants=[ann.want(2, "default"), ann.want(2)]).claimed) == 3

    def test_a_queue_that_is_full_does_not_hold_up_another(self, scene: Scene) -> None:
        capped = scene.jobs(300, queue="capped", priority=5)
        limit(scene, "capped", concurrency=2)
        free = scene.jobs(3)

        assert scene.worker().ids(5) == [*capped[:2], *free]

    def test_a_crashed_worker_gives_its_places_back(self, scene: Scene) -> None:
        scene.jobs(3)
        limit(scene, concurrency=1)
        ann = scene.worker("ann")
        ann.take()
        scene.crash(ann)

        assert len(scene.worker("bob").ids()) == 1

    def test_jobs_with_gates_count_like_others(self, scene: Scene) -> None:
        scene.jobs(3, gating=gated(concurrency("a", 3)))
        scene.jobs(3)
        limit(scene, concurrency=2)

        assert len(scene.worker().ids()) == 2

    def test_a_claim_repeated_after_a_lost_reply_is_not_counted_twice(self, scene: Scene) -> None:
        ids, ann = scene.jobs(4), scene.worker()
        limit(scene, concurrency=2)
        ann.claim()

        assert [job.id for job in ann.repeat(1)] == ids[:2]
        for job in ann.batches[1]:
            ann.settle(job)
        assert ann.ids() == ids[2:]


class TestRateOfAQueue:
    def test_no_more_of_a_queue_start_in_a_period_than_its_rate(self, scene: Scene) -> None:
        scene.jobs(9)
        limit(scene, rate=3, per=10.0)
        ann = scene.worker()
        for job in ann.claim(2):
            ann.settle(job)
        scene.advance(5)
        assert len(ann.ids()) == 1
        assert ann.ids() == []

        scene.advance(5.01)
        assert len(ann.ids()) == 2
        scene.advance(5)
        assert len(ann.ids()) == 1

    def test_an_hour_without_workers_makes_no_burst(self, scene: Scene) -> None:
        limit(scene, rate=3, per=10.0)
        scene.jobs(9)
        scene.advance(3600)
        ann = scene.worker()

        assert [len(ann.ids()), len(ann.ids())] == [3, 0]

    def test_a_turn_knows_when_the_queue_may_go_on(self, scene: Scene) -> None:
        limit(scene, rate=1, per=10.0)
        scene.jobs(2)
        ann = scene.worker()
        ann.claim()

        assert ann.turn(wants=[ann.want()]).next_due == scene.stamp(10)


class TestClosed:
    def test_a_queue_that_is_drained_refuses_what_is_new_and_finishes_what_is_there(self, scene: Scene) -> None:
        first, second = scene.jobs(2)
        ann = scene.worker()
        job = ann.take(first)
        limit(scene, closed="refuse")

        answer = store_one(scene, row := scene.row())

        assert isinstance(answer.error, QueueClosed)
        assert answer.error.queue == "default"
        assert scene.store.get(row.id) is None
        ann.fail(job, delay=5.0)
        assert ann.ids() == [second]
        scene.advance(5)
        assert ann.ids() == [first]

    def test_a_queue_that_holds_keeps_what_is_new_until_it_is_opened(self, scene: Scene) -> None:
        old = scene.job()
        limit(scene, closed="hold")
        held = [scene.job(), scene.job(gating=gated(concurrency())), scene.job(priority=5)]
        ann = scene.worker()

        assert ann.ids() == [old]
        scene.store.admit(scene.term, now=scene.now)
        assert [scene.state(id) for id in held] == [State.BLOCKED] * 3

        scene.store.limit_queue("default", None, now=scene.now)

        assert ann.ids() == [held[2], held[0], held[1]]

    @pytest.mark.parametrize("gating", [None, gated(concurrency()), gated(order())])
    def test_who_was_held_stands_where_it_came(self, scene: Scene, gating: Gating | None) -> None:
        limit(scene, closed="hold")
        held = scene.job(gating=gating)
        later = scene.job(queue="other", gating=gating)
        limit(scene)
        ann = scene.worker()

        assert ann.ids(1) == [held]
        assert (later in ann.ids()) is (gating is None)

    def test_a_lane_that_was_held_has_its_turn_before_one_that_begins_later(self, scene: Scene) -> None:
        limit(scene, closed="hold")
        plain, held = scene.job(), scene.job(gating=laned("x"))
        scene.jobs(300, queue="other")
        limit(scene)
        scene.store.admit(scene.term, now=scene.now)
        late = scene.jobs(4, gating=laned("y"))
        ann = scene.worker()
        order = [job.id for job in ann.turn(wants=[ann.want(10, "default")]).claimed]

        assert order[0] == plain
        assert order.index(held) <= 2
        assert set(order) == {plain, held, *late}

    def test_a_job_with_a_time_is_held_from_its_time_on(self, scene: Scene) -> None:
        limit(scene, closed="hold")
        id, ann = scene.job(delay=10.0), scene.worker()
        scene.advance(11)
        assert ann.ids() == []

        limit(scene)

        assert ann.ids() == [id]

    def test_what_was_there_comes_back_while_the_new_is_held(self, scene: Scene) -> None:
        id, ann = scene.job(gating=gated(concurrency())), scene.worker()
        job = ann.take(id)
        limit(scene, closed="hold")
        scene.job(gating=gated(concurrency()))
        ann.settle(job, Outcome.FAILED, delay=5.0)
        scene.advance(5)

        assert ann.ids() == [id]

    def test_what_was_let_in_once_is_not_new_when_it_comes_back(self, scene: Scene) -> None:
        limit(scene, closed="hold")
        id, ann = scene.job(), scene.worker()
        limit(scene)
        job = ann.take(id)
        ann.fail(job, delay=5.0)
        limit(scene, closed="hold")
        scene.advance(5)

        assert ann.ids() == [id]

    @pytest.mark.parametrize("policy", ["replace", "extend"])
    @pytest.mark.parametrize("delay", [None, 30.0])
    def test_who_holds_a_key_is_as_new_after_a_conflict_as_before(
        self, scene: Scene, policy: str, delay: float | None
    ) -> None:
        old = scene.job(gating=unique("old", on_conflict=policy))
        limit(scene, closed="hold")
        new, later = scene.job(gating=unique("new", on_conflict=policy)), scene.job(gating=unique("x"), delay=60.0)
        rows = [scene.row(gating=unique(key, on_conflict=policy), delay=delay) for key in ("old", "new", "x")]
        scene.store.enqueue(rows, now=scene.now)
        scene.advance(30)
        ann = scene.worker()

        assert ann.ids() == [old]
        assert [scene.state(id) for id in (new, later)] == [State.BLOCKED] * 2
        scene.store.limit_queue("default", None, now=scene.now)
        assert sorted(ann.ids()) == sorted([new, later])

    def test_more_held_jobs_than_one_turn_lets_in_lose_none(self, scene: Scene) -> None:
        limit(scene, closed="hold")
        scene.jobs(1000, delay=10.0)
        scene.jobs(5, delay=20.0)
        limit(scene)
        ann = scene.worker()

        scene.advance(11)
        first = sum(len(ann.claim(1000)) for _ in range(3))
        scene.advance(10)
        second = sum(len(ann.claim(1000)) for _ in range(3))

        assert (first, second) == (1000, 5)

    def test_held_jobs_of_lanes_take_turns_when_they_are_let_in(self, scene: Scene) -> None:
        limit(scene, closed="hold")
        many = scene.jobs(3, gating=laned("a"))
        one = scene.job(gating=laned("b"))

        limit(scene)

        assert scene.worker().ids() == [many[0], one, *many[1:]]

    @pytest.mark.parametrize("gating", [None, unique(), laned("a"), gated(concurrency())])
    def test_a_held_job_that_is_moved_to_another_queue_runs_there_alone(
        self, scene: Scene, gating: Gating | None
    ) -> None:
        limit(scene, closed="hold")
        others = scene.jobs(2)
        id = scene.job(gating=gating)

        scene.act(Edit(queue="other", priority=10), id)

        admit(scene)
        assert scene.worker().ids() == [id]
        assert [scene.state(other) for other in others] == [State.BLOCKED] * 2

    @pytest.mark.parametrize("change", [Edit(priority=10), Edit(queue="default"), Edit(payload=b"2"), Edit(run_at=1)])
    @pytest.mark.parametrize("gating", [None, unique(), laned("a"), gated(concurrency())])
    def test_a_held_job_that_is_edited_is_still_held(self, scene: Scene, gating: Gating | None, change: Edit) -> None:
        limit(scene, closed="hold")
        id, ann = scene.job(gating=gating), scene.worker()

        scene.act(change, id)

        admit(scene)
        assert ann.ids() == []
        limit(scene)
        assert ann.ids() == [id]

    def test_a_held_job_that_is_put_off_is_held_from_its_time_on(self, scene: Scene) -> None:
        limit(scene, closed="hold")
        id, ann = scene.job(), scene.worker()
        scene.act(Edit(run_at=scene.stamp(10)), id)

        scene.advance(11)

        assert ann.ids() == []
        limit(scene)
        assert ann.ids() == [id]

    def test_a_held_job_can_be_cancelled(self, scene: Scene) -> None:
        limit(scene, closed="hold")
        id = scene.job()

        assert scene.act(Cancel(), id) == [id]
        limit(scene)
        assert scene.worker().ids() == []

    def test_another_queue_stays_open(self, scene: Scene) -> None:
        limit(scene, closed="refuse")

        id = scene.job(queue="other")

        assert scene.worker().ids() == [id]

    @pytest.mark.parametrize("looked_at", [False, True])
    def test_what_was_held_takes_the_tokens_before_who_is_less_urgent(self, scene: Scene, looked_at: bool) -> None:
        limit(scene, "closed", closed="hold")
        held = scene.job(queue="closed", priority=1, gating=gated(concurrency()))
        ann = scene.worker()
        if looked_at:
            assert ann.ids() == []
        scene.job(gating=gated(concurrency()))
        scene.store.limit_queue("closed", None, now=scene.now)

        assert ann.ids() == [held]


class TestWhoSaid:
    def test_what_was_said_at_run_time_wins_over_code_until_it_is_taken_back(self, scene: Scene) -> None:
        code, run = QueueLimits(max_depth=1), QueueLimits(max_depth=3)
        store, now = scene.store, scene.now
        store.limit_queue("default", run, now=now)
        store.limit_queue("default", code, origin="code", now=now)
        assert store.queue_limits(now=now) == {"default": (run, "run")}
        scene.jobs(3)

        store.limit_queue("default", None, now=now)

        assert store.queue_limits(now=now) == {"default": (code, "code")}
        assert store_one(scene, scene.row()).outcome == "refused"

    def test_a_limit_that_the_code_no_longer_has_is_gone(self, scene: Scene) -> None:
        store, now = scene.store, scene.now
        store.limit_queue("default", QueueLimits(max_depth=1), origin="code", now=now)
        store.limit_queue("default", None, origin="code", now=now)

        assert store.queue_limits(now=now) == {}
        scene.jobs(3)

    def test_limits_act_on_other_handles_at_once(self, scene: Scene, other: Store) -> None:
        scene.job()
        other.queue_limits(now=scene.now)
        limit(scene, max_depth=1)

        [answer] = other.enqueue([scene.row()], now=scene.now)

        assert isinstance(answer.error, QueueFull)
