"""What peers on Valkey have in common. A store is a database of a server with its append-only file on, for everyone."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from benchmarks.children import Child
from benchmarks.measure import Stopwatch
from benchmarks.model import Baseline
from benchmarks.peers.peer import PythonPeer, Tally
from benchmarks.workload import Arguments, arguments

Enqueue = Callable[[Arguments], Awaitable[object]]


class ValkeyPeer(PythonPeer):
    """A peer that keeps its jobs in keys.

    Attributes:
        unfinished: keys (lists, sets, hashes, streams) that are empty when it has finished its jobs.
        bulk: it stores many jobs in one call (`store`).
    """

    unfinished: tuple[str, ...]
    bulk = False

    def check(self, url: str) -> None:
        check(self.name, url, self.unfinished)

    async def finished(self, tally: Tally, url: str) -> None:
        """In a worker of coroutines: until the last job is done, and written down."""
        await tally.over.wait()
        for _ in range(300):
            if not left(url, self.unfinished):
                return
            await asyncio.sleep(0.1)

    @abstractmethod
    def producer(self, url: str) -> AbstractAsyncContextManager[Enqueue]:
        """What stores one job."""

    async def store(self, url: str, jobs: int) -> float:
        return await self._one_by_one(url, jobs)

    async def _one_by_one(self, url: str, jobs: int) -> float:
        given = [arguments(number) for number in range(jobs)]
        async with self.producer(url) as enqueue:
            with Stopwatch() as watch:
                for each in given:
                    await enqueue(each)
        return watch.seconds

    def insert(self, engine: Baseline, folder: Path, jobs: int) -> float | None:
        return super().insert(engine, folder, jobs) if self.bulk else None

    def single(self, engine: Baseline, folder: Path, jobs: int) -> float:
        return jobs / asyncio.run(self._one_by_one(engine.url(folder), jobs))

    @contextmanager
    def serving(self, url: str) -> Iterator[Child]:
        with self.worker(url, 0, self.settings[0]) as worker:
            asyncio.run(self._one_by_one(url, 1))
            answer(worker, 1)
            yield worker

    def latency(self, engine: Baseline, folder: Path, samples: int, period: float) -> list[float]:
        url = engine.url(folder)
        with self.serving(url) as worker:
            asyncio.run(self._steadily(url, samples, period))
            late = answer(worker, samples + 1)["late"]
        return [nanoseconds / 1e6 for nanoseconds in late[1:]]

    async def _steadily(self, url: str, samples: int, period: float) -> None:
        async with self.producer(url) as enqueue:
            for _ in range(samples):
                start = time.monotonic()
                await enqueue({**arguments(0), "order_id": time.monotonic_ns()})
                await asyncio.sleep(max(0.0, start + period - time.monotonic()))


def answer(worker: Child, jobs: int, timeout: float = 20.0) -> dict[str, Any]:
    """What *worker* says once it has done so many jobs."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        worker.tell(done=True)
        if (words := worker.hear())["done"] >= jobs:
            return words
        time.sleep(0.05)
    raise RuntimeError(f"a worker did not do its {jobs} jobs in {timeout:g} s")


def left(url: str, keys: tuple[str, ...]) -> dict[str, int]:
    """How many entries those of *keys* have that are not empty."""
    sizes = {"list": "LLEN", "zset": "ZCARD", "set": "SCARD", "hash": "HLEN", "stream": "XLEN"}
    with Redis.from_url(url, decode_responses=True) as client:
        kinds = {key: client.type(key) for key in keys}
        found = {key: client.execute_command(sizes[kind], key) for key, kind in kinds.items() if kind != "none"}
    return {key: entries for key, entries in found.items() if entries}


def check(name: str, url: str, unfinished: tuple[str, ...]) -> None:
    """That the keys *unfinished* are empty."""
    if found := left(url, unfinished):
        raise RuntimeError(f"{name} ended with jobs unfinished: {found}")


def afterwards(tally: Tally, stop: Callable[[], object]) -> None:
    """In a worker of threads: have *stop* called when *tally* is over."""
    threading.Thread(target=lambda: tally.ended.wait() and stop(), daemon=True).start()


async def end(running: asyncio.Task[Any]) -> None:
    """In a worker of coroutines: cancel it; again, where a call to the server swallowed that."""
    while not running.done():
        running.cancel()
        await asyncio.wait([running], timeout=1)
