"""A run under load: jobs come at a steady pace, worker processes run them, and meanwhile one thing happens to the store.

calm ─▶ fault ─▶ calm ─▶ drained ─▶ judged, by the checker of the chaos suite
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dayjob.clock import SECOND
from dayjob.store import open_store
from dayjob.store.records import Filter
from tests.chaos import app as chaos
from tests.chaos.checker import judge
from tests.chaos.crew import Crew
from tests.chaos.evidence import UNFINISHED, Conditions
from tests.chaos.producer import Sender
from tests.chaos.rules import moments

WORKERS = 3
PACE = 200.0
"""Jobs per second; the workers could do more, so that a fault leaves a backlog which they work off."""
CALM = 3.0
RECOVERY = moments.HEALED
LEAST = 2_000
FIRST = 60
"""Jobs with which the workers show that they are there."""
FORGOTTEN = 1.0
"""Seconds before a crash of the store of which it may have forgotten claims (PostgreSQL writes its log every 0.2 s)."""


class Storm:
    """Workers and a producer on the store at *url*, as long as this is open.

    Args:
        judged_at: the URL by which the store is looked at afterwards, where *url* is a bad line.
    Attributes:
        acknowledged: ids of the jobs whose enqueue returned, and when.
    """

    def __init__(self, url: str, folder: Path, *, judged_at: str | None = None) -> None:
        self._url, self._folder = url, folder
        self._store = open_store(judged_at or url)
        self.acknowledged: dict[str, float] = {}
        self._ending, self._flowing = threading.Event(), threading.Event()
        self._producer = threading.Thread(target=self._produce, name="producer")
        self._failure: Exception | None = None
        self._suffered = False

    def __enter__(self) -> Storm:
        self._store.migrate()
        chaos.ledger.folder = self._folder / "ledger"
        chaos.ledger.folder.mkdir()
        chaos.app.url = self._url
        self._crew = Crew(self._folder, self._url, workers=WORKERS, producers=0, seed=0)
        self._crew.__enter__()
        self._producer.start()
        try:
            self._until(lambda: len(chaos.ledger.facts("effect")) >= FIRST, "the first jobs were not run", 20.0)
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
        self._crew.__exit__()
        self._store.close()
        chaos.app.close()

    def _produce(self) -> None:
        sender, begun = Sender(), time.monotonic()
        try:
            while not self._ending.wait(0.02):  # the pace of the producer
                if not self._flowing.is_set():
                    begun = time.monotonic()  # the workers are not there yet
                due = FIRST + int((time.monotonic() - begun) * PACE) - len(self.acknowledged)
                if due > 0:
                    stored = sender.send(lambda call, due=due: _jobs(call, min(due, 200)), chaos.app.enqueue_many)  # type: ignore[misc]
                    self.acknowledged |= dict.fromkeys((job.id for job in stored), time.monotonic())
        except Exception as error:
            self._failure = error

    def suffer(self, fault: Callable[[], object]) -> None:
        """Let *fault* happen, which returns when it is over, and then calm for as long as the jobs may take to flow."""
        begun = time.monotonic()
        fault()
        chaos.ledger.note("fault", name="the fault", target=None, at=begun, until=time.monotonic())
        self._suffered = True
        self._store.close()  # what it knows of the store is from before
        time.sleep(RECOVERY + 2.0)  # a window that begins at the last permitted moment must be full

    def end(self, drained_within: float = 30.0) -> None:
        """Stop producing, wait until nothing is left to do, and let the workers go."""
        self._until(lambda: len(self.acknowledged) >= LEAST or self._failure, "the producer is stuck", 30.0)
        self._ending.set()
        self._producer.join()
        if self._failure is not None:
            raise self._failure
        self._until(lambda: not self._store.count(Filter(states=UNFINISHED)), "jobs are left", drained_within)
        self._crew.dismiss("worker", 30.0)

    def broken(self, *, crashes: Sequence[float] = (), forgetful: float = 0.0) -> list[str]:
        """The promises that were not kept; *crashes* are moments at which the server crashed, and forgot so many seconds."""
        assert self._suffered, "nothing happened"
        settings = chaos.SETTINGS
        conditions = Conditions(
            lease=settings.lease,
            beat=settings.beat,
            sweep=settings.sweep,
            grace=settings.grace,
            drain=30.0,
            offset=self._store.now() / SECOND - time.monotonic(),
            tolerance=0.05,
            crashes=tuple(crashes),
            forgets_claims=FORGOTTEN + forgetful,
            forgets=forgetful,
            replays=0,
        )
        verdict = judge(chaos.ledger.facts(), self._store, conditions)
        print(verdict.text())
        measured = any(finding.looked_at for finding in verdict.findings if finding.rule == moments.FLOW)
        return verdict.violations if measured else [*verdict.violations, "how soon the jobs flowed was not measured"]

    def lost(self) -> dict[str, float]:
        """The acknowledged jobs that are not in the store, and when they were acknowledged."""
        known = set[str]()
        ids = list(self.acknowledged)
        for start in range(0, len(ids), 1000):
            known.update(whole.job.id for whole in self._store.export(ids[start : start + 1000]))
        return {id: at for id, at in self.acknowledged.items() if id not in known}

    def _until(self, met: Callable[[], object], otherwise: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not met():
            if time.monotonic() > deadline:
                raise AssertionError(f"{otherwise} within {seconds:g} s; the workers say:\n{self._crew.log()}")
            time.sleep(0.1)


def _jobs(call: int, count: int) -> list[Any]:
    tasks = [task.using(meta={"call": call, "plan": {}}) for task in (chaos.nap, chaos.work)]
    return [tasks[number % 2].job(0.01) for number in range(count)]
