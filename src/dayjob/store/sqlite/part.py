"""What all parts of the engine share: the database, its statements, and a few moves."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from dayjob.store.sqlfile import load
from dayjob.store.sqlite.database import Database

T = TypeVar("T")

_CHUNKS = (250, 50, 10, 1)
"""Rows per statement: a chunk crosses the interpreter lock once, and only four statements need to stay prepared."""

encode = msgspec.json.Encoder(decimal_format="number").encode
decode = msgspec.json.decode


class Part:
    """A group of operations over one database."""

    def __init__(self, db: Database, lease: float) -> None:
        self.db = db
        self.sql = load("dayjob.store.sqlite", "queries.sql", db.namespace)
        self.lease = lease

    def last_entry(self, connection: sqlite3.Connection) -> int:
        """The highest number that was ever an entry; those after it are free."""
        return int(connection.execute(self.sql.last_entry).fetchone()[0])

    def erase_finished(self, connection: sqlite3.Connection, entries: Sequence[int]) -> None:
        """Delete rows of the history for good."""
        connection.execute(self.sql.keep_entries_rising)
        connection.execute(self.sql.forget_finished, (text(entries),))

    def forget_traces(self, connection: sqlite3.Connection, ids: Sequence[str]) -> None:
        """Drop what the jobs *ids* left behind: attempts, logs, checkpoints."""
        names = text(ids)
        for statement in (self.sql.drop_attempts, self.sql.drop_logs, self.sql.drop_checkpoints):
            connection.execute(statement, (names,))


def text(value: Any) -> str:
    """*value* as JSON text, as SQLite's JSON functions want it."""
    return encode(value).decode()


def rows(connection: sqlite3.Connection, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
    """The one JSON array that *statement* returns."""
    found = connection.execute(statement, parameters).fetchone()[0]
    return decode(found) if found else []


def strung(bodies: Iterable[bytes | None]) -> tuple[bytes, list[tuple[int, int | None]]]:
    """*bodies* end to end, with the 1-based offset and the length (None for None) of each."""
    pieces: list[bytes] = []
    places: list[tuple[int, int | None]] = []
    offset = 1
    for body in bodies:
        if body is None:
            places.append((1, None))
        else:
            pieces.append(body)
            places.append((offset, len(body)))
            offset += len(body)
    return b"".join(pieces), places


def chunked(items: Sequence[T]) -> Iterator[tuple[int, Sequence[T]]]:
    """*items* in pieces of the sizes that have a prepared statement, largest first."""
    start = 0
    for size in _CHUNKS:
        while len(items) - start >= size:
            yield size, items[start : start + size]
            start += size


@lru_cache(maxsize=64)
def with_rows(statement: str, count: int, columns: int) -> str:
    """*statement* with its `{rows}` as *count* rows of *columns* placeholders."""
    row = "(" + ", ".join("?" * columns) + ")"
    return statement.replace("{rows}", ", ".join([row] * count))
