"""graphile-worker, of Node: the fastest queue on PostgreSQL that we know in any language."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.children import Child
from benchmarks.measure import Stopwatch
from benchmarks.model import Baseline
from benchmarks.peers import node
from benchmarks.peers.postgres import check
from benchmarks.workload import TASK, arguments, batches

if TYPE_CHECKING:
    import psycopg

VERSION = "0.17.3"
SCRIPT = Path(__file__).with_name("graphile.mjs")
PACKAGE = f"graphile-worker@{VERSION}"
SETTINGS = (24, 250)
_ADD = """
SELECT count(*) FROM graphile_worker.add_jobs(
    ARRAY (SELECT json_populate_recordset(NULL::graphile_worker.job_spec, %b::json))
)
"""


class Graphile:
    """It locks 500 jobs at a time and deletes those that have ended in batches; it keeps no history."""

    name = "graphile"
    title = "graphile-worker, localQueue 500, completeJobBatchDelay 0"
    jobs = 30_000

    def missing(self) -> str | None:
        return node.missing(SCRIPT, PACKAGE)

    def version(self) -> str:
        return f"{VERSION} on Node {node.version()}"

    def drain(self, engine: Baseline, folder: Path, jobs: int) -> float:
        return max(self._drain(engine, folder, jobs, setting) for setting in SETTINGS)

    def _drain(self, engine: Baseline, folder: Path, jobs: int, setting: int) -> float:
        url = self.prepare(engine, folder)
        self.store(url, jobs)
        with self.worker(url, jobs, setting) as worker:
            seconds = float(worker.hear(timeout=120)["seconds"])
            worker.hear()
        check(self.name, url, "SELECT count(*) FROM graphile_worker.jobs")
        return jobs / seconds

    def insert(self, engine: Baseline, folder: Path, jobs: int) -> float | None:
        return jobs / self.store(self.prepare(engine, folder), jobs)

    def prepare(self, engine: Baseline, folder: Path) -> str:
        """A database with its tables; its URL."""
        url = engine.url(folder)
        self.create(url)
        return url

    def create(self, url: str) -> None:
        """Its tables."""
        with self.worker(url, 0, 1) as worker:
            worker.hear()

    def store(self, url: str, jobs: int) -> float:
        """Store by its function for producers in other languages; the seconds that took."""
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection, Stopwatch() as watch:
            for batch in batches(jobs):
                add(connection, batch)
        return watch.seconds

    def worker(self, url: str, jobs: int | None, setting: int, failing: int = 0) -> Child:
        """Its worker as a process, *setting* jobs at once, which says how long all took; 0 jobs only create the tables,
        None runs until it is killed. Every *failing*th job fails once."""
        return node.process(
            SCRIPT,
            PACKAGE,
            BENCH_URL=url,
            BENCH_TASK=TASK,
            BENCH_JOBS="" if jobs is None else str(jobs),
            BENCH_SETTING=str(setting),
            BENCH_FAILING=str(failing),
        )


def add(connection: psycopg.Connection[Any], numbers: Iterable[int]) -> None:
    """Store the jobs of these *numbers* in one call."""
    specs = [{"identifier": TASK, "payload": arguments(number)} for number in numbers]
    connection.execute(_ADD, [json.dumps(specs)], prepare=True)
