"""Seeded bugs: each breaks a promise, and the checker must notice. Whoever trusts the checker should know what it sees.

    Mutant ─▶ seeded (mutation.py) ─▶ a simulated run, or a live one (`CHAOS_MUTANT=name`) ─▶ checker ─▶ a rule is broken

Most change what an engine says to its database; the others what the worker or the producer does, whatever the engine.
"""

from __future__ import annotations

import atexit
import os
from contextlib import ExitStack

from tests.chaos.mutants.callers import PRODUCERS, TIMES, WORKERS
from tests.chaos.mutants.counters import COUNTERS, CRASHES
from tests.chaos.mutants.fences import FENCES
from tests.chaos.mutants.leases import LEASES
from tests.chaos.mutants.limits import LIMITED
from tests.chaos.mutants.mutant import Mutant
from tests.chaos.mutants.ticks import TICKING

MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant
    for mutant in (*FENCES, *LEASES, *CRASHES, *COUNTERS, *TIMES, *PRODUCERS, *WORKERS, *LIMITED, *TICKING)
}
ENGINE_OF = {"sqlite": "sqlite", "postgresql": "postgres", "postgres": "postgres", "redis": "redis", "valkey": "redis"}
"""The engine's name here, by the scheme of a store's URL or the name of a place."""


def apply_from_environment(engine: str) -> None:
    """Seed the bug that `CHAOS_MUTANT` names, for as long as this process lives."""
    name = os.environ.get("CHAOS_MUTANT")
    if name:
        held = ExitStack()
        held.enter_context(MUTANTS[name].seeded(engine))
        atexit.register(held.close)  # whoever lets go of it has mended the bug
