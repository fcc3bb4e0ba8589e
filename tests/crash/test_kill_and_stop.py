"""Random SIGKILL and SIGSTOP (longer than the lease) while 2,000 jobs run: every job is settled exactly once.

`ARENA_RUNS=20` repeats it, `ARENA_SEED=n` begins with that seed; each run prints its seed and its figures.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dayjob.states import TERMINAL, State
from dayjob.store.records import Filter
from tests.contract.engines import ENGINES, EngineUnderTest
from tests.crash import arena
from tests.crash.checker import replay_stale, violations
from tests.crash.crowd import Crowd

RUNS = int(os.environ.get("ARENA_RUNS", "1"))
SEED = int(os.environ.get("ARENA_SEED", "0")) or random.randrange(1, 1_000_000)
JOBS = 2_000
POISON = 2
WORKERS = 4
STRETCH = 12.0
"""Seconds of faults; the jobs are enqueued over the first three quarters of it."""
DRAIN = 60.0
"""Suspects run one after the other in processes of their own; on a busy machine each takes seconds to start."""
UNFINISHED = tuple(state for state in State if state not in TERMINAL)


@pytest.fixture(params=[engine for engine in ENGINES if engine.processes], ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EngineUnderTest]:
    under_test: EngineUnderTest = request.param(tmp_path)
    yield under_test
    under_test.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", range(SEED, SEED + RUNS))
def test_every_job_is_settled_once_whatever_happens_to_its_workers(
    seed: int, engine: EngineUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    url = engine.url
    monkeypatch.setattr(arena, "LEDGER", tmp_path)
    app, (nap, work, poison) = arena.producer(url, "nap", "work", "poison")
    app.migrate()
    crowd = Crowd(tmp_path, url)
    for _ in range(WORKERS):
        crowd.add()
    acknowledged: set[str] = set()
    poisoned: set[str] = set()
    try:
        begun = time.monotonic()
        next_fault = begun + 1.5
        while (now := time.monotonic()) < begun + STRETCH:
            wanted = min(1.0, (now - begun) / (STRETCH * 0.75)) * JOBS
            batch = [
                rng.choice((nap, work)).job(rng.uniform(0.002, 0.08)) for _ in range(int(wanted) - len(acknowledged))
            ]
            if batch:
                acknowledged.update(job.id for job in app.enqueue_many(batch))
            while len(poisoned) < POISON * min(1.0, (now - begun) / 6):
                poisoned.add(poison.enqueue().id)
            if now >= next_fault:
                crowd.kill(rng) if crowd.kills <= crowd.stops else crowd.stop(rng, now)
                next_fault = now + rng.uniform(0.4, 1.1)
            time.sleep(0.02)  # the pace of the producers
        last_fault = max(time.monotonic(), *crowd.stopped.values(), 0)
        while time.monotonic() < last_fault + DRAIN and app.store.count(Filter(states=UNFINISHED)):
            time.sleep(0.1)
        drained = time.monotonic() - last_fault
    finally:
        crowd.end()
    facts = arena.facts()
    sent, refused = replay_stale(app.store, facts, 20)
    stale = sum(fact["fact"] == "lease.lost" for fact in facts)
    taken = sum(fact["fact"] == "job.stalled" for fact in facts)
    print(
        f"seed {seed}: {len(acknowledged)} jobs, {crowd.kills} SIGKILL, {crowd.stops} SIGSTOP, {taken} taken from lost "
        f"workers, {stale} stale writes of workers refused, {refused} of {sent} replayed refused, all done {drained:.1f} s "
        "after the last fault"
    )

    assert violations(app.store, acknowledged | poisoned, poisoned, facts) == []
    assert (sent, refused) == (20, 20)
    assert crowd.kills >= 2
    assert crowd.stops >= 2
    app.close()
