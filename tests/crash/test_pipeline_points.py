"""A worker dies around every call of its store and every step of its own: each acknowledged job ends as planned."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.engines import EngineUnderTest, Postgres18, SqliteFile, Valkey9
from tests.contract.theirs import connect, effects
from tests.crash.pipeline import EACH, Workshop

OFTEN = {"turn", "beat", "record", "enqueue", "Executor.complete", "Executor.fail", "Pump._claimed", "Pump._settled"}
"""Of these it dies around several calls, of the others around the first."""
CALLED = OFTEN | {
    *("leave", "stage", "rescue", "prune", "admit", "listen", "listening", "notify", "Executor.begin"),
}
JOINED = {"begin", "completion_script"}
SOMETIMES = {"standing", "recorded", "sample", "locate", "now", "durability", "read", "list"}

pytestmark = [pytest.mark.crash, pytest.mark.processes, pytest.mark.slow]


@pytest.fixture(params=[SqliteFile, Postgres18, Valkey9], ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EngineUnderTest]:
    """One with processes."""
    under_test: Any = request.param(tmp_path)
    yield under_test
    under_test.close()


@pytest.mark.timeout(120)
def test_a_worker_that_dies_at_any_point_loses_nothing_and_settles_nothing_twice(
    engine: EngineUnderTest, tmp_path: Path
) -> None:
    engine.store().close()
    if engine.joins:
        connect(engine).close()
    shop = Workshop(engine, tmp_path)
    shop.open()
    said = shop.work(None)
    assert not said.error, said.error
    seen = {line.split(" ", 1)[1]: int(line.split(" ", 1)[0]) for line in said.lines}
    names = {what.split(" ", 1)[1] for what in seen}
    assert names - SOMETIMES == (CALLED | JOINED if engine.joins else CALLED)
    assert shop.broken() == []

    points = [
        (what, number)
        for what, count in seen.items()
        for number in range(1, min(count, EACH if what.split(" ", 1)[1] in OFTEN else 1) + 1)
    ]
    died, broken = 0, {}
    for point in points:
        dead, wrong = dies(shop, point)
        died += dead
        if wrong:
            broken[point] = wrong
    assert broken == {}
    assert died >= 0.8 * len(points)  # how its threads interleave is not the same in each
    assert (
        not engine.joins or len(effects(engine)) == len(set(effects(engine))) == len(points) + 1
    )  # the same effect never twice


def dies(shop: Workshop, point: tuple[str, int]) -> tuple[bool, list[str]]:
    """A worker dies at *point*, or ends before it comes there; whether it did, and what is wrong then."""
    shop.open()
    said = shop.work(point)
    died = said.signal == signal.SIGKILL
    if died:
        shop.rescue()
    return died, [*filter(None, [said.error, shop.drain()]), *shop.broken()]
