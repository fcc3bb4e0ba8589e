"""rq with SimpleWorker, which runs jobs in its own process instead of forking for each."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis import Redis

from benchmarks.measure import Stopwatch
from benchmarks.peers.peer import Tally
from benchmarks.peers.valkey import Enqueue, ValkeyPeer, afterwards
from benchmarks.workload import Arguments, arguments, batches

_TALLY: list[Tally] = []
_OPTIONS: dict[str, Any] = {"timeout": -1, "result_ttl": 0}
"""No alarm is set for each job, and what has ended is deleted."""


def noop(order_id: int, email: str, note: str) -> None:
    """The job: rq finds it by its path."""
    _TALLY[0].job(order_id)


class Rq(ValkeyPeer):
    """It runs one job at a time."""

    name = "rq"
    title = "rq, SimpleWorker, no results kept"
    jobs = 3_000
    settings = (1,)
    needs = ("rq",)
    unfinished = ("rq:queue:default", "rq:wip:default", "rq:failed:default")
    bulk = True

    @asynccontextmanager
    async def producer(self, url: str) -> AsyncIterator[Enqueue]:
        from rq import Queue

        queue = Queue(connection=Redis.from_url(url))

        async def enqueue(given: Arguments) -> None:
            queue.enqueue_call(noop, kwargs=dict(given), **_OPTIONS)

        yield enqueue

    async def store(self, url: str, jobs: int) -> float:
        from rq import Queue

        queue = Queue(connection=Redis.from_url(url))
        with Stopwatch() as watch:
            for batch in batches(jobs):
                calls = [Queue.prepare_data(noop, kwargs=dict(arguments(number)), **_OPTIONS) for number in batch]
                queue.enqueue_many(calls)
        return watch.seconds

    async def work(self, url: str, setting: int, tally: Tally) -> None:
        from rq import SimpleWorker

        _TALLY.append(tally)
        worker = SimpleWorker(["default"], connection=Redis.from_url(url))
        worker.log_job_description = False
        afterwards(tally, lambda: os.kill(os.getpid(), signal.SIGTERM))
        worker.work(logging_level="ERROR")
