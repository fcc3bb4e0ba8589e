"""Keys, lanes and gates in the server: nothing stays behind jobs that are gone, and who has none of them pays nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from dayjob.errors import QueueFull
from dayjob.states import Outcome, State
from dayjob.store.gating import Gate, Gating, QueueLimits, Report, Unique
from dayjob.store.records import Bound, Cancel, Delete, Edit, Filter, Retry, Want
from dayjob.store.redis.scripts import script, sources
from tests.contract.engines import Redis
from tests.contract.scene import Scene
from tests.schema.redis_place import do, place, scene
from tests.schema.test_redis_bounds import Calls
from tests.schema.test_redis_keys import ALWAYS, keys

__all__ = ["place", "scene"]


def all_of_it(n: int) -> Gating:
    """A key, and gates of every kind."""
    gates = (
        Gate("concurrency", f"c{n % 3}", 2), Gate("rate", f"r{n % 2}", 5, 10.0), Gate("order", f"o{n}"),
        Gate("breaker", "b"),
    )  # fmt: skip
    return Gating(Unique(f"{n:032x}", f"key {n}", ttl=3600.0), None, 1, gates)


def swept(scene: Scene) -> set[bytes]:
    """The keys that are left when all times are over."""
    for _ in range(3):
        scene.advance(4 * 86400)
        scene.leader.beat()
        scene.store.admit(scene.leader.lead(), now=scene.now)
        scene.store.prune(scene.term, [Bound(state, 0) for state in State if state.terminal], now=scene.now)
    scene.leader.leave()
    return keys(scene.engine)  # type: ignore[arg-type]


def regated(scene: Scene, ids: list[str]) -> None:
    """One half has other gates, then a lane, the other is put off where it stands."""
    scene.act(Edit(gating=all_of_it(50)), *ids[::2])
    scene.store.admit(scene.term, now=scene.now)
    scene.act(Edit(gating=Gating(lane="x", weight=2)), *ids[::4])
    scene.act(Edit(run_at=scene.stamp(60)), *ids[1::2])
    assert {scene.state(id) for id in ids} == {State.SCHEDULED, State.BLOCKED, State.AVAILABLE}


def replaced(scene: Scene, ids: list[str]) -> None:
    """Those with a key have the gates of others."""
    keys = [gating.unique for id in ids if (gating := scene.get(id).gating) and gating.unique]
    rows = [
        scene.row(gating=Gating(replace(key, on_conflict="replace"), gates=all_of_it(n + 7).gates), expires=100.0)
        for n, key in enumerate(keys)
    ]
    answers = scene.store.enqueue(rows, now=scene.now)
    assert {answer.outcome for answer in answers} == {"replaced"}


EXITS: dict[str, Callable[[Scene, list[str]], object]] = {
    "cancelled": lambda scene, ids: scene.act(Cancel(), *ids),
    "deleted": lambda scene, ids: scene.act(Delete(), *ids),
    "edited": lambda scene, ids: (scene.act(Edit(queue="other", priority=3), *ids), scene.act(Delete(), *ids)),
    "given other gates": lambda scene, ids: (regated(scene, ids), scene.act(Delete(), *ids)),
    "given none": lambda scene, ids: (
        regated(scene, ids),
        scene.act(Edit(gating=Gating()), *ids),
        scene.act(Cancel(), *ids),
    ),
    "replaced": lambda scene, ids: (replaced(scene, ids), scene.act(Delete(), *ids)),
    "expired": lambda scene, _: (scene.advance(101), scene.store.stage(scene.term, now=scene.now)),
}


@pytest.mark.parametrize("way", EXITS)
def test_nothing_of_a_gate_stays_behind_jobs_that_left_while_they_waited(scene: Scene, place: Redis, way: str) -> None:
    ids = [scene.job(gating=all_of_it(n), expires=100.0, delay=None if n % 4 else 50.0) for n in range(20)]
    ids += [scene.job(gating=Gating(lane=f"lane {n % 2}"), expires=100.0) for n in range(4)]
    scene.store.admit(scene.term, now=scene.now)
    assert {scene.state(id) for id in ids} == {State.SCHEDULED, State.BLOCKED, State.AVAILABLE}
    assert len(keys(place)) > 30

    EXITS[way](scene, ids)

    assert swept(scene) == ALWAYS
    assert do(place, "HGET", "{dayjob}:meta", "gated") is None


def test_nothing_of_a_gate_stays_behind_jobs_that_ran(scene: Scene, place: Redis) -> None:
    ann, solo = scene.worker(), scene.worker("solo", solo=True)
    for n, outcome in enumerate(Outcome):
        id = scene.job(gating=all_of_it(n))
        scene.store.admit(scene.term, now=scene.now)
        [job] = ann.turn(wants=[Want(None, 1, id=id)]).claimed
        ann.settle(job, outcome, delay=1.0)
        scene.advance(11)
    for _ in range(30):
        scene.leader.beat()
        for worker in (ann, solo):
            worker.beat()
            for job in worker.claim():
                worker.settle(job)
        later = [job.id for job in scene.store.find(Filter(states=(State.SCHEDULED,))).jobs]
        if later:
            scene.act(Retry(), *later)
        scene.advance(11)
    assert {job.state for job in scene.store.find(Filter()).jobs} <= {State.COMPLETED, State.DEAD, State.CANCELLED}
    ann.leave()
    solo.leave()

    assert swept(scene) == ALWAYS


def test_nothing_stays_behind_limits_breakers_and_guests(scene: Scene, place: Redis) -> None:
    store, now = scene.store, scene.now
    gates = (Gate("concurrency", "c", 1), Gate("rate", "r", 1, 10.0))
    store.limit_queue("default", QueueLimits(max_depth=9, rate=5, concurrency=5, closed="hold"), now=now)
    scene.jobs(2)
    scene.job(delay=1.0)
    store.set_limit("concurrency", "c", 3, now=now)
    store.delay_gate("rate", "r", 5.0, now=now)
    assert store.take(gates[:1], "guest", 60.0, now=now) is None
    assert store.take(gates[:1], "other", 60.0, now=now) is None
    assert store.give("other", now=now)
    store.report([Report("b", True, 2, 60.0, 30.0)], now=now)
    store.set_breaker("other", "open", now=now)

    store.set_breaker("other", "closed", now=now)
    store.set_limit("concurrency", "c", None, now=now)
    store.limit_queue("default", None, now=now)
    ann = scene.worker()
    scene.advance(2)
    ann.claim()
    for job in ann.claim() or [job for batch in ann.batches.values() for job in batch]:
        ann.settle(job)
    ann.leave()

    assert swept(scene) == ALWAYS


def test_jobs_without_gates_cost_not_one_command_more_for_those_of_others(scene: Scene, place: Redis) -> None:
    """But for what a turn asks once."""
    ann = scene.worker()

    def drained() -> int:
        ids = scene.jobs(500)
        with Calls(place) as calls:
            jobs = ann.claim(500)
            ann.turn([ann.settlement(job, Outcome.COMPLETED) for job in jobs])
        assert [job.id for job in jobs] == ids
        return sum(calls.of.values())

    drained()
    before = drained()
    scene.jobs(3, queue="other", gating=Gating(gates=(Gate("concurrency", "c", 1),)), delay=1e6)
    drained()

    assert drained() - before < 20


def test_a_claim_does_not_ask_for_gates_of_jobs_that_have_none(scene: Scene, place: Redis) -> None:
    """Where a million others have some, to look for what is not there took the server half of its time."""
    ann = scene.worker()

    def asked() -> int:
        scene.jobs(10)
        with Calls(place) as calls:
            ann.claim(10)
        return calls.of["hmget"]

    scene.job(delay=1e6)
    before = asked()
    scene.jobs(3, queue="other", gating=Gating(gates=(Gate("concurrency", "c", 1),)), delay=1e6)

    assert asked() == before


def test_gates_that_a_job_was_given_later_are_known_when_it_is_claimed(scene: Scene, place: Redis) -> None:
    laned, rated = scene.jobs(2)
    scene.act(Edit(gating=Gating(lane="x")), laned)
    scene.act(Edit(gating=Gating(gates=(Gate("rate", "r", 5, 60.0),))), rated)
    ann = scene.worker()

    assert {job.id for job in ann.claim()} == {laned, rated}
    assert do(place, "EXISTS", "{dayjob}:lane:default\0000\0x") == 0
    [(member, stamp)] = do(place, "ZRANGE", "{dayjob}:token:rr", 0, -1, "WITHSCORES")
    assert (int(stamp), member[:36].decode()) == (scene.now, rated), "the rate counts from here"


def made(place: Redis, until: str) -> int:
    """Bytes of all that an empty turn makes before its line *until*."""
    before = "collectgarbage('stop')\nlocal before = collectgarbage('count')\n"
    after = "\ndo\nlocal made = collectgarbage('count') - before\ncollectgarbage('restart')\nreturn math.floor(made * 1024)\nend"
    text = script("turn", "{dayjob}:").text
    assert text.count(until) == 1
    line = text.index(until)
    turn = f"{before}{text[:line]}{after}\n{text[line:]}"
    return int(do(place, "EVAL", turn, 1, "{dayjob}:meta", "", "", "nobody", "", "", "", ""))


def test_where_no_job_has_gates_their_functions_are_not_even_made(scene: Scene, place: Redis) -> None:
    """The server makes all functions of a script anew in each call: those of gates took half of the time of a small turn."""
    without = made(place, "\nlocal now =")
    scene.jobs(1, gating=all_of_it(0))

    assert without < 0.7 * made(place, "\nlocal now =")


def test_where_there_is_nobody_to_let_in_the_functions_for_it_are_not_made(scene: Scene, place: Redis) -> None:
    scene.jobs(1, gating=all_of_it(0))
    with_them = made(place, "\nlocal function enough(")
    scene.store.admit(scene.term, now=scene.now)

    assert made(place, "\nlocal function enough(") < 0.9 * with_them


TOP = re.compile(r"^local (?:function )?([\w, ]+?)(?=\(| =|$)", re.MULTILINE)


@pytest.mark.parametrize(
    "name", [name for name, text in sources().items() if "/" not in name and "-- Calls:" not in text]
)
def test_no_name_stands_for_two_things_at_the_top_of_a_script(name: str) -> None:
    """A piece that is put in would hide what the lines behind it mean."""
    declared = TOP.findall(script(name, "{dayjob}:").text)

    names = Counter(one.strip() for line in declared for one in line.split(","))

    assert [one for one, count in names.items() if count > 1] == []


def test_a_turn_looks_at_what_it_admits_and_not_at_what_waits(scene: Scene, place: Redis) -> None:
    gating = Gating(gates=(Gate("concurrency", "c", 1),))
    scene.jobs(1000, gating=gating)
    ann = scene.worker()

    def turn() -> int:
        [job] = ann.claim()
        with Calls(place) as calls:
            ann.settle(job)
        return sum(calls.of.values())

    turn()
    before = turn()
    for _ in range(5):
        scene.jobs(1000, gating=gating)
    turn()

    assert turn() == before


def test_two_lines_that_stand_at_one_score_do_not_stop_an_admission(scene: Scene, place: Redis) -> None:
    [first, second] = [scene.job(gating=Gating(gates=(Gate("concurrency", name, 1),))) for name in "ab"]
    wait = next(key for key in keys(place) if key.endswith(b":wait:*"))
    one, other = do(place, "ZRANGE", wait, 0, -1)
    do(place, "ZADD", wait, do(place, "ZSCORE", wait, one), other)  # by somebody's hand: no script makes it

    assert scene.store.admit(scene.term, limit=1, now=scene.now) is not None
    assert [scene.state(id) for id in (first, second)] == [State.AVAILABLE, State.BLOCKED]
    assert len(scene.worker().claim(2)) == 2


def test_admission_claim_and_release_cost_commands_for_each_key_and_not_for_each_job(
    scene: Scene, place: Redis
) -> None:
    ann = scene.worker()

    def drained(jobs: int) -> int:
        rows = [
            scene.row(
                queue=f"q{n % 2}", gating=Gating(gates=(Gate("concurrency", f"c{n % 5}", 1000), Gate("breaker", "b")))
            )
            for n in range(jobs)
        ]
        scene.store.enqueue(rows, now=scene.now)
        with Calls(place) as calls:
            claimed = ann.claim(jobs)
            ann.turn([ann.settlement(job, Outcome.COMPLETED) for job in claimed])
        assert len(claimed) == jobs
        return sum(calls.of.values())

    drained(100)
    few = drained(100)

    assert few < 180
    assert drained(400) - few < 30


def test_a_job_that_runs_since_before_a_breaker_opened_does_not_hold_up_the_probe(scene: Scene, place: Redis) -> None:
    behind, ann = Gating(gates=(Gate("breaker", "b"),)), scene.worker()
    long = ann.take(scene.job(gating=behind))
    ids = scene.jobs(3, gating=behind)
    scene.store.report([Report("b", True, 1, 60.0, 10.0)], now=scene.now)
    scene.advance(10.01)

    [job] = ann.claim()
    assert job.id == ids[0]
    ann.settle(long)
    assert ann.ids() == []
    ann.settle(job)
    assert ann.ids() == ids[1:2]


def test_who_leaves_a_lane_gives_its_turn_to_who_comes_in_the_same_call(scene: Scene) -> None:
    others = scene.jobs(3, gating=Gating(lane="c"))
    key = Unique("0" * 32, "k", on_conflict="replace")
    gatings = (Gating(lane="a"), Gating(key, "a"), Gating(key, "b"), Gating(lane="a"))
    rows = [scene.row(gating=gating) for gating in gatings]

    scene.store.enqueue(rows, now=scene.now)

    first, moved, _, second = (row.id for row in rows)
    assert scene.worker().ids() == [others[0], first, moved, others[1], second, others[2]]


def test_of_a_queue_that_is_far_too_full_one_call_sheds_no_more_than_it_stores(scene: Scene) -> None:
    scene.jobs(50)
    scene.store.limit_queue("default", QueueLimits(max_depth=2, when_full="drop_oldest"), now=scene.now)

    scene.jobs(3)

    assert scene.store.count(Filter(states=(State.AVAILABLE,))) == 50
    assert scene.store.count(Filter(states=(State.DEAD,))) == 3


def test_a_full_queue_whose_jobs_are_all_due_after_a_thousand_others_refuses_the_newcomer(scene: Scene) -> None:
    scene.jobs(1000, queue="other", delay=60.0)
    later = scene.job(delay=3600.0)
    scene.store.limit_queue("default", QueueLimits(max_depth=1, when_full="drop_oldest"), now=scene.now)

    [answer] = scene.store.enqueue([scene.row()], now=scene.now)
    assert isinstance(answer.error, QueueFull)
    assert scene.state(later) is State.SCHEDULED
    scene.act(Delete(), *[job.id for job in scene.store.find(Filter(queue="other"), limit=100).jobs])
    scene.job()
    assert scene.get(later).reason == "shed"


def test_who_comes_back_to_its_strict_lane_by_a_retry_is_as_old_for_others_as_it_was(scene: Scene) -> None:
    strict, ann = scene.job(gating=Gating(gates=(Gate("order", "o"),))), scene.worker()
    job = ann.take(strict)
    plain = scene.job()
    ann.fail(job, delay=5.0)
    assert scene.get(strict).place == 1
    scene.advance(5)

    assert ann.ids() == [strict, plain]


def test_who_is_put_off_to_the_time_that_it_came_with_has_another_entry_when_it_is_due(scene: Scene) -> None:
    """Nothing but its place tells it from a job of which nothing has become."""
    id = scene.job(gating=Gating(gates=(Gate("order", "o"),)), delay=60.0)
    scene.act(Edit(run_at=0), id)
    stood = scene.get(id)
    scene.act(Edit(run_at=scene.stamp(60)), id)
    scene.advance(60)

    job = scene.worker().take(id)
    assert job.entry > scene.get(id).place == stood.place
