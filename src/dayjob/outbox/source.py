"""The relay's own line to the application's database: one connection, opened again when it breaks.

SQLite and PostgreSQL are reached as their engines reach them, everything else through SQLAlchemy.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from dayjob.config import resolve_url
from dayjob.errors import ConfigError, StoreUnavailable
from dayjob.outbox.tables import dialect_of, worded
from dayjob.store.callers.caller import names, percents, question_marks
from dayjob.store.records import Rows

Run = Callable[..., Rows]
"""`run(sql, *values)`: one statement of the open transaction, with `$1`, `$2` …; its rows, [] for none."""

PATIENCE_S = 5.0
"""Wait so long for someone else's write transaction in an SQLite file, and for a connection twice as long."""


class SourceUnavailable(StoreUnavailable):
    """The application's database could not be reached, or refused a statement. Repeating is safe."""


class Source:
    """The application's database.

    Args:
        url: where it is.
    Attributes:
        system: the database system. name: where it is, without secrets. local: True for a file, which costs nothing to look at.
    """

    def __init__(self, url: str) -> None:
        scheme, separator, _ = url.partition("://")
        if not separator or not scheme:
            raise ConfigError(
                f"--from {url!r:.80} is no URL of a database; write for example postgresql://user@host/shop"
            )
        self.system = {"postgres": "postgresql"}.get(kind := scheme.partition("+")[0].lower(), kind)
        dialect_of(self.system)
        self.local = self.system == "sqlite"
        self._url = resolve_url(f"sqlite://{url.partition('://')[2]}", os.environ, Path.cwd()) if self.local else url
        self.name = _without_secrets(self._url, self.system)
        self._line: _Line | None = None

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[Run]:
        """A transaction: committed at the end of the block, rolled back by an error.

        Args:
            write: False for looks, each a statement by itself where the driver lets it be.
        Raises:
            SourceUnavailable: the outcome is unknown. ConfigError: the driver is not installed.
        """
        try:
            if self._line is None:
                self._line = _LINES.get(self.system, _Sqlalchemy)(self._url)
            with self._line.transaction(write) as run:
                yield run
        except ConfigError:
            raise
        except Exception as error:
            self.close()
            raise SourceUnavailable(f"{self.name}: {worded(error)}") from error

    def close(self) -> None:
        """Let go of the connection; a later transaction opens another."""
        line, self._line = self._line, None
        if line is not None:
            with contextlib.suppress(Exception):
                line.close()


class _Line(ABC):
    """One connection."""

    @abstractmethod
    def transaction(self, write: bool) -> contextlib.AbstractContextManager[Run]: ...

    @abstractmethod
    def close(self) -> None: ...


class _Sqlite(_Line):
    def __init__(self, url: str) -> None:
        import sqlite3

        path = url.removeprefix("sqlite:///").partition("?")[0]
        if path == ":memory:":
            raise ConfigError("--from: a database in memory can be seen by its own process only; use a file")
        if not Path(path).is_file():
            raise ConfigError(f"--from: there is no file {path}: the application makes it, the relay does not")
        self._connection = sqlite3.connect(
            f"file:{quote(path)}?mode=rw", uri=True, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False
        )

    @contextmanager
    def transaction(self, write: bool) -> Iterator[Run]:
        if write:
            self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield lambda sql, *values: self._connection.execute(question_marks(sql), values).fetchall()
            if write:
                self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        self._connection.close()


class _Psycopg(_Line):
    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ModuleNotFoundError:
            raise ConfigError('--from a PostgreSQL database needs psycopg: pip install "dayjob[postgres]"') from None
        scheme, _, rest = url.partition("://")
        self._connection: Any = psycopg.connect(
            f"{scheme.partition('+')[0]}://{rest}",
            autocommit=True,
            connect_timeout=int(2 * PATIENCE_S),
            keepalives_idle=30,  # a server that is gone without a word must not hold a relay for hours
            tcp_user_timeout=30_000,
        )
        self._connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        self._connection.prepare_threshold = (
            None  # lists of numbers are written into the statements: no two are the same
        )

    @contextmanager
    def transaction(self, write: bool) -> Iterator[Run]:
        def run(sql: str, *values: Any) -> Rows:
            cursor = self._connection.execute(percents(sql), values)
            return cursor.fetchall() if cursor.description else []

        with self._connection.transaction() if write else contextlib.nullcontext():
            if write:
                # Where statistics are of a time when the table was empty, the planner sorts a backlog of 40,000 rows for
                # each 500 of them (11 ms; by the index 0.3). For this transaction alone: behind a pooler the session is
                # not ours.
                self._connection.execute("SET LOCAL enable_sort = off")
            yield run

    def close(self) -> None:
        self._connection.close()


_PATIENT = {"connect_timeout": int(2 * PATIENCE_S), "read_timeout": 30, "write_timeout": 30}
_LIMITS = {"pymysql": _PATIENT, "mysqldb": _PATIENT}
"""What drivers behind SQLAlchemy are told, by their names there, lest a server that is gone without a word holds a relay."""


class _Sqlalchemy(_Line):
    def __init__(self, url: str) -> None:
        try:
            import sqlalchemy
        except ModuleNotFoundError:
            raise ConfigError(
                "--from this database needs SQLAlchemy 2 and a driver: pip install sqlalchemy pymysql"
            ) from None
        self._text = sqlalchemy.text
        try:
            place = sqlalchemy.make_url(url)
            if place.get_dialect().is_async:
                raise ConfigError(
                    f"--from: {place.drivername} is an async driver, which a relay has no use for: write mysql+pymysql://user@host/shop"
                )
            given = {
                name: value
                for name, value in _LIMITS.get(place.get_driver_name(), {}).items()
                if name not in place.query
            }
            self._engine: Any = sqlalchemy.create_engine(
                place, isolation_level="READ COMMITTED", pool_size=1, connect_args=given
            )
        except (ModuleNotFoundError, sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError) as error:
            raise ConfigError(
                f"--from: {error}. The URL names the driver, as in mysql+pymysql://user@host/shop, and it must be installed"
            ) from error

    @contextmanager
    def transaction(self, write: bool) -> Iterator[Run]:
        with self._engine.begin() as connection:

            def run(sql: str, *values: Any) -> Rows:
                given = {f"p{number}": value for number, value in enumerate(values, 1)}
                result = connection.execute(self._text(names(sql)), given)
                return [tuple(row) for row in result] if result.returns_rows else []

            yield run

    def close(self) -> None:
        self._engine.dispose()


_LINES: dict[str, Callable[[str], _Line]] = {"sqlite": _Sqlite, "postgresql": _Psycopg}


def _without_secrets(url: str, system: str) -> str:
    """*url* for people: system, place and database, and nothing else of it."""
    if system == "sqlite":
        return url.partition("?")[0]
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"--from is no URL of a database: {error}") from None
    place = parts.netloc.rpartition("@")[2]
    return f"{system}://{place}{parts.path}"
