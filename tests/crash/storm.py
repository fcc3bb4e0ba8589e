"""A run under load: jobs come at a steady pace, worker processes run them, and meanwhile something happens to the store.

calm ─▶ fault ─▶ calm ─▶ drained ─▶ judged
"""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dayjob.states import TERMINAL, State
from dayjob.store.records import Filter
from tests.crash import arena
from tests.crash.checker import all_jobs, violations
from tests.crash.crowd import Crowd

WORKERS = 3
PACE = 200.0
"""Jobs per second; the workers could do more, so that a fault leaves a backlog which they work off."""
CALM = 3.0
RECOVERY = 5.0
"""Within so many seconds after a fault the jobs flow again…"""
SHARE = 0.8
"""…at this share of what they did before."""
LEAST = 2_000
FIRST = 60
"""Jobs with which the workers show that they are there."""
UNFINISHED = tuple(state for state in State if state not in TERMINAL)


class Storm:
    """Workers and a producer on the store at *url*, as long as this is open.

    Args:
        judged_at: the URL by which the store is looked at afterwards, where *url* is a bad line.
    Attributes:
        acknowledged: ids of the jobs whose enqueue returned, and when.
    """

    def __init__(self, url: str, folder: Path, *, judged_at: str | None = None) -> None:
        self._url, self._folder = url, folder
        self._judge, _ = arena.producer(judged_at or url)
        self.acknowledged: dict[str, float] = {}
        self._ending, self._flowing = threading.Event(), threading.Event()
        self._producer = threading.Thread(target=self._produce, name="producer")
        self._failure: Exception | None = None
        self._fault: tuple[float, float] | None = None

    def __enter__(self) -> Storm:
        self._judge.migrate()
        self._crowd = Crowd(self._folder, self._url)
        self._producer.start()
        try:
            for _ in range(WORKERS):
                self._crowd.add()
            self._until(lambda: len(self._effects()) >= FIRST, "the first jobs were not run", 20.0)
            self._flowing.set()
            time.sleep(CALM)  # what is measured before the fault
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()

    def _close(self) -> None:
        self._ending.set()
        self._producer.join()
        self._crowd.end()
        self._judge.close()

    def _produce(self) -> None:
        app, (nap, work) = arena.producer(self._url, "nap", "work")
        begun = time.monotonic()
        try:
            while not self._ending.wait(0.02):  # the pace of the producer
                if not self._flowing.is_set():
                    begun = time.monotonic()  # the workers are not there yet
                due = FIRST + int((time.monotonic() - begun) * PACE) - len(self.acknowledged)
                batch = [(nap, work)[n % 2].job(0.01) for n in range(min(due, 200))]
                if batch:
                    stored = app.enqueue_many(batch)
                    self.acknowledged |= dict.fromkeys((job.id for job in stored), time.monotonic())
        except Exception as error:
            self._failure = error
        app.close()

    def suffer(self, fault: Callable[[], object]) -> None:
        """Let *fault* happen, which returns when it is over, and then calm for as long as the jobs may take to flow."""
        begun = time.monotonic()
        fault()
        self._fault = (begun, time.monotonic())
        self._judge.close()  # what it knows of the store is from before
        time.sleep(RECOVERY + 2.0)  # a window that begins at the last permitted moment must be full

    def end(self, drained_within: float = 30.0) -> None:
        """Stop producing, and wait until nothing is left to do."""
        self._until(lambda: len(self.acknowledged) >= LEAST or self._failure, "the producer is stuck", 30.0)
        self._ending.set()
        self._producer.join()
        if self._failure is not None:
            raise self._failure
        self._until(lambda: not self._judge.store.count(Filter(states=UNFINISHED)), "jobs are left", drained_within)
        self._crowd.end()

    def broken(self, *, crashes: Sequence[float] = (), forgetful: float = 0.0) -> list[str]:
        """The promises that were not kept; *crashes* are moments at which the server crashed, and forgot so many seconds."""
        forgotten = {id for id, at in self.lost().items() if any(crash - forgetful < at < crash for crash in crashes)}
        there = self.acknowledged.keys() - forgotten
        return (
            violations(self._judge.store, there, set(), arena.facts(), crashes=crashes, forgetful=forgetful)
            + self._slow()
        )

    def lost(self) -> dict[str, float]:
        """The acknowledged jobs that are not in the store, and when they were acknowledged."""
        there = all_jobs(self._judge.store)
        return {id: at for id, at in self.acknowledged.items() if id not in there}

    def _slow(self) -> list[str]:
        assert self._fault is not None, "nothing happened"
        begun, over = self._fault
        effects = self._effects()
        before = _within(effects, begun - CALM + 0.5, begun) / (CALM - 0.5)
        moment = over
        while _within(effects, moment, moment + 1.0) < SHARE * before:
            moment += 0.05
            if moment > over + RECOVERY:
                after = _within(effects, over, over + RECOVERY) / RECOVERY
                return [f"{before:.0f} jobs/s before the fault, {after:.0f} in the {RECOVERY:g} s after it"]
        print(f"{before:.0f} jobs/s; a fault of {over - begun:.1f} s; back after {moment - over:.2f} s")
        return []

    def _effects(self) -> list[float]:
        """When the jobs did their work."""
        return [fact["at"] for fact in arena.facts() if fact["fact"] == "effect"]

    def _until(self, met: Callable[[], object], otherwise: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not met():
            if time.monotonic() > deadline:
                log = (self._folder / "workers.log").read_text()[-3000:]
                raise AssertionError(f"{otherwise} within {seconds:g} s; the workers say:\n{log}")
            time.sleep(0.1)


def _within(times: list[float], begin: float, end: float) -> int:
    """How many of *times* (sorted) lie in [begin, end)."""
    return bisect.bisect_left(times, end) - bisect.bisect_left(times, begin)
