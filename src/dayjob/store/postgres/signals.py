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
from collections import deque
from collections.abc import Callable, Sequence

import psycopg

from dayjob.errors import StoreError, StoreUnavailable
from dayjob.store.postgres.database import Connection, Database

LETTERS = {"work": "w", "control": "c", "done": "d", "event": "e"}
TOPICS = {letter: topic for topic, letter in LETTERS.items()}
LOCKS = {"asleep": 10, "work": 11, "control": 12, "done": 13, "event": 14}
"""The second key of each advisory lock; `claim` and `insert` in SQL use the same numbers."""
LONGEST = 5_000
"""Characters of one notification; the server takes less than 8,000 bytes."""
KEPT = 10_000
AWAKE = 0.3
"""Seconds that a process still counts as asleep after it woke: a pump that wakes a hundred times a second says so once."""
DOZE = 0.02
"""A wait shorter than this is no sleep."""


class Ear:
    """A `Listener` of one hub."""

    def __init__(self, hub: Hub, topics: Sequence[str]) -> None:
        self._hub = hub
        self.topics = frozenset(topics)
        self._heard: deque[tuple[str, bytes]] = deque(maxlen=KEPT)
        self._condition = threading.Condition()
        self._woken = False
        self.failed: StoreError | None = None

    def wait(self, timeout: float) -> list[tuple[str, bytes]]:
        """See `contract.Listener.wait`."""
        sleeps = timeout >= DOZE and "work" in self.topics
        if sleeps:
            self._hub.fall_asleep()
        try:
            with self._condition:
                self._condition.wait_for(lambda: self._heard or self._woken or self.failed, max(0.0, timeout))
                self._woken = False
                failed, self.failed = self.failed, None
                heard = list(self._heard)
                self._heard.clear()
        finally:
            if sleeps:
                self._hub.wake_up()
        if failed is not None and not heard:
            raise failed
        return heard

    def hear(self, topic: str, data: bytes) -> None:
        """Deliver a signal."""
        with self._condition:
            self._heard.append((topic, data))
            self._condition.notify_all()

    def fail(self, error: StoreError) -> None:
        """The line is down: whoever waits learns it."""
        with self._condition:
            self.failed = error
            self._condition.notify_all()

    def wake(self) -> None:
        """See `contract.Listener.wake`."""
        with self._condition:
            self._woken = True
            self._condition.notify_all()

    def close(self) -> None:
        """See `contract.Listener.close`."""
        self._hub.leave(self)
        self.wake()


class Hub:
    """The listening connection of a process, and its thread."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._ears: list[Ear] = []
        self._connection: Connection | None = None
        self._thread: threading.Thread | None = None
        self._bell: tuple[int, int] | None = None
        self._asleep = 0
        self._woke_at = 0.0
        self._says_asleep = False
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
        except psycopg.Error as error:
            connection.close()
            raise StoreUnavailable(f"cannot listen on {self._db.url}: {error}") from error
        self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._says_asleep = False
        self._pieces = {}
        self._thread = threading.Thread(
            target=self._run, args=(connection, self._bell), name="dayjob-ears", daemon=True
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

    def leave(self, ear: Ear) -> None:
        """Forget *ear*; the last one closes the line."""
        with self._lock:
            if ear in self._ears:
                self._ears.remove(ear)
            thread = self._end() if not self._ears else None
        if thread is not None and thread is not threading.current_thread():
            thread.join(5.0)

    def close(self) -> None:
        """Close the line and all ears."""
        with self._lock:
            ears, self._ears = self._ears, []
            thread = self._end()
        for ear in ears:
            ear.wake()
        if thread is not None:
            thread.join(5.0)

    def _end(self) -> threading.Thread | None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._ring()
        return thread

    def _ring(self) -> None:
        """Have the thread look up, if it still runs. The caller holds the lock."""
        if self._bell is not None:
            with contextlib.suppress(BlockingIOError):  # it has been rung often enough
                os.write(self._bell[1], b"!")

    # -- sleep ---------------------------------------------------------------------------------------------------

    def fall_asleep(self) -> None:
        """A pump of this process begins to wait for work."""
        with self._lock:
            self._asleep += 1
            if not self._says_asleep:
                self._ring()

    def wake_up(self) -> None:
        """It waits no longer."""
        with self._lock:
            self._asleep -= 1
            self._woke_at = time.monotonic()

    def _say_whether_asleep(self, connection: Connection) -> float:
        """Take or release the lock; seconds until this has to be looked at again."""
        with self._lock:
            asleep = self._asleep > 0 or time.monotonic() - self._woke_at < AWAKE
        if asleep is not self._says_asleep:
            verb = "pg_advisory_lock_shared" if asleep else "pg_advisory_unlock_shared"
            connection.execute(f"SELECT {verb}(hashtext('{self._db.namespace}'), {LOCKS['asleep']})")
            self._says_asleep = asleep
        return AWAKE if self._says_asleep and not self._asleep else 30.0

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
            self._broken(me, StoreUnavailable(f"the line to {self._db.url} for wake-ups broke: {error}"))
        finally:
            with contextlib.suppress(psycopg.Error):
                connection.close()
            with self._lock:  # whoever rings holds it, too: once closed, the number may be another file's
                if self._bell is bell:
                    self._bell = None
                for end in bell:
                    os.close(end)

    def _deliver(self, connection: Connection) -> None:
        for one in connection.notifies(timeout=0):
            signal = self._read(one.pid, one.payload)
            if signal is not None:
                with self._lock:
                    ears = [ear for ear in self._ears if signal[0] in ear.topics]
                for ear in ears:
                    ear.hear(*signal)

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

    def _broken(self, me: threading.Thread, error: StoreUnavailable) -> None:
        with self._lock:
            if self._thread is not me:
                return
            self._thread = self._connection = None
            ears, self._ears = self._ears, []
        for ear in ears:
            ear.fail(error)

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
        self.hub = Hub(db)

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
