"""The server: connections, transactions, time limits, and what happens after a fork.

Connections are made when they are needed and kept; each is one thread's for the time of one operation. A small stock of
our own instead of psycopg_pool: its worker threads cost an idle process, it makes connections out of sight, so that the
reason why none can be made is not to be had, and it does not survive a fork.

Behind a pooler in transaction mode (pgbouncer) two transactions of ours may run in different sessions: there is no
LISTEN, nothing is prepared, and what a session is told must be told in every transaction. It shows by itself: the
pooler's process number for a connection is not the server's.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from psycopg import IsolationLevel, RawCursor
from psycopg.pq import TransactionStatus

from dayjob.errors import BadRow, ConfigError, SchemaMismatch, StoreError, StoreUnavailable
from dayjob.store.frames import let_go
from dayjob.store.migrate import migrations
from dayjob.store.postgres.faults import FAULTS, translated
from dayjob.store.postgres.wire import set_up
from dayjob.store.room import Room
from dayjob.store.urls import without_password

Connection = psycopg.Connection[tuple[Any, ...]]

OLDEST_SERVER = 140000
MOST = 8
"""Connections of one process and store at most, its listener apart (E6): pump, beat, services, producers, lookers."""

_LINE: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""A server that is gone is noticed within seconds (milliseconds: the last)."""
SETTINGS: dict[str, str] = {
    "statement_timeout": "30s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
    "default_transaction_isolation": "read committed",
    "search_path": "pg_catalog, pg_temp",
    "timezone": "UTC",
    "datestyle": "ISO",
    "client_min_messages": "warning",
    # Every statement here is meant to go by an index. Plans are made once, perhaps while a table is empty: then a scan of
    # all looks cheap, and stays in use when there are a million rows.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
    # A plan for every execution would cost more than the execution: 100 of the 150 microseconds of a lone enqueue.
    "plan_cache_mode": "force_generic_plan",
}

_BEGIN_READING = (
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on; "
    "SET LOCAL plan_cache_mode = auto"
)

_MIGRATIONS = migrations("dayjob.store.postgres.migrations")
SCHEMA = _MIGRATIONS[-1].version


class Database:
    """One schema on one server, as seen by this process.

    Attributes:
        url: without the password.
        pooled: True when a pooler in transaction mode stands between; known after the first connection.
        wanted: the version of the schema that this code works with.
        inserts: False for a role that may only call the functions that enqueue; known after the first operation.
    """

    def __init__(self, url: str, namespace: str, clock: Callable[[], int] | None) -> None:
        self._conninfo = _conninfo(url)
        self.url = without_password(url)
        self.namespace = namespace
        self._virtual = clock
        self.pooled = False
        self.wanted = SCHEMA
        self.inserts = True
        self._reset()
        _OPEN.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._room = Room(MOST)
        self._idle: list[Connection] = []
        self._lent: set[Connection] = set()
        self._schema_seen = False
        self._home: str | None = None

    # -- connections -------------------------------------------------------------------------------------------

    def connect(self, *, autocommit: bool = True) -> Connection:
        """A new connection, set up; the caller closes it.

        Raises:
            StoreUnavailable: no answer. StoreError: the server refuses, with the reason.
        """
        try:
            connection = psycopg.connect(
                self._conninfo,
                autocommit=True,
                cursor_factory=RawCursor,
                application_name="dayjob",
                client_encoding="UTF8",
                **_LINE,
            )
        except FAULTS as error:
            let_go(error)
            raise translated(error, self.url, SCHEMA) from error
        try:
            self._begin_session(connection)
            connection.autocommit = autocommit
        except FAULTS as error:
            connection.close()
            raise translated(error, self.url, SCHEMA) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def plain_connection(self) -> Connection:
        """A new connection as the server gives it, not in autocommit, for statements that are not ours."""
        try:
            return psycopg.connect(self._conninfo, application_name="dayjob job", **_LINE)
        except FAULTS as error:
            let_go(error)
            raise translated(error, self.url, SCHEMA) from error

    def _begin_session(self, connection: Connection) -> None:
        if connection.info.server_version < OLDEST_SERVER:
            raise ConfigError(
                f"{self.url} is PostgreSQL {connection.info.server_version / 10000:.0f}: dayjob needs 14 or newer"
            )
        set_up(connection)
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        self.pooled = row[0] != connection.info.backend_pid
        if self.pooled:
            connection.prepare_threshold = None  # and the session is left as it is: it serves others, too
            connection.isolation_level = IsolationLevel.READ_COMMITTED  # said by every BEGIN
        else:
            connection.execute(f"SELECT {told('false')}")

    @contextlib.contextmanager
    def session(self, *, schema: bool = True) -> Iterator[Connection]:
        """A connection for one operation, in autocommit; errors come out as dayjob's."""
        guest = object()
        try:
            if not self._room.enter(guest, 10.0):
                raise StoreUnavailable(f"all {MOST} connections of this process to {self.url} are busy for 10 s")
            connection = self._take()
            try:
                if schema and not self._schema_seen:
                    self._require_schema(connection)
                yield connection
            except FAULTS as error:
                raise self._fault(error) from error
            except (
                OverflowError,
                UnicodeError,
                struct.error,
            ) as error:  # a number of more than 64 bits, a lone surrogate
                raise BadRow(f"{self.url} cannot store this row ({error})") from error
            finally:
                self._give_back(connection)
        finally:
            self._room.leave(guest)

    def _take(self) -> Connection:
        connection = None
        while connection is None:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                connection = self.connect()
            elif _spoken_to(connection):
                with contextlib.suppress(psycopg.Error):
                    connection.close()
                connection = None
        with self._lock:
            self._lent.add(connection)
        return connection

    def _give_back(self, connection: Connection) -> None:
        sound = not connection.closed and connection.info.transaction_status is TransactionStatus.IDLE
        with self._lock:
            known = connection in self._lent
            self._lent.discard(connection)
            if sound and known:
                self._idle.append(connection)
                return
            idle, self._idle = self._idle, []  # a server that broke one connection has broken the idle ones, too
        for each in (connection, *idle):
            with contextlib.suppress(psycopg.Error):
                each.close()

    # -- transactions ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def write(self, *, schema: bool = True) -> Iterator[Connection]:
        """A write transaction: committed at the end, rolled back on any error."""
        with self.session(schema=schema) as connection, connection.transaction():
            self.tell(connection)
            yield connection

    @contextlib.contextmanager
    def read(self, *, schema: bool = True) -> Iterator[Connection]:
        """A read transaction: everything inside sees one state of the store."""
        with self.session(schema=schema) as connection:
            connection.execute(_BEGIN_READING)
            try:
                self.tell(connection)
                yield connection
            finally:
                if connection.info.transaction_status is not TransactionStatus.UNKNOWN:
                    connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def under_settings(self, connection: Connection) -> Iterator[None]:
        """For statements that commit by themselves: behind a pooler, where no session is ours, all in a transaction."""
        with connection.transaction() if self.pooled else contextlib.nullcontext():
            self.tell(connection)
            yield

    def tell(self, connection: Connection) -> None:
        """Behind a pooler a transaction must be told what a session of our own knows."""
        if self.pooled:
            connection.execute(f"SELECT {told('true')}")

    def now(self) -> int:
        """The store's clock."""
        if self._virtual is not None:
            return self._virtual()
        with self.session() as connection:
            row = connection.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchone()
        assert row is not None
        return int(row[0])

    def at(self, now: int | None) -> int | None:
        """*now* as a parameter: the virtual clock's where there is one, None for the server's."""
        return self._virtual() if now is None and self._virtual is not None else now

    # -- the end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connections; a later call opens them again."""
        with self._lock:
            connections, self._idle = [*self._idle, *self._lent], []
            self._lent.clear()
            self._schema_seen = False
            self._home = None
        for connection in connections:
            with contextlib.suppress(psycopg.Error):
                connection.close()

    def __del__(self) -> None:
        # An app that nobody closed: connections are closed here rather than reported by the interpreter.
        for connection in getattr(self, "_idle", ()):
            with contextlib.suppress(Exception):
                connection.close()

    def abandon(self) -> None:
        """In a forked child: the connections are the parent's. Closing one would end the parent's session."""
        for connection in (*self._idle, *self._lent):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))  # one reference too many is never collected
        self._reset()

    # -- schema --------------------------------------------------------------------------------------------------

    def require_schema(self) -> None:
        """Look, before anything else is done, whether the schema is there, and what our role may do; once."""
        if not self._schema_seen:
            with self.session():
                pass

    @property
    def located(self) -> bool:
        return self._home is not None

    def home(self) -> str:
        """Where the jobs are, as functions that run on other connections compare it; asked once."""
        home = self._home
        if home is None:
            with self.session() as connection:
                row = connection.execute(f'SELECT "{self.namespace}".home()').fetchone()
            assert row is not None
            home = self._home = str(row[0])
        return home

    def forget_home(self) -> None:
        """It may have moved: ask again."""
        self._home = None

    def _require_schema(self, connection: Connection) -> None:
        with self.under_settings(connection):
            before, after = self.versions(connection)
            if before < self.wanted:
                raise SchemaMismatch(before, self.wanted)
            if after > self.wanted:
                raise SchemaMismatch(after, self.wanted)
            job = f'"{self.namespace}".job'
            row = connection.execute("SELECT has_table_privilege($1, 'INSERT')", (job,)).fetchone()
        self.inserts = row is not None and bool(row[0])
        self._schema_seen = True

    def versions(self, connection: Connection) -> tuple[int, int]:
        """How far the schema's `pre` and `post` parts are applied; (0, 0) when there is none.

        Code of version N works from `pre` N on, until `post` N + 1 takes away what it needs. Every role may ask.
        """
        # From the tables themselves: a session that waited for another's migration may still know that there was none.
        there = "SELECT 1 FROM pg_proc WHERE proname = 'versions' AND pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1)"
        if connection.execute(there, (self.namespace,)).fetchone() is None:
            return 0, 0
        row = connection.execute(f'SELECT pre, post FROM "{self.namespace}".versions()').fetchone()
        assert row is not None
        return int(row[0]), int(row[1])

    def _fault(self, error: Exception) -> StoreError:
        """What *error* means. Something of the schema is missing that was there: it says how the schema stands now."""
        fault = translated(error, self.url, self.wanted)
        if isinstance(fault, SchemaMismatch) and self._schema_seen:
            self._schema_seen = False
            try:
                with contextlib.closing(self.connect()) as connection:
                    self._require_schema(connection)
            except (SchemaMismatch, StoreUnavailable) as better:
                return better
            return StoreError(f"{self.url}: a statement of dayjob's own failed, please report it ({error})")
        return fault


def _spoken_to(connection: Connection) -> bool:
    """True when the server said something on an idle connection: that it ends it, as a rule."""
    poll = select.poll()  # not `select`, which takes no descriptor above 1023
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def told(local: str) -> str:
    """The settings of a session (*local* "false") or of a transaction ("true"), as a list for SELECT.

    A commit that does not wait for the disk would lose what was acknowledged (P1); one that waits for more is left so.
    """
    # In full: until this is said, a name without a schema may be anybody's.
    values = [f"pg_catalog.set_config('{name}', '{value}', {local})" for name, value in SETTINGS.items()]
    commits = "pg_catalog.current_setting('synchronous_commit')"
    values.append(
        f"pg_catalog.set_config('synchronous_commit', CASE WHEN {commits} OPERATOR(pg_catalog.=) 'off' THEN 'on' "
        f"ELSE {commits} END, {local})"
    )
    return ", ".join(values)


def _conninfo(url: str) -> str:
    """*url* as libpq takes it."""
    scheme, _, rest = url.partition("://")
    conninfo = f"postgresql://{rest}" if scheme else url
    try:
        psycopg.conninfo.conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError as error:
        raise ConfigError(
            f"{without_password(url)!r:.200} is no PostgreSQL URL ({str(error).strip()}): write postgresql://user@host:port/database"
        ) from error
    return conninfo


_OPEN: weakref.WeakSet[Database] = weakref.WeakSet()


def _in_child() -> None:
    for database in list(_OPEN):
        database.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)

__all__ = ["SCHEMA", "Connection", "Database", "StoreError", "told"]
