"""Whether more worker processes on one store get through more, or at least not through less."""

from __future__ import annotations

from benchmarks.model import Bench, Figure, Round, Scenario
from benchmarks.scenarios.fairness import together

JOBS = 150_000
PROCESSES = (1, 2, 4, 16)


def measure(bench: Bench) -> Round:
    """The same number of jobs for one worker process, and for several that are let go at the same moment; bare loops
    beside them, for what this machine makes of so many clients."""
    from benchmarks.engines.postgres import Postgres

    assert isinstance(bench.engine, Postgres)
    found: Round = {}
    for processes in PROCESSES:
        bench.engine.clear()
        jobs = bench.jobs(JOBS)
        found[f"raw{processes}"] = bench.engine.drain_together(bench.place(f"raw{processes}"), jobs, processes)
        bench.engine.clear()
        _, seconds = together(bench.store(f"by{processes}"), jobs, processes)
        found[f"by{processes}"] = jobs / seconds
    return found


SCENARIO = Scenario(
    "processes",
    "no-op jobs that several worker processes run per second, on the cores of this one machine",
    (
        *(Figure(f"by{number}", f"{number} worker process{'es' if number > 1 else ''}", "/s") for number in PROCESSES),
        *(
            Figure(f"raw{number}", f"bare engine, {number} process{'es' if number > 1 else ''}", "/s")
            for number in PROCESSES
        ),
    ),
    (),
    measure,
    engines=("postgres",),
)
