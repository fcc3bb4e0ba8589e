"""Limits of whole queues, as a claim holds them: how much of a queue may be taken now."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dayjob.clock import SECOND
from dayjob.store.sqlite.lines import WHOLE
from dayjob.store.sqlite.part import rows, text

if TYPE_CHECKING:
    from dayjob.store.sqlite.lanes import LanesPart


class Caps:
    """What the claims of one turn may take of queues that have limits."""

    def __init__(self, part: LanesPart, connection: sqlite3.Connection, now: int) -> None:
        self._sql, self._connection, self._now = part.gate_sql, connection, now
        limits = rows(connection, self._sql.limits_at_claim)
        self._concurrency = {queue: most for queue, most, _, _ in limits if most is not None}
        self._rates = {queue: rate for queue, _, rate, _ in limits if rate is not None}
        self._spans = {queue: int(per * SECOND) for queue, _, rate, per in limits if rate is not None}
        self._left: dict[str, int] = {}
        self._look()

    def most(self, queue: str, limit: int) -> int:
        """How many jobs of *queue*, up to *limit*, may be claimed now."""
        return min(limit, self._left.get(queue, limit))

    def count(self, entries: Sequence[int]) -> None:
        """These jobs were just claimed."""
        if self._spans:
            self._connection.execute(self._sql.count_starts, (text(entries), self._now, text(self._spans)))
        self._look()

    def _look(self) -> None:
        running = dict(rows(self._connection, self._sql.running_of, (text(list(self._concurrency)),)))
        self._left = {queue: max(0, most - running.get(queue, 0)) for queue, most in self._concurrency.items()}
        gates = [WHOLE + queue for queue in self._rates]
        for gate, started in rows(self._connection, self._sql.starts_of, (text(gates), self._now)):
            queue = gate.removeprefix(WHOLE)
            free = max(0, self._rates[queue] - started)
            self._left[queue] = min(self._left.get(queue, free), free)
            if not free:
                self._connection.execute(self._sql.wait_for_rate, (gate, self._now))
