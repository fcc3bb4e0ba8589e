"""Where a process can die within one call of the store: before every statement, after the last, and what is left then.

    parent: scene ─ save ─┬─ put back ─ fork ─▶ child: open ─ arm ─ call ─ ✗ (at moment n)
                          │                      └──────── what it said ───────┐
                          └──◀─ look, sound?, call again, look ◀───────────────┘

Between two statements nothing happens that the store could see, so "after" the one is "before" the next. On a line to a
server there is one moment more for each: when the statement has been sent and its answer was not read.
"""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sqlite3
import time
import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import psycopg
from redis import Redis as RedisClient
from redis.connection import Connection

from dayjob.errors import SchemaMismatch
from dayjob.store import open_store
from dayjob.store.contract import Store
from dayjob.store.postgres.flight import Flight
from dayjob.store.records import Filter
from tests.contract.engines import EngineUnderTest, Postgres18, SqliteFile, Valkey9
from tests.contract.scene import START

RETURNED, FAILED = "the call has returned", "the child failed"

DAY = 86_400.0


class Moments:
    """Counts the moments of a process, and ends it at one of them.

    Attributes:
        fatal: the number of the moment at which it dies, from 1; 0: it lives. say: told what that moment is.
    """

    def __init__(self, fatal: int, say: Callable[[str], None]) -> None:
        self.fatal, self.say = fatal, say
        self._count = itertools.count(1)

    def __call__(self, what: str) -> None:
        if next(self._count) == self.fatal:
            self.say(" ".join(what.split())[:120])
            os.kill(os.getpid(), signal.SIGKILL)


class Handle:
    """The store of a scene: a fresh handle whenever it was closed, in a forked child, too."""

    def __init__(self, engine: EngineUnderTest) -> None:
        self._engine = engine
        self._store: Store | None = None

    def __getattr__(self, name: str) -> Any:
        if self._store is None:
            self._store = open_store(self._engine.url)
        return getattr(self._store, name)

    def close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()


class Place(ABC):
    """One engine's place, whose data can be kept and put back, and in whose children each statement is a moment."""

    engine_type: ClassVar[type[EngineUnderTest]]
    learns: ClassVar[bool] = False
    """Whether it knows something of a first try, although nothing was written: a script."""

    def __init__(self, folder: Path) -> None:
        self.engine: Any = self.engine_type(folder)
        self.handle = Handle(self.engine)

    def migrated(self) -> EngineUnderTest:
        """The engine, as a scene asks for it: its store is the handle."""
        self.engine.store()
        for each in self.engine._handles:
            each.close()
        self.engine.store = lambda: self.handle
        return self.engine

    @abstractmethod
    def save(self) -> None:
        """Keep the data as they are. No handle is open."""

    @abstractmethod
    def put_back(self, *, cold: bool = False) -> None:
        """The data as they were kept; *cold*: the place knows nothing else."""

    def warm(self) -> None:
        """In a child: have a connection, and know the store."""
        self.handle.now()

    @abstractmethod
    def arm(self, moment: Moments) -> None:
        """In a child: from now on each statement of this process tells *moment*."""

    @abstractmethod
    def look(self, now: int) -> Any:
        """Everything that is stored, but for what differs between two equal runs."""

    @abstractmethod
    def ill(self) -> str:
        """What a dead process has left that it should not have: "" for nothing. Waits until it is dead to the server, too."""

    def close(self) -> None:
        self.handle.close()
        self.engine.close()


def everything(store: Any, now: int) -> Any:
    """All that the store shows. Entries and places are told by their order: a number may be spent in vain."""
    found = store.export([row.id for row in store.find(Filter(), limit=1000).jobs])
    entries = sorted({whole.job.entry for whole in found})
    places = sorted({whole.job.place for whole in found})
    for whole in found:
        whole.job.entry, whole.job.place = entries.index(whole.job.entry), places.index(whole.job.place)
    return {
        "jobs": found,
        "queues": store.queues(now=now),
        "workers": store.workers(now=now),
        "records": list(store.list(None, now=now)),
        "history": store.history(0),
    }


class InFile(Place):
    """SQLite tells each statement itself, those of a batch and of a trigger, too."""

    engine_type = SqliteFile

    def save(self) -> None:
        self._saved = self._files()

    def _files(self) -> dict[str, bytes]:
        paths = [Path(f"{self.engine.path}{ending}") for ending in ("", "-wal", "-shm")]
        return {str(path): path.read_bytes() for path in paths if path.exists()}

    def put_back(self, *, cold: bool = False) -> None:
        self.handle.close()
        for path in self._files():
            Path(path).unlink()
        for path, content in self._saved.items():
            Path(path).write_bytes(content)

    def arm(self, moment: Moments) -> None:
        connect = sqlite3.connect

        def traced(*args: Any, **options: Any) -> sqlite3.Connection:
            connection = connect(*args, **options)
            connection.set_trace_callback(moment)
            return connection

        sqlite3.connect = traced  # type: ignore[assignment]  # in a child, which ends soon
        database = self.handle.db
        for connection in (database._writer, database._reader):
            if connection is not None:
                connection.set_trace_callback(moment)

    def look(self, now: int) -> Any:
        """All rows as they are: what is said above the line follows from them."""
        if not self.engine.path.exists():
            return {}
        with closing(sqlite3.connect(self.engine.path)) as connection:
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
            rows = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for (name,) in names}
        return {
            name: len(found) if name in ("dayjob_schema", "dayjob_clock") else found for name, found in rows.items()
        }

    def ill(self) -> str:
        if not self.engine.path.exists():
            return ""
        with closing(sqlite3.connect(self.engine.path, timeout=1.0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            except sqlite3.OperationalError as error:
                return f"it cannot be written: {error}"
            found = connection.execute("PRAGMA integrity_check").fetchall()
        return "" if found == [("ok",)] else str(found)


class OnPostgres(Place):
    """Each exchange of the driver with the server, and what the engine sends past the driver (`flight.py`)."""

    engine_type = Postgres18
    _saved = ""

    def migrated(self) -> EngineUnderTest:
        engine = super().migrated()
        with (
            self.handle.db.session() as connection
        ):  # else the first jobs of a day go another way than those after them
            connection.execute(self.handle.sql.add_days, (START, [0.0, DAY]))
        return engine

    def save(self) -> None:
        self._saved = self.engine.database

    def put_back(self, *, cold: bool = False) -> None:
        self.handle.close()
        server = self.engine.server
        if self.engine.database != self._saved:
            server.drop_database(self.engine.database)
        self.engine._database = server.create_database(self._saved)

    def close(self) -> None:
        super().close()
        if self._saved:
            self.engine.server.drop_database(self._saved)

    def arm(self, moment: Moments) -> None:
        wait = psycopg.Connection.wait
        take_off = Flight._take_off

        def exchange(connection: Any, gen: Generator[Any, Any, Any], *args: Any, **options: Any) -> Any:
            return wait(connection, _told(gen, moment), *args, **options)

        def depart(flight: Any) -> None:
            moment(f"before {flight._name}")
            take_off(flight)
            moment(f"sent {flight._name}")

        psycopg.Connection.wait = exchange  # type: ignore[method-assign]  # in a child, which ends soon
        Flight._take_off = depart  # type: ignore[method-assign]

    def look(self, now: int) -> Any:
        """What everyone sees, and how many rows there are: sequences and snapshots go on, whatever is rolled back.

        Counts are sums, and are folded whenever the leader comes by: those are seen above the line alone.
        """
        try:
            seen = everything(self.handle, now)
        except SchemaMismatch:
            seen = {}
        tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('dayjob', 'public') AND tablename <> 'total'"
        with self.handle.db.session(schema=False) as connection:
            names = [name for (name,) in connection.execute(tables).fetchall()]
            counts = " UNION ALL ".join(f"SELECT '{name}', count(*) FROM {name}" for name in names)
            found = connection.execute(counts).fetchall() if names else []
        return seen, {name: count for name, count in found if count}

    def ill(self) -> str:
        mine = [connection.info.backend_pid for connection in self.handle.db._idle]
        there = """SELECT left(query, 90) FROM pg_stat_activity
            WHERE datname = %s AND backend_type = 'client backend' AND pid <> ALL(%s)"""
        deadline = time.monotonic() + 5.0
        while left := self.engine.server.sql(there, self.engine.database, mine):
            if time.monotonic() > deadline:
                return f"the server still has sessions: {left}"
        return ""


def _told(gen: Any, moment: Moments) -> Generator[Any, Any, Any]:
    """*gen*, an exchange with the server, with a moment before it, and one when all is sent."""
    name = gen.gi_frame.f_locals.get("query", gen.__qualname__)
    moment(f"before {name}")
    try:
        wanted = next(gen)
    except StopIteration as over:
        return over.value
    finally:
        moment(f"sent {name}")
    try:
        while True:
            wanted = gen.send((yield wanted))
    except StopIteration as over:
        return over.value


class OnValkey(Place):
    """Each command."""

    engine_type = Valkey9
    learns = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._client = RedisClient(port=self.engine.server.port, db=self.engine.database)

    def save(self) -> None:
        self._saved = {key: self._client.dump(key) for key in self._keys()}

    def _keys(self) -> list[bytes]:
        return sorted(self._client.scan_iter(count=1000))

    def put_back(self, *, cold: bool = False) -> None:
        with self._client.pipeline(transaction=False) as pipe:
            pipe.flushdb()
            if cold:
                pipe.script_flush()
            for key, value in self._saved.items():
                pipe.restore(key, 0, value)  # type: ignore[arg-type]  # bytes
            pipe.execute()

    def close(self) -> None:
        super().close()
        self._client.close()

    def arm(self, moment: Moments) -> None:
        send = Connection.send_packed_command

        def sending(connection: Any, command: Any, *args: Any, **options: Any) -> None:
            what = b"".join(command if isinstance(command, list) else [command])[:60].decode(errors="replace")
            moment(f"before {what}")
            send(connection, command, *args, **options)
            moment(f"sent {what}")

        Connection.send_packed_command = sending  # type: ignore[method-assign]  # in a child, which ends soon

    def look(self, now: int) -> Any:
        """All keys as they are."""
        client: Any = self._client
        reads: dict[bytes, Callable[[bytes], Any]] = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"set": client.smembers,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        }
        return {key: reads[client.type(key)](key) for key in self._keys()}

    def ill(self) -> str:
        self._client.ping()  # what the dead one has sent is done by then: the server looks at all lines in turn
        return ""


PLACES: tuple[type[Place], ...] = (InFile, OnPostgres, OnValkey)


class Said:
    """What a child told before it ended.

    Attributes:
        lines: all of it. returned: its call had returned. last: its last words. error: a traceback. signal: it died by.
    """

    def __init__(self, text: str, status: int) -> None:
        lines = text.splitlines()
        self.lines = lines
        self.returned = RETURNED in lines
        self.last = lines[-1] if lines else ""
        self.error = text if FAILED in lines else ""
        self.signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def in_child(what: Callable[[Callable[[str], None]], object]) -> Said:
    """Do *what* in a forked child, which may say a line now and then."""
    hears, says = os.pipe()
    with warnings.catch_warnings():
        # Threads of others sleep in this process, if there are any; the child uses nothing of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        try:
            gc.disable()
            what(lambda line: _say(says, line))
        except BaseException:
            _say(says, f"{traceback.format_exc()}{FAILED}")
        finally:
            os._exit(0)
    os.close(says)
    with os.fdopen(hears, encoding="utf-8") as told:
        text = told.read()
    return Said(text, os.waitpid(pid, 0)[1])


def _say(descriptor: int, line: str) -> None:
    os.write(descriptor, line.encode() + b"\n")


def die_at(place: Place, number: int, call: Callable[[], object], *, cold: bool = False) -> Said:
    """A child that does *call* with a handle of its own and dies at moment *number*, 0 for never.

    Args:
        cold: opening the store is part of it.
    """

    def act(say: Callable[[str], None]) -> None:
        moment = Moments(number, say)
        if not cold:
            place.warm()
        place.arm(moment)
        call()
        say(RETURNED)
        moment("it has returned")

    return in_child(act)


__all__ = ["PLACES", "RETURNED", "Place", "Said", "die_at", "everything", "in_child"]
