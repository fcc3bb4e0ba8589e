"""Many workers and producers at the same moment, by the real clock: no limit is passed, no key is held twice, nobody is forgotten."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import msgspec
import pytest

from dayjob.clock import SECOND
from dayjob.store.contract import Store
from dayjob.store.gating import Gate
from dayjob.store.records import Cancel, Delete, Edit, Filter, NewRow, WorkerInfo
from tests.contract.child import answer, go, started
from tests.contract.engines import EngineUnderTest
from tests.contract.gates.contest import LIVE, Run, most_at_once, most_within, work
from tests.contract.gates.words import concurrency, gated, rate, unique
from tests.contract.racing import at_once
from tests.contract.scene import Scene

LIMITS = {"one": 1, "two": 2, "three": 3}
MARGIN = SECOND // 50
"""By how much the clock that a turn tells may differ from the stamp of its claims."""


def contested(scene: Scene, dice: random.Random) -> NewRow:
    """A job with one to three of the keys, in any order."""
    keys = dice.sample(sorted(LIMITS), dice.randint(1, 3))
    gates = [concurrency(key, LIMITS[key]) for key in keys]
    return scene.row(gating=gated(*gates), payload=json.dumps(keys).encode(), priority=dice.choice([0, 0, 5]))


def limited(scene: Scene, gate: Gate) -> NewRow:
    return scene.row(gating=gated(gate), payload=json.dumps([gate.key]).encode())


class Crowd:
    """Producers who are busy for a while, and workers who work as long as one of them is."""

    def __init__(self, engine: EngineUnderTest, scene: Scene, producers: int) -> None:
        self.engine, self.scene, self.busy = engine, scene, producers
        self.over = threading.Event()
        self.lock = threading.Lock()
        """Ids are made in turn."""

    def produce(self, what: Callable[[Store, random.Random], None], times: int, seed: int) -> list[Run]:
        store, dice = self.engine.open(), random.Random(seed)
        try:
            for _ in range(times):
                what(store, dice)
        finally:
            self.busy -= 1
        return []

    def work(self, seed: int) -> list[Run]:
        try:
            return work(self.engine.open(), f"w{seed}", seed, lambda: self.busy > 0)
        finally:
            self.over.set()

    def sweep(self) -> list[Run]:
        """The leader, who sweeps more often than a leader does."""
        store, leader = self.engine.open(), WorkerInfo(id="leader", name="leader", host="contest", pid=1)
        while not self.over.wait(0.05):
            term = store.beat(leader, []).term
            if term is not None:
                store.admit(term)
        return []


def all_of(*calls: Callable[[], list[Run]]) -> list[Run]:
    """What was run while all *calls* were made at once."""
    return [run for runs in at_once(*calls) for run in runs]


class TestContest:
    def test_no_limit_is_passed_and_nobody_is_left_behind(self, engine: EngineUnderTest) -> None:
        scene = Scene(engine, led=False)
        crowd = Crowd(engine, scene, producers=2)

        def meddle(store: Store, dice: random.Random) -> None:
            with crowd.lock:
                rows = [contested(scene, dice) for _ in range(dice.randint(1, 5))]
            store.enqueue(rows)
            action = dice.choice([None, None, Cancel(), Delete(), Edit(priority=9), Edit(queue="other")])
            if action is not None:
                store.act(Filter(ids=(dice.choice(rows).id,)), action)

        producers = [partial(crowd.produce, meddle, 40, n) for n in range(2)]
        runs = all_of(*producers, *[partial(crowd.work, n) for n in range(4)], crowd.sweep)

        assert {key: most for key, most in most_at_once(runs).items() if most > LIMITS[key]} == {}
        assert scene.store.count(Filter(states=LIVE)) == 0
        assert scene.store.gates() == []

    def test_no_window_is_overfull(self, engine: EngineUnderTest) -> None:
        scene = Scene(engine, led=False)
        gate = rate(10, 0.2)
        rows = [limited(scene, gate) for _ in range(60)]
        scene.store.enqueue(rows)
        crowd, begun = Crowd(engine, scene, producers=0), time.monotonic()

        runs = all_of(*[partial(crowd.work, n) for n in range(4)])

        assert most_within(runs, gate.key, round(0.2 * SECOND) - MARGIN) <= 10
        assert time.monotonic() - begun >= (len(runs) // 10 - 1) * 0.2
        assert {run.id for run in runs} == {row.id for row in rows}

    def test_a_key_is_never_held_twice(self, engine: EngineUnderTest) -> None:
        scene, stored = Scene(engine, led=False), dict[str, tuple[str, float]]()
        crowd = Crowd(engine, scene, producers=4)

        def insist(store: Store, dice: random.Random) -> None:
            key = dice.choice("ab")
            with crowd.lock:
                row = scene.row(gating=unique(key), payload=json.dumps([key]).encode())
            [answer] = store.enqueue([row])
            if answer.outcome == "inserted":
                stored[row.id] = (key, time.monotonic())

        producers = [partial(crowd.produce, insist, 60, n) for n in range(4)]
        runs = all_of(*producers, *[partial(crowd.work, n) for n in range(3)])

        ended = dict[str, float]()
        for run in runs:
            ended[run.id] = max(run.ended, ended.get(run.id, 0.0))
        assert all(most == 1 for most in most_at_once(runs).values())
        assert ended.keys() == stored.keys()
        for key in "ab":
            for first, second in pairwise(id for id in sorted(ended, key=ended.__getitem__) if stored[id][0] == key):
                assert stored[second][1] > ended[first], f"{second} was stored while {first} had not ended"


class TestProcesses:
    @pytest.mark.processes
    def test_no_limit_is_passed_by_workers_in_processes_of_their_own(self, engine: EngineUnderTest) -> None:
        if not engine.processes:
            pytest.skip("it is in the memory of one process")
        scene, dice = Scene(engine, led=False), random.Random(1)
        gate = rate(30, 0.3)
        scene.store.enqueue([contested(scene, dice) for _ in range(150)] + [limited(scene, gate) for _ in range(90)])

        with started("contest", engine.url, "p1", "1") as one, started("contest", engine.url, "p2", "2") as two:
            for child in (one, two):
                go(child)
            runs = msgspec.convert([run for child in (one, two) for run in _list(answer(child))], list[Run])

        most = most_at_once(run for run in runs if gate.key not in run.keys)
        assert {key: many for key, many in most.items() if many > LIMITS[key]} == {}
        assert most_within(runs, gate.key, round(0.3 * SECOND) - MARGIN) <= 30
        assert scene.store.count(Filter(states=LIVE)) == 0


def _list(answer: object) -> list[object]:
    assert isinstance(answer, list)
    return answer
