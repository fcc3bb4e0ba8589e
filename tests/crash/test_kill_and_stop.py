"""Random SIGKILL and SIGSTOP (longer than the lease) while 2,000 jobs run: every job is settled exactly once.

`ARENA_RUNS=20` repeats it, `ARENA_SEED=n` begins with that seed; each run prints its seed and its figures.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from dayjob import App
from dayjob.states import TERMINAL, State
from dayjob.store.records import Filter
from tests.crash import arena
from tests.crash.checker import replay_stale, violations

RUNS = int(os.environ.get("ARENA_RUNS", "1"))
SEED = int(os.environ.get("ARENA_SEED", "0")) or random.randrange(1, 1_000_000)
JOBS = 2_000
POISON = 2
WORKERS = 4
STRETCH = 12.0
"""Seconds of faults; the jobs are enqueued over the first three quarters of it."""
DRAIN = 30.0
UNFINISHED = tuple(state for state in State if state not in TERMINAL)


class Crowd:
    """The worker processes, and what is done to them."""

    def __init__(self, folder: Path, url: str) -> None:
        self._environ = {**os.environ, "ARENA_URL": url, "ARENA_LEDGER": str(folder)}
        self._log = (folder / "workers.log").open("ab")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.stopped: dict[subprocess.Popen[bytes], float] = {}
        self.kills = self.stops = 0
        # Woken from a thread of its own: a worker stopped inside a write transaction holds the file, and the producer
        # then waits for it.
        self._ending = threading.Event()
        self._waker = threading.Thread(target=self._wake)
        self._waker.start()

    def add(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.arena"], env=self._environ, stdout=self._log, stderr=self._log
        )
        self.processes.append(process)

    def kill(self, rng: random.Random) -> None:
        victim = rng.choice(self.processes)
        victim.kill()
        victim.wait()
        self.processes.remove(victim)
        self.stopped.pop(victim, None)
        self.kills += 1
        self.add()

    def stop(self, rng: random.Random, now: float) -> None:
        able = [process for process in self.processes if process not in self.stopped]
        if len(able) > 1:
            victim = rng.choice(able)
            victim.send_signal(signal.SIGSTOP)
            self.stopped[victim] = now + 1.5 * arena.LEASE
            self.stops += 1

    def _wake(self) -> None:
        while not self._ending.wait(0.02):
            for process, until in list(self.stopped.items()):
                if time.monotonic() >= until:
                    process.send_signal(signal.SIGCONT)
                    self.stopped.pop(process, None)

    def end(self) -> None:
        self._ending.set()
        self._waker.join()
        for process in self.processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._log.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", range(SEED, SEED + RUNS))
def test_every_job_is_settled_once_whatever_happens_to_its_workers(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    url = f"sqlite:///{tmp_path / 'arena.db'}"
    monkeypatch.setattr(arena, "LEDGER", tmp_path)
    app = App(url, settings=arena.app.settings)
    nap, work, poison = (
        app.task(getattr(arena, name).fn, name=f"tests.crash.arena.{name}") for name in ("nap", "work", "poison")
    )
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
