"""The application under test: no-ops of both kinds, a job that notes how late it started, and jobs that are counted."""

from __future__ import annotations

import time
from typing import NamedTuple

from dayjob import App, JobContext, Retry
from dayjob.task import Task

DONE: list[int] = [0]
"""How many `tick` and `flaky` this process has done."""
LATE: list[int] = []
"""Nanoseconds between enqueue and start of each `stamp`, in this process."""


class Application(NamedTuple):
    """An app and its tasks."""

    app: App
    noop: Task[..., None]
    noop_sync: Task[..., None]
    stamp: Task[..., None]
    lateness: Task[..., list[int]]
    tick: Task[..., None]
    flaky: Task[..., None]


def build(url: str | None = None) -> Application:
    """The application on *url* (default: DAYJOB_URL); producer and worker build the same."""
    app = App(url)

    @app.task(name="bench.noop")
    async def noop(order_id: int, email: str, note: str) -> None:
        pass

    @app.task(name="bench.noop_sync")
    def noop_sync(order_id: int, email: str, note: str) -> None:
        pass

    @app.task(name="bench.stamp")
    async def stamp(sent: int, email: str, note: str) -> None:
        LATE.append(time.monotonic_ns() - sent)

    @app.task(name="bench.lateness")
    async def lateness() -> list[int]:
        taken = LATE.copy()
        LATE.clear()
        return taken

    @app.task(name="bench.tick")
    async def tick(order_id: int, email: str, note: str) -> None:
        DONE[0] += 1

    @app.task(name="bench.flaky", retry=Retry(max_attempts=3, backoff="fixed", base=1, jitter=0))
    async def flaky(ctx: JobContext[None], order_id: int, email: str, note: str) -> None:
        if ctx.attempt == 1:
            raise ConnectionError("once")
        DONE[0] += 1

    return Application(app, noop, noop_sync, stamp, lateness, tick, flaky)
