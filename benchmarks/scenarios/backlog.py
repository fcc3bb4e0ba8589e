"""Whether a claim costs more when a million jobs wait than when a thousand do."""

from __future__ import annotations

import statistics

from benchmarks.model import Bench, Figure, Floor, Round, Scenario, ratio
from benchmarks.stored import Holder, stock

FEW = 1_000
MANY = 1_000_000
CLAIM = 100
CLAIMS = 150


def measure(bench: Bench) -> Round:
    """Claims of 100 from both stores in turn, what was claimed is replaced; the median of either."""
    many = bench.jobs(MANY)
    few_url, many_url = bench.store("few"), bench.store("many")
    with stock(few_url, FEW) as few_store, stock(many_url, many) as many_store:
        few_holder, many_holder = Holder(few_store), Holder(many_store)
        few_s: list[float] = []
        many_s: list[float] = []
        for _ in range(CLAIMS):
            for holder, seconds in ((few_holder, few_s), (many_holder, many_s)):
                seconds.append(holder.claim(CLAIM))
                holder.replace()
    return {"few": statistics.median(few_s) * 1000, "many": statistics.median(many_s) * 1000}


SCENARIO = Scenario(
    "backlog",
    "a claim of 100 jobs when many wait",
    (
        Figure("few", "1,000 jobs waiting", "ms", "low"),
        Figure("many", "1,000,000 jobs waiting", "ms", "low"),
    ),
    (Floor("a claim with 1,000,000 waiting, of one with 1,000", ratio("many", "few"), most=1.3),),
    measure,
    rounds=1,
)
