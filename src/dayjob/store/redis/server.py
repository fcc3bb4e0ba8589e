"""The server: connections, scripts, time limits, and what happens after a fork.

Connections are made when they are needed and kept; each is one thread's for the time of one operation. They are redis-py's,
without its client above them: a call of that costs 50 microseconds in retries, metrics and locks, as much as the round trip.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from hiredis import pack_command
from redis import exceptions
from redis.exceptions import NoScriptError, RedisError

from dayjob.clock import SECOND
from dayjob.errors import StoreError, StoreUnavailable
from dayjob.store.frames import let_go
from dayjob.store.redis.address import Line, Way, address
from dayjob.store.redis.faults import MOVES, Uncopied, told, translated
from dayjob.store.redis.scripts import Script, script, sources
from dayjob.store.room import Room
from dayjob.store.sqlfile import in_namespace

SCHEMA = 1
MOST = 8
"""Connections of one process and store at most, its listener apart (E6): pump, beat, services, producers, lookers."""
STALE = 0.5
"""Seconds unused after which a connection is looked at before it is used: the server may have ended it."""
PATIENCE, SULK = 0.2, 30.0
"""Seconds that what is only mentioned may wait for an answer; and for which it is not said at all to a server that failed."""
FAULTS = (RedisError, LookupError, OSError, OverflowError, UnicodeError)


class Server:
    """One namespace on one server, as seen by this process.

    Attributes:
        url: without the password. address: its parts. prefix: what all keys begin with. channels: what all channels do.
    """

    def __init__(self, url: str, namespace: str, clock: Callable[[], int] | None) -> None:
        in_namespace("", namespace)  # refuses what is no name
        self.address = address(url)
        self.url = self.address.url
        self.namespace = namespace
        self.prefix = f"{{{namespace}}}:"
        self.meta = f"{self.prefix}meta"
        self.channels = f"{self.prefix}{self.address.db}:"
        self._virtual = clock
        self._way = Way(self.address, self.meta)
        self._waits = self.address.wait_replicas > 0 or self.address.wait_fsync
        self._latest = 0
        sources()
        self._reset()
        _OPEN.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._room = Room(MOST)
        self._idle: list[tuple[Line, float]] = []
        self._asked: weakref.WeakSet[Line] = weakref.WeakSet()
        self._closed = 0
        self._failed_at = -SULK

    # -- connections -------------------------------------------------------------------------------------------

    def connect(self) -> Line:
        """A new connection, set up; the caller closes it.

        Raises:
            StoreUnavailable: no answer. StoreError: the server refuses, with the reason.
        """
        connection = None
        try:
            connection = self._way.connection()
            connection.connect()
            if self.address.tls:  # whether our certificate is accepted, is known with the first answer
                connection.send_command("PING")
                connection.read_response()
            if self.address.form == "sentinel":
                _require_primary(connection)
        except FAULTS as error:
            if connection is not None:
                connection.disconnect()
            let_go(error)
            self._way.forget()
            self._failed_at = time.monotonic()
            raise translated(error, self.url, SCHEMA, connecting=True) from error
        return connection

    @contextlib.contextmanager
    def session(self, patience: float = 10.0) -> Iterator[Line]:
        """A connection for one operation; errors come out as dayjob's."""
        guest = object()
        try:
            if not self._room.enter(guest, patience):
                raise StoreUnavailable(
                    f"all {MOST} connections of this process to {self.url} are busy for {patience:g} s"
                )
            connection, closed = self._take(), self._closed
            sound = False
            try:
                yield connection
                sound = True
            except FAULTS as error:
                sound = isinstance(error, RedisError) and not isinstance(
                    error, (exceptions.ConnectionError, exceptions.TimeoutError)
                )
                if not sound or told(error) in MOVES:
                    sound = False
                    self._way.forget()
                cause = error.with_traceback(None)  # on CPython 3.13 it would hold itself by this function's frame
                raise translated(error, self.url, SCHEMA) from cause
            finally:
                self._give_back(connection, sound and closed == self._closed)
        finally:
            self._room.leave(guest)

    def _take(self) -> Line:
        while True:
            with self._lock:
                connection, since = self._idle.pop() if self._idle else (None, 0.0)
            if connection is None:
                return self.connect()
            if time.monotonic() - since < STALE or not _spoken_to(connection):
                return connection
            connection.disconnect()
            self._way.forget()

    def _give_back(self, connection: Line, sound: bool) -> None:
        if sound:
            with self._lock:
                self._idle.append((connection, time.monotonic()))
            self._failed_at = -SULK
            return
        self._failed_at = time.monotonic()
        with self._lock:
            idle, self._idle = self._idle, []  # a server that broke one connection has broken the idle ones, too
        for each in (connection, *(one for one, _ in idle)):
            with contextlib.suppress(Exception):
                each.disconnect()

    def lost(self) -> None:
        """A connection that was made by `connect` broke: the server may have moved."""
        self._way.forget()

    def left(self, connection: Line) -> bool:
        """Whether *connection* leads to a server that others have left since."""
        return self._way.left(connection)

    # -- calls -------------------------------------------------------------------------------------------------

    def call(self, name: str, *arguments: Any, wrote: Callable[[Any], bool] | None = None) -> Any:
        """The reply of the script *name*; its KEYS is the key `meta`, by whose name it finds all others.

        *wrote* tells from the reply whether anything was written for which copies are to be waited.
        """
        wanted = script(name, self.prefix)
        with self.session() as connection:
            if self._waits and wanted.writes:
                self._require_waiting(connection)
            reply = self.run(connection, wanted, arguments)
            if self._waits and wanted.writes and (wrote is None or wrote(reply)):
                self._await_copies(connection)
        return reply

    def run(self, connection: Line, wanted: Script, arguments: tuple[Any, ...]) -> Any:
        """Run a script the server may not know yet."""
        words = ("EVALSHA", wanted.sha, 1, self.meta, *arguments)
        try:  # redis-py's own packing looks at each word once more: 3 microseconds for one job, 500 for a batch
            packed = pack_command(words)
        except TypeError as error:
            raise exceptions.DataError(str(error)) from error
        connection.send_packed_command([packed])
        try:
            return connection.read_response()
        except NoScriptError:
            connection.send_command("SCRIPT", "LOAD", wanted.text)  # what it knows by EVAL alone, it soon forgets
            try:
                connection.read_response()
            except exceptions.NoPermissionError:
                connection.send_command("EVAL", wanted.text, 1, self.meta, *arguments)
            else:
                connection.send_command("EVALSHA", wanted.sha, 1, self.meta, *arguments)
            return connection.read_response()

    def command(self, *words: Any) -> Any:
        """The reply of a plain command."""
        with self.session() as connection:
            connection.send_command(*words)
            return connection.read_response()

    def _require_waiting(self, connection: Line) -> None:
        """Ask once on each connection, before anything is written there, whether the server lets us wait at all."""
        if connection not in self._asked:
            connection.send_command(*(("WAITAOF", 1, 0, 1) if self.address.wait_fsync else ("WAIT", 0, 1)))
            connection.read_response()
            with self._lock:
                self._asked.add(connection)

    def mention(self, *words: Any) -> Any:
        """The reply of a plain command on which nothing depends; None when there is none at once."""
        if not self._idle and time.monotonic() - self._failed_at < SULK:
            return None  # to connect to a server that stands still takes as long as it pleases
        with contextlib.suppress(StoreError), self.session(PATIENCE) as connection:
            connection.send_command(*words)
            if not connection.can_read(PATIENCE):
                raise exceptions.TimeoutError("no answer")
            return connection.read_response()
        return None

    def _await_copies(self, connection: Line) -> None:
        """What was written counts once it is in so many places."""
        where = self.address
        wanted = (1, where.wait_replicas) if where.wait_fsync else (where.wait_replicas,)
        connection.send_command("WAITAOF" if where.wait_fsync else "WAIT", *wanted, where.wait_ms)
        try:
            reply: Any = connection.read_response()
        except exceptions.ResponseError as error:  # it could before: what was written may be there or not
            raise exceptions.ConnectionError(f"it does not say whether the write is safe: {error}") from error
        have = tuple(reply) if where.wait_fsync else (reply,)
        if any(one < least for one, least in zip(have, wanted, strict=True)):
            flushed = "" if have[0] or not where.wait_fsync else "it is not flushed to the disk, and "
            raise Uncopied(
                f"{flushed}{have[-1]} of the {where.wait_replicas} replicas that wait_replicas= wants have the write after "
                f"{where.wait_ms} ms"
            )

    def now(self) -> int:
        """The store's clock."""
        if self._virtual is not None:
            return self._virtual()
        seconds, micros = self.command("TIME")
        now = int(seconds) * SECOND + int(micros)
        if not 0 < self._latest - now < SECOND:  # set right by a little it would run backwards
            self._latest = now
        return self._latest

    def at(self, now: int | None) -> int | str:
        """*now* as an argument: the virtual clock's where there is one, empty for the server's."""
        if now is None:
            return "" if self._virtual is None else self._virtual()
        return now

    # -- the end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connections; a later call opens them again."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._closed += 1
        for connection, _ in idle:
            with contextlib.suppress(Exception):
                connection.disconnect()
        self._way.forget()

    def abandon(self) -> None:
        """In a forked child: the connections are the parent's, and redis-py leaves their sockets alone here."""
        self._reset()

    def __del__(self) -> None:
        for connection, _ in getattr(self, "_idle", ()):
            with contextlib.suppress(Exception):
                connection.disconnect()


def _require_primary(connection: Line) -> None:
    """Sentinel may not know yet, or the server: a replica answers who reads, and nobody hears what is said there.

    Raises:
        ReadOnlyError: it is a replica.
    """
    connection.send_command("ROLE")
    try:
        role: Any = connection.read_response()
    except exceptions.NoPermissionError:
        return  # this user may not ask: see the page on Redis
    if role[0] != b"master":
        raise exceptions.ReadOnlyError(f"READONLY its role is {role[0].decode()}")


def _spoken_to(connection: Line) -> bool:
    """True when the server said something on an idle connection: that it ends it, as a rule."""
    try:
        return connection.can_read(0)
    except (RedisError, OSError):
        return True


_OPEN: weakref.WeakSet[Server] = weakref.WeakSet()


def _in_child() -> None:
    for server in list(_OPEN):
        server.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)

__all__ = ["SCHEMA", "Server", "StoreError"]
