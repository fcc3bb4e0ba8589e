"""celery with Valkey as its broker, results ignored, without the talk among workers (gossip, mingle, events)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.peers.peer import Tally
from benchmarks.peers.valkey import Enqueue, ValkeyPeer, afterwards
from benchmarks.workload import TASK, Arguments

PREFETCH = 128


class Celery(ValkeyPeer):
    """With 1 it runs jobs between reading and acknowledging, in one thread (`solo`), else in so many (`threads`)."""

    name = "celery"
    title = "celery, prefetch 128, solo or 4 threads"
    jobs = 3_000
    settings = (1, 4)
    needs = ("celery",)
    unfinished = ("celery", "unacked")

    @asynccontextmanager
    async def producer(self, url: str) -> AsyncIterator[Enqueue]:
        app, noop = _build(url)

        async def enqueue(given: Arguments) -> None:
            noop.apply_async(kwargs=given)

        yield enqueue
        app.close()

    async def work(self, url: str, setting: int, tally: Tally) -> None:
        from celery.worker import state

        logging.getLogger("celery").setLevel(logging.ERROR)
        app, _ = _build(url, tally)
        worker = app.WorkController(
            pool_cls="solo" if setting == 1 else "threads",
            concurrency=setting,
            prefetch_multiplier=PREFETCH,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )
        afterwards(tally, lambda: setattr(state, "should_stop", 0))
        worker.start()


def _build(url: str, tally: Tally | None = None) -> Any:
    from celery import Celery

    app = Celery("bench", broker=url)
    app.conf.update(task_ignore_result=True, worker_send_task_events=False, broker_connection_retry_on_startup=True)

    @app.task(name=TASK)  # type: ignore[untyped-decorator]
    def noop(order_id: int, email: str, note: str) -> None:
        assert tally is not None
        tally.job(order_id)

    return app, noop
