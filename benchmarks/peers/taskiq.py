"""taskiq with taskiq-redis: its broker on a list, which takes a job out before it runs (at most once)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Any

from benchmarks.peers.peer import Tally
from benchmarks.peers.valkey import Enqueue, ValkeyPeer, end
from benchmarks.workload import TASK, Arguments


class Taskiq(ValkeyPeer):
    """It waits for one job after the other in BRPOP."""

    name = "taskiq"
    title = "taskiq, ListQueueBroker, uvloop, 10 or 100 at once"
    jobs = 10_000
    settings = (100, 10)
    needs = ("taskiq", "taskiq_redis", "uvloop")
    unfinished = ("taskiq",)
    uvloop = True

    def version(self) -> str:
        return f"{metadata.version('taskiq')}, taskiq-redis {metadata.version('taskiq-redis')}"

    @asynccontextmanager
    async def producer(self, url: str) -> AsyncIterator[Enqueue]:
        broker, noop = _build(url)
        await broker.startup()

        async def enqueue(given: Arguments) -> None:
            await noop.kiq(**given)

        yield enqueue
        await broker.shutdown()

    async def work(self, url: str, setting: int, tally: Tally) -> None:
        from taskiq.api import run_receiver_task

        logging.getLogger("taskiq").setLevel(logging.ERROR)
        broker, _ = _build(url, tally)
        receiver = run_receiver_task(
            broker, run_startup=True, max_async_tasks=setting, max_prefetch=setting, validate_params=False
        )
        running = asyncio.create_task(receiver)
        await self.finished(tally, url)
        await end(running)
        await broker.shutdown()


def _build(url: str, tally: Tally | None = None) -> Any:
    from taskiq_redis import ListQueueBroker

    broker = ListQueueBroker(url)

    @broker.task(task_name=TASK)  # type: ignore[untyped-decorator]
    async def noop(order_id: int, email: str, note: str) -> None:
        assert tally is not None
        tally.job(order_id)

    return broker, noop
