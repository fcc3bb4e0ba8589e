"""saq on redis-py, what has ended deleted at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.peers.peer import Tally
from benchmarks.peers.valkey import Enqueue, ValkeyPeer
from benchmarks.workload import TASK, Arguments


class Saq(ValkeyPeer):
    """As many coroutines as it has places wait for a job in BLMOVE, each in a connection of its own."""

    name = "saq"
    title = "saq, no results kept, 10 or 100 at once"
    jobs = 5_000
    settings = (10, 100)
    needs = ("saq",)
    unfinished = ("saq:default:queued", "saq:default:active", "saq:default:incomplete")

    @asynccontextmanager
    async def producer(self, url: str) -> AsyncIterator[Enqueue]:
        from saq import Queue

        queue = Queue.from_url(url)

        async def enqueue(given: Arguments) -> None:
            await queue.enqueue(TASK, ttl=-1, timeout=0, **given)

        yield enqueue
        await queue.disconnect()

    async def work(self, url: str, setting: int, tally: Tally) -> None:
        from saq import Queue, Worker

        async def noop(context: Any, *, order_id: int, email: str, note: str) -> None:
            tally.job(order_id)

        queue = Queue.from_url(url)
        worker = Worker(queue, functions=[(TASK, noop)], concurrency=setting)
        running = asyncio.create_task(worker.start())
        await self.finished(tally, url)
        await worker.stop()
        await running
        await queue.disconnect()
