"""Concurrency: never more tokens than the limit, all gates or none, and whoever leaves gives back what it held."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from dayjob.clock import SECOND
from dayjob.states import Outcome, State
from dayjob.store.contract import Store
from dayjob.store.exits import MOVED
from dayjob.store.gating import UNCLAIMED, Gate
from dayjob.store.records import Cancel, Claimed, Delete, Edit, Retry
from tests.contract.gates.words import admit, concurrency, gated, rate, tokens, waiting
from tests.contract.racing import both
from tests.contract.scene import START, Puppet, Scene

A, B = concurrency("a"), concurrency("b")


class TestLimit:
    def test_a_job_with_gates_is_blocked_and_then_claimed(self, scene: Scene) -> None:
        id = scene.job(gating=gated(A))
        assert scene.state(id) is State.BLOCKED

        assert scene.worker().ids() == [id]

    def test_no_more_run_than_the_limit_says(self, scene: Scene) -> None:
        ids = scene.jobs(10, gating=gated(concurrency("a", 3)))
        ann, bob = scene.worker("ann"), scene.worker("bob")

        assert ann.ids() == ids[:3]
        assert bob.ids() == []
        assert tokens(scene) == {"a": 3}

    def test_a_token_that_comes_free_is_used_by_the_same_turn(self, scene: Scene) -> None:
        first, second, third = scene.jobs(3, gating=gated(A))
        ann = scene.worker()
        job = ann.take(first)

        turn = ann.turn([ann.settlement(job, Outcome.COMPLETED)], [ann.want()])

        assert [each.id for each in turn.claimed] == [second]
        assert scene.state(third) is State.BLOCKED

    def test_nothing_is_left_when_all_is_done(self, scene: Scene) -> None:
        scene.jobs(7, gating=gated(concurrency("a", 3), B))
        ann = scene.worker()
        for _ in range(7):
            ann.settle(ann.take())

        assert ann.ids() == []
        assert scene.store.gates(now=scene.now) == []

    def test_keys_do_not_hinder_each_other(self, scene: Scene) -> None:
        ids = [scene.job(gating=gated(concurrency(f"tenant:{n}"))) for n in range(5)]

        assert scene.worker().ids() == ids

    def test_a_gate_of_another_kind_with_the_same_name_is_another_gate(self, scene: Scene) -> None:
        first = scene.job(gating=gated(Gate("concurrency", "x", 1)))
        second = scene.job(gating=gated(Gate("rate", "x", 1, 10.0)))

        assert scene.worker().ids() == [first, second]

    def test_a_gate_is_one_for_all_queues(self, scene: Scene) -> None:
        first, _ = scene.job(queue="a", gating=gated(A)), scene.job(queue="b", gating=gated(A))
        ann = scene.worker()

        assert ann.ids(10, "a", "b") == [first]
        assert ann.ids(10, "b") == []

    def test_blocked_jobs_are_not_in_the_way(self, scene: Scene) -> None:
        scene.jobs(500, gating=gated(A), priority=100)
        ann = scene.worker()
        ann.take()
        id = scene.job()

        assert ann.ids(1) == [id]

    def test_the_gate_says_what_is_taken_and_who_waits(self, scene: Scene) -> None:
        scene.jobs(5, gating=gated(concurrency("a", 2)))
        scene.job(gating=gated(B))
        scene.worker().claim()

        a, b = scene.store.gates(now=scene.now)

        assert (a.gate, a.taken, a.waiting) == (concurrency("a", 2), 2, 3)
        assert (b.gate, b.taken, b.waiting) == (B, 1, 0)
        assert [row.gate.key for row in scene.store.gates(["b", "none"], now=scene.now)] == ["b"]

    def test_a_scheduled_job_takes_no_token_before_its_time(self, scene: Scene) -> None:
        later = scene.job(gating=gated(A), delay=60.0)
        now = scene.job(gating=gated(A))
        ann = scene.worker()
        assert scene.state(later) is State.SCHEDULED

        assert ann.ids() == [now]
        scene.advance(60)
        assert ann.ids() == []
        assert scene.state(later) is State.BLOCKED
        [[job]] = ann.batches.values()
        ann.settle(job)
        assert ann.ids() == [later]

    def test_the_leader_admits_without_any_worker(self, scene: Scene) -> None:
        ids = scene.jobs(3, gating=gated(concurrency("a", 2)))

        assert admit(scene) == (2, None)

        assert [scene.state(id) for id in ids] == [State.AVAILABLE] * 2 + [State.BLOCKED]
        assert tokens(scene) == {"a": 2}

    def test_a_sweep_admits_so_many_at_a_time(self, scene: Scene) -> None:
        scene.jobs(5, gating=gated(concurrency("a", 5)))

        assert [scene.store.admit(scene.term, limit=2, now=scene.now) for _ in range(3)] == [
            (2, None), (2, None), (1, None)
        ]  # fmt: skip

    def test_a_stale_leader_admits_nothing(self, scene: Scene) -> None:
        id = scene.job(gating=gated(A))

        assert scene.store.admit(scene.term + 1, now=scene.now) is None
        assert scene.store.admit(scene.term - 1, now=scene.now) is None
        assert scene.state(id) is State.BLOCKED

    def test_a_claim_repeated_after_a_lost_reply_takes_no_more(self, scene: Scene) -> None:
        ids = scene.jobs(4, gating=gated(concurrency("a", 2)))
        ann = scene.worker()
        ann.claim()

        assert [job.id for job in ann.repeat(1)] == ids[:2]
        assert tokens(scene) == {"a": 2}

    def test_gates_hold_across_handles_and_reopening(self, scene: Scene) -> None:
        first, second = scene.jobs(2, gating=gated(A))
        job = scene.worker().take(first)
        if scene.engine.processes:
            scene.store.close()
        bob = scene.worker("bob", store=scene.engine.open())
        assert bob.ids() == []

        bob.store.turn("worker-ann", None, [bob.settlement(job, Outcome.COMPLETED)], now=scene.now)

        assert bob.ids() == [second]


class TestAllOrNone:
    def test_a_job_that_waits_at_one_gate_takes_no_token_of_another(self, scene: Scene) -> None:
        ann = scene.worker()
        ann.take(scene.job(gating=gated(A)))
        both_keys = scene.job(gating=gated(A, B))
        assert ann.ids() == []
        assert tokens(scene) == {"a": 1}

        only_b = scene.job(gating=gated(B))

        assert ann.ids() == [only_b]
        assert scene.state(both_keys) is State.BLOCKED

    def test_two_keys_taken_in_turn_in_opposite_order_lock_nobody_out(self, scene: Scene) -> None:
        ids = [scene.job(gating=gated(*((A, B) if n % 2 else (B, A)))) for n in range(20)]
        ann = scene.worker()

        for id in ids:
            [job] = ann.claim()
            assert job.id == id
            assert tokens(scene) == {"a": 1, "b": 1}
            ann.settle(job)

    def test_a_line_moves_to_the_gate_that_is_closed_next(self, scene: Scene) -> None:
        # It waited at a; when a opens, b is closed: it must hear of b, and not only of a.
        ann = scene.worker()
        a, b = ann.take(scene.job(gating=gated(A))), ann.take(scene.job(gating=gated(B)))
        last = scene.job(gating=gated(A, B))
        assert ann.ids() == []
        ann.settle(a)
        assert ann.ids() == []
        assert tokens(scene) == {"b": 1}

        ann.settle(b)

        assert ann.ids() == [last]

    def test_at_a_gate_the_most_urgent_goes_first_then_the_older_place_whatever_else_it_waits_for(
        self, scene: Scene
    ) -> None:
        ann = scene.worker()
        job = ann.take(scene.job(gating=gated(A)))
        others = [concurrency(f"other:{n}") for n in range(3)]
        jobs = [
            (priority, scene.job(gating=gated(*((other, A) if priority else (A, other))), priority=priority))
            for priority, other in zip((0, 2, 1, 0, 2, 1, 0), others * 3, strict=False)
        ]

        order = []
        for _ in jobs:
            ann.settle(job)
            job = ann.take()
            order.append(job.id)

        assert order == [id for _, id in sorted(jobs, key=lambda each: -each[0])]

    def test_tokens_that_come_free_together_go_to_as_many_as_they_suffice_for(self, scene: Scene) -> None:
        a = concurrency("a", 4)
        ann = scene.worker()
        scene.jobs(4, gating=gated(a))
        held = ann.claim()
        ids = [scene.job(gating=gated(a, *([B] if n % 2 else []))) for n in range(8)]

        turn = ann.turn([ann.settlement(job, Outcome.COMPLETED) for job in held], [ann.want()])

        # b has one token: of those that need it, too, only the first passes.
        assert [job.id for job in turn.claimed] == [ids[0], ids[1], ids[2], ids[4]]

    @pytest.mark.parametrize("count", [100, 1000])
    def test_no_one_who_could_run_is_left_behind_among_many_keys(self, scene: Scene, count: int) -> None:
        rows = [scene.row(gating=gated(concurrency(f"k{n}"), concurrency("all", 50))) for n in range(count)]
        ids = [row.id for row in rows]
        scene.store.enqueue(rows, now=scene.now)
        ann = scene.worker()

        assert ann.ids(count) == ids[:50]
        assert tokens(scene)["all"] == 50


def settled(outcome: Outcome, scene: Scene, ann: Puppet, job: Claimed) -> None:
    ann.settle(job, outcome, delay=60.0)


def left(scene: Scene, ann: Puppet, job: Claimed) -> None:
    ann.leave()


def seen_to_die(scene: Scene, ann: Puppet, job: Claimed) -> None:
    ann.leave(death="signal 9 (SIGKILL)")


def rescued(scene: Scene, ann: Puppet, job: Claimed) -> None:
    scene.crash(ann)


def reply_lost(scene: Scene, ann: Puppet, job: Claimed) -> None:
    scene.advance(11)
    ann.beat([])


def cancelled(scene: Scene, ann: Puppet, job: Claimed) -> None:
    scene.act(Cancel(), job.id)
    ann.fail(job)


RUNNING_EXITS: dict[str, Callable[[Scene, Puppet, Claimed], None]] = {
    **{outcome.value: partial(settled, outcome) for outcome in Outcome},
    **{exit.__name__: exit for exit in (left, seen_to_die, rescued, reply_lost, cancelled)},
}
WAITING_EXITS: dict[str, Cancel | Delete | Edit] = {
    "cancelled": Cancel(),
    "deleted": Delete(),
    "moved to another queue": Edit(queue="z"),
    "less urgent": Edit(priority=-5),
    "put off": Edit(run_at=START + 3600 * SECOND),
}


class TestEveryExitFrees:
    @pytest.mark.parametrize("exit", RUNNING_EXITS.values(), ids=RUNNING_EXITS)
    def test_a_running_job_that_leaves_gives_its_token_back(
        self, scene: Scene, exit: Callable[[Scene, Puppet, Claimed], None]
    ) -> None:
        id, ann, bob = scene.job(gating=gated(A, B)), scene.worker("ann"), scene.leader
        job = ann.take(id)
        other = scene.job(gating=gated(A, B), priority=1)
        assert bob.ids() == []

        exit(scene, ann, job)

        assert bob.ids() == [other]
        assert tokens(scene) == {"a": 1, "b": 1}

    @pytest.mark.parametrize("exit", RUNNING_EXITS.values(), ids=RUNNING_EXITS)
    def test_and_takes_it_again_when_it_comes_back(
        self, scene: Scene, exit: Callable[[Scene, Puppet, Claimed], None]
    ) -> None:
        id, ann = scene.job(gating=gated(A)), scene.worker("ann")
        exit(scene, ann, ann.take(id))
        scene.pass_time(60)
        row = scene.get(id)
        bob = scene.worker("bob", solo=row.suspect)

        assert bob.ids() == ([] if row.state.terminal else [id])
        assert tokens(scene) == ({} if row.state.terminal else {"a": 1})

    @pytest.mark.parametrize("action", WAITING_EXITS.values(), ids=WAITING_EXITS)
    def test_an_admitted_job_that_leaves_gives_its_token_back(
        self, scene: Scene, action: Cancel | Delete | Edit
    ) -> None:
        id, other = scene.jobs(2, gating=gated(A, B))
        admit(scene)
        assert scene.state(id) is State.AVAILABLE

        assert scene.act(action, id) == [id]

        assert scene.worker().ids() == [other]
        assert tokens(scene) == {"a": 1, "b": 1}

    @pytest.mark.parametrize("action", WAITING_EXITS.values(), ids=WAITING_EXITS)
    def test_a_blocked_job_that_leaves_is_not_in_the_way(self, scene: Scene, action: Cancel | Delete | Edit) -> None:
        ann = scene.worker()
        job = ann.take(scene.job(gating=gated(A)))
        head, other = scene.jobs(2, gating=gated(A))
        assert ann.ids() == []

        assert scene.act(action, head) == [head]

        ann.settle(job)
        assert ann.ids() == [other]

    def test_an_admitted_job_that_expires_gives_its_token_back(self, scene: Scene) -> None:
        id, other = scene.job(gating=gated(A), expires=4.0), scene.job(gating=gated(A))
        admit(scene)
        scene.advance(5)
        scene.store.stage(scene.term, now=scene.now)

        assert scene.state(id) is State.CANCELLED
        assert scene.worker().ids() == [other]

    def test_a_blocked_job_that_expires_is_cancelled_and_not_in_the_way(self, scene: Scene) -> None:
        ann = scene.worker()
        job = ann.take(scene.job(gating=gated(A)))
        head, other = scene.job(gating=gated(A), expires=10.0), scene.job(gating=gated(A))
        ann.ids()
        scene.advance(11)
        scene.store.stage(scene.term, now=scene.now)

        assert (scene.state(head), scene.get(head).reason) == (State.CANCELLED, "expired")
        ann.settle(job)
        assert ann.ids() == [other]

    def test_a_dead_job_retried_by_hand_waits_at_its_gates_again(self, scene: Scene) -> None:
        id, ann = scene.job(gating=gated(A)), scene.worker()
        ann.die(ann.take(id))
        job = ann.take(scene.job(gating=gated(A)))
        scene.act(Retry(), id)

        assert ann.ids() == []
        assert scene.state(id) is State.BLOCKED
        ann.settle(job)
        assert ann.ids() == [id]

    def test_a_promoted_job_waits_at_its_gates(self, scene: Scene) -> None:
        ann = scene.worker()
        job = ann.take(scene.job(gating=gated(A)))
        later = scene.job(gating=gated(A), delay=3600.0)
        scene.act(Edit(run_at=0), later)

        assert ann.ids() == []
        ann.settle(job)
        assert ann.ids() == [later]

    def test_a_late_settlement_does_not_free_the_token_of_the_next_run(self, scene: Scene) -> None:
        id, ann = scene.job(gating=gated(A)), scene.worker("ann")
        stale = ann.take(id)
        scene.crash(ann)
        scene.worker("bob", solo=True).take(id)
        scene.job(gating=gated(A))

        assert ann.settled(stale) is False
        assert tokens(scene) == {"a": 1}
        assert scene.worker("cid").ids() == []

    def test_an_adopted_job_waits_at_its_gates(self, scene: Scene) -> None:
        id, ann = scene.job(gating=gated(A)), scene.worker()
        [whole] = scene.store.export([id])
        scene.act(Cancel(MOVED + "redis://there"), id)
        job = ann.take(scene.job(gating=gated(A)))

        scene.store.adopt([whole], now=scene.now)

        assert ann.ids() == []
        ann.settle(job)
        assert ann.ids() == [id]


class TestNobodyWaitsForNothing:
    """An admitted job that is not claimed makes room: for a token is no use to who does not run."""

    def test_a_job_whose_queue_is_paused_while_it_is_admitted_makes_room(self, scene: Scene) -> None:
        bulk, other = scene.job(queue="bulk", gating=gated(A)), scene.job(gating=gated(A))
        admit(scene)
        assert scene.state(bulk) is State.AVAILABLE
        scene.store.pause("bulk", True, now=scene.now)

        admit(scene)

        ann = scene.worker()
        assert ann.ids() == [other]
        assert scene.state(bulk) is State.BLOCKED
        ann.settle(ann.batches[1][0])
        scene.store.pause("bulk", False, now=scene.now)
        admit(scene)
        assert ann.ids() == [bulk]

    def test_a_job_of_a_paused_queue_does_not_take_the_token_from_one_that_can_run(self, scene: Scene) -> None:
        scene.store.pause("bulk", True, now=scene.now)
        scene.job(queue="bulk", gating=gated(A), priority=5)
        id = scene.job(gating=gated(A))
        for _ in range(3):
            admit(scene)
            scene.advance(1)

        assert scene.worker().ids() == [id]

    def test_an_admitted_job_makes_room_for_a_more_urgent_one(self, scene: Scene) -> None:
        low = scene.job(queue="bulk", gating=gated(A))
        admit(scene)
        urgent = scene.job(gating=gated(A, B), priority=9)

        admit(scene)

        assert scene.worker().ids() == [urgent]
        assert scene.state(low) is State.BLOCKED

    def test_an_admitted_job_keeps_its_token_before_its_equals(self, scene: Scene) -> None:
        first, _ = scene.job(queue="bulk", gating=gated(A)), scene.job(gating=gated(A))
        for _ in range(4):
            admit(scene)
            scene.advance(1)

        assert scene.worker().ids() == [first]

    def test_a_job_that_nobody_claims_makes_room_for_the_next(self, scene: Scene) -> None:
        bulk, other = scene.job(queue="bulk", gating=gated(A)), scene.job(gating=gated(A))
        admit(scene)
        ann = scene.worker()
        assert ann.ids(10, "default") == []

        scene.advance(UNCLAIMED + 0.5)
        admit(scene)

        assert ann.ids(10, "default") == [other]
        assert scene.state(bulk) is State.BLOCKED

    def test_a_job_that_made_room_comes_to_its_turn_again(self, scene: Scene) -> None:
        bulk, other = scene.job(queue="bulk", gating=gated(A)), scene.job(gating=gated(A))
        admit(scene)
        scene.advance(UNCLAIMED + 0.5)
        admit(scene)
        ann = scene.worker()
        ann.settle(ann.take(other))

        assert ann.ids() == [bulk]

    def test_a_job_that_nobody_claims_stays_where_nobody_else_waits(self, scene: Scene) -> None:
        id = scene.job(gating=gated(A))
        admit(scene)
        entry = scene.get(id).entry
        scene.advance(60)
        admit(scene)

        assert (scene.state(id), scene.get(id).entry) == (State.AVAILABLE, entry)

    def test_a_job_that_made_room_gives_back_all_its_tokens(self, scene: Scene) -> None:
        bulk = scene.job(queue="bulk", gating=gated(A, rate(1, 3600.0)))
        admit(scene)
        other, limited = scene.job(gating=gated(A), priority=1), scene.job(gating=gated(rate(1, 3600.0)))
        admit(scene)

        assert scene.worker().ids(10, "default") == [other, limited]
        assert scene.state(bulk) is State.BLOCKED


class TestLimitsChange:
    def test_a_higher_limit_admits_at_once(self, scene: Scene) -> None:
        ids = scene.jobs(5, gating=gated(A))
        ann = scene.worker()
        ann.claim()

        scene.store.set_limit("concurrency", "a", 3, now=scene.now)

        assert ann.ids() == ids[1:3]

    def test_a_lower_limit_lets_those_run_who_do_and_nobody_new(self, scene: Scene) -> None:
        scene.jobs(5, gating=gated(concurrency("a", 3)))
        ann = scene.worker()
        jobs = ann.claim()
        scene.store.set_limit("concurrency", "a", 1, now=scene.now)

        for job in jobs[:2]:
            assert ann.settled(job) is True
            assert ann.ids() == []
        ann.settle(jobs[2])
        assert len(ann.ids()) == 1

    def test_what_was_said_at_run_time_wins_over_newer_rows_until_it_is_taken_back(self, scene: Scene) -> None:
        scene.store.set_limit("concurrency", "a", 1, now=scene.now)
        ids, ann = scene.jobs(4, gating=gated(concurrency("a", 3))), scene.worker()
        assert ann.ids() == ids[:1]

        scene.store.set_limit("concurrency", "a", None, now=scene.now)

        assert ann.ids() == ids[1:3]

    def test_of_rows_that_differ_the_newest_says_the_limit(self, scene: Scene) -> None:
        scene.jobs(3, gating=gated(concurrency("a", 1)))
        scene.job(gating=gated(concurrency("a", 4)))

        assert len(scene.worker().ids()) == 4

    def test_a_limit_of_nothing_stops_all(self, scene: Scene) -> None:
        id, ann = scene.job(gating=gated(A)), scene.worker()
        scene.store.set_limit("concurrency", "a", 0, now=scene.now)
        assert ann.ids() == []

        scene.store.set_limit("concurrency", "a", 1, now=scene.now)

        assert ann.ids() == [id]


class TestParkAgainstFree:
    def test_a_job_parked_while_the_last_token_is_freed_is_admitted_by_the_next_turn(
        self, scene: Scene, other: Store
    ) -> None:
        ann = scene.worker()
        job = ann.take(scene.job(gating=gated(A)))
        for _ in range(20):
            row = scene.row(gating=gated(A))

            both(partial(ann.settle, job), partial(other.enqueue, [row], now=scene.now))

            job = ann.take(row.id)
        assert waiting(scene) == {}

    def test_a_job_parked_while_it_is_swept_past_is_admitted_by_the_next_turn(self, scene: Scene, other: Store) -> None:
        ann = scene.worker()
        for _ in range(20):
            row = scene.row(gating=gated(A, B))

            both(partial(admit, scene), partial(other.enqueue, [row], now=scene.now))

            ann.settle(ann.take(row.id))
        assert scene.store.gates(now=scene.now) == []
