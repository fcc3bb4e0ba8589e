"""chancy with eager polling and coroutines, finished jobs kept for its pruner."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from benchmarks.measure import Stopwatch
from benchmarks.peers.peer import Tally
from benchmarks.peers.postgres import PostgresPeer
from benchmarks.workload import arguments

_TALLY: list[Tally] = []


async def noop(order_id: int, email: str, note: str) -> None:
    """The job: chancy finds it by its path."""
    _TALLY[0].job()


class Chancy(PostgresPeer):
    """It writes down what became of its jobs once a second."""

    name = "chancy"
    title = "chancy, eager, 1,000 at once"
    jobs = 20_000
    settings = (1_000,)
    needs = ("chancy",)
    unfinished = "SELECT count(*) FROM chancy_jobs WHERE state <> 'succeeded'"

    async def prepare(self, url: str) -> None:
        async with _app(url) as app:
            await app.migrate()

    async def store(self, url: str, jobs: int) -> float:
        from chancy import Job

        async with _app(url) as app:
            with Stopwatch() as watch:
                calls = [Job.from_func(noop, kwargs=dict(arguments(number))) for number in range(jobs)]
                async for _ in app.push_many(calls):
                    pass
        return watch.seconds

    async def work(self, url: str, setting: int, tally: Tally) -> None:
        from chancy import Queue, Worker

        _TALLY.append(tally)
        async with _app(url) as app:
            kind = app.Executor.Async
            await app.declare(
                Queue("default", concurrency=setting, executor=kind, eager_polling=True, polling_interval=1)
            )
            async with Worker(app, register_signal_handlers=False) as worker:
                await tally.over.wait()
                await asyncio.sleep(0.1)
                await worker.stop()


def _app(url: str) -> Any:
    from chancy import Chancy

    return Chancy(url, log=logging.getLogger("bench.chancy"))
