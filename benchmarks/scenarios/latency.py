"""How soon a job starts when a worker in another process has nothing to do: one enqueue every 20 ms."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import peers
from benchmarks.children import Child
from benchmarks.jobs import build
from benchmarks.measure import percentile
from benchmarks.model import Bench, Figure, Floor, Round, Scenario, figure, ratio
from benchmarks.peers import huey_sqlite

SAMPLES = 250
PERIOD = 0.020


def measure(bench: Bench) -> Round:
    """dayjob, then what there is to compare with: huey with one worker, the bare engine, or the peers."""
    samples = max(50, round(SAMPLES * bench.scale))
    late = _dayjob(bench.store("dayjob"), samples)
    found: Round = {"p50": percentile(late, 0.5), "p99": percentile(late, 0.99), "worst": max(late)}
    if bench.engine.name == "sqlite" and huey_sqlite.installed():
        late = _huey(bench.place("huey"), samples)
        found |= {"huey_p50": percentile(late, 0.5), "huey_p99": percentile(late, 0.99)}
    if bench.engine.name != "sqlite":
        from benchmarks.engines.postgres import Postgres
        from benchmarks.engines.redis import Redis

        assert isinstance(bench.engine, (Postgres, Redis))
        late = bench.engine.latency(bench.place("raw"), samples, _steadily)
        found |= {"raw_p50": percentile(late, 0.5), "raw_p99": percentile(late, 0.99)}
    for peer in peers.served(bench.engine.name):
        if reason := peer.missing():
            bench.skipped[peer.title] = reason
        else:
            late = peer.latency(bench.engine, bench.place(peer.name), samples, PERIOD)
            found |= {f"{peer.name}_p50": percentile(late, 0.5), f"{peer.name}_p99": percentile(late, 0.99)}
    return found


def _steadily(samples: int, send: Callable[[], object]) -> None:
    """Call *send* every 20 ms; a late call does not make the next ones early."""
    for _ in range(samples):
        start = time.monotonic()
        send()
        time.sleep(max(0.0, start + PERIOD - time.monotonic()))


def _dayjob(url: str, samples: int) -> list[float]:
    """Milliseconds from just before `enqueue` to the first line of the task."""
    built = build(url)
    with built.app, Child("benchmarks.child", "serve", env={"DAYJOB_URL": url}) as worker:
        built.lateness.enqueue().result(timeout=20)  # the worker is up, and idle again
        text = {"email": "someone@example.org", "note": "please deliver to the back door"}
        _steadily(samples, lambda: built.stamp.enqueue(sent=time.monotonic_ns(), **text))
        late = built.lateness.enqueue().result(timeout=20)
        worker.stop()
    if len(late) != samples:
        raise RuntimeError(f"{len(late)} of {samples} jobs have started")
    return [nanoseconds / 1e6 for nanoseconds in late]


def _huey(folder: Path, samples: int) -> list[float]:
    """The same with huey: one worker thread, its default polling."""
    setting = huey_sqlite.Setting(1, "thread")
    tasks = huey_sqlite.build(str(folder / "huey.db"), setting.fsync)
    with huey_sqlite.consumer(folder, setting) as running:
        tasks.mark(str(folder / "up"))
        huey_sqlite.wait_for_lines(folder / "up", 1)
        _steadily(samples, lambda: tasks.stamp(time.monotonic_ns(), str(folder / "late")))
        late = huey_sqlite.wait_for_lines(folder / "late", samples)
        running.stop()
    return [nanoseconds / 1e6 for nanoseconds in late]


SCENARIO = Scenario(
    "latency",
    "from enqueue to start with an idle worker in another process, one enqueue every 20 ms",
    (
        Figure("p50", "dayjob, median", "ms", "low"),
        Figure("p99", "dayjob, 99th percentile", "ms", "low"),
        Figure("worst", "dayjob, worst", "ms", "low"),
        Figure("raw_p50", "bare engine (a listener, one statement or script that claims), median", "ms", "low"),
        Figure(
            "raw_p99", "bare engine (a listener, one statement or script that claims), 99th percentile", "ms", "low"
        ),
        Figure("huey_p50", "huey, median", "ms", "low"),
        Figure("huey_p99", "huey, 99th percentile", "ms", "low"),
        *(
            Figure(f"{peer.name}_{short}", f"{peer.name}, {long}", "ms", "low")
            for peer in peers.served("redis")
            for short, long in (("p50", "median"), ("p99", "99th percentile"))
        ),
    ),
    (
        Floor("median", figure("p50"), "ms", most=3, engine="sqlite"),
        Floor("median", figure("p50"), "ms", most=3, engine="postgres"),
        Floor("median", figure("p50"), "ms", most=1.5, engine="redis"),
        Floor("median, of the bare engine's", ratio("p50", "raw_p50"), most=2, engine="postgres"),
        Floor("99th percentile", figure("p99"), "ms", most=15, engine="sqlite"),
        Floor("99th percentile", figure("p99"), "ms", most=10, engine="postgres"),
        Floor("99th percentile", figure("p99"), "ms", most=5, engine="redis"),
        Floor("median, of the bare engine's", ratio("p50", "raw_p50"), most=2, engine="redis"),
    ),
    measure,
)
