"""How much a script does: no more than its limit says, however much there is of what it passes by."""

from __future__ import annotations

from typing import Any

import pytest

from dayjob.errors import StoreUnavailable
from dayjob.states import Outcome, State
from dayjob.store import open_store
from dayjob.store.records import Bound, Cancel, Delete, Edit, Filter, Retry
from dayjob.store.redis import acts, cluster, inspector
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
    assert calls.of["evalsha"] in (3, 4)  # one more where the script had to be loaded first
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


def test_a_claim_looks_at_no_more_queues_than_jobs_are_wanted(scene: Scene, place: Redis) -> None:
    where = {scene.job(queue=f"q{n % 100:02}", priority=n % 3): (-(n % 3), n, f"q{n % 100:02}") for n in range(300)}
    ordered = sorted(where, key=where.__getitem__)
    ann = scene.worker()
    with Calls(place) as calls:
        assert ann.ids(5) == ordered[:5]
    assert calls.of["zrange"] < 20
    paused, out = where[ordered[5]][2], where[ordered[6]][2]
    scene.store.pause(paused, True)
    left = [id for id in ordered[5:] if where[id][2] not in (paused, out)]

    assert ann.ids(10, exclude=(out, "other")) == left[:10]
    assert ann.ids(300, exclude=(out,)) == left[10:]
    assert set(do(place, "ZRANGE", "{dayjob}:ready", 0, -1)) == {paused.encode(), out.encode()}


def test_a_queue_stands_where_its_first_job_stands(scene: Scene, place: Redis) -> None:
    ann = scene.worker()
    scene.jobs(10, queue="a", priority=1)
    scene.jobs(10, queue="b")
    scene.jobs(3, queue="a", delay=1.0)
    scene.act(Cancel(), *[job.id for job in ann.claim(3, "a")])
    scene.act(Edit(priority=5), scene.job(queue="b"))
    scene.act(Delete(), queue="a", limit=4)
    scene.advance(2)
    for job in ann.claim(7):
        ann.settle(job, Outcome.LOST if job.queue == "b" else Outcome.RELEASED)

    for kind in ("ready", "suspect"):
        listed = do(place, "ZRANGE", f"{{dayjob}}:{kind}", 0, -1)
        assert listed
        for queue in listed:
            key = f"{{dayjob}}:{kind}:{queue.decode()}"
            [first] = do(place, "ZRANGE", key, 0, 0)
            assert do(place, "ZSCORE", f"{{dayjob}}:{kind}", queue) == do(place, "ZSCORE", key, first)


@pytest.mark.parametrize("listed", [20_000, 10])
def test_jobs_that_only_move_between_states_are_all_found_and_counted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, listed: int
) -> None:
    """However often they move while they are looked for."""
    ids, ann, call = scene.jobs(50), scene.worker(), Server.call
    monkeypatch.setattr(inspector, "LISTED", listed)
    monkeypatch.setattr(inspector, "ENOUGH", 200)
    monkeypatch.setattr(acts, "ENOUGH", 200)

    def moved(server: Server, name: str, *arguments: Any) -> Any:
        reply = call(server, name, *arguments)
        with monkeypatch.context() as patch:
            patch.setattr(Server, "call", call)
            claimed = ann.claim(50)
            if not claimed:
                for number, batch in list(ann.batches.items()):
                    ann.turn([ann.settlement(job, Outcome.RELEASED) for job in batch])
                    del ann.batches[number]
        return reply

    monkeypatch.setattr(Server, "call", moved)
    which = Filter(states=(State.AVAILABLE, State.RUNNING))
    for _ in range(2):
        found = scene.store.find(which, limit=100).jobs
        assert [job.id for job in found] == ids[::-1]
        assert scene.store.count(Filter(states=which.states, task="shop.charge")) == 50
    one = scene.store.find(Filter(states=(State.RUNNING,)), limit=100).jobs
    assert {job.state for job in one} <= {State.RUNNING}


def test_no_script_gives_much_more_than_a_mebibyte(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [id for _ in range(10) for id in scene.jobs(20, payload=b"x" * 50_000)]
    largest, call = [0], Server.call

    def measured(server: Server, name: str, *arguments: Any) -> Any:
        reply = call(server, name, *arguments)
        largest.append(weight(reply))
        return reply

    monkeypatch.setattr(Server, "call", measured)
    which = Filter(states=(State.AVAILABLE,), task="shop.charge")
    assert scene.store.count(which) == scene.store.count(Filter(task="shop.charge")) == 200
    assert [job.id for job in scene.store.find(Filter(task="shop.charge"), limit=200).jobs] == ids[::-1]
    assert [job.id for job in scene.store.find(which, limit=200).jobs] == ids[::-1]
    assert len(scene.act(Edit(priority=1), task="shop.charge")) == 200

    assert max(largest) < 2.1 * (1 << 20)


def test_ids_that_are_gone_are_forgotten_in_pieces(scene: Scene, place: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "FORGOTTEN", 20)
    scene.act(Delete(), *scene.jobs(50))
    assert do(place, "ZCARD", "{dayjob}:gone") == 50
    scene.advance(3601)
    with Calls(place) as calls:
        assert scene.store.prune(scene.term, [], now=scene.now) == 0

    assert do(place, "EXISTS", "{dayjob}:gone") == 0
    assert calls.of["evalsha"] == 3


def test_replicas_that_are_gone_stop_neither_beats_nor_looks_and_cost_no_connection(
    scene: Scene, place: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"{place.url}?wait_replicas=1&wait_ms=20")
    ann, made, connect = scene.worker(store=store), [0], Server.connect

    def counted(server: Server) -> Any:
        made[0] += 1
        return connect(server)

    monkeypatch.setattr(Server, "connect", counted)
    with Calls(place) as calls:
        ann.beat()
        assert ann.claim(5) == []
        assert ann.leave() is not None
        ann.beat()
    assert calls.of.get("wait", 0) <= 1  # a connection's first, for no replica: may we wait at all?
    ids = scene.jobs(2)
    for call in (
        lambda: store.enqueue([scene.row()], now=scene.now),
        lambda: ann.claim(5),
        lambda: store.act(Filter(ids=(ids[0],)), Cancel(), now=scene.now),
        lambda: store.write("kind", "key", b"", now=scene.now),
    ):
        with pytest.raises(StoreUnavailable, match="0 of the 1 replicas"):
            call()
    store.close()

    assert made == [0]


def test_claims_that_came_one_by_one_are_forgotten_all_at_once(scene: Scene, place: Redis) -> None:
    ann = scene.worker()
    ids = scene.jobs(41)
    for _ in ids[:-1]:
        ann.settle(ann.take())
    ann.take(ids[-1])
    assert do(place, "HLEN", f"{{dayjob}}:lease:{ann.id}") == 41
    scene.advance(11)
    with Calls(place) as calls:
        ann.beat(held=[])

    assert calls.of["hdel"] < 15
    assert scene.state(ids[-1]) is State.AVAILABLE
    assert [do(place, "EXISTS", f"{{dayjob}}:{kind}:{ann.id}") for kind in ("lease", "held", "left")] == [0, 0, 0]


def test_a_bound_on_a_task_reads_what_has_finished_once_and_spares_what_finishes_again(
    scene: Scene, place: Redis
) -> None:
    ids, ann = scene.jobs(60, payload=b"x" * 10_000), scene.worker()
    for job in ann.claim(60):
        ann.die(job)
        scene.advance(0.1)
    bounds = [Bound(State.DEAD, 0, task="shop.charge")]
    with Calls(place) as calls:
        assert scene.store.prune(scene.term, bounds, limit=20, now=scene.now) == 20
        scene.advance(1.0)
        scene.act(Retry(), ids[30])
        ann.die(ann.take(ids[30]))
        assert scene.store.prune(scene.term, bounds, limit=20, now=scene.now) == 19
        assert scene.store.prune(scene.term, bounds, limit=20, now=scene.now) == 20
    assert [job.id for job in scene.store.find(Filter()).jobs] == [ids[30]]
    assert scene.store.prune(scene.term, bounds, limit=20, now=scene.now) == 1

    assert calls.of["hmget"] < 60


def test_of_many_queues_the_deepest_are_sampled(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "DEPTHS", 3)
    for n in range(5):
        scene.jobs(n + 1, queue=f"q{n}")
    scene.jobs(4, queue="later", delay=9.0)
    scene.store.sample(scene.term, now=scene.now)

    assert [(one.queue, one.name, one.value) for one in scene.store.history(0)] == [
        ("later", "depth:scheduled", 4),
        ("q3", "depth:available", 4),
        ("q4", "depth:available", 5),
    ]


def test_history_is_read_in_pieces(scene: Scene, place: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspector, "VALUES", 10)
    scene.jobs(1, queue="a")
    for _ in range(300):
        scene.store.sample(scene.term, now=scene.now)
        scene.advance(60)
    with Calls(place) as calls:
        assert len(scene.store.history(0)) == 300

    assert calls.of["evalsha"] == 60


def weight(reply: Any) -> int:
    if isinstance(reply, list):
        return sum(map(weight, reply))
    return len(reply) if isinstance(reply, bytes) else 8
