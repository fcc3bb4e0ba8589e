"""Schedules: their records and the jobs that they make, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from dayjob.store.callers.caller import perform
from dayjob.store.callers.drivers import Sqlite
from dayjob.store.records import Enqueued, Tick
from dayjob.store.sqlite.joining import JoiningPart


class TicksPart(JoiningPart):
    """The Ticks protocol. The jobs are stored as in a caller's transaction, which here is our own."""

    def tick(self, ticks: Sequence[Tick], *, now: int | None = None) -> list[list[Enqueued] | None]:
        with self.db.write() as connection:
            now = self.db.now() if now is None else now
            won = [
                connection.execute(self.sql.tick_record, (tick.value, tick.key, tick.expected)).rowcount > 0
                for tick in ticks
            ]
            rows = [row for tick, ours in zip(ticks, won, strict=True) if ours for row in tick.jobs]
            stored = iter(perform(self, Sqlite(connection), self.enqueue_script(rows, now=now)) if rows else ())
        return [[next(stored) for _ in tick.jobs] if ours else None for tick, ours in zip(ticks, won, strict=True)]
