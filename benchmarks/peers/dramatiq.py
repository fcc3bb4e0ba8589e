"""dramatiq, its worker threads in this process."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.peers.peer import Tally
from benchmarks.peers.valkey import Enqueue, ValkeyPeer
from benchmarks.workload import TASK, Arguments


class Dramatiq(ValkeyPeer):
    """It fetches twice as many jobs as it has threads and acknowledges one at a time."""

    name = "dramatiq"
    title = "dramatiq, 8 or 16 threads"
    jobs = 8_000
    settings = (8, 16)
    needs = ("dramatiq",)
    unfinished = ("dramatiq:default", "dramatiq:default.msgs")

    @asynccontextmanager
    async def producer(self, url: str) -> AsyncIterator[Enqueue]:
        broker, noop = _build(url)

        async def enqueue(given: Arguments) -> None:
            noop.send(**given)

        yield enqueue
        broker.close()

    async def work(self, url: str, setting: int, tally: Tally) -> None:
        from dramatiq import Worker

        logging.getLogger("dramatiq").setLevel(logging.ERROR)
        broker, _ = _build(url, tally)
        worker = Worker(broker, worker_threads=setting)
        worker.start()
        tally.ended.wait()
        worker.stop()
        broker.close()


def _build(url: str, tally: Tally | None = None) -> Any:
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=url, middleware=[])

    @dramatiq.actor(broker=broker, actor_name=TASK)
    def noop(order_id: int, email: str, note: str) -> None:
        assert tally is not None
        tally.job(order_id)

    return broker, noop
