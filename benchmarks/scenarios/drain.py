"""How many no-op jobs one worker process gets through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.children import Child
from benchmarks.jobs import build
from benchmarks.model import Bench, Figure, Floor, Round, Scenario, ratio
from benchmarks.peers import huey_sqlite
from benchmarks.workload import arguments

JOBS = 30_000
HUEY_JOBS = 1_000


def measure(bench: Bench) -> Round:
    """The bare engine, dayjob with coroutines and with threads, huey at each of its settings."""
    found: Round = {"raw": bench.engine.drain(bench.place("raw"), bench.jobs(JOBS))}
    for kind, task in (("async", "bench.noop"), ("thread", "bench.noop_sync")):
        found[kind] = drained(bench.engine.url(bench.place(kind)), task, bench.jobs(JOBS))
    if huey_sqlite.installed():
        found |= _huey(bench.place("huey"), bench.jobs(HUEY_JOBS))
    return found


def drained(url: str, task: str, jobs: int) -> float:
    """Jobs per second of one worker process on *jobs* stored ones: from the start of the worker until it is idle,
    with everything that entails (first beat, leadership, threads, the last settlement)."""
    fill(url, task, jobs)
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


def _huey(folder: Path, jobs: int) -> Round:
    """huey's best of the settings that are durable, and its rate without durability."""
    best = 0.0
    for number, setting in enumerate(huey_sqlite.DURABLE):
        (place := folder / str(number)).mkdir()
        best = max(best, huey_sqlite.drain(place, jobs, setting)[1])
    (place := folder / "loose").mkdir()
    return {"huey": best, "huey_loose": huey_sqlite.drain(place, jobs, huey_sqlite.LOOSE)[1]}


SCENARIO = Scenario(
    "drain",
    "no-op jobs that one worker process runs per second",
    (
        Figure("raw", "bare engine: claim and move to history, nothing run", "/s"),
        Figure("async", "dayjob, async tasks", "/s"),
        Figure("thread", "dayjob, sync tasks in threads", "/s"),
        Figure("huey", "huey, its best durable setting", "/s"),
        Figure("huey_loose", "huey without durability (fsync off)", "/s"),
    ),
    (
        Floor("async tasks, of the bare engine", ratio("async", "raw"), least=0.35),
        Floor("async tasks, of huey's best", ratio("async", "huey"), least=5),
        Floor("sync tasks in threads, of the bare engine", ratio("thread", "raw"), least=0.2),
    ),
    measure,
    rounds=4,
)
