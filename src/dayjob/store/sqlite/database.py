"""The file: connections, the one write lock, busy retries, the clock, and what happens after a fork.

All writes of a process go through one connection under one lock, so threads of a process queue up on a lock instead of
racing for the file; between processes SQLite's own lock decides, and we wait for it with short random sleeps (the
built-in back-off starves: four writers made 10,414, 1, 10,836 and 1 commits). Reads have a connection of their own.

The file is never opened by other means while a connection is open: closing any descriptor of a file drops all POSIX
locks that the process holds on it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dayjob.clock import wall
from dayjob.errors import BadRow, ConfigError, SchemaMismatch, StoreError, StoreUnavailable
from dayjob.store.migrate import Migration, migrations
from dayjob.store.room import Room
from dayjob.store.sqlfile import in_namespace
from dayjob.store.sqlite.bootclock import BootClock

OLDEST_SQLITE = (3, 35, 0)  # RETURNING
BUSY_LIMIT = 5.0
"""Seconds to wait for another process's (or the caller's own) write transaction before giving up."""

_MIGRATIONS = migrations("dayjob.store.sqlite.migrations")
SCHEMA = _MIGRATIONS[-1].version
_BOOK = "CREATE TABLE IF NOT EXISTS dayjob_schema (version INTEGER PRIMARY KEY, name TEXT, at INTEGER)"
_BAD_ROW = {sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE}
_WAITING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class Database:
    """One SQLite file (or `:memory:`) as seen by this process.

    Attributes:
        path: the file, or None for `:memory:`.
        clock: returns the store's now as a stamp.
    """

    def __init__(self, path: Path | None, namespace: str, clock: Callable[[], int] | None) -> None:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise ConfigError(f"SQLite {sqlite3.sqlite_version} is too old: dayjob needs 3.35 or newer")
        self.path = path
        self.namespace = namespace
        self._virtual = clock
        self._boot = BootClock()
        self._reset()
        _OPEN.add(self)

    def _reset(self) -> None:
        self._forking: tuple[threading.Lock, ...] = ()
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock() if self.path else self._write_lock
        self._lending = Room(1)
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._main_file: str | None = "" if self.path is None else None
        self._schema_seen = False
        self._synced = True

    def now(self) -> int:
        """The store's clock: boot time plus the offset this file keeps for the running boot (P6)."""
        if self._virtual is not None:
            return self._virtual()
        if not self._boot.known:
            if self.path is not None and not self.path.exists():
                raise SchemaMismatch(0, SCHEMA)  # looking makes no file
            with self.write():
                pass  # the first write transaction learns the offset
        return self._boot.now()

    def glance(self) -> int:
        """`now`, which writes nothing: for one who is in somebody's write transaction on this very file."""
        if self._virtual is not None or self._boot.known:
            return self.now()
        with self.read() as connection:
            return self._boot.now() if self._boot.look(connection, self.namespace) else wall()

    def main_file(self) -> str:
        """The file as SQLite names it, "" in memory."""
        if self._main_file is None:
            with self.read() as connection:
                self._main_file = str(connection.execute("PRAGMA database_list").fetchone()[2] or "")
        return self._main_file

    def skew(self) -> float:
        """Seconds by which this process's wall clock is ahead of the store's clock."""
        self.now()
        return self._boot.skew()

    # -- transactions ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def write(self, *, schema: bool = True, synced: bool = True) -> Iterator[sqlite3.Connection]:
        """A write transaction: begun at once, committed at the end, rolled back on any error.

        Args:
            synced: False when a loss of power may undo it, with all that would have noticed (a claim: the job is
                available again, and its worker is gone); the next synced commit makes it durable, too.
        """
        with self._write_lock:
            try:
                connection = self._writer_connection()
                self._sync(connection, synced)
                self._begin(connection, "BEGIN IMMEDIATE")
                try:
                    if schema and not self._schema_seen:
                        self._require_schema(connection)
                    if schema and not self._boot.known:
                        self._boot.learn(connection, self.namespace)
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    self._roll_back(connection)
                    raise
            except sqlite3.Error as error:
                raise translated(error, self.path) from error
            except (OverflowError, UnicodeError) as error:  # a number of more than 64 bits, a lone surrogate
                raise BadRow(f"{self.path or ':memory:'} cannot store this row ({error})") from error

    def write_one(self, statement: str, parameters: Callable[[], Sequence[object]]) -> None:
        """A write transaction of a single statement: SQLite begins and commits by itself, at a third of the calls.

        Raises:
            sqlite3.IntegrityError: as it is; the caller knows which constraint it may meet.
        """
        self._make_ready()
        with self._write_lock:
            try:
                connection = self._writer_connection()
                self._sync(connection, True)
                self._begin(connection, statement, parameters())
            except sqlite3.IntegrityError:
                raise
            except sqlite3.Error as error:
                raise translated(error, self.path) from error
            except (OverflowError, UnicodeError) as error:
                raise BadRow(f"{self.path or ':memory:'} cannot store this row ({error})") from error

    def _make_ready(self) -> None:
        """Check the schema and learn the clock, where no write transaction has done so yet."""
        if not self._schema_seen or not self._boot.known:
            with self.write():
                pass

    @contextlib.contextmanager
    def lent(self) -> Iterator[sqlite3.Connection]:
        """A connection in a write transaction, for a job; whoever has it commits or rolls back. One at a time.

        In a file it is a connection of its own: threads that write meanwhile wait as they wait for another process,
        and come to an end. In memory there is only the one.
        """
        self._make_ready()
        guest, connection = object(), None
        try:
            if not self._lending.enter(guest, BUSY_LIMIT):
                raise StoreUnavailable(f"{self.path or ':memory:'}: another job of this process has a transaction open")
            with self._write_lock if self.path is None else contextlib.nullcontext():
                try:
                    connection = self._writer_connection() if self.path is None else self._connect(first=False)
                    self._begin(connection, "BEGIN IMMEDIATE")
                    yield connection
                except sqlite3.Error as error:
                    raise translated(error, self.path) from error
                finally:
                    if connection is not None:
                        self._roll_back(connection)
                        if self.path is not None:
                            connection.close()
        finally:
            self._lending.leave(guest)

    @contextlib.contextmanager
    def read(self, *, schema: bool = True) -> Iterator[sqlite3.Connection]:
        """A read transaction: everything inside sees one state of the file."""
        with self._read_lock:
            try:
                connection = self._reader_connection()
                self._begin(connection, "BEGIN")
                try:
                    if schema and not self._schema_seen:
                        self._require_schema(connection)
                    yield connection
                finally:
                    self._roll_back(connection)
            except sqlite3.Error as error:
                raise translated(error, self.path) from error

    def _sync(self, connection: sqlite3.Connection, synced: bool) -> None:
        """Set what the next commit on *connection* waits for, if that changes."""
        if synced is not self._synced and self.path is not None:
            connection.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
            self._synced = synced

    def begin_anew(self, connection: sqlite3.Connection) -> None:
        """Inside `write`: forget what this transaction did so far, and go on in a new one."""
        connection.execute("ROLLBACK")
        self._begin(connection, "BEGIN IMMEDIATE")

    def _begin(
        self, connection: sqlite3.Connection, statement: str, parameters: Sequence[object] = ()
    ) -> sqlite3.Cursor:
        give_up = None
        while True:
            try:
                return connection.execute(statement, parameters)
            except sqlite3.OperationalError as error:
                if (error.sqlite_errorcode & 0xFF) not in _WAITING:
                    raise
                moment = time.monotonic()
                give_up = give_up or moment + BUSY_LIMIT
                if moment > give_up:
                    raise
                time.sleep(random.uniform(0.0001, 0.002))

    @staticmethod
    def _roll_back(connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error:
                connection.close()  # a connection stuck in a transaction must not be used again: the next call reopens

    # -- connections -------------------------------------------------------------------------------------------

    def _writer_connection(self) -> sqlite3.Connection:
        if self._writer is not None and self.path is not None:
            self._check_file()
        if self._writer is None or not _usable(self._writer):
            self._writer = self._connect(first=True)
            self._synced = True
        return self._writer

    def _reader_connection(self) -> sqlite3.Connection:
        if self.path is None:
            return self._writer_connection()
        if self._reader is not None:
            self._check_file()
        if self._reader is None or not _usable(self._reader):
            self._reader = self._connect(first=False)
        return self._reader

    def _connect(self, *, first: bool) -> sqlite3.Connection:
        if self.path is not None and first:
            _create_private(self.path)
        elif self.path is not None and not self.path.exists():
            raise SchemaMismatch(0, SCHEMA)  # looking makes no file
        # cached_statements: every statement of queries.sql stays prepared.
        connection = sqlite3.connect(
            self.path or ":memory:", timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            self._set_up(connection)
            if self.path is not None and self._inode is None:
                status = self.path.stat()
                self._inode = (status.st_dev, status.st_ino)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        if self.path is not None:
            self._begin(connection, "PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            # Fewer, larger checkpoints: 16 MB of log between them costs less than one every 4 MB.
            connection.execute("PRAGMA wal_autocheckpoint = 4000")
        connection.execute("PRAGMA cache_size = -32000")
        connection.execute("PRAGMA temp_store = MEMORY")

    def _check_file(self) -> None:
        """A file that was deleted or replaced under us would swallow every write: refuse instead."""
        assert self.path is not None
        status = None
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(self.path)  # noqa: PTH116  on the way of every write: half the time of Path.stat
        if status is not None and (status.st_dev, status.st_ino) == self._inode:
            return
        self._drop_connections()
        what = "was deleted" if status is None else "was replaced by another file"
        raise StoreUnavailable(
            f"the database file {self.path} {what} while it was in use: put it back (from a backup), "
            "or stop all workers and start with a new one (dayjob migrate)"
        )

    def _drop_connections(self) -> None:
        for connection in (self._writer, self._reader):
            if connection is not None:
                connection.close()
        self._writer = self._reader = self._inode = None
        self._schema_seen = False

    def close(self) -> None:
        """Close the connections; a later call opens them again (and an in-memory store begins anew)."""
        reading = contextlib.nullcontext() if self._read_lock is self._write_lock else self._read_lock
        with self._write_lock, reading:
            self._drop_connections()

    def __del__(self) -> None:
        # An app that nobody closed: connections are closed here rather than reported by the interpreter.
        for connection in (getattr(self, "_writer", None), getattr(self, "_reader", None)):
            if connection is not None:
                connection.close()

    def before_fork(self) -> None:
        """Close the file's connections, and let no thread into the library until the fork is done.

        SQLite keeps its locks per process and file, in memory that a child would inherit: a connection which the child
        opens would rely on locks that only the parent holds, and lose its log when the parent closes (measured: jobs
        acknowledged in the child were gone). Without connections there is nothing to inherit. A store in memory cannot
        be closed; the facade refuses it in a child.
        """
        if self.path is None:
            return
        # A transaction takes 5 s at most. Past that a fork with connections open is the lesser evil: see `after_fork`.
        alone = self._lending.enter(self, 10.0)
        locks = (self._write_lock, self._read_lock)
        self._forking = tuple(lock for lock in locks if lock.acquire(timeout=10.0))
        if alone and len(self._forking) == len(locks):
            self._drop_connections()

    def after_fork(self, *, child: bool) -> None:
        """Go on: the parent with its locks, the child with new ones and without whatever was left open."""
        forking, self._forking = self._forking, ()
        if not child:
            for lock in forking:
                lock.release()
            self._lending.leave(self)
            return
        for connection in (self._writer, self._reader):
            if connection is not None:
                # Closing would touch the parent's file locks and log. One reference too many is never collected.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        self._reset()

    # -- schema ------------------------------------------------------------------------------------------------

    def version(self, connection: sqlite3.Connection) -> int:
        """The schema's version in the file, 0 when there is none."""
        table = f"{self.namespace}_schema"
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
            return 0
        return int(connection.execute(f"SELECT coalesce(max(version), 0) FROM {table}").fetchone()[0])

    def _require_schema(self, connection: sqlite3.Connection) -> None:
        found = self.version(connection)
        if found != SCHEMA:
            raise SchemaMismatch(found, SCHEMA)
        self._schema_seen = True

    def migrate(self) -> list[str]:
        """Apply what is missing in one transaction; of two processes the second finds nothing left."""
        with self.write(schema=False) as connection:
            missing = self._missing(connection)
            connection.execute(in_namespace(_BOOK, self.namespace))
            for step in missing:
                for statement in in_namespace(step.sql, self.namespace).split(";\n"):
                    connection.execute(statement)
                connection.execute(
                    f"INSERT INTO {self.namespace}_schema VALUES (?, ?, ?)", (step.version, step.name, wall())
                )
            if not self._boot.known:
                self._boot.learn(connection, self.namespace)
        return [step.name for step in missing]

    def missing(self) -> list[Migration]:
        """What `migrate` would apply."""
        if self.path is not None and not self.path.exists():
            return _MIGRATIONS
        if self.path is not None and self._reader is None:
            return self._missing_at_first()
        with self.read(schema=False) as connection:
            return self._missing(connection)

    def _missing_at_first(self) -> list[Migration]:
        """On a connection that changes nothing: `_set_up` on a new file waits for whoever has a transaction open there."""
        with self._read_lock:
            try:
                with contextlib.closing(sqlite3.connect(str(self.path), timeout=0, isolation_level=None)) as connection:
                    self._begin(connection, "SELECT 1 FROM sqlite_master")
                    return self._missing(connection)
            except sqlite3.Error as error:
                raise translated(error, self.path) from error

    def migration_sql(self) -> str:
        """What `migrate` would run, as one text."""
        parts = []
        for step in self.missing():
            done = f"INSERT INTO dayjob_schema VALUES ({step.version}, '{step.name}', strftime('%s', 'now') * 1000000);"
            parts.append(f"-- {step.name}\nBEGIN IMMEDIATE;\n{_BOOK};\n{step.sql.strip()}\n{done}\nCOMMIT;\n")
        return in_namespace("\n".join(parts), self.namespace)

    def _missing(self, connection: sqlite3.Connection) -> list[Migration]:
        found = self.version(connection)
        if found > SCHEMA:
            raise SchemaMismatch(found, SCHEMA)
        return [step for step in _MIGRATIONS if step.version > found]


def translated(error: sqlite3.Error, path: Path | None) -> StoreError:
    """The one place where the driver's exceptions become dayjob's."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    where = path or ":memory:"
    if code in _WAITING:
        return StoreUnavailable(
            f"{where} was locked by another writer for {BUSY_LIMIT:g} s. Is it your own transaction, on the same "
            "file? Then commit before you enqueue, or pass conn=. Else look for a process that holds the file."
        )
    if code == sqlite3.SQLITE_READONLY or "readonly" in str(error):
        return StoreError(f"{where} is read-only: give this user write access to the file and its folder ({error})")
    if code == sqlite3.SQLITE_CANTOPEN:
        return StoreUnavailable(
            f"{where} cannot be opened: does its folder exist, and may this user write there? ({error})"
        )
    if code == sqlite3.SQLITE_FULL:
        return StoreUnavailable(f"the disk of {where} is full: make room; what was acknowledged is safe ({error})")
    if code == sqlite3.SQLITE_NOTADB:
        return StoreError(f"{where} is not an SQLite database: another file is in its place; check the URL ({error})")
    if code == sqlite3.SQLITE_CORRUPT:
        return StoreError(
            f"{where} is damaged ({error}): stop the workers, keep a copy, and restore a backup or run "
            "`sqlite3 FILE .recover`"
        )
    if code in _BAD_ROW:
        return BadRow(f"{where} cannot store this row ({error})")
    if "no such table" in str(error) or "no such column" in str(error):
        return SchemaMismatch(0, SCHEMA)
    return StoreUnavailable(f"{where}: {error}")


def _usable(connection: sqlite3.Connection) -> bool:
    try:
        connection.total_changes  # noqa: B018  raises on a closed connection, touches nothing else
    except sqlite3.ProgrammingError:
        return False
    return True


def _create_private(path: Path) -> None:
    """A new database is readable by its owner alone; an existing file is not opened here (see the module)."""
    if path.exists():
        return
    with contextlib.suppress(FileExistsError):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileNotFoundError:
            raise StoreUnavailable(f"{path} cannot be created: its folder {path.parent} does not exist") from None
        except PermissionError:
            raise StoreError(f"{path} cannot be created: no write access to {path.parent}") from None
        except OSError as error:
            if isinstance(error, FileExistsError):
                raise
            raise StoreUnavailable(f"{path} cannot be created: {error}") from error


_OPEN: weakref.WeakSet[Database] = weakref.WeakSet()


def _before_fork() -> None:
    for database in list(_OPEN):
        database.before_fork()


def _in_parent() -> None:
    for database in list(_OPEN):
        database.after_fork(child=False)


def _in_child() -> None:
    for database in list(_OPEN):
        database.after_fork(child=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
