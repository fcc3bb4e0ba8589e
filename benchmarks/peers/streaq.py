"""streaq on coredis, results not kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.measure import Stopwatch
from benchmarks.peers.peer import Tally
from benchmarks.peers.valkey import Enqueue, ValkeyPeer, end
from benchmarks.workload import TASK, Arguments, arguments, batches


class Streaq(ValkeyPeer):
    """It reads as many jobs from its stream as it runs at once."""

    name = "streaq"
    title = "streaq, no results kept, 32 or 100 at once"
    jobs = 5_000
    settings = (32, 100)
    needs = ("streaq",)
    unfinished = ("streaq:default:queues:normal",)
    bulk = True

    @asynccontextmanager
    async def producer(self, url: str) -> AsyncIterator[Enqueue]:
        worker, noop = _build(url)

        async def enqueue(given: Arguments) -> None:
            await noop.enqueue(**given)

        async with worker:
            yield enqueue

    async def store(self, url: str, jobs: int) -> float:
        worker, noop = _build(url)
        async with worker:
            with Stopwatch() as watch:
                for batch in batches(jobs):
                    await worker.enqueue_many([noop.enqueue(**arguments(number)) for number in batch])
        return watch.seconds

    async def work(self, url: str, setting: int, tally: Tally) -> None:
        worker, _ = _build(url, tally, concurrency=setting, handle_signals=False)
        running = asyncio.create_task(worker.run_async())
        await self.finished(tally, url)
        await end(running)


def _build(url: str, tally: Tally | None = None, **options: Any) -> Any:
    from streaq import Worker

    logging.getLogger("streaq").setLevel(logging.ERROR)
    worker = Worker(url, **options)

    @worker.task(name=TASK, ttl=0, silent=True)  # type: ignore[untyped-decorator]
    async def noop(order_id: int, email: str, note: str) -> None:
        assert tally is not None
        tally.job(order_id)

    return worker, noop
