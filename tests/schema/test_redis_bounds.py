"""How much a script does: no more than its limit says, however much there is of what it passes by."""

from __future__ import annotations

from typing import Any

import pytest

from dayjob.errors import StoreUnavailable
from dayjob.states import Outcome, State
from dayjob.store.redis import cluster
from dayjob.store.redis.server import Server
from tests.contract.engines import Redis
from tests.contract.scene import Scene
from tests.schema.redis_place import do, place, scene

__all__ = ["place", "scene"]


def commands(place: Redis) -> dict[str, int]:
    """How often each command was called on the server, those of scripts included."""
    told = place.server.do("INFO", "commandstats")
    return {name.removeprefix("cmdstat_").lower(): int(said["calls"]) for name, said in told.items()}


class Calls:
    """The calls of a command while this is open."""

    def __init__(self, place: Redis) -> None:
        self._place = place

    def __enter__(self) -> Calls:
        self._before = commands(self._place)
        return self

    def __exit__(self, *_: object) -> None:
        after = commands(self._place)
        self.of = {name: count - self._before.get(name, 0) for name, count in after.items()}


def test_running_jobs_do_not_expire_and_no_stage_reads_them(scene: Scene, place: Redis) -> None:
    ann = scene.worker()
    ids = scene.jobs(40, expires=10.0)
    jobs = ann.claim(40)
    assert do(place, "ZCARD", "{dayjob}:expires") == 0
    scene.advance(20)
    with Calls(place) as calls:
        assert scene.store.stage(scene.term, now=scene.now) == (0, None)

    assert calls.of.get("hexists", 0) < 10
    ann.turn([ann.settlement(job, Outcome.COMPLETED) for job in jobs])
    assert scene.state(ids[0]) is State.COMPLETED


def test_a_released_job_that_never_started_may_still_expire(scene: Scene) -> None:
    ann, id, begun = scene.worker(), scene.job(expires=10.0), scene.job(expires=10.0)
    first, second = ann.claim(2)
    ann.settle(first, Outcome.RELEASED, started_at=0)
    ann.settle(second, Outcome.RELEASED)
    scene.advance(20)

    assert scene.store.stage(scene.term, now=scene.now) == (1, None)
    assert (scene.get(id).state, scene.get(id).reason) == (State.CANCELLED, "expired")
    assert scene.state(begun) is State.AVAILABLE


@pytest.mark.parametrize("death", [None, "signal 9 (SIGKILL)"])
def test_workers_are_given_up_in_pieces_and_told_of_as_wholes(
    scene: Scene, place: Redis, death: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "AT_ONCE", 10)
    ids = scene.jobs(90)
    ann, bob, carl = scene.worker("ann"), scene.worker("bob"), scene.worker("carl")
    for puppet in (ann, bob, carl):
        for _ in range(6):
            assert len(puppet.claim(5)) == 5
    with Calls(place) as calls:
        gone = carl.leave(death)
    assert gone is not None
    assert [job.id for job in gone.jobs] == ids[60:]
    assert calls.of["evalsha"] == 3
    with Calls(place) as calls:
        swept = scene.pass_time(30.0)

    assert {one.worker.id: sorted(job.id for job in one.jobs) for one in swept} == {
        ann.id: ids[:30],
        bob.id: ids[30:60],
    }
    assert len(swept) == 2
    assert calls.of["evalsha"] >= 6
    assert ann.beat().lost


def test_p4_a_sweep_that_ends_in_the_middle_leaves_nothing_behind_and_its_worker_is_over(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "AT_ONCE", 10)
    ids, ann, call = scene.jobs(30), scene.worker(), Server.call
    for _ in range(3):
        ann.claim(10)
    swept: list[str] = []

    def once(server: Server, name: str, *arguments: Any) -> Any:
        if name == "rescue" and swept:
            raise StoreUnavailable("gone")
        swept.extend([name] if name == "rescue" else [])
        return call(server, name, *arguments)

    for _ in range(5):
        scene.advance(5.0)
        scene.leader.beat()
    monkeypatch.setattr(Server, "call", once)
    assert [len(one.jobs) for one in scene.rescue()] == [10]
    monkeypatch.setattr(Server, "call", call)
    assert ann.beat().lost
    assert ann.claim(10) == []
    assert ann.leave() is None
    scene.store.prune(scene.term, [], now=scene.now)

    assert [[job.id for job in one.jobs] for one in scene.rescue()] == [ids[10:]]
    assert scene.rescue() == []
