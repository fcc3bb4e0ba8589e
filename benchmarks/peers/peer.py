"""What a peer is, and what those in Python have in common."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import time
from abc import ABC, abstractmethod
from importlib import metadata
from pathlib import Path
from typing import Protocol

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


class Tally:
    """In a peer's worker: counts the jobs as they are done, and tells when the last one is. Make it in the loop.

    Attributes:
        over: set with the last job. done: how many are. failing: every so manyth job fails once; 0: none.
    """

    def __init__(self, jobs: int, failing: int = 0) -> None:
        self.over = asyncio.Event()
        self.done, self.failing = 0, failing
        self._jobs = jobs
        self._first = 0.0

    def job(self) -> None:
        """One more job is at its only line."""
        if not self._first:
            self._first = time.perf_counter()
        self.done += 1
        if self.done == self._jobs:
            say(seconds=time.perf_counter() - self._first)
            self.over.set()


class PythonPeer(ABC):
    """A peer whose worker is a process of this Python: `python -m benchmarks.peers.worker NAME`.

    Attributes:
        settings: how many jobs it is to fetch, or run at once; of several the best counts.
        needs: modules without which it is not there. python: the least version it works on.
        unfinished: a query that counts the jobs which it has not finished.
    """

    name: str
    title: str
    jobs: int
    settings: tuple[int, ...]
    needs: tuple[str, ...]
    unfinished: str
    python: tuple[int, int] = (3, 11)

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
        environment = {"BENCH_URL": url, "BENCH_JOBS": str(jobs), "BENCH_SETTING": str(setting)}
        with Child("benchmarks.peers.worker", self.name, env=environment) as worker:
            seconds = float(worker.hear(timeout=120)["seconds"])
            worker.hear(timeout=60)  # it has written down what became of its last jobs
        check(self.name, url, self.unfinished)
        return jobs / seconds

    def insert(self, engine: Baseline, folder: Path, jobs: int) -> float | None:
        url = engine.url(folder)
        asyncio.run(self.prepare(url))
        return jobs / asyncio.run(self.store(url, jobs))

    @abstractmethod
    async def prepare(self, url: str) -> None:
        """Create its tables."""

    @abstractmethod
    async def store(self, url: str, jobs: int) -> float:
        """Store so many jobs by its best means, durably; the seconds that took."""

    @abstractmethod
    async def work(self, url: str, setting: int, tally: Tally) -> None:
        """In the worker's process: run jobs, each telling *tally*, until it is over; then end in order."""


def check(name: str, url: str, unfinished: str) -> None:
    """That *name* has really finished its jobs: a drain that only fetched them is no drain."""
    import psycopg

    with psycopg.connect(url) as connection:
        found = connection.execute(unfinished).fetchone()  # type: ignore[arg-type]
    if found != (0,):
        raise RuntimeError(f"{name} ended with {found} jobs unfinished")
