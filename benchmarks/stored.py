"""A store with jobs in it, used at the line: for what a claim costs, without a worker around it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.workload import QUEUE, TASK, batches, ids, payload
from dayjob.states import Outcome
from dayjob.store import open_store
from dayjob.store.contract import Store
from dayjob.store.records import NewRow, Settlement, Want, WorkerInfo


@contextmanager
def stock(url: str, jobs: int) -> Iterator[Store]:
    """A new store at *url* in which *jobs* no-ops wait."""
    store = open_store(url)
    store.migrate()
    names = list(ids(jobs))
    for batch in batches(jobs, 1_000):
        store.enqueue([NewRow(names[at], TASK, QUEUE, payload(at)) for at in batch])
    try:
        yield store
    finally:
        store.close()


class Holder:
    """A worker that claims and gives back, so that the same jobs wait again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._info = WorkerInfo(next(ids(1)), "bench", "localhost", 1, expiry=3600.0)
        self._claims = 0
        store.beat(self._info, [])

    def claim_and_release(self, limit: int) -> float:
        """Seconds of a claim of *limit* jobs; they are released afterwards, untimed."""
        self._claims += 1
        start = time.perf_counter()
        turn = self._store.turn(self._info.id, self._claims, (), (Want(None, limit),))
        seconds = time.perf_counter() - start
        if len(turn.claimed) != limit:
            raise RuntimeError(f"claimed {len(turn.claimed)} jobs, not {limit}")
        back = [Settlement(job.id, job.entry, Outcome.RELEASED, 0, turn.now) for job in turn.claimed]
        if refused := self._store.turn(self._info.id, None, back).refused:
            raise RuntimeError(f"{len(refused)} releases were refused")
        return seconds
