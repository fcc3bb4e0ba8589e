"""BullMQ, of Node: the most used queue on Redis there, and the fastest that we know of those that settle their jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.children import Child
from benchmarks.model import Baseline
from benchmarks.peers import node
from benchmarks.peers.valkey import answer, check
from benchmarks.workload import TASK, arguments

VERSION = "6.7.0"
SCRIPT = Path(__file__).with_name("bullmq.mjs")
PACKAGES = (f"bullmq@{VERSION}", "ioredis@5")
SETTINGS = (50, 200)


class BullMQ:
    """It settles a job and fetches the next in one script, and renews locks beside that."""

    name = "bullmq"
    title = "BullMQ, completed jobs removed, 50 or 200 at once"
    jobs = 20_000

    def missing(self) -> str | None:
        return node.missing(SCRIPT, *PACKAGES)

    def version(self) -> str:
        return f"{VERSION} on Node {node.version()}"

    def drain(self, engine: Baseline, folder: Path, jobs: int) -> float:
        return max(self._drain(engine.url(folder), jobs, setting) for setting in SETTINGS)

    def _drain(self, url: str, jobs: int, setting: int) -> float:
        self._store(url, "bulk", jobs)
        with self._process(url, "work", jobs, setting=setting) as worker:
            seconds = float(worker.hear(timeout=120)["seconds"])
            worker.hear()
        check(self.name, url, ("bull:bench:wait", "bull:bench:active", "bull:bench:failed"))
        return jobs / seconds

    def insert(self, engine: Baseline, folder: Path, jobs: int) -> float | None:
        return jobs / self._store(engine.url(folder), "bulk", jobs)

    def single(self, engine: Baseline, folder: Path, jobs: int) -> float:
        return jobs / self._store(engine.url(folder), "single", jobs)

    @contextmanager
    def serving(self, url: str) -> Iterator[Child]:
        with self._process(url, "work", None) as worker:
            self._store(url, "single", 1)
            answer(worker, 1)
            yield worker

    def latency(self, engine: Baseline, folder: Path, samples: int, period: float) -> list[float]:
        with self.serving(url := engine.url(folder)) as worker:
            self._store(url, "single", samples, period)
            late = answer(worker, samples + 1)["late"]
        return [nanoseconds / 1e6 for nanoseconds in late[1:]]

    def _store(self, url: str, role: str, jobs: int, period: float = 0.0) -> float:
        with self._process(url, role, jobs, period) as producer:
            return float(producer.hear(timeout=120)["seconds"])

    def _process(self, url: str, role: str, jobs: int | None, period: float = 0.0, setting: int = SETTINGS[0]) -> Child:
        return node.process(
            SCRIPT,
            *PACKAGES,
            BENCH_URL=url,
            BENCH_ROLE=role,
            BENCH_TASK=TASK,
            BENCH_JOBS="" if jobs is None else str(jobs),
            BENCH_SETTING=str(setting),
            BENCH_PERIOD=str(period),
            BENCH_ARGUMENTS=json.dumps(arguments(0)),
        )
