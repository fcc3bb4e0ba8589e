"""What a worker process costs while it has nothing to do."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.children import Child
from benchmarks.jobs import build
from benchmarks.model import Bench, Figure, Floor, Round, Scenario, figure

SETTLE = 3.0
WATCH = 12.0


def measure(bench: Bench) -> Round:
    """A worker with default settings, left alone; it also leads, so the leader's services are in the bill."""
    url = bench.store("jobs")
    built = build(url)
    with built.app, Child("benchmarks.child", "serve", env={"DAYJOB_URL": url}) as worker:
        built.lateness.enqueue().result(timeout=20)
        time.sleep(SETTLE * bench.scale)
        before = _cost(worker)
        time.sleep(WATCH * bench.scale)
        after = _cost(worker)
        worker.stop()
    seconds = after["at"] - before["at"]
    return {
        "rss": after["rss"] / 2**20,
        "cpu": (after["cpu"] - before["cpu"]) / seconds * 100,
        "trips": (after["trips"] - before["trips"]) / seconds,
    }


def _cost(worker: Child) -> dict[str, Any]:
    worker.tell(cost=True)
    return worker.hear()


SCENARIO = Scenario(
    "idle",
    "an idle worker process, which leads",
    (
        Figure("rss", "memory", "MB", "low"),
        Figure("cpu", "share of one core", "%", "low"),
        Figure("trips", "calls to the store", "/s", "low"),
    ),
    (
        Floor("memory", figure("rss"), "MB", most=45),
        Floor("share of one core", figure("cpu"), "%", most=0.5),
        Floor("calls to the store", figure("trips"), "/s", most=2),
    ),
    measure,
    rounds=2,
)
