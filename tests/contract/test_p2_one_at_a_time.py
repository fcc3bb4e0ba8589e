"""P2 At least once, one at a time: whoever claims, and however many at once, a job is held by one worker."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import cast

import pytest

from dayjob.states import State
from dayjob.store.contract import Store
from tests.contract import child
from tests.contract.racing import at_once
from tests.contract.scene import Puppet, Scene


def drain(puppet: Puppet, limit: int = 7) -> list[str]:
    """Claim until nothing is left."""
    got: list[str] = []
    while batch := puppet.ids(limit):
        got += batch
    return got


def flat(lists: Sequence[list[str]]) -> list[str]:
    return sorted(id for each in lists for id in each)


class TestP2OneAtATime:
    def test_two_workers_never_hold_the_same_job(self, scene: Scene) -> None:
        ids = scene.jobs(5)
        ann, bob = scene.worker("ann"), scene.worker("bob")

        assert ann.ids(3) == ids[:3]
        assert bob.ids(3) == ids[3:]
        assert ann.ids(3) == bob.ids(3) == []

    def test_two_wants_of_one_turn_never_get_the_same_job(self, scene: Scene) -> None:
        ids = scene.jobs(5)
        ann = scene.worker()

        turn = ann.turn(wants=[ann.want(2, "default"), ann.want(2), ann.want(2)])

        assert [job.id for job in turn.claimed] == ids

    def test_the_next_claim_of_the_same_worker_gets_other_jobs(self, scene: Scene) -> None:
        ids = scene.jobs(4)
        ann = scene.worker()

        assert ann.ids(2) + ann.ids(2) == ids

    def test_a_claim_over_two_handles_sees_what_the_other_took(self, scene: Scene, other: Store) -> None:
        ids = scene.jobs(4)
        ann, bob = scene.worker("ann"), scene.worker("bob", store=other)

        assert [ann.ids(1), bob.ids(1), ann.ids(1), bob.ids(1)] == [[id] for id in ids]

    def test_threads_that_claim_at_once_share_the_jobs_out(self, scene: Scene, other: Store) -> None:
        ids = scene.jobs(400)
        crew = [scene.worker(f"w{n}", store=(scene.store, other)[n % 2]) for n in range(8)]

        got = at_once(*[partial(drain, puppet) for puppet in crew])

        assert flat(got) == ids

    def test_threads_of_one_worker_that_claim_under_different_numbers_share_the_jobs_out(self, scene: Scene) -> None:
        ids = scene.jobs(200)
        scene.worker("ann")
        hands = [scene.worker("ann", beat=False) for _ in range(4)]
        for n, hand in enumerate(hands):
            hand.number = n * 1000

        got = at_once(*[partial(drain, hand) for hand in hands])

        assert flat(got) == ids

    @pytest.mark.processes
    def test_processes_that_claim_at_once_share_the_jobs_out(self, scene: Scene) -> None:
        if not scene.engine.processes:
            pytest.skip("only this process can open it")
        ids = scene.jobs(500)

        with ExitStack() as stack:
            children = [
                stack.enter_context(child.started("claim_all", scene.engine.url, f"child{n}", str(scene.now)))
                for n in range(3)
            ]
            for each in children:
                child.go(each)
            got = [cast(list[str], child.answer(each)) for each in children]

        assert flat(got) == ids

    def test_enqueues_and_claims_that_overlap_lose_nothing(self, scene: Scene, other: Store) -> None:
        batches = [[scene.row() for _ in range(20)] for _ in range(10)]
        ann, bob = scene.worker("ann"), scene.worker("bob", store=other)

        def produce() -> list[str]:
            for batch in batches:
                scene.store.enqueue(batch, now=scene.now)
            return []

        def consume(puppet: Puppet) -> list[str]:
            got: list[str] = []
            while sum(map(len, gathered)) < 200:
                batch = puppet.ids(9)
                gathered.append(batch)
                got += batch
            return got

        gathered: list[list[str]] = []
        got = at_once(produce, partial(consume, ann), partial(consume, bob))

        assert flat(got) == sorted(row.id for batch in batches for row in batch)

    def test_a_job_claimed_is_running_and_says_by_whom(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        ann.take(id)

        assert (scene.state(id), scene.get(id).worker) == (State.RUNNING, ann.info.name)
