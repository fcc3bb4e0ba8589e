"""The questions, in the order in which they are asked."""

from __future__ import annotations

from benchmarks.model import Scenario
from benchmarks.scenarios import (
    backlog,
    cpu_bound,
    drain,
    enqueue,
    fairness,
    gates,
    idle,
    imports,
    latency,
    processes,
    reads,
    schedules,
)

ALL: dict[str, Scenario] = {
    module.SCENARIO.name: module.SCENARIO
    for module in (
        drain,
        enqueue,
        latency,
        cpu_bound,
        idle,
        imports,
        backlog,
        gates,
        schedules,
        fairness,
        processes,
        reads,
    )
}
