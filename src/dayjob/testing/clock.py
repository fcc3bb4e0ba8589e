"""Time that moves when the test says so."""

from __future__ import annotations

from datetime import datetime, timedelta
from threading import Lock

from dayjob.clock import SECOND, from_stamp, seconds, to_stamp, wall


class VirtualClock:
    """The clock of a test's store. It stands still until it is moved, and never goes back.

    Delays, schedules and expiry follow it; time limits of running jobs and `join(timeout=)` follow real time.

    Args:
        start: an aware datetime; by default the present.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._stamp = wall() if start is None else to_stamp(start, "start")
        self._lock = Lock()

    def __call__(self) -> int:
        """The present as a stamp, as a store asks for it."""
        return self._stamp

    @property
    def now(self) -> datetime:
        """The present."""
        return from_stamp(self._stamp)

    def advance(self, by: float | timedelta) -> datetime:
        """Move on by seconds or a timedelta; returns the new present."""
        step = round(seconds(by, "advance") * SECOND)
        with self._lock:
            self._stamp += step
        return self.now

    def advance_to(self, moment: datetime) -> datetime:
        """Move on to an aware datetime; one in the past changes nothing. Returns the new present."""
        stamp = to_stamp(moment, "moment")
        with self._lock:
            self._stamp = max(self._stamp, stamp)
        return self.now
