"""The leader keeps time for everyone: stages, rescues, prunes, samples, while its term lasts.

Leadership rides on the beat. A worker that leads distrusts itself: when its last good beat is older than the lease less
five seconds it stops at once, before another can have been elected; and every call carries the term, so that what
comes too late changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dayjob.clock import SECOND
from dayjob.errors import SchemaMismatch, StoreUnavailable
from dayjob.events import Bus, LeaderElected, LeaderResigned
from dayjob.service import Service
from dayjob.worker.run import monotonic

SAFETY = 5.0
IDLE = 3600.0


class Duty(Protocol):
    """One of the leader's services."""

    def tick(self, term: int) -> float | None:
        """Do what is due; the seconds until there may be more, or None when *term* is over."""


class Leader(Service):
    """Runs the duties in one thread, each when it is due, while this worker leads.

    Args:
        duties: all due at once when a term begins.
        lease: seconds after which the store gives the leadership to another.
    """

    longest_backoff = 2.0

    def __init__(self, duties: Sequence[Duty], bus: Bus, *, lease: float, worker: str) -> None:
        super().__init__("leader", bus)
        self.worker = worker
        self._duties = list(duties)
        self._due: list[int] = [0] * len(self._duties)
        self._trust = int(max(lease - SAFETY, lease / 2) * SECOND)
        self._heard: tuple[int | None, int] = (None, 0)
        self._term: int | None = None

    def heard(self, term: int | None, at: int) -> None:
        """A beat sent *at* (monotonic microseconds) said that this worker leads with *term*, or not. From any thread."""
        self._heard = (term, at)
        if term != self._term:
            self.kick()

    @property
    def leads(self) -> bool:
        return self._term is not None

    def tick(self) -> float:
        term, at = self._heard
        now = monotonic()
        if term is not None and now - at > self._trust:
            term = None
            self._resign("no beat was answered for too long")
        elif term != self._term:
            self._resign("another leads")
        if term is None:
            return IDLE
        if self._term is None:
            self._term, self._due = term, [0] * len(self._duties)
            self.bus.emit(LeaderElected(worker=self.worker, term=term))
        failed: Exception | None = None
        for place, duty in enumerate(self._duties):
            if monotonic() >= self._due[place]:
                try:
                    delay = duty.tick(term)
                except (StoreUnavailable, SchemaMismatch):
                    raise
                except Exception as error:  # noqa: BLE001  one duty's failure keeps no other back
                    failed = failed or error
                    continue
                if delay is None:
                    self._heard = (None, at)
                    self._resign("the term is over")
                    return IDLE
                self._due[place] = monotonic() + int(delay * SECOND)
        if failed is not None:
            raise failed
        return max(0.01, (min(self._due) - monotonic()) / SECOND)

    def _resign(self, why: str) -> None:
        if self._term is not None:
            term, self._term = self._term, None
            self.bus.emit(LeaderResigned(worker=self.worker, term=term, why=why))
