"""The producer's side: jobs become rows of the outbox, on the application's own connection.

The queue's store has no part in it: it may be down, or not even be reachable from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dayjob.errors import ConfigError, DayjobError, StoreError
from dayjob.outbox.body import encode
from dayjob.outbox.tables import DIALECTS, dialect_of, insertion, missing, no_table, worded
from dayjob.store.callers import Caller, adapt, aperform, perform
from dayjob.store.records import EXISTING, INSERTED, Enqueued, NewRow, Rows, Script, Statement

CHUNK = 250
"""Rows in one statement: 1,000 values, far below every driver's limit."""

CHUNK_BYTES = 1_000_000
"""Bytes of bodies in one statement. MySQL's and MariaDB's servers take 16 MB or more unless they are told otherwise."""


class OutboxCaller(Caller):
    """A connection or session of the caller's, as the place of an outbox.

    Args:
        inner: it. table: the outbox's.
    """

    outbox = True

    def __init__(self, inner: Caller, table: str) -> None:
        self.inner, self.table = inner, table
        self.what, self.system, self.awaited = inner.what, inner.system, inner.awaited

    def run(self, statement: Statement) -> Rows:
        return self.inner.run(statement)

    async def arun(self, statement: Statement) -> Rows:
        return await self.inner.arun(statement)

    def alone(self) -> bool:
        return self.inner.alone()

    async def aalone(self) -> bool:
        return await self.inner.aalone()

    def write(self, rows: Sequence[NewRow], *, chosen: bool) -> list[Enqueued]:
        """Write *rows*, in their order; an outcome per row, which counts once the caller commits.

        Args:
            chosen: an id was chosen by the caller, so that a row of the same id may wait already.
        Raises:
            StoreError: the statement failed; the caller's transaction may be broken. ConfigError: there is no table.
        """
        return perform(self, self, self._script(rows, chosen=chosen))

    async def awrite(self, rows: Sequence[NewRow], *, chosen: bool) -> list[Enqueued]:
        """Awaitable `write`."""
        return await aperform(self, self, self._script(rows, chosen=chosen))

    def _script(self, rows: Sequence[NewRow], *, chosen: bool) -> Script[list[Enqueued]]:
        there: set[str] = set()
        outcomes = []
        tells = bool(dialect_of(self.system).returning)
        for chunk in _chunks(rows):
            ids = tuple(row.id for row, _ in chunk)
            if chosen and not tells:
                marks = ", ".join(f"${at}" for at in range(1, len(ids) + 1))
                sql = f"SELECT job_id FROM {self.table} WHERE job_id IN ({marks})"
                there.update(_texts((yield Statement(sql, ids))))
            values = tuple(value for row, body in chunk for value in (row.id, row.task, row.queue, body))
            stored = yield Statement(insertion(self.system, self.table, len(chunk), chosen=chosen), values)
            if tells:
                there.update(set(ids).difference(_texts(stored)))
            for id in ids:
                outcomes.append(EXISTING if id in there else INSERTED)
                there.add(id)
        return outcomes

    def joined_error(self, error: Exception) -> DayjobError:
        """What the driver raised, as dayjob says it."""
        if no_table(error, self.table):
            return missing(self.table, f"where {self.what} leads")
        return StoreError(f"the outbox {self.table} took no job: {worded(error)}")


def _chunks(rows: Sequence[NewRow]) -> Iterator[list[tuple[NewRow, bytes]]]:
    """*rows* with their bodies, as many together as one statement bears."""
    chunk: list[tuple[NewRow, bytes]] = []
    size = 0
    for row in rows:
        body = encode(row)
        if chunk and (len(chunk) == CHUNK or size + len(body) > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append((row, body))
        size += len(body)
    if chunk:
        yield chunk


def admit_outbox(connection: Any, table: str, *, awaits: bool, verb: str) -> OutboxCaller:
    """The outbox where *connection* leads.

    Args:
        awaits: the caller awaits. verb: what it called, for messages.
    Raises:
        ConfigError: it is no connection, its database can hold no outbox, or it can only be awaited.
    """
    caller = adapt(connection)
    if caller.system not in DIALECTS:
        known = ", ".join(sorted(DIALECTS))
        raise ConfigError(f"{caller.what} to {caller.system} can hold no outbox: it can be in {known}")
    if caller.awaited and not awaits:
        raise ConfigError(f"{caller.what} can only be awaited: use `await ...a{verb}(...)` instead of {verb}(...)")
    return OutboxCaller(caller, table)


def _texts(rows: Rows) -> list[str]:
    """The first column, also from a connection that reads text as bytes."""
    return [row[0].decode() if isinstance(row[0], bytes) else row[0] for row in rows]
