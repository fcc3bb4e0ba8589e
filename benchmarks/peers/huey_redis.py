"""huey on Valkey: its own consumer, with threads. It keeps no history and takes a job out before it runs (at most once),
which saves it the settling."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Any

from benchmarks.peers.peer import Tally
from benchmarks.peers.valkey import Enqueue, ValkeyPeer, afterwards
from benchmarks.workload import Arguments


class HueyRedis(ValkeyPeer):
    """Its threads wait in BRPOP, a second at a time."""

    name = "huey_redis"
    title = "huey, 1 or 4 threads"
    jobs = 10_000
    settings = (1, 4)
    needs = ("huey",)
    unfinished = ("huey.redis.bench",)

    def version(self) -> str:
        return metadata.version("huey")

    @asynccontextmanager
    async def producer(self, url: str) -> AsyncIterator[Enqueue]:
        _, noop = _build(url)

        async def enqueue(given: Arguments) -> None:
            noop(**given)

        yield enqueue

    async def work(self, url: str, setting: int, tally: Tally) -> None:
        huey, _ = _build(url, tally)
        consumer = huey.create_consumer(workers=setting, periodic=False)
        afterwards(tally, lambda: consumer.stop(graceful=True))
        consumer.run()


def _build(url: str, tally: Tally | None = None) -> Any:
    from huey import RedisHuey

    huey = RedisHuey("bench", url=url, results=False)

    @huey.task()  # type: ignore[untyped-decorator]
    def noop(order_id: int, email: str, note: str) -> None:
        assert tally is not None
        tally.job(order_id)

    return huey, noop
