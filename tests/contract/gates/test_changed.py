"""What becomes of a job's gates and of its place when somebody changes the job, and who goes when a full queue sheds."""

from __future__ import annotations

from typing import Any

import pytest

from dayjob.states import State
from dayjob.store.gating import Gate, Gating, QueueLimits
from dayjob.store.records import Edit, Enqueued, Filter, Retry
from tests.contract.gates.words import (
    admit,
    breaker,
    concurrency,
    gated,
    key_of,
    laned,
    order,
    store_one,
    tokens,
    unique,
    waiting,
)
from tests.contract.scene import START, Puppet, Scene

A, B = concurrency("a"), concurrency("b")
STRICT = gated(order())


def keyed(*gates: Gate, **rest: Any) -> Gating:
    """A key, and gates to wait at."""
    return Gating(key_of(**rest), gates=gates)


def replace(scene: Scene, *gates: Gate, **fields: Any) -> Enqueued:
    """What becomes of a row that replaces the holder of the key."""
    return store_one(scene, scene.row(gating=keyed(*gates, on_conflict="replace"), **fields))


def run_one_by_one(ann: Puppet, count: int) -> list[str]:
    """Claim and settle so many jobs, one at a time; their ids."""
    ran = []
    for _ in range(count):
        job = ann.take()
        ran.append(job.id)
        ann.settle(job)
    return ran


class TestAFullQueueSheds:
    @pytest.fixture(autouse=True)
    def _two_may_wait(self, scene: Scene) -> None:
        scene.store.limit_queue("default", QueueLimits(max_depth=2, when_full="drop_oldest"), now=scene.now)

    def test_a_newcomer_is_stored_though_all_others_are_more_urgent(self, scene: Scene) -> None:
        ids = [scene.job(priority=priority) for priority in (5, 5, -5)]

        assert [scene.state(id) for id in ids] == [State.DEAD, State.AVAILABLE, State.AVAILABLE]
        assert scene.get(ids[0]).reason == "shed"

    def test_rows_of_one_call_are_newcomers_one_after_the_other(self, scene: Scene) -> None:
        rows = [scene.row(priority=priority) for priority in (5, 5, -5, 0)]

        answers = scene.store.enqueue(rows, now=scene.now)

        assert [answer.outcome for answer in answers] == ["inserted"] * 4
        assert [scene.get(row.id).reason for row in rows] == ["shed", None, "shed", None]

    def test_one_that_waits_for_its_time_is_as_old_as_any_other(self, scene: Scene) -> None:
        later, second, third = scene.job(delay=3600.0), scene.job(), scene.job()

        assert [scene.state(id) for id in (later, second, third)] == [State.DEAD, State.AVAILABLE, State.AVAILABLE]

    def test_one_that_waits_for_its_time_is_no_older_than_those_before_it(self, scene: Scene) -> None:
        first, later, third = scene.job(), scene.job(delay=3600.0), scene.job()

        assert [scene.state(id) for id in (first, later, third)] == [State.DEAD, State.SCHEDULED, State.AVAILABLE]

    def test_one_that_waits_for_its_time_is_as_old_among_rows_of_one_call(self, scene: Scene) -> None:
        rows = [scene.row(delay=3600.0), scene.row(), scene.row()]
        scene.store.enqueue(rows, now=scene.now)

        assert [scene.get(row.id).reason for row in rows] == ["shed", None, None]

    def test_one_that_waits_at_a_gate_is_as_old_as_any_other(self, scene: Scene) -> None:
        scene.worker().take(scene.job(gating=gated(A)))
        blocked, second, third = scene.job(gating=gated(A)), scene.job(), scene.job()

        assert [scene.state(id) for id in (blocked, second, third)] == [State.DEAD, State.AVAILABLE, State.AVAILABLE]

    def test_one_that_waits_for_its_retry_is_as_old_as_it_was(self, scene: Scene) -> None:
        failed, ann = scene.job(), scene.worker()
        job = ann.take(failed)
        scene.advance(1)
        second = scene.job()
        ann.fail(job, delay=60.0)

        third = scene.job()

        assert [scene.state(id) for id in (failed, second, third)] == [State.DEAD, State.AVAILABLE, State.AVAILABLE]

    def test_a_newcomer_with_a_time_is_stored_too(self, scene: Scene) -> None:
        ids = [scene.job(), scene.job(), scene.job(delay=60.0, priority=-9)]

        assert [scene.state(id) for id in ids] == [State.DEAD, State.AVAILABLE, State.SCHEDULED]


CHANGES = {
    "less urgent": Edit(priority=-5),
    "more urgent": Edit(priority=5),
    "now": Edit(run_at=0),
    "since long": Edit(run_at=START - 1),
    "other arguments": Edit(payload=b"2"),
    "another queue": Edit(queue="other"),
    "the same gates": Edit(gating=STRICT),
    "a gate more": Edit(gating=gated(order(), concurrency("k", 9))),
}
by_any_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
by_any_policy = pytest.mark.parametrize("policy", ["replace", "extend"])


class TestAStrictLaneKeepsItsOrder:
    @by_any_change
    def test_when_its_first_is_edited(self, scene: Scene, change: Edit) -> None:
        ids = scene.jobs(3, gating=STRICT)

        scene.act(change, ids[0])

        assert run_one_by_one(scene.worker(), 3) == ids

    @by_any_change
    def test_when_its_first_is_edited_and_waits_elsewhere(self, scene: Scene, change: Edit) -> None:
        # Only so its turn cannot be what keeps it first.
        both, ann = gated(order(), concurrency("k", 9)), scene.worker()
        scene.store.set_limit("concurrency", "k", 0, now=scene.now)
        ids = [scene.job(gating=both), scene.job(gating=STRICT)]
        assert ann.ids() == []

        scene.act(change, ids[0])
        scene.store.set_limit("concurrency", "k", 9, now=scene.now)

        assert run_one_by_one(ann, 2) == ids

    @by_any_change
    def test_when_its_first_is_edited_and_has_its_turn(self, scene: Scene, change: Edit) -> None:
        ids = scene.jobs(3, gating=STRICT)
        admit(scene)

        scene.act(change, ids[0])

        assert run_one_by_one(scene.worker(), 3) == ids

    @by_any_change
    def test_when_one_in_the_middle_is_edited(self, scene: Scene, change: Edit) -> None:
        ids = scene.jobs(3, gating=STRICT)

        scene.act(change, ids[1])

        assert run_one_by_one(scene.worker(), 3) == ids

    @by_any_policy
    @pytest.mark.parametrize("priority", [-5, 5])
    def test_when_its_first_is_replaced_or_extended(self, scene: Scene, policy: str, priority: int) -> None:
        both = keyed(order(), on_conflict=policy)
        ids = [scene.job(gating=both), *scene.jobs(2, gating=STRICT)]

        answer = store_one(scene, scene.row(gating=both, priority=priority))

        assert (answer.outcome, answer.id) == ("replaced" if policy == "replace" else "extended", ids[0])
        assert run_one_by_one(scene.worker(), 3) == ids

    def test_one_that_is_put_off_stands_where_it_stood_when_it_is_due(self, scene: Scene) -> None:
        first, second, third = scene.jobs(3, gating=STRICT)
        ann = scene.worker()
        scene.act(Edit(run_at=scene.stamp(60)), first)
        job = ann.take(second)

        scene.advance(60)

        ann.settle(job)
        assert run_one_by_one(ann, 2) == [first, third]

    @by_any_policy
    def test_one_that_another_row_puts_off_stands_where_it_stood_when_it_is_due(
        self, scene: Scene, policy: str
    ) -> None:
        both, ann = keyed(order(), on_conflict=policy), scene.worker()
        first = scene.job(gating=both)
        second, third = scene.jobs(2, gating=STRICT)
        store_one(scene, scene.row(gating=both, delay=60.0))
        job = ann.take(second)

        scene.advance(60)

        ann.settle(job)
        assert run_one_by_one(ann, 2) == [first, third]

    @pytest.mark.parametrize("change", [Edit(payload=b"2"), Edit(priority=3), Edit(run_at=START + 1), Edit(run_at=0)])
    def test_one_that_was_put_off_and_is_edited_stands_where_it_stood(self, scene: Scene, change: Edit) -> None:
        first, second, third = scene.jobs(3, gating=STRICT)
        ann = scene.worker()
        scene.act(Edit(run_at=scene.stamp(60)), first)
        job = ann.take(second)

        scene.act(change, first)

        scene.advance(60)
        ann.settle(job)
        assert run_one_by_one(ann, 2) == [first, third]

    def test_one_that_was_put_off_and_is_told_to_run_now_stands_where_it_stood(self, scene: Scene) -> None:
        ids = scene.jobs(3, gating=STRICT)
        scene.act(Edit(run_at=scene.stamp(60)), ids[0])

        scene.act(Retry(), ids[0])

        assert run_one_by_one(scene.worker(), 3) == ids

    def test_nobody_passes_one_that_is_put_off_while_it_has_its_turn(self, scene: Scene) -> None:
        ids, ann = scene.jobs(3, gating=STRICT), scene.worker()
        admit(scene)
        scene.act(Edit(run_at=scene.stamp(60)), ids[0])
        assert ann.ids() == []

        scene.advance(60)

        assert run_one_by_one(ann, 3) == ids

    @pytest.mark.parametrize(
        "change", [None, Edit(payload=b"2"), Edit(priority=3), Edit(run_at=START + 1), Edit(run_at=0)]
    )
    def test_one_that_came_for_later_has_no_place_before_its_time(self, scene: Scene, change: Edit | None) -> None:
        later = scene.job(gating=STRICT, delay=60.0)
        ids, ann = scene.jobs(2, gating=STRICT), scene.worker()
        if change is not None:
            scene.act(change, later)

        scene.advance(60)

        assert run_one_by_one(ann, 3) == [*ids, later]


class TestReplaceTakesTheGatesOfTheRow:
    def test_a_job_moved_to_another_tenant_waits_for_that_one(self, scene: Scene) -> None:
        id, ann = scene.job(gating=keyed(A)), scene.worker()
        running = ann.take(scene.job(gating=gated(B), priority=1))

        assert replace(scene, B).id == id

        assert ann.ids() == []
        assert (scene.state(id), waiting(scene)) == (State.BLOCKED, {"b": 1})
        ann.settle(running)
        assert ann.ids() == [id]
        assert tokens(scene) == {"b": 1}

    def test_what_it_had_of_the_old_gates_is_free(self, scene: Scene) -> None:
        id, other = scene.job(gating=keyed(A), priority=1), scene.job(gating=gated(A))
        admit(scene)
        assert tokens(scene) == {"a": 1}

        replace(scene, B)

        assert scene.worker().ids() == [other, id]
        assert tokens(scene) == {"a": 1, "b": 1}

    def test_a_line_goes_on_when_its_first_waits_elsewhere_now(self, scene: Scene) -> None:
        ann = scene.worker()
        running = ann.take(scene.job(gating=gated(A)))
        scene.job(gating=keyed(A)), (other := scene.job(gating=gated(A)))
        scene.store.set_limit("concurrency", "b", 0, now=scene.now)
        assert ann.ids() == []

        replace(scene, B)
        ann.settle(running)

        assert ann.ids() == [other]

    def test_an_open_breaker_is_not_passed(self, scene: Scene) -> None:
        id, ann = scene.job(gating=keyed()), scene.worker()
        scene.store.set_breaker("stripe", "open", now=scene.now)

        replace(scene, breaker())

        assert ann.ids() == []
        scene.store.set_breaker("stripe", "closed", now=scene.now)
        assert ann.ids() == [id]

    def test_the_first_gates_of_a_store_may_come_this_way(self, scene: Scene) -> None:
        id = scene.job(gating=keyed())

        replace(scene, Gate("concurrency", "a", 0))

        assert scene.worker().ids() == []
        assert scene.state(id) is State.BLOCKED

    def test_a_row_without_gates_has_nothing_to_wait_for(self, scene: Scene) -> None:
        ann = scene.worker()
        running = ann.take(scene.job(gating=gated(A)))
        id = scene.job(gating=keyed(A))
        assert ann.ids() == []

        replace(scene)

        assert scene.state(id) is State.AVAILABLE
        assert ann.ids() == [id]
        ann.settle(running)
        assert scene.store.gates(now=scene.now) == []

    @pytest.mark.parametrize("delay", [None, 60.0])
    def test_a_job_with_a_time_waits_at_the_new_gates_when_it_is_due(self, scene: Scene, delay: float | None) -> None:
        ann = scene.worker()
        running = ann.take(scene.job(gating=gated(B)))
        id = scene.job(gating=keyed(A), delay=delay)

        replace(scene, B, delay=30.0)

        assert scene.state(id) is State.SCHEDULED
        scene.advance(30)
        assert (ann.ids(), scene.state(id)) == ([], State.BLOCKED)
        ann.settle(running)
        assert ann.ids() == [id]

    def test_the_place_is_that_of_a_row_that_comes_now(self, scene: Scene) -> None:
        ann = scene.worker()
        running = ann.take(scene.job(gating=gated(B)))
        id, before = scene.job(gating=keyed(A)), scene.job(gating=gated(B))

        replace(scene, B)

        after = scene.job(gating=gated(B))
        ann.settle(running)
        assert run_one_by_one(ann, 3) == [before, id, after]

    @pytest.mark.parametrize("delay", [None, 60.0])
    @pytest.mark.parametrize("number", [2, 3])
    def test_and_are_the_newest_though_the_holder_said_the_same(
        self, scene: Scene, delay: float | None, number: int
    ) -> None:
        store_one(scene, scene.row(gating=keyed(concurrency("a", 2)), delay=delay))
        admit(scene)
        scene.job(gating=gated(A))
        admit(scene)

        replace(scene, concurrency("a", number), delay=delay)
        admit(scene)

        assert [row.gate.limit for row in scene.store.gates(["a"], now=scene.now)] == [number]

    def test_the_numbers_that_the_row_says_hold(self, scene: Scene) -> None:
        ann = scene.worker()
        id, other = scene.job(gating=keyed()), scene.job(gating=gated(A))
        ann.take(scene.job(gating=gated(A), priority=1))

        replace(scene, concurrency("a", 3))

        assert ann.ids() == [other, id]

    def test_the_lane_is_the_new_one(self, scene: Scene) -> None:
        ids = scene.jobs(3, gating=laned("a"))
        id = scene.job(gating=Gating(key_of(), lane="a"))

        store_one(scene, scene.row(gating=Gating(key_of(on_conflict="replace"), lane="b", weight=2)))

        assert scene.worker().ids() == [ids[0], id, *ids[1:]]

    def test_a_lane_is_left_for_a_gate(self, scene: Scene) -> None:
        ann = scene.worker()
        running = ann.take(scene.job(gating=gated(A)))
        id, others = scene.job(gating=Gating(key_of(), lane="a")), scene.jobs(2, gating=laned("a"))

        replace(scene, A)

        assert ann.ids() == others
        ann.settle(running)
        assert ann.ids() == [id]

    def test_a_gate_is_left_for_a_lane(self, scene: Scene) -> None:
        ann = scene.worker()
        ann.take(scene.job(gating=gated(A)))
        ids, id = scene.jobs(2, gating=laned("a")), scene.job(gating=keyed(A))

        store_one(scene, scene.row(gating=Gating(key_of(on_conflict="replace"), lane="b")))

        assert ann.ids() == [ids[0], id, ids[1]]

    def test_the_key_stays_as_it_was(self, scene: Scene) -> None:
        old = key_of(ttl=60.0, latest=50.0)
        id = scene.job(gating=Gating(old, "a", 3))
        new = key_of(until="started", ttl=5.0, latest=1.0, on_conflict="replace")

        assert store_one(scene, scene.row(gating=Gating(new, "b", 2, (A,)))).outcome == "replaced"

        assert scene.get(id).gating == Gating(old, "b", 2, (A,))
        scene.advance(6)
        assert store_one(scene, scene.row(gating=keyed())).id == id

    def test_the_gates_that_count_are_those_of_the_last_row_of_a_call(self, scene: Scene) -> None:
        id = scene.job(gating=keyed(A))
        rows = [scene.row(gating=keyed(*gates, on_conflict="replace")) for gates in ((B,), (A, B), (B,))]
        scene.store.enqueue(rows, now=scene.now)

        assert scene.worker().ids() == [id]
        assert tokens(scene) == {"b": 1}

    @pytest.mark.parametrize("admitted", [False, True])
    def test_in_another_strict_lane_it_is_the_last(self, scene: Scene, admitted: bool) -> None:
        id, other = scene.job(gating=keyed(order("x"))), scene.job(gating=gated(order("x")))
        ids, ann = scene.jobs(2, gating=gated(order("y"))), scene.worker()
        if admitted:
            admit(scene)

        replace(scene, order("y"))

        jobs = ann.claim()
        assert {job.id for job in jobs} == {other, ids[0]}
        for job in jobs:
            ann.settle(job)
        assert run_one_by_one(ann, 2) == [ids[1], id]

    def test_a_strict_lane_goes_on_when_the_one_it_waits_for_has_left_it(self, scene: Scene) -> None:
        id, ann = scene.job(gating=keyed(order())), scene.worker()
        other = scene.job(gating=STRICT)
        ann.fail(ann.take(id), delay=3600.0)
        assert ann.ids() == []

        replace(scene)

        assert sorted(ann.ids()) == sorted([id, other])

    def test_a_job_that_is_held_stays_held(self, scene: Scene) -> None:
        scene.store.limit_queue("default", QueueLimits(closed="hold"), now=scene.now)
        id, ann = scene.job(gating=keyed(A)), scene.worker()
        running = ann.take(scene.job(gating=gated(B), queue="other"))

        replace(scene, B)

        admit(scene)
        assert ann.ids() == []
        scene.store.limit_queue("default", None, now=scene.now)
        assert (ann.ids(), waiting(scene)) == ([], {"b": 1})
        ann.settle(running)
        assert ann.ids() == [id]

    def test_extend_leaves_the_gates_alone(self, scene: Scene) -> None:
        id = scene.job(gating=keyed(A))
        before = scene.get(id).gating

        store_one(scene, scene.row(gating=Gating(key_of(on_conflict="extend"), "b", 2, (B,))))

        assert scene.get(id).gating == before
        assert scene.worker().ids() == [id]
        assert tokens(scene) == {"a": 1}


class TestAnEditOfTheGating:
    def test_the_job_waits_at_its_new_gates(self, scene: Scene) -> None:
        id, ann = scene.job(gating=gated(A)), scene.worker()
        running = ann.take(scene.job(gating=gated(B), priority=1))

        assert scene.act(Edit(gating=gated(B)), id) == [id]

        assert (scene.state(id), scene.get(id).gating) == (State.BLOCKED, gated(B))
        assert (ann.ids(), waiting(scene)) == ([], {"b": 1})
        ann.settle(running)
        assert ann.ids() == [id]
        assert tokens(scene) == {"b": 1}

    def test_what_it_had_of_the_old_gates_is_free(self, scene: Scene) -> None:
        id, other = scene.job(gating=gated(A), priority=1), scene.job(gating=gated(A))
        admit(scene)

        scene.act(Edit(gating=gated(B), priority=0), id)

        assert scene.worker().ids() == [other, id]
        assert tokens(scene) == {"a": 1, "b": 1}

    def test_the_first_gates_of_a_store_may_come_this_way(self, scene: Scene) -> None:
        ids = scene.jobs(3)

        scene.act(Edit(gating=gated(A)), *ids)

        assert len(scene.worker().ids()) == 1

    def test_a_job_without_gates_has_nothing_to_wait_for(self, scene: Scene) -> None:
        ann = scene.worker()
        ann.take(scene.job(gating=gated(A)))
        id = scene.job(gating=gated(A))
        assert ann.ids() == []

        scene.act(Edit(gating=Gating()), id)

        assert (scene.state(id), scene.get(id).gating or Gating()) == (State.AVAILABLE, Gating())
        assert ann.ids() == [id]
        assert waiting(scene) == {}

    def test_the_numbers_that_it_says_hold(self, scene: Scene) -> None:
        ann = scene.worker()
        id, other = scene.job(), scene.job(gating=gated(A))
        ann.take(scene.job(gating=gated(A), priority=1))

        scene.act(Edit(gating=gated(concurrency("a", 3))), id)

        assert ann.ids() == [other, id]

    def test_the_place_is_that_of_a_row_that_comes_now(self, scene: Scene) -> None:
        ann = scene.worker()
        running = ann.take(scene.job(gating=gated(B)))
        id, before = scene.job(gating=gated(A)), scene.job(gating=gated(B))

        scene.act(Edit(gating=gated(B)), id)

        after = scene.job(gating=gated(B))
        ann.settle(running)
        assert run_one_by_one(ann, 3) == [before, id, after]

    def test_the_lane_is_the_new_one(self, scene: Scene) -> None:
        ids = scene.jobs(4, gating=laned("a"))

        scene.act(Edit(gating=laned("b")), ids[3])

        assert scene.worker().ids() == [ids[0], ids[3], *ids[1:3]]

    def test_the_weight_counts_from_now_on(self, scene: Scene) -> None:
        ids = scene.jobs(3, gating=laned("a"))
        others = scene.jobs(3, gating=laned("b"))

        scene.act(Edit(gating=laned("b", weight=50)), *others[1:])

        assert scene.worker().ids(4) == [ids[0], *others]

    def test_the_key_stays_as_it_was(self, scene: Scene) -> None:
        id = scene.job(gating=unique(ttl=60.0))

        scene.act(Edit(gating=Gating(key_of("another"), "b", 2)), id)
        scene.act(Edit(gating=gated(A)), id)

        assert scene.get(id).gating == Gating(key_of(ttl=60.0), gates=(A,))
        assert store_one(scene, scene.row(gating=unique())).id == id
        assert store_one(scene, scene.row(gating=unique("another"))).outcome == "inserted"

    def test_a_job_without_a_key_gets_none(self, scene: Scene) -> None:
        id = scene.job()

        scene.act(Edit(gating=unique()), id)

        assert scene.get(id).gating is None
        assert store_one(scene, scene.row(gating=unique())).outcome == "inserted"

    def test_the_same_gating_again_changes_nothing(self, scene: Scene) -> None:
        ids = scene.jobs(2, gating=gated(A))
        admit(scene)

        assert sorted(scene.act(Edit(gating=gated(A)), *ids)) == ids

        assert [scene.state(id) for id in ids] == [State.AVAILABLE, State.BLOCKED]
        assert (tokens(scene), waiting(scene)) == ({"a": 1}, {"a": 1})

    @pytest.mark.parametrize("gating", [None, gated(A), laned("a")])
    def test_the_same_gating_again_keeps_the_place(self, scene: Scene, gating: Gating | None) -> None:
        ids = scene.jobs(3, gating=gating)

        scene.act(Edit(gating=gating or Gating(), payload=b"2"), ids[0])

        assert run_one_by_one(scene.worker(), 3) == ids

    def test_of_many_those_that_had_it_keep_their_places(self, scene: Scene) -> None:
        plain, mine = scene.job(), scene.jobs(3, gating=laned("a"))

        scene.act(Edit(gating=laned("a")), plain, *mine)

        ann = scene.worker()
        assert ann.ids() == [*mine, plain]

    def test_a_job_that_waits_for_its_time_waits_at_the_new_gates_then(self, scene: Scene) -> None:
        ann = scene.worker()
        running = ann.take(scene.job(gating=gated(B)))
        id = scene.job(delay=30.0)

        scene.act(Edit(gating=gated(B)), id)

        assert (scene.state(id), scene.get(id).run_at) == (State.SCHEDULED, scene.stamp(30))
        scene.advance(30)
        assert (ann.ids(), scene.state(id)) == ([], State.BLOCKED)
        ann.settle(running)
        assert ann.ids() == [id]

    def test_a_job_may_be_put_off_and_moved_as_well(self, scene: Scene) -> None:
        ann = scene.worker()
        running = ann.take(scene.job(gating=gated(B)))
        id = scene.job(gating=gated(A))

        scene.act(Edit(gating=gated(B), queue="other", run_at=scene.stamp(30)), id)

        assert scene.state(id) is State.SCHEDULED
        scene.advance(30)
        assert ann.ids() == []
        ann.settle(running)
        assert ann.ids(10, "other") == [id]

    @pytest.mark.parametrize("admitted", [False, True])
    def test_in_another_strict_lane_it_is_the_last(self, scene: Scene, admitted: bool) -> None:
        id, other = scene.jobs(2, gating=gated(order("x")))
        ids, ann = scene.jobs(2, gating=gated(order("y"))), scene.worker()
        if admitted:
            admit(scene)

        scene.act(Edit(gating=gated(order("y"))), id)

        jobs = ann.claim()
        assert {job.id for job in jobs} == {other, ids[0]}
        for job in jobs:
            ann.settle(job)
        assert run_one_by_one(ann, 2) == [ids[1], id]

    def test_a_strict_lane_goes_on_when_the_one_it_waits_for_has_left_it(self, scene: Scene) -> None:
        id, other = scene.jobs(2, gating=STRICT)
        ann = scene.worker()
        ann.fail(ann.take(id), delay=3600.0)
        assert ann.ids() == []

        scene.act(Edit(gating=Gating()), id)

        assert ann.ids() == [other]
        assert tokens(scene) == {"account:1": 1}

    def test_a_job_that_is_held_stays_held(self, scene: Scene) -> None:
        scene.store.limit_queue("default", QueueLimits(closed="hold"), now=scene.now)
        id, ann = scene.job(gating=gated(A)), scene.worker()
        running = ann.take(scene.job(gating=gated(B), queue="other"))

        scene.act(Edit(gating=gated(B)), id)

        admit(scene)
        assert ann.ids() == []
        scene.store.limit_queue("default", None, now=scene.now)
        assert (ann.ids(), waiting(scene)) == ([], {"b": 1})
        ann.settle(running)
        assert ann.ids() == [id]

    def test_a_job_that_runs_is_not_touched(self, scene: Scene) -> None:
        id, ann = scene.job(gating=gated(A)), scene.worker()
        job = ann.take(id)

        assert scene.act(Edit(gating=gated(B)), id) == []
        assert scene.get(id).gating == gated(A)
        assert ann.settled(job) is True

    def test_it_outlives_the_end_of_the_job(self, scene: Scene) -> None:
        id, ann = scene.job(gating=gated(A)), scene.worker()
        scene.act(Edit(gating=gated(B)), id)
        ann.die(ann.take(id))
        ann.take(scene.job(gating=gated(B)))

        scene.act(Retry(), id)

        assert (ann.ids(), waiting(scene)) == ([], {"b": 1})

    def test_nothing_is_left_of_any_gate_in_the_end(self, scene: Scene) -> None:
        ids, ann = scene.jobs(6, gating=gated(A, order("x"))), scene.worker()
        for gating in (gated(B), gated(order("y"), B), laned("a"), gated(A, order("x")), Gating()):
            admit(scene)
            scene.act(Edit(gating=gating), *ids[1:])
        for _ in ids:
            for job in ann.claim():
                ann.settle(job)

        assert scene.store.count(Filter(states=(State.COMPLETED,))) == 6
        assert scene.store.gates(now=scene.now) == []
