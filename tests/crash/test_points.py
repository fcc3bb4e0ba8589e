"""A process dies before and after every statement of every operation: it happened whole or not at all, and can be repeated."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dayjob.store.contract import Cluster, Copying, Inspector, Jobs, Joining, Lifecycle, Records, Signals, Upkeep
from tests.contract.scene import Scene
from tests.crash.operations import OPERATIONS, Call, Operation
from tests.crash.points import PLACES, Place, Said, die_at

READ_OR_SAY = {
    *("recorded", "locate", "standing", "joined_error", "get", "find", "count", "queues", "workers", "logs", "history"),
    *(
        "read",
        "list",
        "export",
        "notify",
        "listening",
        "listen",
        "migration_sql",
        "check",
        "durability",
        "now",
        "close",
    ),
}
"""What writes nothing that is to last."""
THROWN_AWAY = {"drop"}

pytestmark = [pytest.mark.crash, pytest.mark.processes]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A place of one engine, empty."""
    here: Place = request.param(tmp_path)
    yield here
    here.close()


class Trial:
    """One operation at one place. Process after process tries it and dies, each a moment later than the one before.

    As long as it has not happened the next one finds what the last one left; so each is the repetition of all before.

    Attributes:
        moments: those at which one died, and whether it had happened then. broken: what is wrong, by moment.
    """

    def __init__(self, place: Place, operation: Operation) -> None:
        self.place, self.operation = place, operation
        scene: Any = _Bare(place) if operation.bare else Scene(place.migrated())
        self.scene: Scene = scene
        self.call, self.again = as_pair(operation.prepare(scene))
        place.handle.close()
        place.save()
        place.put_back()
        self.moments: list[tuple[str, bool]] = []
        self.broken: dict[str, list[str]] = {}
        self.between: list[Any] = []
        self.before = self.look()
        assert not self.child(0).error
        self.after = self.look()

    def look(self) -> Any:
        return self.place.look(self.scene.now)

    def child(self, number: int) -> Said:
        return die_at(self.place, number, self.call, cold=self.operation.cold)

    def run(self) -> None:
        """From the first moment on, until one lives."""
        self.place.put_back(cold=self.operation.cold)
        for number in itertools.count(1):
            said = self.child(number)
            happened, wrong = self.judged(said)
            name = f"{number}: {said.last}"
            self.moments.append((name, happened))
            if wrong:
                self.broken[name] = wrong
            if said.signal != signal.SIGKILL:
                break
            if self.left != self.before or (self.operation.cold and self.place.learns):
                self.place.put_back(cold=self.operation.cold)

    def judged(self, said: Said) -> tuple[bool, list[str]]:
        """Whether it has happened, and what is wrong."""
        wrong = [*filter(None, [said.error, self.place.ill()])]
        self.left = left = self.look()
        happened = left == self.after
        if left not in (self.before, self.after, *self.between):
            self.between.append(left)
        if len(self.between) > self.operation.steps.get(self.place.engine_type.name, 0):
            wrong.append(f"half of it happened: {difference(left, self.before)} ... {difference(left, self.after)}")
        if said.returned and not happened:
            wrong.append(f"it had returned, and did not happen: {difference(left, self.after)}")
        if left != self.before and not (happened and self.operation.once):
            began = time.monotonic()
            self.again()
            if time.monotonic() - began > 1.0:
                wrong.append(f"repeating it took {time.monotonic() - began:.1f} s")
            if (again := self.look()) != self.after:
                wrong.append(f"repeated it ends otherwise: {difference(again, self.after)}")
        return happened, wrong


class _Bare:
    """A scene of nothing but a place that was never migrated."""

    def __init__(self, place: Place) -> None:
        self.engine, self.store, self.now = place.engine, place.handle, 0


def as_pair(prepared: Call | tuple[Call, Call]) -> tuple[Call, Call]:
    return prepared if isinstance(prepared, tuple) else (prepared, prepared)


def difference(one: Any, other: Any, path: str = "") -> str:
    """Where two looks differ first."""
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        pairs = list(itertools.zip_longest(one, other))
        return next((difference(a, b, f"{path}.{n}") for n, (a, b) in enumerate(pairs) if a != b), "")
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
        return difference(one.get(keys[0]), other.get(keys[0]), f"{path}.{keys[0]}") if keys else ""
    return f"{path}: {str(one)[:600]} instead of {str(other)[:600]}"


def cases() -> list[Any]:
    return [
        pytest.param(place, operation, id=f"{place.engine_type.name}-{operation.name}")
        for place in PLACES
        for operation in OPERATIONS
        if place.engine_type.joins or not operation.joins
    ]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("place", "operation"), cases(), indirect=["place"])
def test_whoever_dies_within_an_operation_has_done_it_whole_or_not_at_all(place: Place, operation: Operation) -> None:
    trial = Trial(place, operation)
    trial.run()

    assert trial.broken == {}
    happened = [done for _, done in trial.moments]
    assert happened == sorted(happened), f"it was undone again: {trial.moments}"
    assert (happened[0], happened[-1]) == (False, True)
    assert trial.before != trial.after


def test_every_method_that_writes_has_an_operation() -> None:
    protocols = (Jobs, Joining, Upkeep, Cluster, Inspector, Records, Copying, Signals, Lifecycle)
    methods = {name for protocol in protocols for name in vars(protocol) if callable(getattr(protocol, name))}
    methods = {name for name in methods if not name.startswith("_")}

    assert {operation.method for operation in OPERATIONS} == methods - READ_OR_SAY - THROWN_AWAY
