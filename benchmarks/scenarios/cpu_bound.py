"""What a claim of 500 jobs costs while another thread of the process computes in pure Python and wants the GIL."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.measure import percentile
from benchmarks.model import Bench, Figure, Floor, Round, Scenario, figure
from benchmarks.stored import Holder, stock
from benchmarks.workload import BATCH

CLAIMS = 100


def measure(bench: Bench) -> Round:
    """Claims alone, then beside the thread; each is released again, untimed."""
    with stock(bench.engine.url(bench.place("jobs")), BATCH * 4) as store:
        holder = Holder(store)
        alone = _claims(holder, bench)
        with computing():
            beside = _claims(holder, bench)
    return {"alone_p99": percentile(alone, 0.99), "p50": percentile(beside, 0.5), "p99": percentile(beside, 0.99)}


def _claims(holder: Holder, bench: Bench) -> list[float]:
    """Milliseconds of each claim."""
    return [holder.claim_and_release(BATCH) * 1000 for _ in range(max(20, round(CLAIMS * bench.scale)))]


@contextmanager
def computing() -> Iterator[None]:
    """A thread that never lets go of the GIL by itself."""
    done = False

    def compute() -> None:
        number = 0
        while not done:
            number = (number * 31 + 7) % 1_000_003

    thread = threading.Thread(target=compute, daemon=True)
    thread.start()
    time.sleep(0.05)
    try:
        yield
    finally:
        done = True
        thread.join()


SCENARIO = Scenario(
    "cpu-bound",
    "a claim of 500 jobs beside a thread that computes",
    (
        Figure("alone_p99", "alone, 99th percentile", "ms", "low"),
        Figure("p50", "beside a CPU-bound thread, median", "ms", "low"),
        Figure("p99", "beside a CPU-bound thread, 99th percentile", "ms", "low"),
    ),
    (Floor("99th percentile of a claim beside a CPU-bound thread", figure("p99"), "ms", most=50),),
    measure,
)
