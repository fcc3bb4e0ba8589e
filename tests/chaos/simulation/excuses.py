"""What became of a job by our own doing, and not by its plan: it is written into the plan, as we know it for certain.

* It ran alone in a process that we killed, froze or cut off, or that could not say goodbye to a store that was away: that
  crash counts, and the third makes it dead.
* The process in which it ran stood still for longer than its time limit: that attempt is spent.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import structs

from dayjob.clock import SECOND
from dayjob.states import Outcome
from dayjob.store.contract import Store
from dayjob.store.records import AttemptRow, JobRow
from tests.chaos.evidence import NO_BEAT
from tests.chaos.ledger import Fact
from tests.chaos.simulation.machine import START
from tests.chaos.simulation.work import LIMIT, Spec

LIMITED = ("slow", "deaf")
SILENT = 60.0
"""Seconds after which nobody is given up any more for what he could not say while the store was away."""


class Excuses:
    """Looks through a ledger.

    Attributes:
        given: how many plans were changed.
    """

    def __init__(self, facts: list[Fact], store: Store, specs: dict[str, Spec]) -> None:
        self._facts, self._store, self._specs = facts, store, specs
        faults = [fact for fact in facts if fact["fact"] == "fault" and fact["target"] is not None]
        self._struck = {fact["target"] for fact in faults}
        self._away = [fact for fact in facts if fact["fact"] == "fault" and fact["name"] in ("outage", "lossy", "slow")]
        self._frozen = [fact for fact in faults if fact["name"] == "freeze"]
        self._alone = {fact["pid"] for fact in facts if fact["fact"] == "worker.up" and fact["solo"]}
        self.given = 0

    def write(self) -> None:
        """Change the plans in the ledger."""
        for fact in self._facts:
            if fact["fact"] == "enqueue.tried":
                row = self._store.get(fact["id"])
                if row is not None:
                    self._look(fact, row, self._specs[row.id])

    def _look(self, fact: Fact, row: JobRow, spec: Spec) -> None:
        plan = spec.plan
        if row.crashes and not plan.crashes and all(map(self._ours, _crashed(row))):
            dead = {"end": "dead", "reason": "crashed", "attempts": row.attempt, "snoozes": 0, "cancelled": False}
            plan = structs.replace(plan, crashes=row.crashes, **(dead if row.crashes == 3 else {}))
        if spec.task in LIMITED and row.attempt > plan.attempts and all(map(self._stood, _late(row, spec))):
            plan = structs.replace(plan, end=str(row.state), reason=row.reason, attempts=row.attempt)
        if plan != spec.plan:
            self.given += 1
            fact["plan"] = msgspec.to_builtins(plan)

    def _ours(self, attempt: AttemptRow) -> bool:
        """True when that crash was our doing."""
        over = attempt.finished_at / SECOND - START / SECOND
        away = any(fault["at"] <= over <= fault["until"] + SILENT for fault in self._away)
        return _pid(attempt) in self._struck or (attempt.reason == NO_BEAT and away)

    def _stood(self, attempt: AttemptRow) -> bool:
        """True when the process of *attempt* stood still in it."""
        over = attempt.finished_at / SECOND - START / SECOND
        return any(
            fault["target"] == _pid(attempt) and fault["at"] <= over <= fault["until"] + LIMIT for fault in self._frozen
        )

    def uncalled_for(self) -> Iterator[str]:
        """Crashes that were counted for jobs of processes that never ran anything alone."""
        for id in self._specs:
            row = self._store.get(id)
            for attempt in () if row is None else _crashed(row):
                if _pid(attempt) not in self._alone:
                    yield f"{id} counts a crash of {attempt.worker}, which ran nothing alone"


def _pid(attempt: AttemptRow) -> int:
    return int((attempt.worker or "p0")[1:])


def _crashed(row: JobRow) -> list[AttemptRow]:
    return [attempt for attempt in row.attempts if attempt.outcome is Outcome.CRASHED]


def _late(row: JobRow, spec: Spec) -> list[AttemptRow]:
    """The failures of a job after those that it was to have."""
    ends = (Outcome.FAILED, Outcome.DEAD)
    return [attempt for attempt in row.attempts if attempt.outcome in ends and attempt.number > spec.times]
