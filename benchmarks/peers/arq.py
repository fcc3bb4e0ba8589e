"""arq, which polls: every 5 ms instead of its default of half a second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.peers.peer import Tally
from benchmarks.peers.valkey import Enqueue, ValkeyPeer, end
from benchmarks.workload import TASK, Arguments

POLL = 0.005


class Arq(ValkeyPeer):
    """It watches and marks one job at a time before it starts it."""

    name = "arq"
    title = "arq, polling every 5 ms, 10 or 100 at once"
    jobs = 3_000
    settings = (10, 100)
    needs = ("arq",)
    unfinished = ("arq:queue",)

    @asynccontextmanager
    async def producer(self, url: str) -> AsyncIterator[Enqueue]:
        from arq import create_pool
        from arq.connections import RedisSettings

        pool = await create_pool(RedisSettings.from_dsn(url))

        async def enqueue(given: Arguments) -> None:
            await pool.enqueue_job(TASK, **given)

        yield enqueue
        await pool.close(close_connection_pool=True)

    async def work(self, url: str, setting: int, tally: Tally) -> None:
        from arq import func
        from arq.connections import RedisSettings
        from arq.worker import Worker

        async def noop(context: Any, order_id: int, email: str, note: str) -> None:
            tally.job(order_id)

        worker = Worker(
            [func(noop, name=TASK)],
            redis_settings=RedisSettings.from_dsn(url),
            max_jobs=setting,
            poll_delay=POLL,
            keep_result=0,
            handle_signals=False,
        )
        running = asyncio.create_task(worker.async_run())
        await self.finished(tally, url)
        await end(running)
        await worker.close()
