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
from operator import itemgetter
from typing import Any

from msgspec import Struct

from dayjob.errors import ConfigError, SchemaMismatch
from dayjob.ids import new_id
from dayjob.outbox.source import Run, Source, SourceUnavailable
from dayjob.outbox.tables import VERSION, dialect_of, missing, no_table, schema

COUNTED = 100_000
"""Waiting rows are counted up to here: an exact number of millions would cost more than it tells."""

ERROR_LENGTH = 2_000

BATCH_BYTES = 8_000_000
"""Bodies of one batch come to no more than this, or are one: a relay must not need memory as jobs are large."""

CHUNK = 1_000
"""Rows that are retried or discarded in one transaction."""


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
    Attributes:
        name: where the outbox is, for people. identity: which outbox it is, "" until it was held for the first time; two may
            have the same name, such as files on two hosts.
    """

    def __init__(self, source: Source, table: str, holder: str = "", lease: float = 10.0) -> None:
        self.source, self.table, self.holder = source, table, holder
        self._lease = round(lease * 1_000_000)
        self._now = dialect_of(source.system).now
        self.name, self.identity = source.name, ""

    def make(self) -> None:
        """Make the tables; harmless where they are, even without the right to make any."""
        try:
            self.check()
            return
        except (ConfigError, SchemaMismatch):  # a part of them may be there
            pass
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
                self.name = self._named(run)
        except SourceUnavailable as error:
            if no_table(error, self.table) or no_table(error, f"{self.table}_relay"):
                raise missing(self.table, f"in {self.source.name}") from None
            raise
        if not found or found[0][0] != VERSION:
            raise SchemaMismatch(found[0][0] if found else 0, VERSION)

    def _named(self, run: Run) -> str:
        """The source's name, and the schema where that is not the usual one."""
        if self.source.system != "postgresql":
            return self.source.name
        found = run(
            "SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
            f"WHERE c.oid = to_regclass('{self.table}')"
        )
        schema = str(found[0][0]) if found else "public"
        return self.source.name if schema == "public" else f"{self.source.name} ({schema})"

    # -- one relay at a time -----------------------------------------------------------------------------------------

    def hold(self) -> Flight | None:
        """Take the outbox, or keep it; None while another relay has it. What was in flight is told."""
        with self.source.transaction() as run:
            return self._held(run)

    def _held(self, run: Run) -> Flight | None:
        # A clock that was set back must not keep an outbox from everyone until it is there again.
        free = f"(holder = $3 OR held_until < {self._now} OR held_at > {self._now})"
        run(
            f"UPDATE {self.table}_relay SET holder = $1, outbox = CASE outbox WHEN '' THEN $2 ELSE outbox END, "
            f"held_at = {self._now}, held_until = {self._now} + {self._lease} WHERE one = 1 AND {free}",
            self.holder,
            new_id(),
            self.holder,
        )
        ((holder, self.identity, flight, age),) = run(
            f"SELECT holder, outbox, flight, {self._now} - sent_at FROM {self.table}_relay WHERE one = 1"
        )
        if holder != self.holder:
            return None
        return Flight(tuple(json.loads(flight or "[]")), int(age) / 1_000_000)

    def leave(self) -> None:
        """Let another relay have it at once."""
        with self.source.transaction() as run:
            run(f"UPDATE {self.table}_relay SET held_until = 0, holder = '' WHERE one = 1 AND holder = $1", self.holder)

    # -- rows --------------------------------------------------------------------------------------------------------

    def waiting(self) -> bool:
        """True when there are rows to take. A look, which holds nothing."""
        with self.source.transaction(write=False) as run:
            return bool(run(f"SELECT seq FROM {self.table} WHERE set_aside = 0 ORDER BY seq LIMIT 1"))

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
        rows = self._read(run, limit) if limit else []
        flight = json.dumps([row.seq for row in rows])
        run(f"UPDATE {self.table}_relay SET flight = $1, sent_at = {self._now} WHERE one = 1", flight)
        return rows

    def again(self, flight: Flight) -> list[Row]:
        """The rows of *flight* that are still there, as they were first sent."""
        with self.source.transaction(write=False) as run:
            return self._read(run, len(flight.seqs), f"AND seq IN ({_list(flight.seqs)})") if flight.seqs else []

    def _read(self, run: Run, limit: int, condition: str = "") -> list[Row]:
        """The first *limit* rows that wait, or fewer, so that their bodies do not come to more than `BATCH_BYTES`."""
        sizes = run(
            f"SELECT seq, length(body) FROM {self.table} WHERE set_aside = 0 {condition} ORDER BY seq LIMIT {limit}"
        )
        total = 0
        chosen: list[int] = []
        for seq, size in sizes:
            total += int(size)
            if chosen and total > BATCH_BYTES:
                break
            chosen.append(seq)
        if not chosen:
            return []
        rows = run(
            f"SELECT seq, job_id, task, queue, {self._now} - created_at, body FROM {self.table} "
            f"WHERE seq IN ({_list(chosen)})"  # and nothing else: no planner goes another way than by the key
        )
        return [
            Row(int(seq), str(id), str(task), str(queue), int(age) / 1_000_000, _bytes(body))
            for seq, id, task, queue, age, body in sorted(rows, key=itemgetter(0))
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
        if ids is None:
            return self._all(verb)
        wanted, done = sorted(set(ids)), 0
        for start in range(0, len(wanted), CHUNK // 4):
            some = wanted[start : start + CHUNK // 4]
            marks = ", ".join(f"${at}" for at in range(1, len(some) + 1))
            with self.source.transaction() as run:
                found = run(f"SELECT seq FROM {self.table} WHERE set_aside = 1 AND job_id IN ({marks})", *some)
                done += self._these(run, verb, [seq for (seq,) in found])
        return done

    def _all(self, verb: str) -> int:
        """Every row that was set aside, in their order: one that is set aside again meanwhile is not met twice."""
        done, last = 0, -1
        while True:
            with self.source.transaction() as run:
                found = run(
                    f"SELECT seq FROM {self.table} WHERE set_aside = 1 AND seq > {last} ORDER BY seq LIMIT {CHUNK}"
                )
                done += self._these(run, verb, [seq for (seq,) in found])
            if len(found) < CHUNK:
                return done
            last = int(found[-1][0])

    def _these(self, run: Run, verb: str, seqs: Sequence[Any]) -> int:
        if seqs:
            run(f"{verb} WHERE set_aside = 1 AND seq IN ({_list(seqs)})")
        return len(seqs)


def _list(seqs: Iterable[Any]) -> str:
    return ", ".join(str(int(seq)) for seq in seqs)


def _bytes(body: Any) -> bytes:
    """A body, also where somebody put text or numbers into an SQLite column: that must not stop the other rows."""
    return bytes(body) if isinstance(body, (bytes, memoryview)) else str(body).encode("utf-8", "surrogatepass")
