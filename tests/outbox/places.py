"""The application's databases: how it reaches them, and its own statements there."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import psycopg
import sqlalchemy


def connect(url: str) -> Any:
    """A connection to the application's database, of the driver that is usual there."""
    if url.startswith("sqlite:"):
        return sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30.0)
    if url.startswith("mysql"):
        return sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool).connect()
    return psycopg.connect(url)


def execute(connection: Any, text: str, values: Sequence[Any] = ()) -> list[Any]:
    """One statement of the application's own; its rows, if there are any."""
    if isinstance(connection, sqlalchemy.Connection):
        result = connection.exec_driver_sql(text.replace("?", "%s"), tuple(values))
        return [tuple(row) for row in result] if result.returns_rows else []
    if isinstance(connection, sqlite3.Connection):
        return connection.execute(text, values).fetchall()
    cursor = connection.execute(text.replace("?", "%s"), values or None)
    return list(cursor.fetchall()) if cursor.description else []
