"""Enqueue and record: the rest of the Jobs protocol."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from itertools import chain

from dayjob.store.records import EXISTING, INSERTED, Checkpoint, Enqueued, Lease, Log, NewRow, Progress, Write
from dayjob.store.sqlite.acting import ActingPart
from dayjob.store.sqlite.entering import values_of
from dayjob.store.sqlite.part import chunked, encode, text, with_rows


class JobsPart(ActingPart):
    """Jobs in, and everything done to them but running."""

    def enqueue(self, jobs: Sequence[NewRow], *, repeat: bool = False, now: int | None = None) -> list[Enqueued]:
        if len(jobs) == 1:
            plain = jobs[0].gating is None
            if plain and not repeat:
                with contextlib.suppress(sqlite3.IntegrityError):  # the id is there already, or there are limits
                    self._insert_alone(jobs[0], now)
                    return [INSERTED]
        else:
            plain = [job.gating for job in jobs].count(None) == len(jobs)
        with self.db.write() as connection:
            now = self.db.now() if now is None else now
            last, limited = connection.execute(self.sql.last_entry).fetchone()
            if limited or not plain:
                return self.enter(connection, jobs, bool(limited), now)
            if not repeat:
                try:
                    self._insert(connection, jobs, now, last)
                    return [INSERTED] * len(jobs)
                except sqlite3.IntegrityError:
                    self.db.begin_anew(connection)  # an id is there already: sort the known from the new
            known = {row[0] for row in connection.execute(self.sql.known_ids, (text([job.id for job in jobs]),))}
            fresh: dict[str, NewRow] = {}
            outcomes = []
            for job in jobs:
                outcomes.append(EXISTING if job.id in known or job.id in fresh else INSERTED)
                fresh.setdefault(job.id, job)
            self._insert(connection, [job for job in fresh.values() if job.id not in known], now, last)
        return outcomes

    def _insert_alone(self, job: NewRow, now: int | None) -> None:
        """The commonest enqueue of all, as a single statement."""
        self.db.write_one(self.sql.insert_alone, lambda: values_of(job, self.db.now() if now is None else now))

    def _insert(self, connection: sqlite3.Connection, jobs: Sequence[NewRow], now: int, entry: int) -> None:
        ready = []
        for job in jobs:
            entry += 1
            ready.append((entry, entry, *values_of(job, now)))
        for size, chunk in chunked(ready):
            statement = with_rows(self.sql.insert, size, 15)
            connection.execute(statement, list(chain.from_iterable(chunk)))

    # -- record ------------------------------------------------------------------------------------------------

    def record(self, lease: Lease, writes: Sequence[Write], *, now: int | None = None) -> bool:
        with self.db.write() as connection:
            now = self.db.now() if now is None else now
            if not connection.execute(self.sql.runs_under, (lease.entry, lease.id, lease.worker)).fetchone():
                return False
            logs = [(lease.id, one.at, one.level, one.message) for one in writes if isinstance(one, Log)]
            if logs:
                connection.executemany(self.sql.add_logs, logs)
                trimmed = connection.execute(self.sql.trim_logs, (lease.id,)).rowcount
                if trimmed:
                    self.add_tally(connection, now, "", "trimmed", trimmed)
            for one in writes:
                if isinstance(one, Progress):
                    connection.execute(self.sql.set_progress, (encode(one).decode(), lease.entry))
                elif isinstance(one, Checkpoint):
                    connection.execute(self.sql.set_checkpoint, (lease.id, one.value))
                    connection.execute(self.sql.mark_recorded, (lease.entry,))
        return True

    def recorded(self, id: str) -> bytes | None:
        with self.db.read() as connection:
            found = connection.execute(self.sql.checkpoint, (id,)).fetchone()
        return None if found is None else found[0]
