"""P10, second half: a job completes in the transaction of its writes, as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dayjob.errors import ConfigError
from dayjob.states import Outcome, State
from dayjob.store.callers import adapt, perform
from dayjob.store.contract import Store
from dayjob.store.records import Cancel, Claimed, Lease, Log
from tests.contract.engines import EngineUnderTest
from tests.contract.scene import Puppet, Scene
from tests.contract.test_p3_fenced import each_way, everything
from tests.contract.theirs import Theirs, connect, effects, joinable

pytestmark = joinable


def standing(store: Store, worker: Puppet, job: Claimed) -> str:
    return store.standing(Lease(worker.id, job.id, job.entry))


class TestP10Completion:
    def test_a_job_completes_with_the_commit(self, scene: Scene, app: Theirs) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        app.note("paid")
        done = app.complete(ann, job, result=b'"paid"')
        before = scene.state(id)
        app.commit()
        after = scene.get(id)

        assert done is True
        assert before is State.RUNNING
        assert (after.state, after.result, after.attempt, after.worker) == (State.COMPLETED, b'"paid"', 1, "ann")
        assert effects(scene.engine) == ["paid"]
        assert standing(scene.store, ann, job) == "completed"

    def test_it_looks_like_one_that_was_settled(self, scene: Scene, app: Theirs) -> None:
        fields = {"tags": '["vip"]', "meta": '{"by":"web"}', "priority": 3, "options": b"x"}
        one, other = scene.job(**fields), scene.job(**fields)
        ann = scene.worker()
        first, second = ann.claim(2)
        ann.settle(second, result=b"1", keep=60.0)
        app.complete(ann, first, result=b"1", keep=60.0)
        app.commit()
        joined, settled = scene.get(one), scene.get(other)

        settled.id, settled.entry = joined.id, joined.entry
        assert joined == settled

    def test_without_the_commit_it_runs_on_as_before(self, scene: Scene, app: Theirs) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        before = everything(scene, id)
        app.complete(ann, job, [Log(scene.now, "info", "never said")])
        app.rollback()

        assert everything(scene, id) == before
        assert standing(scene.store, ann, job) == "held"
        assert ann.fail(job) is True
        assert scene.state(id) is State.SCHEDULED

    def test_it_can_be_tried_again_in_another_transaction(self, scene: Scene, app: Theirs) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        app.complete(ann, job, result=b"1")
        app.rollback()
        done = app.complete(ann, job, result=b"2")
        app.commit()

        assert done is True
        assert scene.get(id).result == b"2"

    @each_way
    def test_a_stale_worker_completes_nothing(
        self, scene: Scene, app: Theirs, lose: Callable[[Scene, Puppet, Claimed], None]
    ) -> None:
        id, ann = scene.job(), scene.worker("ann")
        job = ann.take(id)
        lose(scene, ann, job)
        before = everything(scene, id)
        done = app.complete(ann, job, [Log(scene.now, "info", "late")], result=b"late")
        app.commit()

        assert done is False
        assert everything(scene, id) == before

    def test_on_a_connection_to_another_place_nothing_is_completed_and_the_lease_not_taken_for_lost(
        self, scene: Scene, engine: EngineUnderTest, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        other = type(engine)(tmp_path_factory.mktemp("elsewhere"))
        other.store()
        elsewhere = connect(other)
        settlement = ann.settlement(job, Outcome.COMPLETED)

        with pytest.raises(ConfigError, match=r"app\.outbox"):
            perform(
                scene.store,
                adapt(elsewhere),
                scene.store.completion_script(Lease(ann.id, job.id, job.entry), settlement),
            )
        elsewhere.commit()

        assert standing(scene.store, ann, job) == "held"
        elsewhere.close()
        other.close()

    def test_another_worker_completes_nothing_though_it_knows_the_entry(self, scene: Scene, app: Theirs) -> None:
        id, ann, bob = scene.job(), scene.worker("ann"), scene.worker("bob")
        job = ann.take(id)

        assert app.complete(bob, job) is False
        assert app.complete(ann, job) is True

    def test_it_completes_once(self, scene: Scene, app: Theirs) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        app.complete(ann, job, result=b"first")
        again = app.complete(ann, job, result=b"second")
        app.commit()
        later = app.complete(ann, job, result=b"third")
        app.commit()

        assert (again, later) == (False, False)
        assert scene.get(id).result == b"first"

    @pytest.mark.parametrize("outcome", list(Outcome))
    def test_it_cannot_be_settled_as_well(self, scene: Scene, app: Theirs, outcome: Outcome) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        app.complete(ann, job)
        app.commit()
        before = everything(scene, id)

        assert ann.settled(job, outcome) is False
        assert everything(scene, id) == before

    def test_what_became_of_it_is_known_at_every_moment(self, scene: Scene, app: Theirs) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        seen = [standing(scene.store, ann, job)]
        app.complete(ann, job)
        seen.append(standing(scene.store, ann, job))
        app.rollback()
        seen.append(standing(scene.store, ann, job))
        ann.leave()
        seen.append(standing(scene.store, ann, job))

        undecided = "open" if scene.store.system == "postgresql" else "held"
        assert seen == ["held", undecided, "held", "lost"]

    def test_a_completed_job_that_has_gone_since_is_still_known_as_completed(self, scene: Scene, app: Theirs) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        app.complete(ann, job, keep=0.0)
        app.commit()
        first = standing(scene.store, ann, job)
        scene.advance(1)
        gone = scene.store.prune(scene.term, [], now=scene.now)

        assert gone == 1
        assert (first, standing(scene.store, ann, job)) == ("completed", "completed")
        assert scene.store.get(id) is None
        assert scene.store.enqueue([scene.row(id=id)], repeat=True, now=scene.now)[0].outcome == "existing"

    def test_nobody_takes_it_away_while_the_transaction_is_open(self, scene: Scene, app: Theirs) -> None:
        if scene.store.system != "postgresql":
            pytest.skip("nobody else can write meanwhile")
        id, ann = scene.job(), scene.worker("ann")
        job = ann.take(id)
        app.complete(ann, job, result=b"mine")
        scene.crash(ann)
        app.commit()

        assert scene.get(id).result == b"mine"
        assert scene.worker("bob").claim(suspects=True) == []

    def test_and_it_is_rescued_when_that_is_rolled_back(self, scene: Scene, app: Theirs) -> None:
        if scene.store.system != "postgresql":
            pytest.skip("nobody else can write meanwhile")
        id, ann = scene.job(), scene.worker("ann")
        app.complete(ann, ann.take(id))
        scene.crash(ann)
        app.rollback()
        rescued = scene.pass_time(10.0)

        assert [job.id for gone in rescued for job in gone.jobs] == [id]
        assert scene.state(id) is State.AVAILABLE

    @pytest.mark.parametrize("later", [10.0, 3 * 86_400.0], ids=["soon", "after days"])
    def test_nor_is_it_forgotten_when_its_worker_leaves_before_the_rollback(
        self, scene: Scene, app: Theirs, later: float
    ) -> None:
        if scene.store.system != "postgresql":
            pytest.skip("nobody else can write meanwhile")
        id, ann = scene.job(), scene.worker("ann")
        app.complete(ann, ann.take(id))
        ann.leave()
        if later > 60.0:
            scene.advance(later)
            scene.leader.beat()
            scene.store.prune(scene.leader.lead(), [], now=scene.now)
        app.rollback()
        scene.pass_time(10.0)
        row = scene.get(id)

        assert (row.state, row.crashes, row.attempts) == (State.AVAILABLE, 0, [])  # no suspect: it ended in good order
        assert scene.worker("bob").ids() == [id]

    def test_nobody_looks_for_a_worker_that_left_before_the_commit(self, scene: Scene, app: Theirs) -> None:
        if scene.store.system != "postgresql":
            pytest.skip("nobody else can write meanwhile")
        id, ann = scene.job(), scene.worker("ann")
        app.complete(ann, ann.take(id))
        ann.leave()
        app.commit()
        gone = scene.pass_time(10.0)

        assert scene.state(id) is State.COMPLETED
        assert gone == []

    def test_who_completes_is_not_cancelled(self, scene: Scene, app: Theirs) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        scene.act(Cancel(), id)
        app.complete(ann, job)
        app.commit()

        assert scene.state(id) is State.COMPLETED

    def test_its_last_lines_are_kept_with_it(self, scene: Scene, app: Theirs) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        ann.record(job, Log(scene.now, "info", "first"))
        app.complete(ann, job, [Log(scene.now, "warning", "a\0b"), Log(scene.now, "info", "last é")])
        app.commit()

        lines = [(line.level, line.message) for line in scene.store.logs(id)]
        assert lines == [("info", "first"), ("warning", f"a{scene.engine.nul}b"), ("info", "last é")]

    def test_jobs_that_it_enqueues_come_with_it(self, scene: Scene, app: Theirs) -> None:
        id, next = scene.job(), scene.row()
        ann = scene.worker()
        job = ann.take(id)
        app.enqueue(next)
        app.complete(ann, job)
        app.commit()

        assert scene.state(id) is State.COMPLETED
        assert ann.ids() == [next.id]

    def test_its_batch_is_forgotten_when_all_of_it_has_ended(self, scene: Scene, app: Theirs) -> None:
        scene.jobs(2)
        ann = scene.worker()
        one, two = ann.claim(2)
        app.complete(ann, one)
        app.commit()
        ann.settle(two)
        scene.advance(11)
        ann.beat(held=[])

        assert [row.held for row in scene.store.workers(now=scene.now) if row.info.name == "ann"] == [0]
