"""Wake-ups by LISTEN and NOTIFY: one connection and one thread per process listen for all who wait there.

A pending notification makes commits of the whole database go one by one, so we send none that nobody hears: who listens
holds a shared advisory lock for each of his topics, and whoever cannot take that lock alone, for no longer than it takes to
try, knows that somebody is there. For new jobs it is finer: only a process whose pump *sleeps* holds that lock, so busy workers are not told of what
they find anyway. A pump that falls asleep looks again after 50 and 250 ms, for an enqueue that looked just before.

All of this is advisory. Behind a pooler in transaction mode there is no listening: everyone polls.
"""

from __future__ import annotations

import base64
import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Sequence

import psycopg

from dayjob.errors import StoreError, StoreUnavailable
from dayjob.store.hearing import AWAKE, KEPT, Ear, Hub
from dayjob.store.postgres.database import Connection, Database
from dayjob.store.postgres.faults import FAULTS

LETTERS = {"work": "w", "control": "c", "done": "d", "event": "e"}
TOPICS = {letter: topic for topic, letter in LETTERS.items()}
LOCKS = {"asleep": 10, "work": 11, "control": 12, "done": 13, "event": 14}
"""The second key of each advisory lock; `claim` and `insert` in SQL use the same numbers."""
LONGEST = 5_000
"""Characters of one notification; the server takes less than 8,000 bytes."""


class Notices(Hub):
    """The listening connection of a process, and its thread."""

    def __init__(self, db: Database) -> None:
        super().__init__()
        self._db = db
        self._connection: Connection | None = None
        self._said_asleep = False
        self._pieces: dict[tuple[int, str], list[bytes]] = {}

    # -- ears ----------------------------------------------------------------------------------------------------

    def listen(self, topics: Sequence[str]) -> Ear:
        """A new ear; the first one opens the line."""
        ear = Ear(self, topics)
        with self._lock:
            if self._thread is None:
                self._open(topics)
            else:
                self._announce(topics)
            self._ears.append(ear)
        return ear

    def _open(self, topics: Sequence[str]) -> None:
        connection = self._db.connect()
        if self._db.pooled:
            connection.close()
            raise StoreUnavailable(
                f"{self._db.url} is behind a pooler in transaction mode, where nobody can LISTEN: workers look once a second instead"
            )
        self._connection = connection
        try:
            connection.execute(f'LISTEN "{self._db.namespace}"')
            self._announce(topics)
        except FAULTS as error:
            connection.close()
            raise StoreUnavailable(f"cannot listen on {self._db.url}: {error}") from error
        self._said_asleep = False
        self._pieces = {}
        self._thread = threading.Thread(
            target=self._run, args=(connection, self._new_bell()), name="dayjob-ears", daemon=True
        )
        self._thread.start()

    def _announce(self, topics: Sequence[str]) -> None:
        """Hold the locks that say who listens here; kept until the line closes."""
        assert self._connection is not None
        keys = sorted(LOCKS[topic] for topic in topics)
        told = self._connection
        with contextlib.suppress(psycopg.OperationalError):  # the thread will see it, too
            told.execute(
                f"SELECT pg_advisory_lock_shared(hashtext('{self._db.namespace}'), k) FROM unnest($1::integer[]) AS u (k)",
                (keys,),
            )

    # -- sleep ---------------------------------------------------------------------------------------------------

    def _says_asleep(self) -> bool:
        return self._said_asleep

    def _say_whether_asleep(self, connection: Connection) -> float:
        """Take or release the lock; seconds until this has to be looked at again."""
        with self._lock:
            asleep = self._sleeps()
        if asleep is not self._said_asleep:
            verb = "pg_advisory_lock_shared" if asleep else "pg_advisory_unlock_shared"
            connection.execute(f"SELECT {verb}(hashtext('{self._db.namespace}'), {LOCKS['asleep']})")
            self._said_asleep = asleep
        return AWAKE if self._said_asleep and not self._asleep else 30.0

    # -- the thread ----------------------------------------------------------------------------------------------

    def _run(self, connection: Connection, bell: tuple[int, int]) -> None:
        me, poll = threading.current_thread(), select.poll()
        try:
            poll.register(bell[0], select.POLLIN)
            poll.register(connection.fileno(), select.POLLIN)
            while self._thread is me:
                timeout = self._say_whether_asleep(connection)
                self._deliver(connection)
                if bell[0] in dict(poll.poll(timeout * 1000)):
                    os.read(bell[0], 4096)
        except (psycopg.Error, OSError, ValueError) as error:
            self._broken(me, f"the line to {self._db.url} for wake-ups broke: {error}")
        finally:
            with contextlib.suppress(psycopg.Error):
                connection.close()
            self._put_away(bell)

    def _deliver(self, connection: Connection) -> None:
        for one in connection.notifies(timeout=0):
            signal = self._read(one.pid, one.payload)
            if signal is not None:
                self._tell(*signal)

    def _read(self, sender: int, payload: str) -> tuple[str, bytes] | None:
        """A notification is a topic's letter, how it is written ("=" as it is, "+" a piece in base 64 after its number, "." the last), the data."""
        topic, how, text = TOPICS.get(payload[:1]), payload[1:2], payload[2:]
        if topic is None:
            return None
        if how in ("=", ""):
            return topic, text.encode()
        key = (sender, topic)
        pieces = self._pieces.setdefault(key, [])
        try:
            pieces.append(base64.b64decode(text.partition(",")[2], validate=True))
        except ValueError:  # not ours: every role of the database may NOTIFY
            del self._pieces[key]
            return None
        if how == "+" and len(pieces) < KEPT:
            return None
        del self._pieces[key]
        return topic, b"".join(pieces)

    def abandon(self) -> None:
        """In a forked child: the line is the parent's."""
        self.__init__(self._db)  # type: ignore[misc]  # as new; whatever thread held the lock is not here


def payloads(topic: str, data: bytes) -> list[str]:
    """*data* as the texts of notifications: as it is where it is text, else in pieces of base 64."""
    letter = LETTERS[topic]
    if len(data) < LONGEST and b"\0" not in data:
        with contextlib.suppress(UnicodeDecodeError):
            return [f"{letter}={data.decode()}"]
    step = LONGEST // 4 * 3
    pieces = [base64.b64encode(data[at : at + step]).decode() for at in range(0, len(data), step)]
    last = len(pieces) - 1  # numbered: the server drops a notification that equals another one of its transaction
    return [f"{letter}{'.' if at == last else '+'}{at},{piece}" for at, piece in enumerate(pieces)]


class Signals:
    """The Signals protocol over one database.

    Args:
        ears_open: when (monotonic) and what a claim last told of who listens: 1 for `done`, 2 for `event`.
        awake: True when this thread's last enqueue found nobody asleep; asking forgets it.
    """

    def __init__(self, db: Database, ears_open: Callable[[], tuple[float, int]], awake: Callable[[], bool]) -> None:
        self._db, self._ears_open, self._awake = db, ears_open, awake
        self._nobody = f'SELECT "{db.namespace}".nobody($1)'
        self.hub = Notices(db)

    def listening(self, topic: str, *, within: float = 0.05) -> bool:
        """See `contract.Signals.listening`."""
        at, told = self._ears_open()
        if topic in ("done", "event") and time.monotonic() - at < within:
            return bool(told & (1 if topic == "done" else 2))
        try:
            with self._db.session() as connection, self._db.under_settings(connection):
                row = connection.execute(self._nobody, (LOCKS[topic],)).fetchone()
        except StoreError:
            return True
        return row is None or not row[0]

    def notify(self, topic: str, data: bytes = b"") -> None:
        """See `contract.Signals.notify`. Does not wait for the disk: a signal is worth nothing after a crash."""
        if topic == "work" and self._awake():
            return
        texts = payloads(topic, data)
        with contextlib.suppress(StoreError), self._db.session() as connection, self._db.under_settings(connection):
            connection.execute(
                "SELECT set_config('synchronous_commit', 'off', true), "
                f"(SELECT count(pg_notify('{self._db.namespace}', p)) FROM unnest($1::text[]) AS u (p)) "
                f'WHERE NOT "{self._db.namespace}".nobody($2)',
                (texts, LOCKS[topic]),
            )
