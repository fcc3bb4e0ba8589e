"""What keys, limits and lanes cost: a claim beside very many that wait for something, and jobs that all have a limit."""

from __future__ import annotations

import statistics
from contextlib import ExitStack

from benchmarks.model import Bench, Figure, Floor, Round, Scenario, ratio
from benchmarks.scenarios.drain import run
from benchmarks.stored import Gates, Holder, add, free, stock
from dayjob.store.contract import Store
from dayjob.store.gating import Gate, Gating

FEW = 1_000
BLOCKED = 1_000_000
KEYS = 100_000
LANES = 10_000
CLAIM = 100
CLAIMS = 100
JOBS = 30_000


def behind_one(number: int) -> Gating:
    """A job that waits behind a key of which nothing comes free."""
    return Gating(gates=(Gate("concurrency", "one", 1),))


def of_many(number: int) -> Gating:
    """A job of one of very many keys."""
    return Gating(gates=(Gate("concurrency", f"tenant:{number % KEYS}", 1),))


def of_few(number: int) -> Gating:
    """A job of one of a hundred keys, none of which is ever short of tokens."""
    return Gating(gates=(Gate("concurrency", f"tenant:{number % 100}", 1_000),))


def in_a_lane(number: int) -> Gating:
    return Gating(lane=f"tenant:{number % LANES}")


def measure(bench: Bench) -> Round:
    """Claims of 100 from four stores in turn, what was claimed is replaced; then a worker empties two stores."""
    with ExitStack() as stack:

        def filled(name: str, jobs: int, gates: Gates) -> Store:
            return stack.enter_context(stock(bench.store(name), jobs, gates))

        plain, blocked = filled("plain", FEW, free), filled("blocked", bench.jobs(BLOCKED), behind_one)
        blocked.take([Gate("concurrency", "one", 1)], "held", 36_000.0)
        add(blocked, FEW)
        found = in_turn(
            plain=Holder(plain),
            blocked=Holder(blocked),
            keys=Holder(filled("keys", bench.jobs(KEYS), of_many), of_many),
            lanes=Holder(filled("lanes", bench.jobs(LANES * 10), in_a_lane), in_a_lane),
        )
    for name, gates in (("drain_plain", free), ("drain_keyed", of_few)):
        bench.engine.clear()
        url = bench.store(name)
        with stock(url, bench.jobs(JOBS), gates):
            pass
        found[name] = run(url, bench.jobs(JOBS))
    return found


def in_turn(**holders: Holder) -> Round:
    """The median of a claim of each, in milliseconds."""
    seconds: dict[str, list[float]] = {name: [] for name in holders}
    for holder in holders.values():
        holder.claim(CLAIM)  # the first lets in what waits since the store was filled
        holder.replace()
    for _ in range(CLAIMS):
        for name, holder in holders.items():
            seconds[name].append(holder.claim(CLAIM))
            holder.replace()
    return {name: statistics.median(values) * 1000 for name, values in seconds.items()}


SCENARIO = Scenario(
    "gates",
    "what keys, limits and lanes cost a claim of 100 jobs, and all jobs together",
    (
        Figure("plain", "a claim, nothing else there", "ms", "low"),
        Figure("blocked", "a claim beside 1,000,000 jobs behind one key", "ms", "low"),
        Figure("keys", "a claim from 100,000 keys", "ms", "low"),
        Figure("lanes", "a claim from 10,000 lanes", "ms", "low"),
        Figure("drain_plain", "one worker process, no job with a limit", "/s"),
        Figure("drain_keyed", "one worker process, every job with a limit", "/s"),
    ),
    (
        Floor("a claim beside 1,000,000 blocked jobs, of one without", ratio("blocked", "plain"), most=1.2),
        Floor("a claim from 10,000 lanes, of one without", ratio("lanes", "plain"), most=1.5),
        Floor("jobs with a limit each, of jobs without", ratio("drain_keyed", "drain_plain"), least=0.5),
    ),
    measure,
    rounds=1,
)
