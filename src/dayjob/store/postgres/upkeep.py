"""The leader's work: stage, prune, sample."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import date

import psycopg

from dayjob.states import State
from dayjob.store.exits import REMEMBERED
from dayjob.store.postgres.cluster import ClusterPart
from dayjob.store.postgres.database import Connection
from dayjob.store.postgres.part import MINUTE
from dayjob.store.postgres.wire import plain
from dayjob.store.records import Bound

SWEEP = 10_000
"""Jobs that are looked at in one statement, for their traces, before their day's partition is dropped."""

RETRY = (60.0, 3600.0)
"""Seconds after which the next day is tried to be dropped when a reader of the history was in the way: while it is tried,
completions wait for up to 0.2 s. Twice as long after each refusal, up to the second number."""


class _Deposed(Exception):
    """The term ended while its leader was at work."""


class UpkeepPart(ClusterPart):
    """The Upkeep protocol but for `rescue`."""

    _drop_at, _drop_after = 0.0, RETRY[0]
    """When a day may be dropped again, after a reader of the history was in the way."""

    def _leads(self, connection: Connection, term: int, now: int | None) -> int | None:
        """The store's now when *term* reigns, else None."""
        moment: int | None = self.value(connection, self.sql.leads, (term, self.db.at(now)))
        return moment

    def stage(self, term: int, *, limit: int = 1000, now: int | None = None) -> tuple[int, int | None] | None:
        asked = self.floors.ask(check=False)
        with self.db.write() as connection:
            self.take_turn(connection, self.db.at(now), asked.seen)  # first: see `take_turn` in the schema
            now = self._leads(connection, term, now)
            if now is None:
                return None
            expired = connection.execute(self.sql.expired_waiting, (now, limit)).fetchall()
            if expired:
                self.cancel_waiting(connection, [id for id, _ in expired], "expired", now)
                counts = Counter(queue for _, queue in expired)
                self.add_tallies(connection, now, [(queue, "cancelled", float(n)) for queue, n in counts.items()])
            stage = f'SELECT "{self.db.namespace}".stage_due($1, $2, $3)'
            staged = int(self.value(connection, stage, (now, asked.due, limit - len(expired))))
            due: int | None = self.value(connection, self.sql.next_due, (asked.due,))
        return staged + len(expired), due

    def prune(self, term: int, bounds: Sequence[Bound], *, limit: int = 1000, now: int | None = None) -> int | None:
        with self.db.write() as connection:
            now = self._leads(connection, term, now)
            if now is None:
                return None
            connection.execute(self.sql.fold_totals)
            connection.execute(self.sql.prune_small, (now,))
        try:
            pruned = self._prune(term, self.sql.past_keeping, (now, limit), now)
            pruned += self._prune(term, self.sql.past_keeping_kept, (now, limit - pruned), now)
            pruned += self._prune_bounds(term, bounds, limit - pruned, now)
        except _Deposed:
            return None
        if pruned < limit and time.monotonic() >= self._drop_at:
            pruned += self._drop_days(now)
        return pruned

    def _prune_bounds(self, term: int, bounds: Sequence[Bound], limit: int, now: int) -> int:
        pruned = 0
        with self.db.session() as connection, self.db.under_settings(connection):
            totals = connection.execute(self.sql.all_totals).fetchall()
        counts = {(queue, state): jobs for queue, state, jobs in totals}
        for bound in bounds:
            for (queue, state), jobs in counts.items() if bound.task is None else ():
                if state == bound.state and bound.queue in (None, queue) and queue not in bound.exclude:
                    over = min(jobs - bound.count, limit - pruned)
                    if over > 0 and state == State.CANCELLED:
                        over = min(jobs - self._moved(queue) - bound.count, limit - pruned)
                    if over > 0:
                        gone = self._prune(term, self.sql.beyond_count, (state, queue, over), now)
                        counts[queue, state] = jobs - gone
                        pruned += gone
        for bound in bounds:
            if bound.task is not None and limit > pruned:
                there = sum(
                    jobs
                    for (queue, state), jobs in counts.items()
                    if state == bound.state and bound.queue in (None, queue)
                )
                if there > bound.count:  # or there is no need to look
                    args = (str(bound.state), bound.queue, bound.count, limit - pruned, bound.task)
                    pruned += self._prune(term, self.sql.beyond_task_count, args, now)
        return pruned

    def _moved(self, queue: str) -> int:
        """How many jobs of *queue* were moved away: they go by their time alone."""
        with self.db.session() as connection, self.db.under_settings(connection):
            return int(self.value(connection, self.sql.moved_count, (queue,)))

    def _prune(self, term: int, statement: str, args: tuple[object, ...], now: int) -> int:
        """Delete what *statement* finds. To look may take seconds: nothing is held meanwhile, least of all the cluster's
        row, for which beats would wait."""
        with self.db.session() as connection, self.db.under_settings(connection):
            found = connection.execute(statement, args).fetchall()
        if not found:
            return 0
        with self.db.write() as connection:
            if self._leads(connection, term, now) is None:
                raise _Deposed
            columns = (plain([id for id, _ in found]), plain([finished_at for _, finished_at in found]))
            found = connection.execute(self.sql.still_finished, columns).fetchall()
            ids = plain([id for id, _ in found])
            connection.execute(self.sql.erase_finished, (ids,))
            connection.execute(self.sql.drop_traces, (ids,))
            recent = [id for id, finished_at in found if finished_at > now - REMEMBERED]
            if recent:
                connection.execute(self.sql.remember_gone, (now, plain(recent)))
        return len(found)

    def _drop_days(self, now: int) -> int:
        """End the days of the history that are over, oldest first: how many jobs went.

        A reader of the history keeps them for now: a later sweep tries again.
        """
        with self.db.session() as connection, self.db.under_settings(connection):
            days = connection.execute(self.sql.past_days, (now,)).fetchall()
        dropped = 0
        for partition, day in days:
            jobs = self._drop_day(partition, day)
            if jobs is None:
                self._drop_at = time.monotonic() + self._drop_after
                self._drop_after = min(2 * self._drop_after, RETRY[1])
                break
            self._drop_after = RETRY[0]
            dropped += jobs
        return dropped

    def _drop_day(self, partition: str, day: date) -> int | None:
        """First what its jobs left behind, in short steps, then all of them at once. None: somebody reads there."""
        table = f'"{self.db.namespace}"."{partition}"'
        page = f"SELECT h.id, h.recorded OR h.state <> 'completed' AS traced FROM {table} AS h WHERE h.id > $1::uuid ORDER BY h.id LIMIT {SWEEP}"
        step = f'SELECT max(p.id::text COLLATE "C"), array_agg(p.id::text) FILTER (WHERE p.traced) FROM ({page}) AS p'
        after: str | None = "00000000-0000-0000-0000-000000000000"
        while after is not None:
            with self.db.write() as connection:
                row = connection.execute(step, (after,)).fetchone()
                assert row is not None
                after, traced = row
                if traced:
                    connection.execute(self.sql.drop_traces, (plain(traced),))
        with self.db.write() as connection:
            try:
                with connection.transaction():
                    connection.execute("SELECT set_config('lock_timeout', '200ms', true)")
                    return int(self.value(connection, f'SELECT "{self.db.namespace}".drop_day($1)', (day,)))
            except psycopg.errors.LockNotAvailable:
                return None

    def sample(self, term: int, *, now: int | None = None) -> bool | None:
        # Counted before the cluster is locked: it may take a second, and a beat does not wait for it.
        with self.db.read() as connection:
            found = connection.execute(self.sql.depths).fetchall()
        depths: Counter[tuple[str, str]] = Counter()
        for queue, state, jobs in found:
            depths[queue, f"depth:{state}"] += jobs
        with self.db.write() as connection:
            now = self._leads(connection, term, now)
            if now is None:
                return None
            given = ([queue for queue, _ in depths], [name for _, name in depths], [float(n) for n in depths.values()])
            connection.execute(self.sql.add_samples, (now - now % MINUTE, *given))
        return True
