"""All that the contract suite knows of a particular engine. A new engine is one class here and a place in `ENGINES`."""

from __future__ import annotations

import itertools
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import ClassVar

import dayjob.store
from dayjob.store import open_store
from dayjob.store.contract import Store
from tests.servers.bouncer import Bouncer, bouncer
from tests.servers.needed import needed
from tests.servers.postgres import Server, postgres
from tests.servers.redis import Server as RedisServer
from tests.servers.redis import redis

_places = itertools.count()


class EngineUnderTest(ABC):
    """One engine with one place for its data, empty at first.

    Attributes:
        name: for the tests' ids.
        processes: whether other processes can open the same data.
        interruptible: whether `outage` can make the place unavailable.
        joins: whether an application can share a transaction with it.
        nul: what becomes of NUL in people's texts; some engines cannot keep it, and show it as U+2400.
        crash_costs: what its `durability` says, of a server of these tests.
        stories: how many the model's test tells of it; each takes as long as the engine needs.
        url: the place. clock: of the handles opened from now on; None: the store's own.
    """

    name: ClassVar[str]
    processes: ClassVar[bool] = True
    interruptible: ClassVar[bool] = True
    joins: ClassVar[bool] = True
    crash_costs: ClassVar[str] = "nothing"
    stories: ClassVar[int] = 200
    nul: ClassVar[str] = "\0"
    url: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._handles: list[Store] = []
        self.clock: Callable[[], int] | None = None

    def open(self) -> Store:
        """A handle of its own on this place, as another process would have; nothing is migrated."""
        handle = open_store(self.url, clock=self.clock)
        self._handles.append(handle)
        return handle

    def store(self) -> Store:
        """A handle of its own on this place, migrated."""
        handle = self.open()
        handle.migrate()
        return handle

    @abstractmethod
    def outage(self) -> AbstractContextManager[None]:
        """While this is open, whatever would write to the place fails with `StoreUnavailable`, however it is opened."""

    def close(self) -> None:
        """Let go of every handle that was opened here."""
        for handle in self._handles:
            handle.close()


class SqliteFile(EngineUnderTest):
    """SQLite in a file: the embedded engine as people run it."""

    name = "sqlite-file"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = folder / f"jobs{next(_places)}.db"
        self.url = f"sqlite:///{self.path}"

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Someone else holds the write lock and does not let go."""
        intruder = sqlite3.connect(self.path, isolation_level=None)
        intruder.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            intruder.execute("ROLLBACK")
            intruder.close()


class SqliteMemory(EngineUnderTest):
    """SQLite in memory: one handle is the whole place, so every `open` answers the same one."""

    name = "sqlite-memory"
    processes = False
    interruptible = False
    crash_costs = "all: it is in the memory of this process"
    stories = 250
    url = "sqlite:///:memory:"

    def open(self) -> Store:
        return self._handles[0] if self._handles else super().open()

    def outage(self) -> AbstractContextManager[None]:
        raise NotImplementedError("memory does not fail")


class Postgres(EngineUnderTest):
    """A database of its own on one of the servers of this run, which is started when the first test needs it."""

    major: ClassVar[int]
    crash_costs = "what the system had not written, or the whole database"  # fsync is off here
    stories = 60
    nul = "\u2400"
    _migrated: ClassVar[dict[int, str]] = {}
    """By port: a database to copy, as `migrate` leaves it. A copy takes 10 ms and a migration many times that."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.server = self._started()
        self._database: str | None = None

    def _started(self) -> Server:
        return needed(lambda: postgres(self.major))

    @property
    def database(self) -> str:
        """The database; empty unless `store` came first."""
        if self._database is None:
            self._database = self.server.create_database()
        return self._database

    @property
    def url(self) -> str:  # type: ignore[override]  # where it is decided when it is first needed
        return self.server.url(self.database)

    def store(self) -> Store:
        if self._database is None:
            self._database = self.server.create_database(template=self._template())
        return super().store()

    def _template(self) -> str:
        template = self._migrated.get(self.server.port)
        if template is None:
            template = self.server.create_database()
            fresh = open_store(self.server.url(template))
            fresh.migrate()
            fresh.close()
            self._migrated[self.server.port] = template
        return template

    @contextmanager
    def outage(self) -> Iterator[None]:
        """The server lets nobody in, and has thrown out who was there."""
        self.server.sql(f"ALTER DATABASE {self.database} ALLOW_CONNECTIONS false")
        self.server.terminate(self.database)
        try:
            yield
        finally:
            self.server.sql(f"ALTER DATABASE {self.database} ALLOW_CONNECTIONS true")

    def close(self) -> None:
        super().close()
        if self._database is not None:
            self.server.drop_database(self._database)


class Postgres18(Postgres):
    """PostgreSQL 18 with its own settings."""

    name = "postgres-18"
    major = 18


class Postgres15(Postgres):
    """PostgreSQL 15 with peculiar settings (see `tests.servers.postgres`)."""

    name = "postgres-15"
    major = 15
    stories = 30


class PostgresBouncer(Postgres):
    """PostgreSQL 18 behind pgbouncer in transaction mode. Part of the suite meets it (`test_bouncer`)."""

    name = "postgres-bouncer"
    major = 18
    bouncer: Bouncer

    def _started(self) -> Server:
        self.bouncer = needed(lambda: bouncer(self.major))
        return self.bouncer.server

    @property
    def url(self) -> str:  # type: ignore[override]
        return self.bouncer.url(self.database)


class Redis(EngineUnderTest):
    """A database of its own on one of the servers of this run, which is started when the first test needs it."""

    kind: ClassVar[str]
    joins = False
    crash_costs = "up to 2 s of writes"
    stories = 100

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.server: RedisServer = needed(lambda: redis(self.kind))
        self.database = self.server.database()
        self.url = self.server.url(self.database)

    @contextmanager
    def outage(self) -> Iterator[None]:
        """The server is a replica, of one that cannot be reached."""
        self.server.do("REPLICAOF", "127.0.0.1", "1")
        try:
            yield
        finally:
            self.server.do("REPLICAOF", "NO", "ONE")

    def close(self) -> None:
        super().close()
        self.server.do("FLUSHDB", "ASYNC", database=self.database)


class Valkey9(Redis):
    """Valkey 9."""

    name = kind = "valkey-9"


class Redis70(Redis):
    """Redis 7.0, as Debian has it."""

    name = kind = "redis-7.0"


class Redis62(Redis):
    """Redis 6.2, the oldest that will do."""

    name = kind = "redis-6.2"
    stories = 30


ENGINES: tuple[type[EngineUnderTest], ...] = (
    SqliteFile,
    SqliteMemory,
    *((Postgres18, Postgres15) if "postgresql" in dayjob.store.ENGINES else ()),
    *((Valkey9, Redis70, Redis62) if "redis" in dayjob.store.ENGINES else ()),
)
