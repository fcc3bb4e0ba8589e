"""What a claim of 500 jobs costs while another thread of the process computes in pure Python and wants the GIL.

Beside such a thread each release of the GIL costs a switch interval before it is had again, so a claim must let go of
it a few times, not once per row. Python's own interval is 5 ms; a worker process sets a shorter one for this reason,
and is measured with that.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.measure import percentile
from benchmarks.model import Bench, Figure, Floor, Round, Scenario, figure
from benchmarks.stored import Holder, stock
from benchmarks.workload import BATCH
from dayjob.worker.worker import SWITCH_INTERVAL

CLAIMS = 120


def measure(bench: Bench) -> Round:
    """Claims alone, then beside the thread with either interval; what was claimed is replaced, untimed and undisturbed."""
    with stock(bench.store("jobs"), BATCH * 4) as store:
        holder = Holder(store)
        claims = max(20, round(CLAIMS * bench.scale))
        alone = _alone(holder, claims)
        slow = _beside(holder, claims // 2)
        with switching(SWITCH_INTERVAL):
            quick = _beside(holder, claims)
    return {
        "alone_p99": percentile(alone, 0.99),
        "p50": percentile(quick, 0.5),
        "p99": percentile(quick, 0.99),
        "python_p50": percentile(slow, 0.5),
        "python_p99": percentile(slow, 0.99),
    }


def _alone(holder: Holder, claims: int) -> list[float]:
    """Milliseconds of each claim with the process to itself."""
    taken = []
    for _ in range(claims):
        holder.replace()
        taken.append(holder.claim(BATCH) * 1000)
    return taken


def _beside(holder: Holder, claims: int) -> list[float]:
    """Milliseconds of each claim beside a thread that computes."""
    taken = []
    with Computing() as computing:
        for _ in range(claims):
            holder.replace()
            computing.go()
            taken.append(holder.claim(BATCH) * 1000)
            computing.pause()
    return taken


@contextmanager
def switching(interval: float) -> Iterator[None]:
    """Another switch interval for a while."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(interval)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class Computing:
    """A thread that, while it is let go, never gives up the GIL by itself."""

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self._over = self._pausing = False
        self._thread = threading.Thread(target=self._compute, daemon=True)

    def go(self) -> None:
        """Let it compute; returns when it is at it."""
        self._pausing = False
        self._wanted.set()
        time.sleep(0.02)

    def pause(self) -> None:
        """Have it wait."""
        self._pausing = True
        self._wanted.clear()

    def _compute(self) -> None:
        number = 0
        while not self._over:
            self._wanted.wait()
            while not self._pausing:
                number = (number * 31 + 7) % 1_000_003

    def __enter__(self) -> Computing:
        self.pause()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = self._pausing = True
        self._wanted.set()
        self._thread.join()


SCENARIO = Scenario(
    "cpu-bound",
    "a claim of 500 jobs beside a thread that computes",
    (
        Figure("alone_p99", "alone, 99th percentile", "ms", "low"),
        Figure("p50", "beside a CPU-bound thread, median", "ms", "low"),
        Figure("p99", "beside a CPU-bound thread, 99th percentile", "ms", "low"),
        Figure("python_p50", "with Python's own switch interval, median", "ms", "low"),
        Figure("python_p99", "with Python's own switch interval, 99th percentile", "ms", "low"),
    ),
    (Floor("99th percentile of a claim beside a CPU-bound thread", figure("p99"), "ms", most=50),),
    measure,
    rounds=2,
)
