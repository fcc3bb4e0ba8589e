"""The beat: keeps what this worker holds, and learns what others want of it. In a thread of its own, so that no job,
however busy, costs the worker its lease.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from dayjob.clock import SECOND
from dayjob.events import Bus
from dayjob.service import Service
from dayjob.store.records import Beat, WorkerInfo
from dayjob.worker.run import monotonic

if TYPE_CHECKING:
    from dayjob.store.contract import Cluster
    from dayjob.worker.tallies import Tallies


class Holder(Protocol):
    """Who holds what the beat renews: the pump."""

    @property
    def sent(self) -> int:
        """The highest claim number that `held` takes into account."""

    def held(self) -> list[int]:
        """The numbers of the claims that are not settled."""

    @property
    def tallies(self) -> Tallies:
        """What was counted."""

    def heard(self, beat: Beat, worker: str) -> None:
        """Act on what a beat of *worker* brought."""


class Leases(Service):
    """Beats every *every* seconds, and when kicked.

    Args:
        info: makes the worker's row as it stands.
        sent: called with the monotonic microseconds at which the lease ends that was just confirmed. The time is taken
            before the beat is sent: the store's answer may have been under way for long.
        leads: called with the term when this worker leads, else None, and when that was true.
    Attributes:
        beaten: a beat was answered. lost: the last one said that this worker was given up. control: as of the last one.
    """

    longest_backoff = 1.0

    def __init__(
        self,
        store: Cluster,
        holder: Holder,
        bus: Bus,
        *,
        every: float,
        info: Callable[[], WorkerInfo],
        sent: Callable[[int], None],
        leads: Callable[[int | None, int], None],
        on_fatal: Callable[[BaseException], None] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__("leases", bus, on_fatal=on_fatal, rng=rng)
        self._store, self._holder, self._every = store, holder, every
        self._info, self._sent, self._leads = info, sent, leads
        self._turn = Lock()
        """The pump beats, too, when it goes alone: what an earlier beat says of this worker must not arrive after it."""
        self.control = -1
        self.beaten = False
        self.lost = False

    def tick(self) -> float:
        with self._turn:
            return self._beat()

    def _beat(self) -> float:
        info = self._info()
        began = monotonic()
        tallies = self._holder.tallies.take()
        try:
            sent = self._holder.sent  # read first: should we be frozen after it, later claims are not judged
            beat = self._store.beat(info, self._holder.held(), tallies, claims=sent)
        except BaseException:
            self._holder.tallies.give_back(tallies)
            raise
        self.lost = beat.lost
        if beat.lost:
            self._sent(0)
        else:
            self.beaten = True
            self.control = beat.control
            self._sent(began + int(info.expiry * SECOND))
        self._leads(beat.term, began)
        self._holder.heard(beat, info.id)
        return self._every
