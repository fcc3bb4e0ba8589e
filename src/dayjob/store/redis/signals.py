"""Wake-ups by publish and subscribe: one connection and one thread per process listen for all who wait there.

Channels are those of the topics, to which a process subscribes while somebody in it listens, and `wake`, to which it
subscribes only while its pump *sleeps*: the script that stores a job publishes there, so that an enqueue and its wake-up
are one round trip, and busy workers are not told of what they find anyway. A pump that falls asleep looks again after 50
and 250 ms, for a job that was stored just before it had subscribed.

Names carry the database's number: channels are common to all databases of a server. All of this is advisory.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from redis import exceptions
from redis.exceptions import RedisError

from dayjob.errors import StoreError, StoreUnavailable
from dayjob.store.redis.address import Line
from dayjob.store.redis.server import Server

TOPICS = ("work", "control", "done", "event")
WAKE = "wake"
KEPT = 10_000
AWAKE = 0.3
"""Seconds that a process still counts as asleep after it woke: a pump that wakes a hundred times a second says so once."""
DOZE = 0.02
"""A wait shorter than this is no sleep."""
QUIET, DEAD = 30.0, 45.0
"""Seconds of silence after which the line is tried, and after which it is given up."""
HEARD_WITHIN = 5.0


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
    """The listening connection of a process, and its thread, which alone uses it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._ears: list[Ear] = []
        self._thread: threading.Thread | None = None
        self._bell: tuple[int, int] | None = None
        self._asleep = 0
        self._woke_at = 0.0
        self._subscribed: set[str] = set()
        self._confirmed: set[str] = set()
        _HUBS.add(self)

    # -- ears ----------------------------------------------------------------------------------------------------

    def listen(self, topics: Sequence[str]) -> Ear:
        """A new ear; the first one opens the line. It hears what is said after this returns."""
        ear = Ear(self, topics)
        with self._lock:
            self._ears.append(ear)
            if self._thread is None:
                try:
                    self._open()
                except BaseException:
                    self._ears.remove(ear)
                    raise
            self._ring()
            told = self._changed.wait_for(lambda: self._thread is None or ear.topics <= self._confirmed, HEARD_WITHIN)
        if ear.failed is not None or not told:
            self.leave(ear)
            raise ear.failed or StoreUnavailable(f"{self._server.url} does not answer to SUBSCRIBE")
        return ear

    def _open(self) -> None:
        connection = self._server.connect()
        self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._subscribed, self._confirmed = set(), set()
        self._thread = threading.Thread(
            target=self._run, args=(connection, self._bell), name="dayjob-ears", daemon=True
        )
        self._thread.start()

    def leave(self, ear: Ear) -> None:
        """Forget *ear*; the last one closes the line."""
        with self._lock:
            if ear in self._ears:
                self._ears.remove(ear)
            thread = None if self._ears else self._end()
            if self._ears:
                self._ring()
        _join(thread)

    def close(self) -> None:
        """Close the line and all ears."""
        with self._lock:
            ears, self._ears = self._ears, []
            thread = self._end()
        for ear in ears:
            ear.wake()
        _join(thread)

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
            if WAKE not in self._subscribed:
                self._ring()

    def wake_up(self) -> None:
        """It waits no longer."""
        with self._lock:
            self._asleep -= 1
            self._woke_at = time.monotonic()

    # -- the thread ----------------------------------------------------------------------------------------------

    def _run(self, connection: Line, bell: tuple[int, int]) -> None:
        me, poll, heard_at = threading.current_thread(), select.poll(), time.monotonic()
        try:
            poll.register(bell[0], select.POLLIN)
            poll.register(connection._sock, select.POLLIN)
            while self._thread is me:
                if self._server.left(connection):
                    raise exceptions.ConnectionError("the primary is another now")
                timeout = self._subscribe(connection)
                while connection.can_read(0):
                    self._deliver(connection.read_response())
                    heard_at = time.monotonic()
                heard_at = _tried(connection, heard_at)
                if bell[0] in dict(poll.poll(timeout * 1000)):
                    os.read(bell[0], 4096)
        except (RedisError, OSError, ValueError, TypeError) as error:
            if self._thread is me:
                self._server.lost()
            self._broken(me, StoreUnavailable(f"the line to {self._server.url} for wake-ups broke: {error}"))
        finally:
            connection.disconnect()
            with self._lock:  # whoever rings holds it, too: once closed, the number may be another file's
                if self._bell is bell:
                    self._bell = None
                for end in bell:
                    os.close(end)

    def _subscribe(self, connection: Line) -> float:
        """Ask for what is to be heard now; seconds until this has to be looked at again."""
        with self._lock:
            wanted = set[str]().union(*(ear.topics for ear in self._ears))
            awake = time.monotonic() - self._woke_at
            asleep = self._asleep > 0 or awake < AWAKE
            if asleep and "work" in wanted:
                wanted.add(WAKE)
            new, old = wanted - self._subscribed, self._subscribed - wanted
            self._subscribed = wanted
            self._confirmed -= old
            timeout = AWAKE if WAKE in wanted and not self._asleep else 15.0
        for verb, topics in (("SUBSCRIBE", new), ("UNSUBSCRIBE", old)):
            if topics:
                connection.send_command(verb, *(self._server.channels + topic for topic in topics))
        return timeout

    def _deliver(self, message: Any) -> None:
        if not isinstance(message, list) or len(message) < 3:
            return
        kind, channel, data = message[:3]
        topic = (channel or b"").decode("utf-8", "replace").removeprefix(self._server.channels)
        if kind == b"message":
            topic = "work" if topic == WAKE else topic
            with self._lock:
                ears = [ear for ear in self._ears if topic in ear.topics]
            for ear in ears:
                ear.hear(topic, data)
        elif kind == b"subscribe":
            with self._lock:
                if topic in self._subscribed:
                    self._confirmed.add(topic)
                self._changed.notify_all()

    def _broken(self, me: threading.Thread, error: StoreUnavailable) -> None:
        with self._lock:
            if self._thread is not me:
                return
            self._thread = None
            ears, self._ears = self._ears, []
            for ear in ears:
                ear.fail(error)
            self._changed.notify_all()

    def abandon(self) -> None:
        """In a forked child: the line is the parent's."""
        self.__init__(self._server)  # type: ignore[misc]  # as new; whatever thread held the lock is not here


def _tried(connection: Line, heard_at: float) -> float:
    """Say something on a line that has long been silent, and give it up when nothing comes back."""
    silent = time.monotonic() - heard_at
    if silent > DEAD:
        raise exceptions.ConnectionError(f"silent for {silent:.0f} s")
    if silent > QUIET:
        connection.send_command("PING")
    return heard_at


def _join(thread: threading.Thread | None) -> None:
    if thread is not None and thread is not threading.current_thread():
        thread.join(5.0)


class Signals:
    """The Signals protocol over one namespace.

    Args:
        ears_open: when (monotonic) and what a turn last told of who listens: 1 for `done`, 2 for `event`.
        woken: True when this thread's last enqueue has woken who sleeps for that queue; asking forgets it.
    """

    def __init__(
        self, server: Server, ears_open: Callable[[], tuple[float, int]], woken: Callable[[bytes], bool]
    ) -> None:
        self._server, self._ears_open, self._woken = server, ears_open, woken
        self.hub = Hub(server)

    def listening(self, topic: str, *, within: float = 0.05) -> bool:
        """See `contract.Signals.listening`."""
        if self._server.address.form == "cluster":
            return True  # a node knows of those who listen there alone, and tells all nodes what is said
        at, told = self._ears_open()
        if topic in ("done", "event") and time.monotonic() - at < within:
            return bool(told & (1 if topic == "done" else 2))
        told = self._server.mention("PUBSUB", "NUMSUB", self._server.channels + topic)
        return told is None or bool(told[1])

    def notify(self, topic: str, data: bytes = b"") -> None:
        """See `contract.Signals.notify`."""
        if topic == "work" and self._woken(data):
            return
        self._server.mention("PUBLISH", self._server.channels + topic, data)


_HUBS: weakref.WeakSet[Hub] = weakref.WeakSet()


def _in_child() -> None:
    for hub in list(_HUBS):
        hub.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
