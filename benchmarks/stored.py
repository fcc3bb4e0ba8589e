"""A store with jobs in it, used at the line: for what a claim costs, without a worker around it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.workload import QUEUE, TASK, batches, ids, payload
from dayjob.states import Outcome
from dayjob.store import open_store
from dayjob.store.contract import Store
from dayjob.store.gating import Gating
from dayjob.store.records import Claimed, NewRow, Settlement, Want, WorkerInfo

Gates = Callable[[int], Gating | None]
"""What the job of this number may have to wait for."""


def free(number: int) -> None:
    """Nothing."""


@contextmanager
def stock(url: str, jobs: int, gates: Gates = free) -> Iterator[Store]:
    """The store at *url*, in which *jobs* no-ops wait."""
    store = open_store(url)
    for batch in batches(jobs, 1_000):
        add(store, len(batch), gates, batch.start)
    try:
        yield store
    finally:
        store.close()


def add(store: Store, jobs: int, gates: Gates = free, first: int = 0) -> None:
    """Store up to 1,000 more, numbered from *first* on."""
    store.enqueue(
        [NewRow(id, TASK, QUEUE, payload(number), gating=gates(first + number)) for number, id in enumerate(ids(jobs))]
    )


class Holder:
    """A worker that claims, completes, and stores as many again (with *gates*), so that as many wait as before."""

    def __init__(self, store: Store, gates: Gates = free) -> None:
        self._store, self._gates, self._added = store, gates, 0
        self._info = WorkerInfo(next(ids(1)), "bench", "localhost", 1, expiry=3600.0)
        self._claims = 0
        self._held: list[Settlement] = []
        store.beat(self._info, [])

    def claim(self, limit: int) -> float:
        """Seconds of a claim of *limit* jobs."""
        self._claims += 1
        start = time.perf_counter()
        turn = self._store.turn(self._info.id, self._claims, (), (Want(None, limit),))
        seconds = time.perf_counter() - start
        if len(turn.claimed) != limit:
            raise RuntimeError(f"claimed {len(turn.claimed)} jobs, not {limit}")
        self._held += [self._completed(job, turn.now) for job in turn.claimed]
        return seconds

    def replace(self) -> None:
        """Complete what is held and store as many new jobs."""
        held, self._held = self._held, []
        if held:
            if refused := self._store.turn(self._info.id, None, held).refused:
                raise RuntimeError(f"{len(refused)} settlements were refused")
            add(self._store, len(held), self._gates, self._added)
            self._added += len(held)

    def _completed(self, job: Claimed, now: int) -> Settlement:
        return Settlement(
            job.id, job.entry, Outcome.COMPLETED, now, now, result=b"null", keep=60.0, claim_no=self._claims
        )
