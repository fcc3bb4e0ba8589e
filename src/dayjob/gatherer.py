"""The rows of one event loop: those of an iteration leave together, and one flight is in the air at a time.

    aenqueue ─▶ waiting ─▶ [next iteration] ─▶ a thread: combiner.commit ─▶ futures

Imported when a loop first enqueues: a program without one never loads asyncio for us (half of what `App` costs to import).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

from dayjob.errors import StoreUnavailable
from dayjob.offload import submit
from dayjob.store.records import Enqueued, NewRow

if TYPE_CHECKING:
    from dayjob.combiner import Combiner, Ticket

Passenger = tuple[NewRow, bool, asyncio.Future[Enqueued]]
"""A row, whether its id is the caller's own, and who waits for its outcome."""


class Loops:
    """The gatherers of all event loops of a process.

    Args:
        batch: rows on one ticket at most.
    """

    def __init__(self, combiner: Combiner, batch: int) -> None:
        self._combiner = combiner
        self._batch = batch
        self._gatherers: WeakKeyDictionary[asyncio.AbstractEventLoop, Gatherer] = WeakKeyDictionary()
        # Most programs have one loop: it is found here without a look at the dictionary (0.5 µs).
        self._last: tuple[Callable[[], object], Gatherer | None] = (lambda: None, None)

    def gatherer(self) -> Gatherer:
        """The running loop's own; `RuntimeError` where none runs."""
        loop = asyncio.get_running_loop()
        last, gatherer = self._last
        if gatherer is None or last() is not loop:
            gatherer = self._gatherers.get(loop)
            if gatherer is None:
                gatherer = self._gatherers[loop] = Gatherer(self._combiner, self._batch)
            self._last = (ref(loop), gatherer)
        return gatherer


class Gatherer:
    """What waits in one loop, and what is in the air.

    Not a task of the loop, because programs cancel all tasks when they end; a row on its way must land all the same.
    """

    def __init__(self, combiner: Combiner, batch: int) -> None:
        self._combiner = combiner
        self._batch = batch
        self._waiting: list[Passenger] = []
        self._since = 0.0
        self._flying = False

    def add(self, row: NewRow, chosen: bool) -> asyncio.Future[Enqueued]:
        """Take *row* along; the future has its outcome. Cancelled before take-off, the row is left behind."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Enqueued] = loop.create_future()
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append((row, chosen, future))
        if not self._flying:
            self._flying = True
            # Not now but in the next iteration: tasks that are ready in this one come along.
            loop.call_soon(self._take_off, loop)
        return future

    def _take_off(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting, self._waiting = self._waiting, []
        boarded = [one for one in waiting if not one[2].done()]
        if not boarded:
            self._flying = False
            return
        # Rows whose ids we made share a ticket. One with an id of the caller's own may be `existing` in its own right.
        common = [one for one in boarded if not one[1]]
        groups = [common[start : start + self._batch] for start in range(0, len(common), self._batch)]
        self._fly(loop, groups + [[one] for one in boarded if one[1]])

    def _fly(self, loop: asyncio.AbstractEventLoop, groups: Sequence[Sequence[Passenger]]) -> None:
        flight = [
            (self._combiner.ticket([row for row, _, _ in group], group[0][1], self._since), group) for group in groups
        ]
        landing = asyncio.wrap_future(submit(self._combiner.commit, [ticket for ticket, _ in flight]), loop=loop)
        landing.add_done_callback(lambda landed: self._land(loop, flight, landed))

    def _land(
        self,
        loop: asyncio.AbstractEventLoop,
        flight: Sequence[tuple[Ticket, Sequence[Passenger]]],
        landed: asyncio.Future[None],
    ) -> None:
        failure = None if landed.cancelled() else landed.exception()
        again: list[Sequence[Passenger]] = []
        for ticket, group in flight:
            error, ticket.error = (
                failure or ticket.error,
                None,
            )  # its frames name the ticket: they would hold each other
            if error is not None and len(group) > 1 and not isinstance(error, StoreUnavailable):
                # One row spoilt it for all: each flies alone, and gets the answer to itself.
                again += [[one] for one in group]
                continue
            for place, (_, _, future) in enumerate(group):
                if future.done():
                    continue
                if error is not None:
                    future.set_exception(error)
                elif ticket.done:
                    future.set_result(ticket.outcomes[place])
                else:
                    future.cancel()
        if again:
            self._fly(loop, again)
        else:
            self._take_off(loop)
