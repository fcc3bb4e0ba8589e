"""The schedules of a simulated cluster: some declared by the workers' code, some said at run time; by interval and by calendar."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from dayjob.schedule import CatchUp, Cron, Every, Overlap, Rules
from dayjob.services.agenda import KIND, REVISION, Definition, Entry, Template, encode, entry_of
from dayjob.store.contract import Store
from dayjob.store.gating import Gate, Gating
from dayjob.store.records import NewRow
from tests.chaos.ledger import Plan
from tests.chaos.simulation.work import Spec

LIMIT = ("tenant:0", 1)
"""A limit that jobs of producers have, too."""


class Planned(Struct, frozen=True):
    """A schedule: when it ticks, and what its jobs do. *code*: it is declared by code. *limited*: its jobs have a limit."""

    when: Cron | Every
    overlap: Overlap
    catch_up: CatchUp
    seconds: float
    code: bool = False
    limited: bool = False
    jitter: float = 0.0


def drawn(rng: random.Random) -> dict[str, Planned]:
    """Four of them: each policy, and an interval and a calendar from everywhere."""
    zone = rng.choice(("UTC", "Asia/Kathmandu", "Europe/Berlin"))
    return {
        "beacon": Planned(Every(rng.choice((45, 60, 90))), "allow", "all", 0.2, code=True),
        "digest": Planned(Cron(f"*/{rng.choice((4, 7))} * * * *", zone), "skip", "latest", 30.0, code=True, jitter=5.0),
        "backup": Planned(Every(60), "skip", "none", rng.choice((10.0, 90.0)), limited=rng.random() < 0.3),
        "ledger": Planned(
            Cron(f"{rng.randrange(5)}-59/5 * * * *", zone), rng.choice(("queue", "skip")), "all", 2.0, limited=True
        ),
    }


def crowded(rng: random.Random) -> dict[str, Planned]:
    """Some whose jobs run for longer than from tick to tick, and some that tick often."""
    return {
        "pulse": Planned(Every(5), "allow", "all", 0.2, code=True),
        "beacon": Planned(Every(15), "allow", "none", 0.2),
        "digest": Planned(Every(20), "skip", rng.choice(("none", "latest")), 30.0),
        "ledger": Planned(Every(30), "queue", "all", 33.0, code=True),
    }


Drawn = Callable[[random.Random], dict[str, Planned]]


class Timetable:
    """The schedules of one world, which end at the stamp *until*.

    Attributes:
        planned: by name.
    """

    def __init__(self, planned: dict[str, Planned], until: int) -> None:
        self.planned, self._until = planned, until

    def declared(self) -> dict[str, tuple[Definition, str]]:
        """Those of code, as `App.schedules.declared` has them."""
        return {name: (self._definition(one), f"app.py:{name}") for name, one in self.planned.items() if one.code}

    def write(self, store: Store, now: int) -> list[str]:
        """Say those of run time; their names."""
        names = [name for name, one in self.planned.items() if not one.code]
        for name in names:
            entry = Entry(run=self._definition(self.planned[name]), cursor=now)
            store.write(KIND, name, encode(entry), expected=0, now=now)
        store.write(*REVISION, b"", now=now)
        return names

    def _definition(self, one: Planned) -> Definition:
        gating = Gating(gates=(Gate("concurrency", *LIMIT),)) if one.limited else None
        row = NewRow("", "steady", "default", b"{}", gating=gating)
        return Definition.made(
            Template.of(row), one.when, Rules(one.overlap, one.catch_up, one.jitter, end=self._until)
        )

    def told(self, name: str, since: int) -> dict[str, Any]:
        """What the ledger says of a schedule that was stored at *since*."""
        one = self.planned[name]
        every = one.when.seconds if isinstance(one.when, Every) else None
        cron, tz = (one.when.expr, one.when.tz) if isinstance(one.when, Cron) else (None, None)
        how = {"overlap": one.overlap, "catch_up": one.catch_up}
        return {"schedule": name, "cron": cron, "tz": tz, "every": every, **how, "since": since, "until": self._until}

    def spec(self, name: str, row: NewRow) -> Spec:
        """What a job of a schedule does."""
        one = self.planned[name]
        plan = Plan(shares=LIMIT) if one.limited else Plan()
        return Spec(row.task, plan, one.seconds, gating=row.gating, schedule=name)

    def over(self, store: Store, now: int) -> bool:
        """Whether all ticks were dealt with."""
        entries = [entry_of(record) for record in store.list(KIND, now=now)]
        return len(entries) == len(self.planned) and all(entry.next_stamp is None for entry in entries)
