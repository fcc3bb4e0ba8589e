"""How many may be inside at once: operations on the connections of a process, the one transaction that is lent to a job."""

from __future__ import annotations

from threading import Condition


class Room:
    """So many *places*, and who has one.

    Who enters says who it is, and leaves under the same name, inside or not. A semaphore would not do in threads that run
    jobs: a job that is told to stop is interrupted between two bytecodes, maybe right after a lock was acquired and before
    anything could note that it is to be released, and the place would be taken for ever.

        guest = object()
        try:
            if not room.enter(guest, 10.0):
                raise StoreUnavailable(...)
            ...
        finally:
            room.leave(guest)
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._inside: set[object] = set()
        self._changed = Condition()

    def enter(self, guest: object, timeout: float) -> bool:
        """Take a place, waiting up to *timeout* seconds for it; False when there was none."""
        with self._changed:
            if len(self._inside) >= self._places and not self._changed.wait_for(self._has_place, timeout):
                return False
            self._inside.add(guest)
            return True

    def leave(self, guest: object) -> None:
        """Give the place back; who is not inside leaves nothing."""
        with self._changed:
            if guest in self._inside:
                self._inside.remove(guest)
                self._changed.notify()

    def _has_place(self) -> bool:
        return len(self._inside) < self._places
