"""Every kind of connection that callers may hand over, as one: an application that writes, commits and rolls back.

Its verbs are awaited, so that a story is written once. A sync kind never suspends, and is played without an event loop,
as sync programs are.
"""

from __future__ import annotations

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

import aiosqlite
import asyncpg
import django
import django.conf
import django.db.transaction
import psycopg
import sqlalchemy
from django.db import connections
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

T = TypeVar("T")


class Side(ABC):
    """The application's side: one connection, on which a transaction begins with the first write.

    Attributes:
        url: of the store. connection: what is given to dayjob.
    """

    system: ClassVar[str]
    awaited: ClassVar[bool] = False

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection: Any = None

    @abstractmethod
    async def open(self) -> None: ...

    @abstractmethod
    async def execute(self, sql: str) -> None: ...

    @abstractmethod
    async def commit(self) -> None: ...

    @abstractmethod
    async def rollback(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...

    async def note(self, text: str) -> None:
        """An effect of the application's own."""
        await self.execute(f"INSERT INTO effect VALUES ('{text}')")

    async def enqueue(self, task: Any, *args: Any, **options: Any) -> Any:
        """Enqueue on this connection, by the verb that fits it."""
        bound = task.using(conn=self.connection, **options)
        return await bound.aenqueue(*args) if self.awaited else bound.enqueue(*args)

    async def plainly(self, task: Any, *args: Any) -> Any:
        """Enqueue without a word of a connection, by the same verb."""
        return await task.aenqueue(*args) if self.awaited else task.enqueue(*args)

    async def complete(self, context: Any, result: Any = None) -> None:
        """Complete the running job on this connection."""
        if self.awaited:
            await context.acomplete_in(self.connection, result)
        else:
            context.complete_in(self.connection, result)

    @classmethod
    def play(cls, url: str, story: Callable[[Side], Coroutine[Any, Any, T]]) -> T:
        """Play *story* with a connection to *url*, which is closed at its end."""

        async def whole() -> T:
            async with cls.opened(url) as side:
                return await story(side)

        if cls.awaited:
            return asyncio.run(whole())
        return at_once(whole())

    @classmethod
    @asynccontextmanager
    async def opened(cls, url: str) -> AsyncIterator[Side]:
        side = cls(url)
        await side.open()
        try:
            yield side
        finally:
            await side.close()
            if cls.awaited:
                await settle()


async def settle() -> None:
    """Let the loop turn until transports that were closed are gone."""
    for _ in range(5):
        await asyncio.sleep(0)


def at_once(awaitable: Awaitable[T]) -> T:
    """The outcome of *awaitable*, which does not suspend; without an event loop."""
    step = awaitable.__await__()
    try:
        next(step)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # what the awaitable returns
    raise AssertionError("it suspended")


class Sqlite3(Side):
    """`sqlite3`, as its documentation shows it."""

    system = "sqlite"

    async def open(self) -> None:
        self.connection = sqlite3.connect(_path(self.url))

    async def execute(self, sql: str) -> None:
        self.connection.execute(sql)

    async def commit(self) -> None:
        self.connection.commit()

    async def rollback(self) -> None:
        self.connection.rollback()

    async def close(self) -> None:
        self.connection.close()


class Sqlite3ByHand(Sqlite3):
    """`sqlite3` without its own transactions, with a row factory and bytes for text."""

    begins = True

    async def open(self) -> None:
        self.connection = sqlite3.connect(_path(self.url), isolation_level=None)
        self.connection.row_factory = sqlite3.Row
        self.connection.text_factory = bytes

    async def execute(self, sql: str) -> None:
        self.begin()
        await super().execute(sql)

    async def enqueue(self, task: Any, *args: Any, **options: Any) -> Any:
        self.begin()
        return await super().enqueue(task, *args, **options)

    async def plainly(self, task: Any, *args: Any) -> Any:
        self.begin()
        return await super().plainly(task, *args)

    async def complete(self, context: Any, result: Any = None) -> None:
        self.begin()
        await super().complete(context, result)

    def begin(self) -> None:
        if self.begins and not self.connection.in_transaction:
            self.connection.execute("BEGIN IMMEDIATE")

    @asynccontextmanager
    async def bare(self) -> AsyncIterator[None]:
        self.begins = False
        yield
        self.begins = True


class Aiosqlite(Side):
    """`aiosqlite`."""

    system, awaited = "sqlite", True

    async def open(self) -> None:
        self.connection = await aiosqlite.connect(_path(self.url))

    async def execute(self, sql: str) -> None:
        await self.connection.execute(sql)

    async def commit(self) -> None:
        await self.connection.commit()

    async def rollback(self) -> None:
        await self.connection.rollback()

    async def close(self) -> None:
        await self.connection.close()


class AiosqliteByHand(Aiosqlite):
    """`aiosqlite`, with rows as dicts and bytes for text."""

    async def open(self) -> None:
        await super().open()
        self.connection.row_factory = lambda cursor, row: {"first": row[0], "all": row}
        self.connection.text_factory = bytes


class Psycopg(Side):
    """psycopg, with rows as dicts."""

    system = "postgresql"

    async def open(self) -> None:
        self.connection = psycopg.connect(self.url, row_factory=psycopg.rows.dict_row)

    async def execute(self, sql: str) -> None:
        self.connection.execute(sql)

    async def commit(self) -> None:
        self.connection.commit()

    async def rollback(self) -> None:
        self.connection.rollback()

    async def close(self) -> None:
        self.connection.close()


class PsycopgRaw(Psycopg):
    """psycopg with a cursor class of its own, in autocommit, inside its `transaction()`."""

    async def open(self) -> None:
        self.connection = psycopg.connect(self.url, autocommit=True, cursor_factory=psycopg.RawCursor)
        self._begin()

    def _begin(self) -> None:
        self._transaction = self.connection.transaction()
        self._transaction.__enter__()

    @asynccontextmanager
    async def bare(self) -> AsyncIterator[None]:
        """Without its transaction."""
        self._transaction.__exit__(None, None, None)
        yield
        self._begin()

    async def commit(self) -> None:
        self._transaction.__exit__(None, None, None)
        self._begin()

    async def rollback(self) -> None:
        self._transaction.__exit__(psycopg.Rollback, psycopg.Rollback(), None)
        self._begin()


class PsycopgUnencoded(Psycopg):
    """psycopg in a session whose text is bytes of no encoding."""

    async def open(self) -> None:
        self.connection = psycopg.connect(self.url, client_encoding="SQL_ASCII")


class AsyncPsycopg(Side):
    """psycopg's async connection."""

    system, awaited = "postgresql", True

    async def open(self) -> None:
        self.connection = await psycopg.AsyncConnection.connect(self.url)

    async def execute(self, sql: str) -> None:
        await self.connection.execute(sql)

    async def commit(self) -> None:
        await self.connection.commit()

    async def rollback(self) -> None:
        await self.connection.rollback()

    async def close(self) -> None:
        await self.connection.close()


class Asyncpg(Side):
    """asyncpg."""

    system, awaited = "postgresql", True

    async def open(self) -> None:
        self.connection = await asyncpg.connect(self.url)
        await self._begin()

    async def _begin(self) -> None:
        self._transaction = self.connection.transaction()
        await self._transaction.start()

    @asynccontextmanager
    async def bare(self) -> AsyncIterator[None]:
        """Without its transaction."""
        await self._transaction.rollback()
        yield
        await self._begin()

    async def execute(self, sql: str) -> None:
        await self.connection.execute(sql)

    async def commit(self) -> None:
        await self._transaction.commit()
        await self._begin()

    async def rollback(self) -> None:
        await self._transaction.rollback()
        await self._begin()

    async def close(self) -> None:
        await self.connection.close()


class AsyncpgPool(Asyncpg):
    """asyncpg, as a pool lends it."""

    async def open(self) -> None:
        self._pool = await asyncpg.create_pool(self.url, min_size=1, max_size=1)
        self.connection = await self._pool.acquire()
        await self._begin()

    async def close(self) -> None:
        await self._transaction.rollback()
        await self._pool.release(self.connection)
        await self._pool.close()


class SqlalchemySession(Side):
    """SQLAlchemy's session."""

    driver: ClassVar[str]
    connect_args: ClassVar[Mapping[str, Any]] = {}

    async def open(self) -> None:
        self._engine = sqlalchemy.create_engine(
            _dialect(self.url, self.driver), poolclass=NullPool, connect_args=self.connect_args
        )
        self.connection = Session(self._engine)

    async def execute(self, sql: str) -> None:
        self.connection.execute(sqlalchemy.text(sql))

    async def commit(self) -> None:
        self.connection.commit()

    async def rollback(self) -> None:
        self.connection.rollback()

    async def close(self) -> None:
        self.connection.close()
        self._engine.dispose()


class SqlalchemyConnection(SqlalchemySession):
    """SQLAlchemy's connection."""

    async def open(self) -> None:
        self._engine = sqlalchemy.create_engine(
            _dialect(self.url, self.driver), poolclass=NullPool, connect_args=self.connect_args
        )
        self.connection = self._engine.connect()


class SqlalchemyAsyncSession(Side):
    """SQLAlchemy's async session."""

    awaited = True
    driver: ClassVar[str]
    connect_args: ClassVar[Mapping[str, Any]] = {}

    async def open(self) -> None:
        self._engine = create_async_engine(
            _dialect(self.url, self.driver), poolclass=NullPool, connect_args=self.connect_args
        )
        self.connection = AsyncSession(self._engine)

    async def execute(self, sql: str) -> None:
        await self.connection.execute(sqlalchemy.text(sql))

    async def commit(self) -> None:
        await self.connection.commit()

    async def rollback(self) -> None:
        await self.connection.rollback()

    async def close(self) -> None:
        await self.connection.close()
        await self._engine.dispose()


class SqlalchemyAsyncConnection(SqlalchemyAsyncSession):
    """SQLAlchemy's async connection."""

    async def open(self) -> None:
        self._engine = create_async_engine(
            _dialect(self.url, self.driver), poolclass=NullPool, connect_args=self.connect_args
        )
        self.connection = await self._engine.connect()


class Django(Side):
    """Django's connection, inside `atomic`."""

    async def open(self) -> None:
        if not django.conf.settings.configured:
            nothing = {"ENGINE": "django.db.backends.sqlite3"}
            django.conf.settings.configure(DATABASES={"default": nothing}, LOGGING_CONFIG=None)
            django.setup()
        parts = urlsplit(self.url)
        sqlite = parts.scheme == "sqlite"
        place = {
            "ENGINE": f"django.db.backends.{parts.scheme if not sqlite else 'sqlite3'}",
            "NAME": _path(self.url) if sqlite else parts.path[1:],
            "HOST": parts.hostname or "",
            "PORT": str(parts.port or ""),
            "USER": parts.username or "",
        }
        connections.databases["theirs"] = connections.configure_settings({"default": {}, "theirs": place})["theirs"]
        self.connection = connections["theirs"]
        self._begin()

    def _begin(self) -> None:
        self._atomic = django.db.transaction.atomic(using="theirs")
        self._atomic.__enter__()

    async def execute(self, sql: str) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(sql)

    async def commit(self) -> None:
        self._atomic.__exit__(None, None, None)
        self._begin()

    async def rollback(self) -> None:
        self.connection.set_rollback(True)
        self._atomic.__exit__(None, None, None)
        self._begin()

    async def close(self) -> None:
        self._atomic.__exit__(None, None, None)
        self.connection.close()
        del connections["theirs"]


def _with(kind: type[Side], system: str, driver: str = "") -> type[Side]:
    name = f"{kind.__name__}On{driver.title() or system.title()}"
    return type(name, (kind,), {"system": system, "driver": driver, "__doc__": kind.__doc__})


KINDS: tuple[type[Side], ...] = (
    Sqlite3,
    Sqlite3ByHand,
    Aiosqlite,
    AiosqliteByHand,
    _with(SqlalchemySession, "sqlite", "pysqlite"),
    _with(SqlalchemyConnection, "sqlite", "pysqlite"),
    _with(SqlalchemyAsyncSession, "sqlite", "aiosqlite"),
    _with(SqlalchemyAsyncConnection, "sqlite", "aiosqlite"),
    _with(Django, "sqlite"),
    Psycopg,
    PsycopgRaw,
    PsycopgUnencoded,
    AsyncPsycopg,
    Asyncpg,
    AsyncpgPool,
    _with(SqlalchemySession, "postgresql", "psycopg"),
    _with(SqlalchemyConnection, "postgresql", "psycopg"),
    _with(SqlalchemyAsyncSession, "postgresql", "asyncpg"),
    _with(SqlalchemyAsyncSession, "postgresql", "psycopg"),
    _with(SqlalchemyAsyncConnection, "postgresql", "asyncpg"),
    _with(Django, "postgresql"),
)
"""With every way to have rows, cursors and transactions that could be in dayjob's way."""


def _path(url: str) -> str:
    return url.removeprefix("sqlite:///")


def _dialect(url: str, driver: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}+{driver}://{rest}"
