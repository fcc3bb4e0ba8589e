"""Reading: the Inspector protocol, and the small versioned values of the Records protocol."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from dayjob.clock import SECOND
from dayjob.states import Outcome, State
from dayjob.store.records import (
    AttemptRow,
    Filter,
    JobRow,
    Log,
    Page,
    Progress,
    QueueRow,
    Record,
    Sample,
    WorkerInfo,
    WorkerRow,
)
from dayjob.store.sqlite.filters import where
from dayjob.store.sqlite.lines import gating_of
from dayjob.store.sqlite.part import Part

LIVE = (
    "j.id, j.entry, j.task, j.queue, j.state, j.payload, j.priority, j.attempt, j.crashes, j.round, j.max_attempts, "
    "j.reason, j.created_at, j.run_at, j.expires_at, (SELECT claimed_at FROM {ns}_lease WHERE no = j.lease), NULL, NULL, "
    "(SELECT w.name FROM {ns}_lease AS l JOIN {ns}_worker AS w ON w.id = l.worker WHERE l.no = j.lease), j.suspect, "
    "j.cancelling, j.progress, NULL, NULL, j.tags, j.meta, j.options, j.place, j.gating"
)
DONE = (
    "j.id, j.entry, j.task, j.queue, j.state, j.payload, j.priority, j.attempt, j.crashes, j.round, j.max_attempts, "
    "j.reason, j.created_at, j.run_at, j.expires_at, j.started_at, j.finished_at, j.keep_until, j.worker, 0, 0, "
    "j.progress, j.result, j.error, j.tags, j.meta, j.options, 0, j.gating"
)
_RARE = frozenset({State.DEAD, State.CANCELLED})

_info = msgspec.json.Decoder(WorkerInfo).decode
_progress = msgspec.json.Decoder(Progress).decode


class InspectorPart(Part):
    """The Inspector and Records protocols."""

    def get(self, id: str) -> JobRow | None:
        with self.db.read() as connection:
            for table, columns in (("job", LIVE), ("history", DONE)):
                row = connection.execute(self.select(table, columns, "j.id = ?"), (id,)).fetchone()
                if row is not None:
                    job = job_of(row)
                    job.attempts = [
                        AttemptRow(number, round, Outcome(outcome), *rest)
                        for number, round, outcome, *rest in connection.execute(self.sql.attempts, (id,))
                    ]
                    return job
        return None

    def find(self, which: Filter, *, limit: int = 50, after: str | None = None) -> Page:
        found: list[JobRow] = []
        with self.db.read() as connection:
            for table, columns, states in self._tables(which):
                # Rare states are sought by their index and sorted, common ones by walking the ids: a plus before a
                # column keeps the planner from its index.
                by_id = states is None or not _RARE.issuperset(states)
                key = "id" if by_id else "+id"
                condition, values = where(which, states, by_id=by_id)
                if after is not None:
                    condition += f" AND {key} < ?"
                    values.append(after)
                select = self.select(table, columns, f"{condition} ORDER BY {key} DESC LIMIT ?")
                found += [job_of(row) for row in connection.execute(select, (*values, limit + 1))]
        found.sort(key=lambda job: job.id, reverse=True)
        page = found[:limit]
        return Page(page, page[-1].id if len(found) > limit and page else None)

    def count(self, which: Filter) -> int:
        total = 0
        with self.db.read() as connection:
            for table, _, states in self._tables(which):
                condition, values = where(which, states)
                select = f"SELECT count(*) FROM {self.db.namespace}_{table} WHERE {condition}"
                total += int(connection.execute(select, values).fetchone()[0])
        return total

    def select(self, table: str, columns: str, condition: str) -> str:
        """A look at `job` or `history`, as `j`."""
        return f"SELECT {columns.format(ns=self.db.namespace)} FROM {self.db.namespace}_{table} AS j WHERE {condition}"

    @staticmethod
    def _tables(which: Filter) -> list[tuple[str, str, list[State] | None]]:
        """(table, columns, states to ask for there) of the tables that can hold what *which* means."""
        if which.states is None:
            return [("job", LIVE, None), ("history", DONE, None)]
        live = [state for state in which.states if not state.terminal]
        done = [state for state in which.states if state.terminal]
        tables: list[tuple[str, str, list[State] | None]] = []
        if live:
            tables.append(("job", LIVE, live))
        if done:
            tables.append(("history", DONE, done))
        return tables

    def queues(self, *, now: int | None = None) -> list[QueueRow]:
        now = self.db.now() if now is None else now
        minute = now - now % (60 * SECOND)
        with self.db.read() as connection:
            counts: dict[str, dict[str, int]] = {}
            for queue, state, count in self._counts(connection):
                states = counts.setdefault(queue, {})
                states[state] = states.get(state, 0) + count
            paused = {row[0] for row in connection.execute(self.sql.paused)}
            recent = {row[0] for row in connection.execute(self.sql.recent_queues, (minute - 3600 * SECOND,)) if row[0]}
            rates: dict[str, dict[str, float]] = {}
            for queue, name, value in connection.execute(self.sql.rates, (minute - 60 * SECOND,)):
                if not name.startswith("depth:"):
                    rates.setdefault(queue, {})[name] = value / 60
            oldest = {
                queue: self._oldest(connection, queue) for queue, states in counts.items() if "available" in states
            }
        return [
            QueueRow(queue, queue in paused, counts.get(queue, {}), oldest.get(queue), rates.get(queue, {}))
            for queue in sorted(paused | recent | counts.keys())
        ]

    def _counts(self, connection: sqlite3.Connection) -> list[tuple[str, str, int]]:
        found: list[tuple[str, str, int]] = []
        for statement, state in (
            (self.sql.count_available, "available"),
            (self.sql.count_suspect, "available"),
            (self.sql.count_scheduled, "scheduled"),
            (self.sql.count_blocked, "blocked"),
            (self.sql.count_running, "running"),
        ):
            found += [(queue, state, count) for queue, count in connection.execute(statement)]
        return found + connection.execute(self.sql.count_history).fetchall()

    def _oldest(self, connection: sqlite3.Connection, queue: str) -> int | None:
        """Since when the longest waiting job waits: the first of each priority, by the index."""
        oldest, below = None, 1 << 31
        while (row := connection.execute(self.sql.oldest_by_priority, (queue, below)).fetchone()) is not None:
            below = row[0]
            oldest = row[1] if oldest is None else min(oldest, row[1])
        return oldest

    def workers(self, *, now: int | None = None) -> list[WorkerRow]:
        with self.db.read() as connection:
            return [
                WorkerRow(_info(info), started_at, beat_at, bool(leader), held)
                for info, started_at, beat_at, leader, held in connection.execute(self.sql.workers)
            ]

    def logs(self, id: str) -> list[Log]:
        with self.db.read() as connection:
            return [Log(*row) for row in connection.execute(self.sql.logs, (id,))]

    def history(self, since: int, queue: str | None = None) -> list[Sample]:
        with self.db.read() as connection:
            return [Sample(*row) for row in connection.execute(self.sql.samples, (since, queue))]

    # -- records -----------------------------------------------------------------------------------------------

    def read(self, kind: str, key: str, *, now: int | None = None) -> Record | None:
        now = self.db.now() if now is None else now
        with self.db.read() as connection:
            row = connection.execute(self.sql.read_record, (kind, key, now)).fetchone()
        return None if row is None else Record(*row)

    def write(
        self,
        kind: str,
        key: str,
        value: bytes,
        *,
        expected: int | None = None,
        ttl: float | None = None,
        now: int | None = None,
    ) -> int | None:
        with self.db.write() as connection:
            now = self.db.now() if now is None else now
            row = connection.execute(self.sql.read_record, (kind, key, now)).fetchone()
            version = 0 if row is None else int(row[3])
            if expected is not None and expected != version:
                return None
            expires = None if ttl is None else now + int(ttl * SECOND)
            connection.execute(self.sql.write_record, (kind, key, value, version + 1, expires))
        return version + 1

    def list(self, kind: str | None, *, now: int | None = None) -> Sequence[Record]:
        now = self.db.now() if now is None else now
        with self.db.read() as connection:
            if kind is None:
                return [Record(*row) for row in connection.execute(self.sql.list_all_records, (now,))]
            return [Record(*row) for row in connection.execute(self.sql.list_records, (kind, now))]

    def erase(self, kind: str, key: str, *, expected: int | None = None) -> bool:
        with self.db.write() as connection:
            return connection.execute(self.sql.erase_record, (kind, key, expected)).rowcount > 0


def job_of(row: tuple[Any, ...]) -> JobRow:
    """A row of `LIVE` or `DONE`."""
    job = JobRow(*row)
    job.state = State(row[4])
    job.suspect, job.cancelling = bool(row[19]), bool(row[20])
    if row[21] is not None:
        job.progress = _progress(row[21])
    if row[28] is not None:
        job.gating = gating_of(row[28])
    return job
