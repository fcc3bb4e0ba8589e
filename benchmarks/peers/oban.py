"""oban for Python on psycopg, finished jobs kept for its pruner."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.measure import Stopwatch
from benchmarks.peers.peer import Tally
from benchmarks.peers.postgres import PostgresPeer
from benchmarks.workload import arguments, batches

_TALLY: list[Tally] = []


class Noop:
    """The job: oban finds it by its path."""

    async def process(self, job: Any) -> None:
        _TALLY[0].job()


WORKER = f"{Noop.__module__}.{Noop.__qualname__}"


class Oban(PostgresPeer):
    """It fetches as many jobs as its queue has room for, and acknowledges those that have ended before it does."""

    name = "oban"
    title = "oban, a queue of 1,000"
    jobs = 15_000
    settings = (1_000,)
    needs = ("oban",)
    python = (3, 12)
    unfinished = "SELECT count(*) FROM oban_jobs WHERE state <> 'completed'"

    async def prepare(self, url: str) -> None:
        import psycopg
        from oban.schema import install_sql

        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute(install_sql())  # type: ignore[arg-type]

    async def store(self, url: str, jobs: int) -> float:
        from oban import Job, Oban

        pool = await Oban.create_pool(url)
        oban = Oban(pool=pool)
        with Stopwatch() as watch:
            for batch in batches(jobs):
                await oban.enqueue_many([Job(worker=WORKER, args=dict(arguments(number))) for number in batch])
        await pool.close()
        return watch.seconds

    async def work(self, url: str, setting: int, tally: Tally) -> None:
        from oban import Oban

        _TALLY.append(tally)
        pool = await Oban.create_pool(url)
        async with Oban(pool=pool, queues={"default": setting}):
            await tally.over.wait()
            await asyncio.sleep(1)  # the last are being acknowledged
        await pool.close()
