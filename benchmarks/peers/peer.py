"""What a peer is, and what those in Python have in common."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import Protocol, runtime_checkable

from benchmarks.children import Child, say
from benchmarks.model import Baseline


class Peer(Protocol):
    """Another job queue.

    Attributes:
        name: of its figures. title: what it is and how it is set. jobs: how many it is given to drain, so that this
            takes it a few seconds.
    """

    name: str
    title: str
    jobs: int

    def missing(self) -> str | None:
        """Why it cannot be measured here; None when it can."""

    def version(self) -> str:
        """Which one it is, where it is there; empty when another peer says it."""

    def drain(self, engine: Baseline, folder: Path, jobs: int) -> float:
        """Jobs per second of one of its worker processes, from the start of its first job to the start of its last."""

    def insert(self, engine: Baseline, folder: Path, jobs: int) -> float | None:
        """Jobs stored per second, in batches of 500 or what else suits it; None when it has no such means."""


@runtime_checkable
class ServedPeer(Peer, Protocol):
    """One that is also asked what `enqueue`, `latency` and `idle` ask of dayjob."""

    def single(self, engine: Baseline, folder: Path, jobs: int) -> float:
        """Jobs stored per second, one after the other."""

    def latency(self, engine: Baseline, folder: Path, samples: int, period: float) -> list[float]:
        """Milliseconds from just before a job is stored to its start in an idle worker, one job every *period* s."""

    def serving(self, url: str) -> AbstractContextManager[object]:
        """Its worker on an empty store, which has run a job and has nothing to do."""


class Tally:
    """In a peer's worker: counts the jobs as they are done, and tells when the last one is. Any thread may tell it.

    Attributes:
        over, ended: set with the last job; for coroutines (of jobs that run in the loop), and for threads.
        done: how many are. failing: every so manyth job fails once; 0: none.
        late: of each job that was stored with the time in nanoseconds, how much later it started.
    """

    def __init__(self, jobs: int, failing: int = 0) -> None:
        self.over, self.ended = asyncio.Event(), threading.Event()
        self.done, self.failing = 0, failing
        self.late: list[int] = []
        self._jobs = jobs
        self._first = 0.0
        self._lock = threading.Lock()

    def job(self, sent: int = 0) -> None:
        """One more job is at its only line; *sent* is its number, or when it was stored if the worker has no end."""
        with self._lock:
            if not self._first:
                self._first = time.perf_counter()
            if sent and not self._jobs:
                self.late.append(time.monotonic_ns() - sent)
            self.done += 1
            if self.done == self._jobs:
                say(seconds=time.perf_counter() - self._first)
                self.over.set()
                self.ended.set()


class PythonPeer(ABC):
    """A peer whose worker is a process of this Python: `python -m benchmarks.peers.worker NAME`.

    Attributes:
        settings: how many jobs it is to fetch, or run at once; of several the best counts.
        needs: modules without which it is not there. python: the least version it works on.
        uvloop: its own program runs its workers in a uvloop.
    """

    name: str
    title: str
    jobs: int
    settings: tuple[int, ...]
    needs: tuple[str, ...]
    python: tuple[int, int] = (3, 11)
    uvloop = False

    def missing(self) -> str | None:
        if sys.version_info < self.python:
            return f"it needs Python {'.'.join(map(str, self.python))} or newer"
        absent = [module for module in self.needs if importlib.util.find_spec(module) is None]
        return f"not installed: {', '.join(absent)}" if absent else None

    def version(self) -> str:
        return metadata.version(self.name)

    def drain(self, engine: Baseline, folder: Path, jobs: int) -> float:
        return max(self._drain(engine, folder, jobs, setting) for setting in self.settings)

    def _drain(self, engine: Baseline, folder: Path, jobs: int, setting: int) -> float:
        url = engine.url(folder)
        asyncio.run(self.prepare(url))
        asyncio.run(self.store(url, jobs))
        with self.worker(url, jobs, setting) as worker:
            seconds = float(worker.hear(timeout=120)["seconds"])
            worker.hear(timeout=60)  # it has written down what became of its last jobs
        self.check(url)
        return jobs / seconds

    def worker(self, url: str, jobs: int, setting: int) -> Child:
        """Its worker as a process, for so many jobs; 0: until it is killed."""
        environment = {"BENCH_URL": url, "BENCH_JOBS": str(jobs), "BENCH_SETTING": str(setting)}
        return Child("benchmarks.peers.worker", self.name, env=environment)

    def insert(self, engine: Baseline, folder: Path, jobs: int) -> float | None:
        url = engine.url(folder)
        asyncio.run(self.prepare(url))
        return jobs / asyncio.run(self.store(url, jobs))

    def loop(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        """What makes the loop of its worker; None: asyncio's own."""
        if not self.uvloop:
            return None
        import uvloop

        return uvloop.new_event_loop

    @abstractmethod
    def check(self, url: str) -> None:
        """That it has really finished its jobs: a drain that only fetched them is no drain."""

    async def prepare(self, url: str) -> None:  # noqa: B027 - not every peer has something to prepare
        """Create its tables."""

    @abstractmethod
    async def store(self, url: str, jobs: int) -> float:
        """Store so many jobs by its best means, durably; the seconds that took."""

    @abstractmethod
    async def work(self, url: str, setting: int, tally: Tally) -> None:
        """In the worker's process: run jobs, each telling *tally*, until it is over; then end in order."""
