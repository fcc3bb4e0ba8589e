"""The relay: takes rows from an outbox, in their order, and stores their jobs.

    tick:  hold ─▶ in flight? ─yes─▶ send those again ─▶ settle
                       └─no─▶ probe the store ─▶ take ─▶ send ─▶ settle and take ─▶ send ─▶ … ─▶ nothing waits

At least once: a row is deleted after the store has its job. Exactly one job: the id is the producer's, and a store answers
`existing` to one that it has, or had within the hour (P9). Rows that a relay may have sent longer ago than that are looked
for before anything is sent again, and set aside where the store cannot tell.

One relay works, the others stand by. That is for thrift alone: two at once would send the same rows in the same order.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from dayjob.errors import QueueClosed, QueueFull, SchemaMismatch, StoreError, StoreUnavailable
from dayjob.events import Bus, OutboxRelayed, OutboxSetAside, OutboxTaken
from dayjob.outbox import report
from dayjob.outbox.body import BadBody, decode
from dayjob.outbox.desk import Desk, Flight, Row, Standing
from dayjob.outbox.source import SourceUnavailable
from dayjob.service import Service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dayjob.store.contract import Inspector, Jobs, Lifecycle, Records, Signals
    from dayjob.store.records import NewRow

    class Target(Jobs, Inspector, Records, Signals, Lifecycle, Protocol):
        """What the relay needs of the queue's store."""


WINDOW = 3_000.0
"""Seconds after a first try within which a row is just sent again. Stores remember ids for an hour (P9)."""

STILL = 60.0
"""A relay that stood still for so long between taking rows and sending them asks first what became of them."""

PROBE = 5.0
"""A store that was silent for so long is asked something before rows are sent: during an outage none is in doubt."""

REPORT = 5.0

THRIFT = 4.0
"""A look at an idle outbox is followed by a pause of so many times as long as it took: where the database keeps what was
deleted (somewhere a transaction is open for hours), looks become dear."""


class OutboxRelay(Service):
    """Delivers one outbox into one store.

    Args:
        desk: the outbox. store: where its jobs go. batch: rows in one go. poll: seconds between looks at an empty outbox.
    Attributes:
        delivered, refused: rows since this relay took over. idle: True when it found nothing to do at its last tick.
        leads: True while it has the outbox.
    """

    def __init__(
        self, desk: Desk, store: Target, bus: Bus, *, batch: int = 500, poll: float = 0.5, lease: float = 10.0
    ) -> None:
        super().__init__("outbox", bus)
        self.desk, self._store = desk, store
        self._batch, self._poll, self._lease = batch, poll, lease
        self.delivered = self.refused = 0
        self.leads = self.idle = False
        self._shut_out: dict[int, str] = {}  # rows of the present batch that a full or closed queue does not take yet
        self._sure = False  # of having the outbox, with nothing in flight
        self._held = self._touched = self._reported = float("-inf")
        self._checked = False
        self._stood: Standing | None = None
        self._known_as = ""  # in the store's records

    def tick(self) -> float:
        """Deliver what waits, until nothing does or this relay is to stop."""
        self.idle = False
        try:
            return self._tick()
        except Exception as error:
            self._sure = False
            if isinstance(error, SourceUnavailable) or not isinstance(error, StoreUnavailable):
                self._tell(str(error) or type(error).__name__)
            raise

    def _tick(self) -> float:
        if not self._checked:
            self.desk.check()
            self._checked = True
        began = time.monotonic()
        if not self._sure or began - self._held > self._lease / 3:
            flight = self.desk.hold()
            if flight is None:
                return self._stand_by()
            self._held = began
            if not self._take_over(flight):
                return self._stand_by()
        looked = time.monotonic()
        if not self.desk.waiting():
            return self._rest(time.monotonic() - looked)
        if began - self._touched > PROBE:
            self._store.get("00000000-0000-7000-8000-000000000000")
            self._touched = began
        rows = self.desk.take(self._batch)
        while rows:
            rows = self._deliver(rows)
        if rows is None:
            return self._stand_by()
        return self._rest() if not self.stopping else 0.0

    def _stand_by(self) -> float:
        """Another relay has the outbox."""
        self.leads = self._sure = False
        self.idle = True
        return min(1.0, self._lease / 3)

    def _rest(self, cost: float = 0.0) -> float:
        self.idle = True
        self._tell(None)
        return max(self._poll, THRIFT * cost)

    def _take_over(self, flight: Flight) -> bool:
        """Settle what was in flight. False when another relay has the outbox, or may have it: then nothing is sure."""
        if not self.leads:
            self.delivered = self.refused = 0
            self.bus.emit(OutboxTaken(outbox=self.desk.name, relay=self.desk.holder, in_flight=len(flight.seqs)))
        self.leads = True
        rows = self.desk.again(flight)
        done: list[Row] | None = []
        if rows and flight.age > WINDOW:
            done = self._find_out(rows, flight.age)
        elif rows:
            done = self._deliver(rows, limit=0)
        elif flight.seqs:
            done = self.desk.settle((), {}, 0)
        self._sure = done is not None
        return self._sure

    def _find_out(self, rows: Sequence[Row], age: float) -> list[Row] | None:
        """*rows* may have been sent so long ago that the store may have had and forgotten them."""
        lost = {}
        for row in rows:
            if self._store.get(row.id) is None:
                lost[row.seq] = (
                    f"a relay sent this {age / 3600:.1f} h ago and nobody learned whether it arrived; the store does not know "
                    "the job, which may have come and gone since: retry it when its effect is not there, else discard it"
                )
        return self._settle(rows, lost, 0)

    # -- one batch ---------------------------------------------------------------------------------------------------

    def _deliver(self, rows: Sequence[Row], limit: int | None = None) -> list[Row] | None:
        """Send *rows*, settle them, and take the next; None when another relay has the outbox, or may have it."""
        if time.monotonic() - self._held > max(self._lease, STILL):
            return None
        refused: dict[int, str] = {}
        good: list[tuple[Row, NewRow]] = []
        for row in rows:
            try:
                good.append((row, decode(row.body, row.id, row.age)))
            except BadBody as error:
                refused[row.seq] = str(error)
        if good:
            self._send(good, refused)
        if self._shut_out:
            shut_out, self._shut_out = self._shut_out, {}
            self._settle([row for row in rows if row.seq not in shut_out], refused, 0)
            raise StoreUnavailable(next(iter(shut_out.values())))
        more = self._batch if limit is None and not self.stopping else 0
        return self._settle(rows, refused, more)

    def _send(self, rows: Sequence[tuple[Row, NewRow]], refused: dict[int, str]) -> None:
        """Store *rows*, in their order; those that cannot be stored are named in *refused*.

        When the store fails for a whole batch, halves of it find out why. A single row fails for its own sake when the
        store takes another write right after it.
        """
        try:
            outcomes = self._store.enqueue([new for _, new in rows], repeat=True)
        except (StoreUnavailable, SchemaMismatch):
            raise
        except Exception as error:  # noqa: BLE001  # a row that an engine stumbles over must not stop the others
            if len(rows) > 1:
                middle = len(rows) // 2
                self._send(rows[:middle], refused)
                self._send(rows[middle:], refused)
                return
            self._write_report(None, self._stood)  # raises where the store is the one to blame
            refused[rows[0][0].seq] = f"{type(error).__name__}: {error}"
            return
        self._touched = time.monotonic()
        for (row, _), outcome in zip(rows, outcomes, strict=True):
            if isinstance(outcome.error, (QueueFull, QueueClosed)):
                self._shut_out[row.seq] = str(outcome.error)  # nothing is wrong with the row: it goes when it may
            elif outcome.outcome == "refused" or outcome.error is not None:
                refused[row.seq] = str(outcome.error or "the store refused it and does not say why")
        for queue in {new.queue for _, new in rows}:
            self._store.notify("work", queue.encode())

    def _settle(self, rows: Sequence[Row], refused: dict[int, str], limit: int) -> list[Row] | None:
        began = time.monotonic()
        more = self.desk.settle([row.seq for row in rows if row.seq not in refused], refused, limit)
        if more is not None:
            self._held = began
        self.delivered += len(rows) - len(refused)
        self.refused += len(refused)
        outbox = self.desk.name
        if len(rows) > len(refused):
            lag = max(row.age for row in rows)
            self.bus.emit(OutboxRelayed(outbox=outbox, jobs=len(rows) - len(refused), lag=lag))
        for row in rows:
            if row.seq in refused:
                why = refused[row.seq]
                self.bus.emit(OutboxSetAside(outbox=outbox, id=row.id, task=row.task, queue=row.queue, error=why))
        self._tell(None, soon=bool(refused))
        return more

    # -- telling -----------------------------------------------------------------------------------------------------

    def _tell(self, error: str | None, *, soon: bool = False) -> None:
        """Report now and then, and as soon as something was set aside; a store that is down hears it later."""
        if not soon and time.monotonic() - self._reported < REPORT:
            return
        try:
            self._write_report(error)
        except (StoreError, OSError):
            return

    def _write_report(self, error: str | None, standing: Standing | None = None) -> None:
        """Write how the outbox stands: *standing*, or as it is now; in trouble, as it was when last seen."""
        if error is None:
            self._stood = standing or self.desk.standing()
        before = self._before() if self._stood is None else None
        stands = self._stood or before
        id = self.desk.identity or (before.id if before else self.desk.name)
        report.write(
            self._store,
            report.OutboxStats(
                id=id,
                name=self.desk.name,
                relay=self.desk.holder,
                at=self._store.now(),
                waiting=stands.waiting if stands else 0,
                lag=stands.lag if stands else 0.0,
                failed=stands.failed if stands else 0,
                delivered=self.delivered,
                error=error,
            ),
        )
        if self._known_as not in ("", id):
            report.forget(self._store, self._known_as)
        self._known_as, self._reported = id, time.monotonic()

    def _before(self) -> report.OutboxStats | None:
        """What was told of the outbox before this relay saw it; None when two have its name."""
        found = [one for one in report.read(self._store) if one.name == self.desk.name]
        return found[0] if len(found) == 1 else None

    def close(self) -> None:
        """Hand the outbox to whoever stands by, and tell how it stands."""
        try:
            if self.leads:
                self._reported = float("-inf")
                self._tell(None)
                self.desk.leave()
        except SourceUnavailable:
            pass  # its lease runs out by itself
        finally:
            self.desk.source.close()


__all__ = ["OutboxRelay"]
