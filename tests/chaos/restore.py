"""A backup that was taken during a run is restored beside it: a worker drains it, and the checker looks at it.

run ──acknowledged─▶ store ──back_up─▶ backup ──restored─▶ a second store ─▶ its own worker, its own ledger ─▶ rules
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from dayjob import App
from dayjob.clock import SECOND
from dayjob.states import TERMINAL
from dayjob.store import open_store
from dayjob.store.contract import Store
from dayjob.store.records import Filter
from tests.chaos import app as chaos
from tests.chaos.crew import Crew
from tests.chaos.evidence import UNFINISHED, Conditions, gather
from tests.chaos.ledger import Fact
from tests.chaos.rules.jobs import ends_once, invented, legal, lost, planned

RULES = (lost, invented, planned, ends_once, legal)
PATIENCE = 90.0


class Backup(NamedTuple):
    """Where a backup is, and when it was begun."""

    path: Path
    begun: float


def wrong_with(place: Any, backup: Backup) -> tuple[list[str], int]:
    """What is wrong with a store that is restored from *backup*; and how many jobs were in it."""
    known = chaos.ledger.facts("enqueue.tried", "enqueue.acknowledged", "tick.tried", "worker.up", "fault")
    known = [fact for fact in known if fact["fact"] != "enqueue.acknowledged" or fact["at"] < backup.begun]
    url = place.restored(backup.path)
    with closing(open_store(url)) as store:
        ended, jobs = _ended(store), store.count(Filter())
        with _ledger(place.folder / "restored") as folder:
            _drain(folder, url, store)
            facts: list[Fact] = chaos.ledger.facts()
        offset = store.now() / SECOND - time.monotonic()
        conditions = Conditions.of(chaos.SETTINGS, forgets=place.forgets, offset=offset, tolerance=0.05)
        evidence = gather([*known, *facts], store, conditions)
    lines = [f"{finding.rule}: {line}" for finding in (rule(evidence) for rule in RULES) for line in finding.broken]
    lines += [f"{id} had ended and started again" for id in sorted(ended & evidence.starts.keys())]
    return [f"the restored backup: {line}" for line in lines], jobs


def _ended(store: Store) -> set[str]:
    """The jobs that had ended when the backup was taken."""
    found: set[str] = set()
    after: str | None = None
    while True:
        page = store.find(Filter(states=tuple(TERMINAL)), limit=1000, after=after)
        found |= {job.id for job in page.jobs}
        after = page.after
        if after is None:
            return found


def _drain(folder: Path, url: str, store: Store) -> None:
    with closing(App(url)) as app:  # clocks that go on make jobs to the end, of which the last are not run any more
        for schedule in app.schedules.list():
            app.schedules.pause(schedule.name)
    with Crew(folder, url, workers=1, producers=0, seed=0) as crew:
        deadline = time.monotonic() + PATIENCE
        while store.count(Filter(states=UNFINISHED)) and time.monotonic() < deadline:
            time.sleep(0.1)  # what is late is for the checker to say
        crew.dismiss("worker", 30.0)


@contextmanager
def _ledger(folder: Path) -> Iterator[Path]:
    """What is noted meanwhile goes into a ledger in *folder*."""
    of_the_run, chaos.ledger.folder = chaos.ledger.folder, folder / "ledger"
    chaos.ledger.folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        chaos.ledger.folder = of_the_run
