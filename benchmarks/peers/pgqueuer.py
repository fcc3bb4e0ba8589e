"""pgqueuer on a pool of asyncpg, a log of finished jobs, tables that survive a crash (its defaults)."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import timedelta
from typing import Any

from benchmarks.measure import Stopwatch
from benchmarks.peers.peer import Tally
from benchmarks.peers.postgres import PostgresPeer
from benchmarks.workload import TASK, batches, payload


class PgQueuer(PostgresPeer):
    """It keeps a row in its log for each change of a job's state."""

    name = "pgqueuer"
    title = "pgqueuer, the better of batches of 100 and 500"
    jobs = 20_000
    settings = (100, 500)
    needs = ("pgqueuer", "asyncpg")
    unfinished = "SELECT count(*) FROM pgqueuer"

    async def prepare(self, url: str) -> None:
        queries, connection = await open_(url)
        await queries.install()
        await connection.close()

    async def store(self, url: str, jobs: int) -> float:
        queries, connection = await open_(url)
        with Stopwatch() as watch:
            for batch in batches(jobs, 1_000):
                content = [payload(number) for number in batch]
                await queries.enqueue([TASK] * len(batch), content, [0] * len(batch))
        await connection.close()
        return watch.seconds

    async def work(self, url: str, setting: int, tally: Tally) -> None:
        import asyncpg
        from pgqueuer import AsyncpgPoolDriver, PgQueuer, RetryRequested

        logging.getLogger("pgqueuer").setLevel(logging.ERROR)
        async with asyncpg.create_pool(url, min_size=4, max_size=8) as pool:
            queuer = PgQueuer(AsyncpgPoolDriver(pool))

            @queuer.entrypoint(TASK)
            async def noop(job: Any) -> None:
                if tally.failing and not job.attempts and json.loads(job.payload)["order_id"] % tally.failing == 0:
                    raise RetryRequested(delay=timedelta(seconds=1))
                tally.job()

            running = asyncio.create_task(queuer.run(dequeue_timeout=timedelta(seconds=1), batch_size=setting))
            await tally.over.wait()
            queuer.shutdown.set()
            await running


async def open_(url: str) -> Any:
    import asyncpg
    from pgqueuer import Queries

    connection = await asyncpg.connect(url)
    return Queries.from_asyncpg_connection(connection), connection
