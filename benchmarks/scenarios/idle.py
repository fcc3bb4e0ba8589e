"""What a worker process costs while it has nothing to do."""

from __future__ import annotations

import time
from typing import Any

from benchmarks import peers
from benchmarks.children import Child
from benchmarks.jobs import build
from benchmarks.model import Bench, Figure, Floor, Round, Scenario, figure

SETTLE = 3.0
WATCH = 12.0


def measure(bench: Bench) -> Round:
    """A worker with default settings, left alone; it also leads, so the leader's services are in the bill. Then, of the
    peers, what their workers send to the server."""
    url = bench.store("jobs")
    built = build(url)
    with Child("benchmarks.child", "serve", env={"DAYJOB_URL": url}) as worker:
        with built.app:
            built.lateness.enqueue().result(timeout=20)
        time.sleep(SETTLE * bench.scale)
        before = _cost(worker)
        found = _alone(bench, url, "commands")
        after = _cost(worker)
        worker.stop()
    seconds = after["at"] - before["at"]
    found |= {
        "rss": after["rss"] / 2**20,
        "cpu": (after["cpu"] - before["cpu"]) / seconds * 100,
        "trips": (after["trips"] - before["trips"]) / seconds,
    }
    for peer in peers.served(bench.engine.name):
        if reason := peer.missing():
            bench.skipped[peer.title] = reason
            continue
        url = bench.engine.url(bench.place(peer.name))
        with peer.serving(url):
            time.sleep(SETTLE * bench.scale)
            found |= _alone(bench, url, f"{peer.name}_commands")
    return found


def _alone(bench: Bench, url: str, name: str) -> Round:
    """Leave the worker on *url* alone for a while; the figure *name*, what it sends to the server, where one is asked."""
    seconds = WATCH * bench.scale
    if bench.engine.name != "redis":
        time.sleep(seconds)
        return {}
    from benchmarks.engines.redis import Redis

    assert isinstance(bench.engine, Redis)
    return {name: bench.engine.commands(url, seconds)}


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
        Figure("commands", "commands to the server", "/s", "low"),
        *(
            Figure(f"{peer.name}_commands", f"{peer.name}, commands to the server", "/s", "low")
            for peer in peers.served("redis")
        ),
    ),
    (
        Floor("memory", figure("rss"), "MB", most=45),
        Floor("share of one core", figure("cpu"), "%", most=0.5),
        Floor("calls to the store", figure("trips"), "/s", most=2),
        Floor("commands to the server", figure("commands"), "/s", most=2, engine="redis"),
    ),
    measure,
    rounds=2,
)
