"""What engines share whose processes listen on a line of their own: ears, who sleeps, and the life of the thread behind them.

A thread per process waits at the line for all ears in it. A *bell*, a pipe, has it look up when something changes here.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence

from dayjob.errors import StoreUnavailable

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
        self.failed = ""

    def wait(self, timeout: float) -> list[tuple[str, bytes]]:
        """See `contract.Listener.wait`."""
        sleeps = timeout >= DOZE and "work" in self.topics
        if sleeps:
            self._hub.fall_asleep()
        try:
            with self._condition:
                self._condition.wait_for(lambda: self._heard or self._woken or self.failed, max(0.0, timeout))
                self._woken = False
                failed, self.failed = self.failed, ""
                heard = list(self._heard)
                self._heard.clear()
        finally:
            if sleeps:
                self._hub.wake_up()
        if failed and not heard:
            raise StoreUnavailable(failed)
        return heard

    def hear(self, topic: str, data: bytes) -> None:
        """Deliver a signal."""
        with self._condition:
            self._heard.append((topic, data))
            self._condition.notify_all()

    def fail(self, why: str) -> None:
        """The line is down: whoever waits learns it, in words: an error that is kept, and raised, would hold itself by its frames."""
        with self._condition:
            self.failed = why
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


class Hub(ABC):
    """The ears of a process, and the thread at its line. An engine opens the line, and says what is heard there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ears: list[Ear] = []
        self._thread: threading.Thread | None = None
        self._bell: tuple[int, int] | None = None
        self._asleep = 0
        self._woke_at = 0.0

    @abstractmethod
    def _says_asleep(self) -> bool:
        """Whether others can see that a pump of this process sleeps."""

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

    def fall_asleep(self) -> None:
        """A pump of this process begins to wait for work."""
        with self._lock:
            self._asleep += 1
            if not self._says_asleep():
                self._ring()

    def wake_up(self) -> None:
        """It waits no longer."""
        with self._lock:
            self._asleep -= 1
            self._woke_at = time.monotonic()

    def _sleeps(self) -> bool:
        """Whether this process is to count as asleep now. The caller holds the lock."""
        return self._asleep > 0 or time.monotonic() - self._woke_at < AWAKE

    def _end(self) -> threading.Thread | None:
        """Have the thread end, which the caller waits for without the lock."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._ring()
        return thread

    def _ring(self) -> None:
        """Have the thread look up, if it still runs. The caller holds the lock."""
        if self._bell is not None:
            with contextlib.suppress(BlockingIOError):  # it has been rung often enough
                os.write(self._bell[1], b"!")

    def _new_bell(self) -> tuple[int, int]:
        self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        return self._bell

    def _put_away(self, bell: tuple[int, int]) -> None:
        with self._lock:  # whoever rings holds it, too: once closed, the number may be another file's
            if self._bell is bell:
                self._bell = None
            for end in bell:
                os.close(end)

    def _tell(self, topic: str, data: bytes) -> None:
        with self._lock:
            ears = [ear for ear in self._ears if topic in ear.topics]
        for ear in ears:
            ear.hear(topic, data)

    def _broken(self, thread: threading.Thread, why: str) -> None:
        """The line of *thread* is down: all ears learn it, and are forgotten."""
        with self._lock:
            if self._thread is not thread:
                return
            self._thread = None
            ears, self._ears = self._ears, []
            for ear in ears:
                ear.fail(why)
            self._fell_silent()

    def _fell_silent(self) -> None:  # noqa: B027  a hook that most do not need
        """For an engine in which somebody waits for the line itself. The lock is held."""


def _join(thread: threading.Thread | None) -> None:
    if thread is not None and thread is not threading.current_thread():
        thread.join(5.0)
