"""The pump's sleep. Signals are advisory: where there are none to be had, the clock wakes it, and its own process."""

from __future__ import annotations

import time
from threading import Event
from typing import TYPE_CHECKING

from dayjob.events import Bus, StoreAvailable, StoreUnavailable

if TYPE_CHECKING:
    from dayjob.store.contract import Listener, Signals

AGAIN = 5.0
"""Seconds until a store that did not let us listen is asked again."""
SIGNALS = "signals"


class Ears:
    """Listens for work and control; deaf, it only sleeps. `wake` is for any thread, all else for the pump's."""

    def __init__(self, store: Signals, bus: Bus) -> None:
        self._store, self._bus = store, bus
        self._listener: Listener | None = None
        self._woken = Event()
        self._not_before = 0.0
        self._deaf_since: float | None = None

    def open(self) -> None:
        """Listen, if we do not yet and it is time to try. Never raises; that it is impossible is told once."""
        if self._listener is not None or time.monotonic() < self._not_before:
            return
        try:
            self._listener = self._store.listen(("work", "control"))
        except Exception as error:  # noqa: BLE001  # a folder that is not ours, no such sockets here: jobs run all the same
            self._failed(error)
            return
        if self._deaf_since is not None:
            outage, self._deaf_since = time.monotonic() - self._deaf_since, None
            self._bus.emit(StoreAvailable(service=SIGNALS, outage=outage))

    def _failed(self, error: Exception) -> None:
        now = time.monotonic()
        self._not_before = now + AGAIN
        if self._deaf_since is None:
            self._deaf_since = now
            self._bus.emit(StoreUnavailable(service=SIGNALS, error=str(error), retry_in=AGAIN))

    def wait(self, delay: float) -> list[tuple[str, bytes]]:
        """Sleep for *delay* seconds, or until a signal or `wake`; returns what was heard."""
        listener = self._listener
        if listener is not None:
            try:
                return listener.wait(delay)
            except Exception as error:  # noqa: BLE001  # as in `open`
                self.close()
                self._failed(error)
        self._woken.wait(delay)
        self._woken.clear()
        return []

    def wake(self) -> None:
        """End the sleep under way, or the next one."""
        listener = self._listener
        if listener is not None:
            listener.wake()
        else:
            self._woken.set()

    def close(self) -> None:
        """Stop listening. Idempotent."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
