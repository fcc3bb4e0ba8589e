"""Connections lent to jobs, for `ctx.transaction()`: in addition to those on which the engine itself works.

They are as the server hands them out: the statements there are the job's own, with its search path, its time zone and
whatever limits its role has. The engine's own settings would not suit them. So is each that another job had before: its
session begins anew, under a new object of the driver's, and the old object leads nowhere. Measured per transaction:
0.2 ms, where a new connection takes 6.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import threading
import weakref
from threading import Lock, Timer

import psycopg
from psycopg.pq import PGconn, TransactionStatus

from dayjob.errors import StoreError, StoreUnavailable, TransactionExpired
from dayjob.store.callers.caller import BROKEN
from dayjob.store.callers.drivers import Psycopg
from dayjob.store.postgres.database import SCHEMA, Connection, Database
from dayjob.store.postgres.faults import FAULTS, translated
from dayjob.store.records import Rows, Statement

KEPT, KEEP = 4, 15.0
"""Connections that wait for the next job at most, and for how many seconds at least; twice as long at most."""

TRIES = 10
"""How often a running statement is cancelled, 0.1 s apart, before the connection is closed under it."""


class Lender:
    """Lends a connection to one job at a time, and keeps it for the next."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self._reset()
        _ALL.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._stale = 0  # of them, first in the list: those unused since the last look
        self._sweeper: Timer | None = None
        self._lent: weakref.WeakSet[Connection] = (
            weakref.WeakSet()
        )  # one that an interrupt has lost is closed by itself

    def take(self) -> Connection:
        """A connection in a transaction; `StoreUnavailable` when there is none to be had."""
        while True:
            with self._lock:
                known = self._idle.pop() if self._idle else None  # the one used last
                self._stale = min(self._stale, len(self._idle))
            connection = known or self._connect()
            try:
                connection.execute("")  # begins, and shows whether it lives; the isolation level is the job's to set
            except FAULTS as error:
                connection.close()
                if known is None:
                    raise translated(error, self.db.url, SCHEMA) from error
                continue
            with self._lock:
                self._lent.add(connection)
            return connection

    def _connect(self) -> Connection:
        with self.db.session():
            pass  # the schema is as it should be, and it is known whether a pooler stands between
        connection = self.db.plain_connection()
        if self.db.pooled:
            connection.prepare_threshold = None
        return connection

    def give_back(self, connection: Connection) -> None:
        """The job is done with *connection*; who has kept it can do nothing with it any more."""
        with contextlib.suppress(psycopg.Error):
            anew = _anew(connection) if self._may_keep(connection) else connection
            with self._lock:
                known = connection in self._lent
                self._lent.discard(connection)
                if known and anew is not connection and len(self._idle) < KEPT:
                    self._idle.append(anew)
                    self._look_later()
                    return
            anew.close()

    def _may_keep(self, connection: Connection) -> bool:
        """Behind a pooler there is no session to begin anew, and a connection costs little."""
        return not self.db.pooled and connection.info.transaction_status is TransactionStatus.IDLE

    def _look_later(self) -> None:
        if self._sweeper is None:
            self._sweeper = Timer(KEEP, _sweep, (weakref.ref(self),))
            self._sweeper.daemon = True
            self._sweeper.start()

    def sweep(self) -> None:
        """Close what no job has used since the last sweep."""
        with self._lock:
            stale, self._idle = self._idle[: self._stale], self._idle[self._stale :]
            self._stale, self._sweeper = len(self._idle), None
            if self._idle:
                self._look_later()
        _close(stale)

    def close(self) -> None:
        """Close what nobody has; what is lent is closed when it comes back."""
        with self._lock:
            idle, self._idle, self._stale = self._idle, [], 0
            self._lent.clear()
            if self._sweeper is not None:
                self._sweeper.cancel()
                self._sweeper = None
        _close(idle)

    def __del__(self) -> None:
        for connection in getattr(self, "_idle", ()):
            with contextlib.suppress(Exception):
                connection.close()

    def abandon(self) -> None:
        """In a forked child: closing would end the parent's sessions."""
        for connection in (*self._idle, *self._lent):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))  # one reference too many is never collected
        self._reset()


class LentTransaction:
    """A transaction lent to a job: `contract.Transaction`."""

    def __init__(self, lender: Lender, limit: float | None) -> None:
        self.limit = math.inf if limit is None else limit
        self.expired = self._broken = False
        self._lender = lender
        self._over = False
        self._ending = Lock()
        self.connection = lender.take()
        self._timer: Timer | None = None
        if limit is not None:
            self._timer = Timer(limit, self._expire)
            self._timer.daemon = True
            self._timer.start()

    def run(self, statement: Statement) -> Rows:
        self._require_whole()
        return Psycopg(self.connection).run(statement)

    def commit(self) -> None:
        with self._ending:
            self._require_whole()
            try:
                if self.connection.info.transaction_status is TransactionStatus.INERROR:
                    raise StoreError("a statement in ctx.transaction() failed, and nothing of it can be committed")
                self.connection.commit()
            except FAULTS as error:
                url = self._lender.db.url
                if (
                    self.connection.info.transaction_status is TransactionStatus.IDLE
                ):  # it has answered, and rolled back
                    raise StoreError(f"{url} refused to commit, and nothing of it is stored: {error}") from error
                raise StoreUnavailable(f"{url} did not answer to a commit: {error}") from error
            finally:
                self._let_go()

    def rollback(self) -> None:
        with self._ending:
            self._let_go()

    def _let_go(self) -> None:
        if self._over:
            return
        if self._timer is not None:
            self._timer.cancel()
        with contextlib.suppress(psycopg.Error):
            self.connection.rollback()
        self._lender.give_back(self.connection)
        self._over = True  # last: what an interrupt has kept from its end is done again

    def _require_whole(self) -> None:
        if self._broken:
            raise TransactionExpired(self.limit) if self.expired else StoreError(BROKEN)

    def _expire(self) -> None:
        self._break(expired=True)

    def break_off(self) -> None:
        self._break(expired=False)

    def _break(self, *, expired: bool) -> None:
        with self._ending:
            if self._over or self._broken:
                return
            self.expired, self._broken = expired, True
            with contextlib.suppress(psycopg.Error):
                self._end_statement()
            with contextlib.suppress(psycopg.Error):
                self.connection.close()  # what the job does here now fails

    def _end_statement(self) -> None:
        """Let the statement that runs end with an error of its own, and undo everything."""
        connection = self.connection
        for _ in range(TRIES):
            with contextlib.suppress(psycopg.Error):
                connection.cancel_safe(timeout=5.0)
            if connection.lock.acquire(timeout=0.1):  # nobody waits on the socket
                try:
                    connection.pgconn.exec_(b"ROLLBACK")  # before it is closed: the server takes its time about that
                finally:
                    connection.lock.release()
                return


_NOWHERE = PGconn.connect_start(b"nowhere")
_NOWHERE.finish()
"""What is under a connection that was taken from who has it: closed."""


def _anew(connection: Connection) -> Connection:
    """The session of *connection*, begun anew, under an object that no job has seen.

    Row factories, prepared statements and what else the driver remembers belong to the old object, which is closed for
    whoever kept it.
    """
    anew, connection.pgconn = psycopg.Connection(connection.pgconn), _NOWHERE
    try:
        anew.autocommit = True
        anew.execute("DISCARD ALL")
        anew.autocommit = False
    except BaseException:
        anew.close()
        raise
    return anew


def _close(connections: list[Connection]) -> None:
    for connection in connections:
        with contextlib.suppress(psycopg.Error):
            connection.close()


def _sweep(lender: weakref.ref[Lender]) -> None:
    found = lender()
    if found is not None:
        found.sweep()


_ALL: weakref.WeakSet[Lender] = weakref.WeakSet()


def _in_child() -> None:
    for lender in list(_ALL):
        lender.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
