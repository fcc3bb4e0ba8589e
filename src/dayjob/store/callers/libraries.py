"""Connections and sessions of libraries above the drivers: SQLAlchemy's and Django's, whatever driver they use."""

from __future__ import annotations

import sys
from typing import Any

from dayjob.store.callers.caller import Caller, names, percents
from dayjob.store.callers.drivers import postgres_alone, sqlite_alone
from dayjob.store.records import Rows, Statement


class SqlalchemyConnection(Caller):
    """`sqlalchemy.Connection`."""

    what = "an SQLAlchemy connection"

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.system = connection.dialect.name

    def run(self, statement: Statement) -> Rows:
        return _rows(self._connection.execute(*_text(statement)))

    def alone(self) -> bool:
        return _autocommits(self._connection)


class SqlalchemySession(Caller):
    """`sqlalchemy.orm.Session`, also through a `scoped_session`."""

    what = "an SQLAlchemy session"

    def __init__(self, session: Any) -> None:
        self._session = session
        self.system = session.get_bind().dialect.name

    def run(self, statement: Statement) -> Rows:
        return _rows(self._session.connection().execute(*_text(statement)))

    def alone(self) -> bool:
        return _autocommits(self._session.connection())


class SqlalchemyAsyncConnection(Caller):
    """`sqlalchemy.ext.asyncio.AsyncConnection`."""

    what, awaited = "an async SQLAlchemy connection", True

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.system = connection.dialect.name

    async def arun(self, statement: Statement) -> Rows:
        return _rows(await self._connection.execute(*_text(statement)))

    async def aalone(self) -> bool:
        return _autocommits(self._connection.sync_connection)


class SqlalchemyAsyncSession(Caller):
    """`sqlalchemy.ext.asyncio.AsyncSession`, also through an `async_scoped_session`."""

    what, awaited = "an async SQLAlchemy session", True

    def __init__(self, session: Any) -> None:
        self._session = session
        self.system = session.get_bind().dialect.name

    async def arun(self, statement: Statement) -> Rows:
        connection = await self._session.connection()
        return _rows(await connection.execute(*_text(statement)))

    async def aalone(self) -> bool:
        connection = await self._session.connection()
        return _autocommits(connection.sync_connection)


class Django(Caller):
    """`django.db.connection`, or one of `django.db.connections`."""

    what = "a Django connection"

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.system = connection.vendor

    def run(self, statement: Statement) -> Rows:
        with self._connection.cursor() as cursor:
            cursor.execute(percents(statement.sql), statement.parameters)
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

    def alone(self) -> bool:
        return not self._connection.in_atomic_block and bool(self._connection.get_autocommit())


def _text(statement: Statement) -> tuple[Any, dict[str, Any]]:
    """*statement* as SQLAlchemy takes it for any of its drivers."""
    values = {f"p{number}": value for number, value in enumerate(statement.parameters, 1)}
    return sys.modules["sqlalchemy"].text(names(statement.sql)), values


def _rows(result: Any) -> Rows:
    return [tuple(row) for row in result] if result.returns_rows else []


def _autocommits(connection: Any) -> bool:
    """True when nothing could be rolled back: by the library's setting, or by the driver's, of which it does not know."""
    if connection.closed or connection.invalidated:
        return False  # the statement will say so
    level = connection.get_execution_options().get("isolation_level")
    if level is None:  # create_engine(isolation_level=...) is kept here and nowhere else
        level = getattr(connection.dialect, "_on_connect_isolation_level", None)
    if level == "AUTOCOMMIT":
        return True
    driver = connection.connection.driver_connection
    return sqlite_alone(driver) if connection.dialect.name == "sqlite" else postgres_alone(driver)
