"""Connections of the drivers themselves: sqlite3, aiosqlite, psycopg, asyncpg.

A connection is its owner's: it may have row factories, cursor classes and type adapters of its own. Cursors are made
here such that none of that changes what comes back. Drivers are not imported: whoever has a connection has its driver.
"""

from __future__ import annotations

import sqlite3
import sys
from typing import Any

from dayjob.store.callers.caller import Caller, percents, question_marks
from dayjob.store.records import Rows, Statement

IDLE = 0
"""psycopg's `TransactionStatus.IDLE`: no transaction is open."""


class Sqlite(Caller):
    """`sqlite3.Connection`."""

    what, system = "an sqlite3 connection", "sqlite"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, statement: Statement) -> Rows:
        cursor = sqlite3.Cursor(self._connection)
        cursor.row_factory = None
        try:
            return cursor.execute(question_marks(statement.sql), statement.parameters).fetchall()
        finally:
            cursor.close()

    def alone(self) -> bool:
        return sqlite_alone(self._connection)


class Aiosqlite(Caller):
    """`aiosqlite.Connection`: an sqlite3 connection in a thread of its own."""

    what, system, awaited = "an aiosqlite connection", "sqlite", True

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def arun(self, statement: Statement) -> Rows:
        async with self._connection.cursor() as cursor:
            cursor.row_factory = None
            await cursor.execute(question_marks(statement.sql), statement.parameters)
            return list(await cursor.fetchall())

    async def aalone(self) -> bool:
        return sqlite_alone(self._connection)


def sqlite_alone(connection: Any) -> bool:
    """`alone` of a connection of sqlite3's or aiosqlite's."""
    # Before Python 3.12, and by default after it, a driver without isolation level begins no transactions by itself.
    by_itself = getattr(connection, "autocommit", None) is True or connection.isolation_level is None
    return by_itself and not connection.in_transaction


class Psycopg(Caller):
    """`psycopg.Connection`.

    All statements here return rows. They are fetched unseen, which is what makes a pipeline wait for its answers.
    """

    what, system = "a psycopg connection", "postgresql"

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def run(self, statement: Statement) -> Rows:
        driver = sys.modules["psycopg"]
        with driver.Cursor(self._connection, row_factory=driver.rows.tuple_row) as cursor:
            cursor.execute(percents(statement.sql), statement.parameters)
            rows: Rows = cursor.fetchall()
            return rows

    def alone(self) -> bool:
        return postgres_alone(self._connection)


def postgres_alone(connection: Any) -> bool:
    """`alone` of a connection of psycopg's, and of other drivers as far as they say; asyncpg's has no such mode."""
    if not getattr(connection, "autocommit", False):
        return False
    info = getattr(connection, "info", None)
    return info is None or info.transaction_status == IDLE


class AsyncPsycopg(Psycopg):
    """`psycopg.AsyncConnection`."""

    what, awaited = "an async psycopg connection", True

    async def arun(self, statement: Statement) -> Rows:
        driver = sys.modules["psycopg"]
        async with driver.AsyncCursor(self._connection, row_factory=driver.rows.tuple_row) as cursor:
            await cursor.execute(percents(statement.sql), statement.parameters)
            rows: Rows = await cursor.fetchall()
            return rows


class Asyncpg(Caller):
    """`asyncpg.Connection`, also as a pool lends it."""

    what, system, awaited = "an asyncpg connection", "postgresql", True

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def arun(self, statement: Statement) -> Rows:
        return [tuple(row) for row in await self._connection.fetch(statement.sql, *statement.parameters)]

    async def aalone(self) -> bool:
        return not self._connection.is_in_transaction()
