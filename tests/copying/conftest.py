"""Two stores, in each direction between the kinds of engine."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dayjob.clock import SECOND
from dayjob.ids import new_id
from dayjob.states import Outcome
from dayjob.store.contract import Store
from dayjob.store.records import NewRow, Settlement, Want, WorkerInfo
from tests.contract.engines import EngineUnderTest, Postgres18, SqliteFile, Valkey9

PAIRS = list(itertools.permutations((SqliteFile, Postgres18, Valkey9), 2))


class Pair:
    """Where jobs are, and where they are to go.

    Attributes:
        source, target: handles of the test's own. urls: where another process finds them.
    """

    def __init__(self, source: EngineUnderTest, target: EngineUnderTest) -> None:
        self.source, self.target = source.store(), target.open()
        self.urls = source.url, target.url

    def back(self) -> tuple[Store, Store]:
        return self.target, self.source


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0].name}-to-{pair[1].name}")
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    engines = [kind(tmp_path) for kind in request.param]
    if isinstance(engines[1], Postgres18):
        assert engines[1].database  # empty, not migrated: the copy does that
    yield Pair(*engines)
    for engine in engines:
        engine.close()


@pytest.fixture
def one_way(tmp_path: Path) -> Iterator[Pair]:
    """From a file to a file, for what does not depend on the engine."""
    engines = SqliteFile(tmp_path), SqliteFile(tmp_path)
    yield Pair(*engines)
    for engine in engines:
        engine.close()


def row(**fields: object) -> NewRow:
    given = {"id": new_id(), "task": "shop.send", "queue": "default", "payload": b"{}", **fields}
    return NewRow(**given)  # type: ignore[arg-type]


def fill(store: Store, count: int = 20) -> dict[str, list[str]]:
    """Jobs in every state but running; their ids by state."""
    worker = WorkerInfo(new_id(), "ann", "here", 1)
    made: dict[str, list[str]] = {}
    rows = [row(queue="work", expires=86_400.0) for _ in range(3 * count)]
    store.enqueue(rows)
    store.beat(worker, ())
    claimed = store.turn(worker.id, 1, (), [Want(("work",), 3 * count)]).claimed
    ends = [Outcome.COMPLETED, Outcome.CANCELLED, Outcome.DEAD]
    now = store.now()
    settlements = [
        Settlement(job.id, job.entry, ends[n % 3], now - SECOND, now, result=b"7", error=None if n % 3 == 0 else b"boom", keep=9e5)
        for n, job in enumerate(claimed)
    ]  # fmt: skip
    store.turn(worker.id, None, settlements)
    for n, job in enumerate(claimed):
        made.setdefault(ends[n % 3], []).append(job.id)
    store.leave(worker.id)
    waiting = [row(queue=f"q{n % 3}", priority=n % 2, tags='["a"]') for n in range(count)]
    later = [row(delay=3600.0 + n) for n in range(count)]
    store.enqueue([*waiting, *later])
    made["available"] = [one.id for one in waiting]
    made["scheduled"] = [one.id for one in later]
    return made


def run_all(store: Store, limit: int = 1000, between: Callable[[], None] = lambda: None) -> list[str]:
    """Claim and complete what is available; the ids in the order of claims."""
    worker = WorkerInfo(new_id(), "bob", "here", 1)
    store.beat(worker, ())
    claimed = store.turn(worker.id, 1, (), [Want(None, limit)]).claimed
    between()
    now = store.now()
    store.turn(
        worker.id, None, [Settlement(job.id, job.entry, Outcome.COMPLETED, now, now, keep=9e5) for job in claimed]
    )
    store.leave(worker.id)
    return [job.id for job in claimed]
