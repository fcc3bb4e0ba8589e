"""What all parts of the engine share: the database, its statements, and a few moves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from dayjob.clock import SECOND
from dayjob.store.postgres.database import Connection, Database
from dayjob.store.postgres.wire import plain
from dayjob.store.sqlfile import load

encode = msgspec.json.Encoder(decimal_format="number").encode

MINUTE = 60 * SECOND


class Part:
    """A group of operations over one database."""

    def __init__(self, db: Database, lease: float) -> None:
        self.db = db
        self.sql = load("dayjob.store.postgres", "queries.sql", db.namespace)
        self.lease = lease

    def add_tallies(self, connection: Connection, now: int, tallies: Sequence[tuple[str, str, float]]) -> None:
        """Add to this minute's counts: (queue, name, value) each."""
        if tallies:
            queues, names, values = zip(*tallies, strict=True)
            connection.execute(self.sql.add_tallies, (now - now % MINUTE, list(queues), list(names), list(values)))

    def forget_jobs(self, connection: Connection, ids: Sequence[str], now: int | None) -> None:
        """Jobs kept for no time at all leave only their id."""
        if ids:
            connection.execute(self.sql.forget, (now, plain(ids)))

    def by_turn(self, connection: Connection, rows: Sequence[tuple[str, ...]], now: int | None) -> None:
        """Jobs with lanes, the first column of *rows*, get the places of their turns."""
        if rows:
            connection.execute(self.sql.place_lanes, (now, plain(row[0] for row in rows)))

    def value(self, connection: Connection, statement: str, parameters: Sequence[Any] = ()) -> Any:
        """The first column of the first row, None when there is none."""
        row = connection.execute(statement, parameters).fetchone()
        return None if row is None else row[0]

    def take_turn(self, connection: Connection, now: int | None, seen: str | None = None) -> None:
        """Until the end of the transaction nobody else claims or moves waiting jobs; arrivals are in their places.

        Args:
            seen: a snapshot at which all arrivals were admitted.
        """
        connection.execute(self.sql.take_turn)
        connection.execute(self.sql.admit_arrivals, (now, seen))


def uuids(ids: Iterable[str]) -> list[str]:
    """Those of *ids* that are UUIDs; any other names no job."""
    found = []
    for id in ids:
        try:
            found.append(str(UUID(id)))
        except (ValueError, AttributeError, TypeError):
            continue
    return found
