"""procrastinate on psycopg, finished jobs kept (its default)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from benchmarks.measure import Stopwatch
from benchmarks.peers.peer import Tally
from benchmarks.peers.postgres import PostgresPeer
from benchmarks.workload import TASK, arguments, batches


class Procrastinate(PostgresPeer):
    """It fetches and finishes one job at a time, as many at once as its concurrency says."""

    name = "procrastinate"
    title = "procrastinate, 5 at once"
    jobs = 1_000
    settings = (5,)
    needs = ("procrastinate",)
    unfinished = "SELECT count(*) FROM procrastinate_jobs WHERE status <> 'succeeded'"

    async def prepare(self, url: str) -> None:
        async with _app(url).open_async() as app:
            await app.schema_manager.apply_schema_async()

    async def store(self, url: str, jobs: int) -> float:
        async with _app(url).open_async() as app:
            deferrer = app.configure_task(TASK, queue="default")
            with Stopwatch() as watch:
                for batch in batches(jobs):
                    await deferrer.batch_defer_async(*(dict(arguments(number)) for number in batch))
        return watch.seconds

    async def work(self, url: str, setting: int, tally: Tally) -> None:
        logging.getLogger("procrastinate").setLevel(logging.ERROR)
        app = _app(url, setting + 2)

        @app.task(name=TASK, queue="default")  # type: ignore[untyped-decorator]
        async def noop(order_id: int, email: str, note: str) -> None:
            tally.job()

        async with app.open_async():
            running = asyncio.create_task(
                app.run_worker_async(concurrency=setting, install_signal_handlers=False, wait=True)
            )
            await tally.over.wait()
            await asyncio.sleep(1)  # the last are being written down
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def _app(url: str, connections: int = 4) -> Any:
    from procrastinate import App, PsycopgConnector

    return App(connector=PsycopgConnector(conninfo=url, min_size=connections, max_size=connections))
