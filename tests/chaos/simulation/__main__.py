"""`python -m tests.chaos.simulation`: many hours over several processes, or one seed again with all that happens in it.

python -m tests.chaos.simulation --hours 10000 --jobs 2 --seed 1
python -m tests.chaos.simulation --hours 1 --seed 4711 -v
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.chaos.simulation.world import Summary, simulate

EACH = 5.0
"""Hours in a run of their own: long enough that nothing of the beginning is left at the end."""


def shares(hours: float, each: float = EACH) -> Iterator[float]:
    """*hours*, a run of *each* after the other."""
    while hours > 0:
        yield min(each, hours)
        hours -= each


def summary(seed: int, hours: float, verbose: bool = False) -> Summary:
    """What is worth sending from one process to another."""
    return simulate(seed, hours, verbose=verbose).summary


def main() -> int:
    given = argparse.ArgumentParser(prog="python -m tests.chaos.simulation", description=__doc__)
    given.add_argument("--hours", type=float, default=float(os.environ.get("SIMULATION_HOURS", 100)))
    given.add_argument("--seed", type=int, default=int(os.environ.get("SIMULATION_SEED", 1)), help="of the first run")
    given.add_argument("--jobs", type=int, default=1, help="processes")
    given.add_argument("--each", type=float, default=EACH, help="hours in one run")
    given.add_argument("-v", "--verbose", action="store_true", help="tell all that happens")
    args = given.parse_args()
    runs = list(shares(args.hours, args.each))
    seeds = range(args.seed, args.seed + len(runs))
    began, failed, jobs = time.monotonic(), [], 0
    with ProcessPoolExecutor(args.jobs) as pool:
        told = [args.verbose] * len(runs)
        ended = map(summary, seeds, runs, told) if args.jobs == 1 else pool.map(summary, seeds, runs, told)
        for one in ended:
            jobs += one.jobs
            print(one, flush=True)
            if one.violations:
                failed.append(one.seed)
                print(
                    f"    again: python -m tests.chaos.simulation --seed {one.seed} --hours {one.hours:g} -v",
                    flush=True,
                )
    took = time.monotonic() - began
    verdict = f"seeds that failed: {failed}" if failed else "no violation"
    print(f"{args.hours:,g} hours, {len(runs):,} runs, {jobs:,} jobs in {took:,.0f} s: {verdict}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
