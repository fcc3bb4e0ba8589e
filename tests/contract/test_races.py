"""Two hands at the same moment: whatever the order, both are told the same story, and no job is lost or doubled (P2)."""

from __future__ import annotations

from functools import partial

import pytest

from dayjob.states import Outcome, State
from dayjob.store.contract import Store
from dayjob.store.records import Cancel, Delete, Edit, Filter, Retry
from tests.contract.racing import at_once, both
from tests.contract.scene import Puppet, Scene

ROUNDS = 20


def drained(puppet: Puppet) -> list[str]:
    """Claim until nothing is left."""
    got: list[str] = []
    while batch := puppet.ids(7):
        got += batch
    return got


class TestRaces:
    def test_a_settlement_and_the_report_of_a_death_have_one_winner(self, scene: Scene, other: Store) -> None:
        for n in range(ROUNDS):
            id, ann = scene.job(), scene.worker(f"ann{n}")
            job = ann.take(id)

            accepted, gone = both(
                partial(ann.settled, job),
                partial(other.leave, ann.id, death="signal 9", now=scene.now),
            )

            assert gone is not None
            assert [taken.id for taken in gone.jobs] == ([] if accepted else [id])
            assert scene.state(id) is (State.COMPLETED if accepted else State.AVAILABLE)
            scene.act(Delete(), id)

    def test_a_late_beat_and_the_sweep_agree_on_who_lives(self, scene: Scene, other: Store) -> None:
        for n in range(5):
            id, ann = scene.job(), scene.worker(f"ann{n}")
            job = ann.take(id)
            scene.pass_time(18.0)
            scene.advance(3)
            scene.leader.beat()

            beat, gone = both(partial(ann.beat), partial(other.rescue, scene.term, now=scene.now))

            assert [each.worker.id for each in gone or []] == ([ann.id] if beat.lost else [])
            assert ann.settled(job) is not beat.lost
            scene.act(Delete(), id)
            ann.leave()

    def test_what_is_due_is_claimed_once_though_leader_and_turns_stage_it_at_once(
        self, scene: Scene, other: Store
    ) -> None:
        ids = [scene.job(delay=1.0 + n / 1000) for n in range(100)]
        scene.advance(2)
        ann, bob = scene.worker("ann"), scene.worker("bob", store=other)

        got = at_once(
            partial(drained, ann),
            partial(drained, bob),
            lambda: [] if scene.store.stage(scene.term, now=scene.now) else ["stale"],
        )

        assert sorted([*got[0], *got[1], *got[2], *drained(ann)]) == ids

    def test_a_cancel_and_a_claim_agree(self, scene: Scene, other: Store) -> None:
        ann = scene.worker()
        for _ in range(ROUNDS):
            id = scene.job()

            claimed, touched = both(partial(ann.ids, 1), partial(other.act, Filter(ids=(id,)), Cancel(), now=scene.now))

            row = scene.get(id)
            assert touched == [id]
            assert (row.state, row.cancelling) == ((State.RUNNING, True) if claimed else (State.CANCELLED, False))

    @pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.FAILED, Outcome.RELEASED, Outcome.DEAD])
    def test_a_cancel_and_a_settlement_agree(self, scene: Scene, other: Store, outcome: Outcome) -> None:
        ann = scene.worker()
        for _ in range(ROUNDS):
            id = scene.job()
            job = ann.take(id)

            accepted, touched = both(
                partial(ann.settled, job, outcome, delay=60.0),
                partial(other.act, Filter(ids=(id,)), Cancel(), now=scene.now),
            )

            # A success and a death that came first stand; whatever waits again is cancelled either way.
            settled_first = {Outcome.COMPLETED: State.COMPLETED, Outcome.DEAD: State.DEAD}.get(outcome)
            state = State.COMPLETED if outcome is Outcome.COMPLETED else State.CANCELLED
            assert accepted is True
            assert scene.state(id) is (state if touched or settled_first is None else settled_first)

    def test_an_edit_and_a_claim_agree(self, scene: Scene, other: Store) -> None:
        ann = scene.worker()
        for _ in range(ROUNDS):
            id = scene.job(payload=b"old")

            claimed, touched = both(
                partial(ann.claim, 1),
                partial(other.act, Filter(ids=(id,)), Edit(payload=b"new"), now=scene.now),
            )

            [job] = claimed
            assert job.payload == scene.get(id).payload == (b"new" if touched else b"old")
            assert ann.settled(job) is True

    def test_a_delete_and_a_claim_agree(self, scene: Scene, other: Store) -> None:
        ann = scene.worker()
        for _ in range(ROUNDS):
            id = scene.job()

            claimed, touched = both(partial(ann.ids, 1), partial(other.act, Filter(ids=(id,)), Delete(), now=scene.now))

            assert sorted([*claimed, *touched]) == [id]
            assert (scene.store.get(id) is None) == bool(touched)

    def test_a_retry_by_two_hands_runs_the_job_once(self, scene: Scene, other: Store) -> None:
        ann = scene.worker()
        for _ in range(ROUNDS):
            id = scene.job()
            ann.die(ann.take(id))
            dead = Filter(ids=(id,), states=(State.DEAD,))

            touched = at_once(*[partial(store.act, dead, Retry(), now=scene.now) for store in (scene.store, other)])

            assert sorted(touched) == [[], [id]]
            assert scene.get(id).round == 1
            ann.settle(ann.take(id))
            assert ann.ids() == []

    def test_a_retry_and_a_prune_agree(self, scene: Scene, other: Store) -> None:
        ann = scene.worker()
        for _ in range(ROUNDS):
            id = scene.job()
            ann.settle(ann.take(id), keep=1.0)
            scene.advance(2)

            pruned, touched = both(
                partial(scene.store.prune, scene.term, [], now=scene.now),
                partial(other.act, Filter(ids=(id,)), Retry(), now=scene.now),
            )

            assert (pruned, touched) in ((1, []), (0, [id]))
            assert ann.ids() == touched
            scene.leader.beat()

    def test_a_batch_settled_twice_counts_once(self, scene: Scene, other: Store) -> None:
        ann = scene.worker()
        twin = scene.worker("ann", store=other, beat=False)
        ids = scene.jobs(50)
        settlements = [ann.settlement(job, Outcome.FAILED, delay=60.0) for job in ann.claim(50)]

        first, second = both(partial(ann.turn, settlements), partial(twin.turn, settlements))

        assert len(first.refused) + len(second.refused) == 50
        assert [scene.get(id).attempt for id in ids] == [1] * 50

    def test_a_pause_and_a_claim_agree_from_the_next_claim_on(self, scene: Scene, other: Store) -> None:
        ann = scene.worker()
        for _ in range(ROUNDS):
            id = scene.job()

            claimed, _ = both(partial(ann.ids, 1), partial(other.pause, "default", True, now=scene.now))

            assert ann.ids() == []
            other.pause("default", False, now=scene.now)
            assert ann.ids() == ([] if claimed else [id])
