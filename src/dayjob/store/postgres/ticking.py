"""Schedules: their records and the jobs that they make, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from dayjob.store.callers.caller import perform
from dayjob.store.callers.drivers import Psycopg
from dayjob.store.postgres.joining import JoiningPart
from dayjob.store.postgres.wire import Bigints, Blobs, words
from dayjob.store.records import Enqueued, Tick


class TicksPart(JoiningPart):
    """The Ticks protocol. The jobs are stored as in a caller's transaction, which here is our own."""

    def tick(self, ticks: Sequence[Tick], *, now: int | None = None) -> list[list[Enqueued] | None]:
        given = (
            words([tick.key for tick in ticks]),
            Bigints([tick.expected for tick in ticks]),
            Blobs([tick.value for tick in ticks]),
        )
        with self.db.write() as connection:
            won = {row[0] for row in connection.execute(self.sql.tick_records, given).fetchall()}
            rows = [row for tick in ticks if tick.key in won for row in tick.jobs]
            script = self.enqueue_script(rows, now=now)
            stored = iter(perform(self, Psycopg(connection), script) if rows else ())
        return [[next(stored) for _ in tick.jobs] if tick.key in won else None for tick in ticks]
