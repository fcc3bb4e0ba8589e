"""Keys, gates and full queues in an application's own transaction: they count with its commit, and leave nothing without."""

from __future__ import annotations

import threading

from dayjob.errors import JobExists, QueueClosed, QueueFull, StoreUnavailable
from dayjob.states import State
from dayjob.store.gating import Gating, QueueLimits
from dayjob.store.records import Filter
from tests.contract.gates.words import concurrency, gated, key_of, order, store_one, tokens, unique
from tests.contract.scene import Scene
from tests.contract.theirs import Theirs, effects, joinable

pytestmark = joinable


class TestJoinedKeys:
    def test_a_key_is_taken_with_the_commit(self, scene: Scene, app: Theirs) -> None:
        row = scene.row(gating=unique())
        [answer] = app.enqueue(row)
        app.commit()

        assert answer.outcome == "inserted"
        assert store_one(scene, scene.row(gating=unique())).id == row.id

    def test_a_rolled_back_transaction_leaves_no_lock(self, scene: Scene, app: Theirs) -> None:
        app.enqueue(scene.row(gating=unique()))
        app.rollback()

        assert store_one(scene, scene.row(gating=unique())).outcome == "inserted"

    def test_a_transaction_sees_its_own_keys(self, scene: Scene, app: Theirs) -> None:
        row = scene.row(gating=unique())
        app.enqueue(row)
        [answer] = app.enqueue(scene.row(gating=unique()))
        app.commit()

        assert (answer.outcome, answer.id) == ("existing", row.id)
        assert scene.worker().ids() == [row.id]

    def test_a_held_key_does_not_break_the_transaction(self, scene: Scene, app: Theirs) -> None:
        id = scene.job(gating=unique())
        free = scene.row()
        app.note("order 7")
        refused, stored = app.enqueue(scene.row(gating=unique(on_conflict="raise")), free)
        app.commit()

        assert isinstance(refused.error, JobExists)
        assert stored.outcome == "inserted"
        assert effects(scene.engine) == ["order 7"]
        assert scene.worker().ids() == [id, free.id]

    def test_a_replacement_counts_with_the_commit_and_never_without(self, scene: Scene, app: Theirs) -> None:
        id = scene.job(gating=unique(), payload=b"old")
        new = unique(on_conflict="replace")
        app.enqueue(scene.row(gating=new, payload=b"rolled back"))
        app.rollback()
        assert scene.get(id).payload == b"old"

        [answer] = app.enqueue(scene.row(gating=new, payload=b"new"))
        app.commit()

        assert (answer.outcome, answer.id, scene.get(id).payload) == ("replaced", id, b"new")

    def test_a_producer_that_meets_an_open_transaction_gets_the_key_that_was_rolled_back(
        self, scene: Scene, app: Theirs
    ) -> None:
        app.enqueue(scene.row(gating=unique()))
        row = scene.row(gating=unique())
        outcomes: list[str] = []

        def produce() -> None:
            while not outcomes:
                try:
                    outcomes.append(scene.store.enqueue([row], repeat=True, now=scene.now)[0].outcome)
                except StoreUnavailable:
                    continue

        producer = threading.Thread(target=produce)
        producer.start()
        producer.join(0.1)
        app.rollback()
        producer.join(10)

        assert outcomes == ["inserted"]


class TestJoinedGates:
    def test_a_job_of_a_transaction_waits_at_its_gates_from_the_commit_on(self, scene: Scene, app: Theirs) -> None:
        rows = [scene.row(gating=gated(concurrency())) for _ in range(2)]
        app.enqueue(*rows)
        app.commit()
        ann = scene.worker()

        assert ann.ids() == [rows[0].id]
        assert scene.state(rows[1].id) is State.BLOCKED

    def test_a_rolled_back_job_holds_no_token_and_no_place(self, scene: Scene, app: Theirs) -> None:
        app.enqueue(scene.row(gating=gated(concurrency())))
        app.rollback()
        id = scene.job(gating=gated(concurrency()))

        assert scene.worker().ids() == [id]
        assert tokens(scene) == {"tenant:1": 1}

    def test_a_job_that_completes_in_a_transaction_frees_its_token_with_the_commit(
        self, scene: Scene, app: Theirs
    ) -> None:
        first, second = scene.jobs(2, gating=gated(concurrency()))
        ann = scene.worker()
        job = ann.take(first)
        app.complete(ann, job)
        app.rollback()
        assert ann.ids() == []

        app.complete(ann, job)
        app.commit()

        assert ann.ids() == [second]

    def test_a_replacement_takes_its_gates_with_the_commit_and_never_without(self, scene: Scene, app: Theirs) -> None:
        id, other = scene.job(gating=Gating(key_of(), gates=(order(),))), scene.job(gating=gated(order()))
        ann = scene.worker()
        ann.fail(ann.take(id), delay=60.0)
        running = ann.take(scene.job(gating=gated(concurrency())))
        row = scene.row(gating=Gating(key_of(on_conflict="replace"), gates=(concurrency(),)))
        app.enqueue(row)
        app.rollback()
        assert ann.ids() == []

        [answer] = app.enqueue(row)
        app.commit()

        assert (answer.outcome, answer.id, scene.get(id).gating) == (
            "replaced",
            id,
            Gating(key_of(), gates=(concurrency(),)),
        )
        assert ann.ids() == [other]
        ann.settle(running)
        assert ann.ids() == [id]


class TestJoinedQueues:
    def test_a_full_queue_refuses_the_row_and_not_the_transaction(self, scene: Scene, app: Theirs) -> None:
        scene.store.limit_queue("default", QueueLimits(max_depth=1), now=scene.now)
        app.note("order 7")
        answers = app.enqueue(scene.row(), scene.row(), scene.row(queue="other"))
        app.commit()

        assert [answer.outcome for answer in answers] == ["inserted", "refused", "inserted"]
        assert isinstance(answers[1].error, QueueFull)
        assert effects(scene.engine) == ["order 7"]
        assert scene.store.count(Filter()) == 2

    def test_a_closed_queue_refuses_the_row_and_not_the_transaction(self, scene: Scene, app: Theirs) -> None:
        scene.store.limit_queue("default", QueueLimits(closed="refuse"), now=scene.now)
        app.note("order 7")
        [answer] = app.enqueue(scene.row())
        app.commit()

        assert isinstance(answer.error, QueueClosed)
        assert effects(scene.engine) == ["order 7"]
