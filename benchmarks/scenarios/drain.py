"""How many no-op jobs one worker process gets through."""

from __future__ import annotations

from typing import Any

from benchmarks import peers
from benchmarks.children import Child
from benchmarks.jobs import build
from benchmarks.model import Bench, Figure, Floor, Round, Scenario, of_best, ratio
from benchmarks.peers.peer import PythonPeer
from benchmarks.workload import arguments

JOBS = 30_000
PYTHON = [peer.name for peer in peers.of("redis") if isinstance(peer, PythonPeer)]
"""The peers on Redis and Valkey that are written in Python."""


def measure(bench: Bench) -> Round:
    """The bare engine, dayjob with coroutines and with threads, then the peers."""
    found: Round = {"raw": bench.engine.drain(bench.place("raw"), bench.jobs(JOBS))}
    for kind, task in (("async", "bench.noop"), ("thread", "bench.noop_sync")):
        bench.engine.clear()
        found[kind] = drained(bench.store(kind), task, bench.jobs(JOBS))
    for peer in peers.of(bench.engine.name):
        bench.engine.clear()
        if reason := peer.missing():
            bench.skipped[peer.title] = reason
            continue
        try:
            found[peer.name] = peer.drain(bench.engine, bench.place(peer.name), bench.jobs(peer.jobs))
        except RuntimeError as error:  # a peer that does not get through is told, and spoils nobody else's round
            bench.skipped[f"{peer.title}, one round"] = str(error)
    return found


def drained(url: str, task: str, jobs: int) -> float:
    """Jobs per second of one worker process on *jobs* stored ones: from the start of the worker until it is idle,
    with everything that entails (first beat, leadership, threads, the last settlement)."""
    fill(url, task, jobs)
    return run(url, jobs)


def run(url: str, jobs: int) -> float:
    """The same of jobs that are stored at *url*."""
    with Child("benchmarks.child", "drain", env={"DAYJOB_URL": url}) as worker:
        worker.hear()
        worker.tell(go=True)
        told = worker.hear()
    expect(told["counts"], jobs)
    return jobs / float(told["seconds"])


def fill(url: str, task: str, jobs: int) -> None:
    """Store *jobs* of *task* at *url*."""
    built = build(url)
    declared = built.noop if task == "bench.noop" else built.noop_sync
    with built.app:
        built.app.enqueue_many([declared.job(**arguments(number)) for number in range(jobs)])


def expect(counts: dict[str, Any], jobs: int) -> None:
    """Every job completed, none twice, none otherwise."""
    if counts != {"completed": jobs}:
        raise RuntimeError(f"the worker should have completed {jobs} jobs, it says {counts}")


SCENARIO = Scenario(
    "drain",
    "no-op jobs that one worker process runs per second",
    (
        Figure("raw", "bare engine: claim and move to history, nothing run", "/s"),
        Figure("async", "dayjob, async tasks", "/s"),
        Figure("thread", "dayjob, sync tasks in threads", "/s"),
        *(Figure(peer.name, peer.title, "/s") for peer in peers.everyone()),
    ),
    (
        Floor("async tasks, of the bare engine", ratio("async", "raw"), least=0.35, engine="sqlite"),
        Floor("async tasks, of huey's best", ratio("async", "huey"), least=5, engine="sqlite"),
        Floor("async tasks, of the bare engine", ratio("async", "raw"), least=0.4, engine="postgres"),
        Floor("async tasks, of graphile-worker", ratio("async", "graphile"), least=1.5, engine="postgres"),
        Floor("async tasks, of pgqueuer", ratio("async", "pgqueuer"), least=3, engine="postgres"),
        Floor("async tasks, of the bare engine", ratio("async", "raw"), least=0.3, engine="redis"),
        Floor("async tasks, of the best peer in Python", of_best("async", PYTHON), least=5, engine="redis"),
        Floor("async tasks, of BullMQ", ratio("async", "bullmq"), least=3, engine="redis"),
        Floor("sync tasks in threads, of the bare engine", ratio("thread", "raw"), least=0.2),
    ),
    measure,
    rounds=4,
)
