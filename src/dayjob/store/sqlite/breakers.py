"""Breakers: failures within a window open them, time lets one call through, and its outcome decides."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Literal

from dayjob.clock import SECOND
from dayjob.store.gating import BreakerRow, Report
from dayjob.store.sqlite.lanes import LanesPart


class BreakersPart(LanesPart):
    """The states of breakers. One without a row is closed, and always was."""

    def count_calls(self, connection: sqlite3.Connection, reports: Sequence[Report], now: int) -> dict[str, str]:
        """Count *reports*, in order; the state, by key, of the breakers that changed."""
        connection.execute(self.gate_sql.probe, (now,))
        changed: dict[str, str] = {}
        for one in reports:
            row = connection.execute(self.gate_sql.breaker, (one.key,)).fetchone()
            state = "closed" if row is None else row[0]
            if state == "probing":
                cooldown = int(one.cooldown * SECOND) if one.failed else None
                changed[one.key] = self.switch(connection, one.key, "open" if one.failed else "closed", now, cooldown)
            elif state == "closed" and one.failed:
                window = int(one.within * SECOND)
                connection.execute(self.gate_sql.add_failure, (one.key, now, now + window))
                failures = connection.execute(self.gate_sql.count_failures, (one.key, now - window)).fetchone()[0]
                if failures >= one.failures:
                    changed[one.key] = self.switch(connection, one.key, "open", now, int(one.cooldown * SECOND))
        return changed

    def switch(
        self, connection: sqlite3.Connection, key: str, state: Literal["closed", "open"], now: int, cooldown: int | None
    ) -> str:
        """Open the breaker *key* for *cooldown* microseconds (None: until it is closed by hand), or close it."""
        if state == "closed":
            connection.execute(self.gate_sql.forget_breaker, (key,))
            connection.execute(self.gate_sql.forget_failures, (key,))
        else:
            until = None if cooldown is None else now + cooldown
            connection.execute(self.gate_sql.set_breaker, (key, state, now, until))
            connection.execute(self.gate_sql.recall_breaker, (f"b:{key}",))
        return state

    def opening_of(self, connection: sqlite3.Connection, key: str) -> int | None:
        """When the breaker *key*, if open, is probed."""
        row = connection.execute(self.gate_sql.breaker, (key,)).fetchone()
        return None if row is None or row[2] is None else int(row[2])

    def breaker_row(self, connection: sqlite3.Connection, key: str, now: int) -> BreakerRow:
        """How the breaker *key* stands."""
        [row] = self.breaker_rows(connection, now, key) or [BreakerRow(key, "closed", now)]
        return row

    def breaker_rows(self, connection: sqlite3.Connection, now: int, key: str | None = None) -> list[BreakerRow]:
        """The breakers that are not closed or have failures, by key; or that one, whatever its state."""
        found = connection.execute(self.gate_sql.breakers, (now, key)).fetchall()
        shown = []
        for name, state, since, until, failures in found:
            if state == "open" and until is not None and until <= now:
                state, since, until = "probing", until, None
            if key is not None or state != "closed" or failures:
                shown.append(BreakerRow(name, state, since, until, failures))
        return shown
