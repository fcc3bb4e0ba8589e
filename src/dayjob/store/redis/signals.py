"""Wake-ups by publish and subscribe: one connection and one thread per process listen for all who wait there.

Channels are those of the topics, to which a process subscribes while somebody in it listens, and `wake`, to which it
subscribes only while its pump *sleeps*: the script that stores a job publishes there, so that an enqueue and its wake-up
are one round trip, and busy workers are not told of what they find anyway. A pump that falls asleep looks again after 50
and 250 ms, for a job that was stored just before it had subscribed.

Names carry the database's number: channels are common to all databases of a server. All of this is advisory.
"""

from __future__ import annotations

import os
import select
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from redis import exceptions
from redis.exceptions import RedisError

from dayjob.errors import StoreUnavailable
from dayjob.store.hearing import AWAKE, Ear, Hub
from dayjob.store.redis.address import Line
from dayjob.store.redis.server import Server

TOPICS = ("work", "control", "done", "event")
WAKE = "wake"
QUIET, DEAD = 30.0, 45.0
"""Seconds of silence after which the line is tried, and after which it is given up."""
HEARD_WITHIN = 5.0


class Channels(Hub):
    """The listening connection of a process, and its thread, which alone uses it."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server
        self._changed = threading.Condition(self._lock)
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
        if ear.failed or not told:
            self.leave(ear)
            raise StoreUnavailable(ear.failed or f"{self._server.url} does not answer to SUBSCRIBE")
        return ear

    def _open(self) -> None:
        connection = self._server.connect()
        self._subscribed, self._confirmed = set(), set()
        self._thread = threading.Thread(
            target=self._run, args=(connection, self._new_bell()), name="dayjob-ears", daemon=True
        )
        self._thread.start()

    def _says_asleep(self) -> bool:
        return WAKE in self._subscribed

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
            self._broken(me, f"the line to {self._server.url} for wake-ups broke: {error}")
        finally:
            connection.disconnect()
            self._put_away(bell)

    def _subscribe(self, connection: Line) -> float:
        """Ask for what is to be heard now; seconds until this has to be looked at again."""
        with self._lock:
            wanted = set[str]().union(*(ear.topics for ear in self._ears))
            if self._sleeps() and "work" in wanted:
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
            self._tell("work" if topic == WAKE else topic, data)
        elif kind == b"subscribe":
            with self._lock:
                if topic in self._subscribed:
                    self._confirmed.add(topic)
                self._changed.notify_all()

    def _fell_silent(self) -> None:
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
        self.hub = Channels(server)

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


_HUBS: weakref.WeakSet[Channels] = weakref.WeakSet()


def _in_child() -> None:
    for hub in list(_HUBS):
        hub.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
