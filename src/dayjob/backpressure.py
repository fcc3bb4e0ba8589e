"""Producers of a full queue that wait (`when_full="wait"`): each asks again by itself, so that nobody waits for its sake.

send ─▶ stored
  └▶ refused, QueueFull ──does the queue say "wait"?──▶ a pause, growing ──▶ what was refused is sent again ─▶ …
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dayjob.combiner import BATCH, Combiner
from dayjob.errors import QueueFull
from dayjob.offload import offload

if TYPE_CHECKING:
    from dayjob.store.contract import Store
    from dayjob.store.records import Enqueued, NewRow

FIRST, LONGEST = 0.01, 0.25
"""Seconds between two tries: a full queue that is worked on has room again soon."""
FRESH = 1.0
"""Seconds for which it is remembered what queues say."""


class Backpressure:
    """Sends again what a full queue refused, as long as its producers are to wait.

    Args:
        longest: seconds a call waits at most.
    """

    def __init__(self, combiner: Combiner, store: Callable[[], Store], longest: float) -> None:
        self._combiner, self._store, self._longest = combiner, store, longest
        self._waits: frozenset[str] = frozenset()
        self._read_at = -FRESH

    def again(self, rows: Sequence[NewRow], outcomes: list[Enqueued], *, chosen: bool) -> list[Enqueued]:
        """*outcomes* of *rows*, with those that were refused only until there was room. Blocks."""
        deadline, pause, full = self._deadline(), FIRST, True
        while (left := deadline - time.monotonic()) > 0:
            self._learn()
            places = self._refused(outcomes)
            if not places:
                break
            if full:
                time.sleep(min(pause, left))
                pause = min(pause * 2, LONGEST)
            sent = self._combiner.send([rows[place] for place in places], chosen=chosen)
            full = _enter(outcomes, places, sent)
            if outcomes[places[0]].error is None:  # there was room: it is worked on
                pause = FIRST
        return outcomes

    async def aagain(self, row: NewRow, outcome: Enqueued, *, chosen: bool) -> Enqueued:
        """Awaitable `again` for one row: the loop turns, and no thread waits."""
        deadline, pause = self._deadline(), FIRST
        while (left := deadline - time.monotonic()) > 0:
            await offload(self._learn)
            if not self._refused([outcome]):
                break
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 2, LONGEST)
            outcome = await self._combiner.asend(row, chosen=chosen)
        return outcome

    async def aagain_many(self, rows: Sequence[NewRow], outcomes: list[Enqueued], *, chosen: bool) -> list[Enqueued]:
        """Awaitable `again`."""
        deadline, pause, full = self._deadline(), FIRST, True
        while (left := deadline - time.monotonic()) > 0:
            await offload(self._learn)
            places = self._refused(outcomes)
            if not places:
                break
            if full:
                await asyncio.sleep(min(pause, left))
                pause = min(pause * 2, LONGEST)
            sent = await offload(self._combiner.send, [rows[place] for place in places], chosen=chosen)
            full = _enter(outcomes, places, sent)
            if outcomes[places[0]].error is None:  # there was room: it is worked on
                pause = FIRST
        return outcomes

    def _deadline(self) -> float:
        # A test's store has no patience: nobody works there while the test waits.
        return time.monotonic() + (self._longest if self._combiner.patience else 0.0)

    def _refused(self, outcomes: Sequence[Enqueued]) -> list[int]:
        """What is to be sent again: of each queue the first batch, so that a long call neither asks for all of its rows each time
        nor overtakes itself."""
        places: list[int] = []
        room: dict[str, int] = {}
        for place, one in enumerate(outcomes):
            if isinstance(one.error, QueueFull) and one.error.queue in self._waits:
                left = room[one.error.queue] = room.get(one.error.queue, BATCH) - 1
                if left >= 0:
                    places.append(place)
        return places

    def _learn(self) -> None:
        if time.monotonic() - self._read_at >= FRESH:
            limits = self._store().queue_limits()
            self._waits = frozenset(queue for queue, (said, _) in limits.items() if said.when_full == "wait")
            self._read_at = time.monotonic()


def _enter(outcomes: list[Enqueued], places: Sequence[int], sent: Sequence[Enqueued]) -> bool:
    """Note what became of those *sent*; True when a queue is full again."""
    for place, outcome in zip(places, sent, strict=True):
        outcomes[place] = outcome
    return any(isinstance(outcome.error, QueueFull) for outcome in sent)
