"""How much a script does: no more than its limit says, however much there is of what it passes by."""

from __future__ import annotations

from dayjob.states import Outcome, State
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
