"""Whether several worker processes on one store each get their share."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.children import Child
from benchmarks.model import Bench, Figure, Floor, Round, Scenario, figure
from benchmarks.scenarios.drain import fill

JOBS = 40_000
WORKERS = 4


def measure(bench: Bench) -> Round:
    """Four workers let go at the same moment on a full queue; what each had run when nothing was left."""
    jobs = bench.jobs(JOBS)
    shares, seconds = together(bench.store("jobs"), jobs, WORKERS)
    return {
        "least": min(shares) / (jobs / WORKERS),
        "most": max(shares) / (jobs / WORKERS),
        "rate": jobs / seconds,
    }


def together(url: str, jobs: int, processes: int) -> tuple[list[int], float]:
    """Fill a new store with *jobs* and let so many worker processes go at once: the share of each, and the seconds
    until the last was idle."""
    fill(url, "bench.noop", jobs)
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Child("benchmarks.child", "drain", env={"DAYJOB_URL": url})) for _ in range(processes)
        ]
        for worker in workers:
            worker.hear()
        for worker in workers:
            worker.tell(go=True)
        told = [worker.hear() for worker in workers]
    shares = [int(each["counts"].get("completed", 0)) for each in told]
    if sum(shares) != jobs:
        raise RuntimeError(f"{processes} workers should have completed {jobs} jobs, they say {shares}")
    return shares, max(float(each["seconds"]) for each in told)


SCENARIO = Scenario(
    "fairness",
    "four worker processes on one store",
    (
        Figure("least", "smallest share, of the fair one", "x"),
        Figure("most", "largest share, of the fair one", "x", "low"),
        Figure("rate", "all four together", "/s"),
    ),
    (Floor("smallest share, of the fair one", figure("least"), least=0.5),),
    measure,
    rounds=3,
)
