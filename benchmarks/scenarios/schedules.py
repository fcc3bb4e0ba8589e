"""How late very many schedules tick that all have the same second, and what that costs the worker that leads."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

from benchmarks.children import Child
from benchmarks.jobs import build
from benchmarks.model import Bench, Figure, Floor, Round, Scenario, figure
from benchmarks.workload import arguments
from dayjob import Cron
from dayjob.clock import SECOND
from dayjob.store import open_store
from dayjob.store.records import Filter

SCHEDULES = 10_000
EVERY = 20
"""Seconds between two ticks."""
BURSTS = 3
QUEUE = "ticked"


def measure(bench: Bench) -> Round:
    """All tick at :00, :20 and :40 of a minute; their jobs are only stored, since their queue is paused."""
    url, schedules = bench.store("jobs"), bench.jobs(SCHEDULES)
    built = build(url)
    with built.app:
        built.app.queues.pause(QUEUE)
        job = built.noop.using(queue=QUEUE).job(**arguments(0))
        for number in range(schedules):
            built.app.schedules.set(f"bench-{number}", job, Cron(f"*/{EVERY} * * * * *"), overlap="allow")
    with Child("benchmarks.child", "serve", env={"DAYJOB_URL": url}) as worker, closing(open_store(url)) as store:
        _sleep_past(store.now())  # the first burst also meets a worker that reads all schedules
        begun = store.now()
        before = _cost(worker)
        for _ in range(BURSTS):
            _sleep_past(store.now())
        after = _cost(worker)
        worker.stop()
        late = _lateness(store, begun)
    if len(late) != BURSTS * schedules:
        raise RuntimeError(f"{schedules} schedules ticked {len(late)} times in {BURSTS} bursts")
    return {
        "late_median": late[len(late) // 2] * 1000,
        "late_worst": late[-1] * 1000,
        "cpu": (after["cpu"] - before["cpu"]) / (after["at"] - before["at"]) * 100,
    }


def _sleep_past(now: int) -> None:
    """Until half the time between the next tick and the one after has gone."""
    period = EVERY * SECOND
    time.sleep((period - now % period + period / 2) / SECOND)


def _cost(worker: Child) -> dict[str, Any]:
    worker.tell(cost=True)
    return worker.hear()


def _lateness(store: Any, since: int) -> list[float]:
    """Seconds from the time of each tick after *since* until its job was stored, ascending."""
    late: list[float] = []
    after: str | None = None
    while True:
        page = store.find(Filter(queue=QUEUE, since=since), limit=1_000, after=after)
        late += [(job.created_at - job.run_at) / SECOND for job in page.jobs]
        after = page.after
        if after is None:
            return sorted(late)


SCENARIO = Scenario(
    "schedules",
    "10,000 schedules that tick in the same second, every 20 s",
    (
        Figure("late_median", "from a tick's time until its job is stored, median", "ms", "low"),
        Figure("late_worst", "the same, worst", "ms", "low"),
        Figure("cpu", "the worker that leads, share of one core", "%", "low"),
    ),
    (
        Floor("from a tick's time until its job is stored, worst", figure("late_worst"), "ms", most=1_000),
        Floor("share of one core", figure("cpu"), "%", most=20),
    ),
    measure,
    rounds=1,
)
