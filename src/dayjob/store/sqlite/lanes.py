"""Lanes: the jobs of a lane come one turn after the other, so that lanes share a queue fairly.

Fair queueing that clocks itself (Golestani 1994): a place is one turn behind the last of its lane, but not before the first
that waits. It needs no state but the jobs themselves, and the claim goes on taking the first of the queue.
"""

from __future__ import annotations

from dayjob.store.gating import TURN
from dayjob.store.records import Script, Statement
from dayjob.store.sqlfile import load
from dayjob.store.sqlite.database import Database
from dayjob.store.sqlite.part import Part, decode, text


class LanesPart(Part):
    """The places of jobs that have a lane."""

    def __init__(self, db: Database, lease: float) -> None:
        super().__init__(db, lease)
        self.gate_sql = load("dayjob.store.sqlite", "gates.sql", db.namespace)

    def take_turns(self, base: int) -> Script[None]:
        """Give those of the available jobs above the entry *base* that have a lane places by turn; each has the place in which it came."""
        found = yield Statement(self.gate_sql.newcomers, (base,))
        jobs = decode(found[0][0])
        laned = [job for job in jobs if job[4] is not None]
        if not laned:
            return
        queues = sorted({(job[2], job[3]) for job in laned})
        lanes = sorted({(job[2], job[3], job[4]) for job in laned})
        found = yield Statement(self.gate_sql.first_places, (text(queues), base))
        firsts = {(queue, priority): place for queue, priority, place in decode(found[0][0])}
        found = yield Statement(self.gate_sql.last_places, (text(lanes), base))
        lasts = {(queue, priority, lane): place for queue, priority, lane, place in decode(found[0][0])}
        places = []
        for entry, place, queue, priority, lane, weight in jobs:
            if (queue, priority) not in firsts:
                continue
            first = firsts[queue, priority]
            if lane is not None and first is not None:
                last = lasts[queue, priority, lane]
                place = first if last is None else max(first, last + max(1, TURN // (weight or 1)))
            if lane is not None:
                lasts[queue, priority, lane] = place
                places.append((entry, place))
            firsts[queue, priority] = place if first is None else min(first, place)
        yield Statement(self.gate_sql.set_places, (text(places),))
