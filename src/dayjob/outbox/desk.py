"""What a relay asks of the outbox's tables, each a short transaction in the application's database.

The order of rows is that of `seq`. A row that was committed before another was written has the smaller one, so whoever
takes them by `seq` takes every key's jobs in order. There is no position to remember: what was delivered is deleted, so
a transaction that commits late is found whenever it does.

    waiting ──take──▶ in flight ──delivered──▶ (deleted)
       ▲                  └──set aside──▶ failed ──discard──▶ (deleted)
       └────────────────────── retry ───────┘

**In flight.** Before rows are sent, their numbers are written down with the time (`flight`, `sent_at`). So whoever comes
after a crash knows which rows may be in the store already, and since when.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from dayjob.errors import ConfigError, SchemaMismatch
from dayjob.outbox.source import Run, Source, SourceUnavailable
from dayjob.outbox.tables import VERSION, dialect_of, schema
from dayjob.store.records import Rows

COUNTED = 100_000
"""Waiting rows are counted up to here: an exact number of millions would cost more than it tells."""

ERROR_LENGTH = 2_000


class Row(Struct, frozen=True):
    """One job in the outbox. age: seconds since it was written."""

    seq: int
    id: str
    task: str
    queue: str
    age: float
    body: bytes


class Failed(Struct, frozen=True):
    """A row that was set aside. age: seconds since it was written."""

    id: str
    task: str
    queue: str
    age: float
    error: str


class Flight(Struct, frozen=True):
    """Rows that were sent, or may have been. age: seconds since the first try."""

    seqs: tuple[int, ...]
    age: float


class Standing(Struct, frozen=True):
    """How the outbox stands. waiting: rows, counted up to 100,000. lag: age of the oldest in seconds. failed: rows set aside."""

    waiting: int
    lag: float
    failed: int


class Desk:
    """The tables of one outbox.

    Args:
        source: where they are. table: their name. holder: this relay, in a word. lease: seconds it holds them without a renewal.
    """

    def __init__(self, source: Source, table: str, holder: str = "", lease: float = 10.0) -> None:
        self.source, self.table, self.holder = source, table, holder
        self._lease = round(lease * 1_000_000)
        self._now = dialect_of(source.system).now

    def make(self) -> None:
        """Make the tables; harmless where they are."""
        with self.source.transaction() as run:
            for statement in schema(self.source.system, self.table):
                run(statement)

    def check(self) -> None:
        """See that the tables are there and of this release's shape.

        Raises:
            ConfigError: they are not there. SchemaMismatch: a newer release made them.
        """
        try:
            with self.source.transaction(write=False) as run:
                found = run(f"SELECT version FROM {self.table}_relay WHERE one = 1")
                run(f"SELECT seq FROM {self.table} WHERE seq < 0")
        except SourceUnavailable as error:
            text = str(error)
            if self.table in text and any(word in text for word in ("no such table", "exist")):
                raise ConfigError(
                    f"there is no table {self.table} in {self.source.name}: `dayjob relay --from URL --migrate` makes it, "
                    "and `dayjob relay --from URL --sql` prints it for a migration of your own"
                ) from None
            raise
        if not found or found[0][0] != VERSION:
            raise SchemaMismatch(found[0][0] if found else 0, VERSION)

    # -- one relay at a time -----------------------------------------------------------------------------------------

    def hold(self) -> Flight | None:
        """Take the outbox, or keep it; None while another relay has it. What was in flight is told."""
        with self.source.transaction() as run:
            return self._held(run)

    def _held(self, run: Run) -> Flight | None:
        until = f"{self._now} + {self._lease}"
        free = f"(holder = $2 OR held_until < {self._now})"
        run(
            f"UPDATE {self.table}_relay SET holder = $1, held_until = {until} WHERE one = 1 AND {free}",
            self.holder,
            self.holder,
        )
        ((holder, flight, age),) = run(
            f"SELECT holder, flight, {self._now} - sent_at FROM {self.table}_relay WHERE one = 1"
        )
        if holder != self.holder:
            return None
        return Flight(tuple(json.loads(flight or "[]")), int(age) / 1_000_000)

    def leave(self) -> None:
        """Let another relay have it at once."""
        with self.source.transaction() as run:
            run(f"UPDATE {self.table}_relay SET held_until = 0, holder = '' WHERE one = 1 AND holder = $1", self.holder)

    # -- rows --------------------------------------------------------------------------------------------------------

    def waiting(self, limit: int) -> bool:
        """True when there are rows to take. A look, which holds nothing."""
        with self.source.transaction(write=False) as run:
            return bool(self._read(run, limit=min(1, limit)))

    def take(self, limit: int) -> list[Row] | None:
        """The first rows that wait, written down as in flight; None when another relay has the outbox."""
        with self.source.transaction() as run:
            return self._take(run, limit)

    def settle(self, delivered: Sequence[int], refused: Mapping[int, str], limit: int) -> list[Row] | None:
        """Delete what was delivered, set aside what was refused (seq to why), and take the next rows: one transaction.

        Repeating it is harmless, and so is a relay that lost the outbox meanwhile: what it delivered is delivered.
        """
        with self.source.transaction() as run:
            if delivered:
                run(f"DELETE FROM {self.table} WHERE seq IN ({_list(delivered)})")
            for seq, error in refused.items():
                text = error.replace("\0", "\u2400")[:ERROR_LENGTH]
                run(f"UPDATE {self.table} SET set_aside = 1, error = $1 WHERE seq = {int(seq)}", text)
            return self._take(run, limit)

    def _take(self, run: Run, limit: int) -> list[Row] | None:
        if self._held(run) is None:
            return None
        rows = self._read(run, limit=limit) if limit else []
        flight = json.dumps([row.seq for row in rows])
        run(f"UPDATE {self.table}_relay SET flight = $1, sent_at = {self._now} WHERE one = 1", flight)
        return rows

    def again(self, flight: Flight) -> list[Row]:
        """The rows of *flight* that are still there, as they were first sent."""
        with self.source.transaction(write=False) as run:
            return self._read(run, f"AND seq IN ({_list(flight.seqs)})") if flight.seqs else []

    def _read(self, run: Run, condition: str = "", limit: int | None = None) -> list[Row]:
        rows = run(
            f"SELECT seq, job_id, task, queue, {self._now} - created_at, body FROM {self.table} "
            f"WHERE set_aside = 0 {condition} ORDER BY seq" + ("" if limit is None else f" LIMIT {limit}")
        )
        return [
            Row(int(seq), id, task, queue, int(age) / 1_000_000, bytes(body))
            for seq, id, task, queue, age, body in rows
        ]

    # -- for people --------------------------------------------------------------------------------------------------

    def standing(self) -> Standing:
        """How it stands."""

        def count(run: Run, aside: int) -> int:
            some = f"SELECT 1 AS one FROM {self.table} WHERE set_aside = {aside} LIMIT {COUNTED}"
            return int(run(f"SELECT count(*) FROM ({some}) AS counted")[0][0])

        with self.source.transaction(write=False) as run:
            oldest = run(f"SELECT {self._now} - created_at FROM {self.table} WHERE set_aside = 0 ORDER BY seq LIMIT 1")
            lag = max(0.0, int(oldest[0][0]) / 1_000_000) if oldest else 0.0
            return Standing(count(run, 0), lag, count(run, 1))

    def failed(self, limit: int = 100) -> list[Failed]:
        """The rows that were set aside, oldest first."""
        with self.source.transaction(write=False) as run:
            rows = run(
                f"SELECT job_id, task, queue, {self._now} - created_at, error FROM {self.table} "
                f"WHERE set_aside = 1 ORDER BY seq LIMIT {limit}"
            )
        return [Failed(id, task, queue, int(age) / 1_000_000, error or "") for id, task, queue, age, error in rows]

    def retry(self, ids: Iterable[str] | None) -> int:
        """Let rows that were set aside wait again, in their old order; None: all. Returns how many."""
        return self._each(f"UPDATE {self.table} SET set_aside = 0, error = NULL", ids)

    def discard(self, ids: Iterable[str] | None) -> int:
        """Delete rows that were set aside; None: all. Returns how many."""
        return self._each(f"DELETE FROM {self.table}", ids)

    def _each(self, verb: str, ids: Iterable[str] | None) -> int:
        with self.source.transaction() as run:
            which: Rows = run(f"SELECT seq, job_id FROM {self.table} WHERE set_aside = 1")
            wanted = None if ids is None else set(ids)
            seqs = [int(seq) for seq, id in which if wanted is None or id in wanted]
            if seqs:
                run(f"{verb} WHERE set_aside = 1 AND seq IN ({_list(seqs)})")
            return len(seqs)


def _list(seqs: Iterable[Any]) -> str:
    return ", ".join(str(int(seq)) for seq in seqs)
