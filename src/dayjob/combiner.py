"""Rows become batches, and a batch is committed once for all who wait (the combining lock).

A durable commit costs more than anything else on the way, so callers share it. Each caller appends its rows to
`_pending` and takes the lock; whoever holds it commits what has gathered, up to 1,000 rows, for all of them. The
others find their rows stored when the lock comes to them. Nobody waits for company: a lone caller pays for its own
commit and nothing else (measured: 124 µs bare, 124 µs so, 152 µs with a writer thread). A loop gathers the rows of one
iteration and sends them from a thread, one flight at a time.

    callers ─▶ _pending ─▶ [holder of the lock] ─▶ store.enqueue ─▶ an outcome per row ─▶ notify("work")

`StoreUnavailable` leaves the outcome open. The rows keep their ids and are sent again with `repeat=True` after
growing pauses, until the patience of each caller ends; then that caller gets the error (P9).
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from dayjob.errors import StoreUnavailable
from dayjob.store.records import INSERTED, Enqueued, NewRow

if TYPE_CHECKING:
    import asyncio

    from dayjob.gatherer import Loops

BATCH = 1_000
"""Rows in one transaction at most, and the unit within which `enqueue_many` is all or none."""

PATIENCE = 30.0
"""Seconds for which an enqueue is repeated while the store is unavailable."""

LONGEST_PATIENCE = 600.0
"""Stores remember the ids of finished jobs for an hour; producers repeat for ten minutes at most (P9)."""

ENGINE_WAITED = 3.0
"""An engine with one writer that itself waited this long, for someone else's transaction, is not asked again: maybe it is the
caller's own. Where a line to a server was silent for so long, nobody waited for anybody."""

SOON = 2.0
"""Workers look for due jobs at least this often; a job that is due earlier is worth a signal."""


class Sink(Protocol):
    """What the combiner needs of a store."""

    exclusive: bool

    def enqueue(self, jobs: Sequence[NewRow], *, repeat: bool = False) -> list[Enqueued]: ...

    def notify(self, topic: str, data: bytes = b"") -> None: ...


class Ticket:
    """One caller's rows on their way, all in one transaction.

    Attributes:
        chosen: the caller chose the ids, so `existing` may speak of another call. repeat: sent before, or chosen.
    """

    __slots__ = ("chosen", "deadline", "done", "error", "outcomes", "repeat", "rows")

    def __init__(self, rows: Sequence[NewRow], chosen: bool, deadline: float) -> None:
        self.rows = rows
        self.chosen = self.repeat = chosen
        self.deadline = deadline
        self.done = False
        self.outcomes: list[Enqueued] = []
        self.error: Exception | None = None

    def succeed(self, outcomes: list[Enqueued]) -> None:
        if self.repeat and not self.chosen:
            # Ids of our own making exist only because an earlier try of this very call stored them; another's id is the
            # holder of a key.
            outcomes = [
                INSERTED if one.outcome == "existing" and one.id in (None, row.id) else one
                for one, row in zip(outcomes, self.rows, strict=True)
            ]
        self.outcomes = outcomes
        self.done = True

    def fail(self, error: Exception) -> None:
        self.error = error
        self.done = True


class Combiner:
    """Sends rows to a store; from any thread and any loop, many at once.

    Args:
        sink: gives the store to send to; asked for each batch, so that it may be swapped.
        patience: seconds for which a call is repeated while the store is unavailable.
    """

    def __init__(self, sink: Callable[[], Sink], *, patience: float = PATIENCE) -> None:
        self._sink = sink
        self.patience = min(patience, LONGEST_PATIENCE)
        self.reset()
        _ALL.add(self)

    def reset(self) -> None:
        """Forget what is on its way: in a forked child it is the parent's business, and the lock may be held."""
        self._lock = Lock()
        self._pending: deque[Ticket] = deque()
        self._failures = 0
        self._not_before = 0.0
        self._loops: Loops | None = None

    def ticket(self, rows: Sequence[NewRow], chosen: bool, since: float | None = None) -> Ticket:
        """A ticket for *rows* whose patience counts from *since* (monotonic), by default from now."""
        return Ticket(rows, chosen, (time.monotonic() if since is None else since) + self.patience)

    def send(self, rows: Sequence[NewRow], *, chosen: bool = False) -> list[Enqueued]:
        """Store *rows* and return an outcome per row; blocks until they are durable.

        Args:
            rows: any number; each 1,000 of them are all or none, in their order.
            chosen: an id was chosen by the caller, so that an earlier call may have stored it.
        Raises:
            StoreUnavailable: patience ended. Earlier thousands are stored; the present one is stored or not.
        """
        outcomes: list[Enqueued] = []
        for start in range(0, len(rows), BATCH):
            ticket = self.ticket(rows[start : start + BATCH], chosen)
            self.commit((ticket,))
            if ticket.error is not None:
                try:
                    raise ticket.error
                finally:
                    ticket.error = None  # its frames name the ticket: they would hold each other, and a connection
            outcomes += ticket.outcomes
        return outcomes

    def asend(self, row: NewRow, *, chosen: bool = False) -> asyncio.Future[Enqueued]:
        """`send` of one row from a running loop, which it never blocks; rows of one iteration share a commit."""
        if self._loops is None:
            from dayjob.gatherer import Loops

            self._loops = Loops(self, BATCH)
        return self._loops.gatherer().add(row, chosen)

    def commit(self, tickets: Sequence[Ticket]) -> None:
        """Block until each of *tickets* is done, committing for everyone while the lock is ours."""
        self._pending.extend(tickets)
        try:
            for ticket in tickets:
                while not ticket.done:
                    pause = self._advance(ticket)
                    if pause > 0:
                        # The lock is free meanwhile: newcomers learn of the pause and sleep as well.
                        time.sleep(min(pause, max(0.0, ticket.deadline - time.monotonic())))
        except BaseException:
            # Interrupted (Ctrl-C, a job's time limit): nobody waits for these rows, so nobody shall store them later.
            for ticket in tickets:
                ticket.done = True
            raise

    def _advance(self, ticket: Ticket) -> float:
        """Commit until *ticket* is done, or return how long the store should be left alone first."""
        with self._lock:
            while not ticket.done:
                now = time.monotonic()
                if now < self._not_before and now < ticket.deadline:
                    return self._not_before - now
                if not self._pending:
                    # A holder that was interrupted at a bad moment dropped it, stored or not.
                    ticket.repeat = True
                    self._pending.append(ticket)
                self._flush()
        return 0.0

    def _flush(self) -> None:
        """Commit what has gathered, up to a batch. The caller holds the lock."""
        tickets = self._gather()
        began = time.monotonic()
        try:
            self._store(tickets)
        except StoreUnavailable as error:
            waited = time.monotonic() - began > ENGINE_WAITED
            self._back_off(tickets, error, final=waited and self._sink().exclusive)
        except Exception as error:  # noqa: BLE001  whatever it is, it goes to the caller whose rows caused it
            self._separate(tickets, error)
        except BaseException:
            for ticket in reversed(tickets):
                ticket.repeat = True
                self._pending.appendleft(ticket)
            raise
        else:
            self._failures = 0

    def _gather(self) -> list[Ticket]:
        tickets: list[Ticket] = []
        room = BATCH
        while self._pending:
            ticket = self._pending.popleft()
            if ticket.done:
                continue
            room -= len(ticket.rows)
            if room < 0 and tickets:
                self._pending.appendleft(ticket)
                break
            tickets.append(ticket)
        return tickets

    def _store(self, tickets: Sequence[Ticket]) -> None:
        """One transaction for *tickets*, then one signal per queue that has something to do soon."""
        if not tickets:
            return
        sink = self._sink()
        rows = tickets[0].rows if len(tickets) == 1 else [row for ticket in tickets for row in ticket.rows]
        outcomes = sink.enqueue(rows, repeat=any(ticket.repeat for ticket in tickets))
        start = 0
        for ticket in tickets:
            end = start + len(ticket.rows)
            ticket.succeed(outcomes[start:end])
            start = end
        for queue in awake(rows):
            sink.notify("work", queue.encode())

    def _back_off(self, tickets: Sequence[Ticket], error: StoreUnavailable, *, final: bool) -> None:
        """Put *tickets* back to be sent again; those whose patience has ended fail."""
        now = time.monotonic()
        for ticket in reversed(tickets):
            if ticket.done:
                continue
            ticket.repeat = True
            if final or now >= ticket.deadline:
                ticket.fail(error)
            else:
                self._pending.appendleft(ticket)
        self._failures += 1
        longest = min(2.0, 0.02 * 2 ** min(self._failures, 8))
        # Jitter, so that producers do not come back all at once; the clock's last digits are random enough for that.
        self._not_before = now if final else now + longest * (0.5 + time.monotonic_ns() % 1000 / 2000)

    def _separate(self, tickets: Sequence[Ticket], error: Exception) -> None:
        """The store refused the batch as such: each caller gets the answer to its own rows, and only to them."""
        tickets = [ticket for ticket in tickets if not ticket.done]
        if len(tickets) == 1:
            tickets[0].fail(error)
            return
        for ticket in tickets:
            ticket.repeat = True
            try:
                self._store([ticket])
            except StoreUnavailable as unavailable:
                self._back_off([ticket], unavailable, final=False)
            except Exception as own:  # noqa: BLE001  the same
                ticket.fail(own)


def awake(rows: Iterable[NewRow]) -> set[str]:
    """The queues in which something can start soon. A stamped time is left to the workers, who ask the store's clock."""
    return {row.queue for row in rows if row.delay is None or row.delay < SOON}


_ALL: WeakSet[Combiner] = WeakSet()


def _after_fork() -> None:
    for combiner in list(_ALL):
        combiner.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
