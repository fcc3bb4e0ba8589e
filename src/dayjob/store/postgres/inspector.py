"""Reading: the Inspector protocol, and the small versioned values of the Records protocol."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import msgspec

from dayjob.states import Outcome
from dayjob.store.postgres.database import Connection
from dayjob.store.postgres.filters import Condition, where
from dayjob.store.postgres.finder import DONE, LIVE, RUNS, Finder, parts
from dayjob.store.postgres.finder import job as job_of
from dayjob.store.postgres.part import MINUTE, Part, uuids
from dayjob.store.records import (
    AttemptRow,
    Filter,
    JobRow,
    Log,
    Page,
    QueueRow,
    Record,
    Sample,
    WorkerInfo,
    WorkerRow,
)

_info = msgspec.json.Decoder(WorkerInfo).decode


class InspectorPart(Part):
    """The Inspector and Records protocols."""

    def get(self, id: str) -> JobRow | None:
        if not uuids([id]):
            return None
        # Each statement sees its own moment: a job that finishes meanwhile is found by the second. One that is retried
        # meanwhile could slip through both, so whoever was not found is looked for once more.
        return self._get(id) or self._get(id)

    def _get(self, id: str) -> JobRow | None:
        namespace = f'"{self.db.namespace}"'
        live = f"SELECT {LIVE} FROM {{ns}}.job AS j {RUNS} WHERE j.id = $1::uuid".replace("{ns}", namespace)
        done = f"SELECT {DONE} FROM {namespace}.history AS j WHERE j.id = $1::uuid ORDER BY j.entry DESC LIMIT 1"
        with self.db.session() as connection, self.db.under_settings(connection):
            together = contextlib.nullcontext() if self.db.pooled else connection.pipeline()
            with together:
                cursors = [
                    connection.execute(statement, (id,), binary=True) for statement in (live, done, self.sql.attempts)
                ]
            rows = [cursor.fetchall() for cursor in cursors]
        found = rows[0] or rows[1]
        if not found:
            return None
        job = job_of(found[0])
        job.attempts = [AttemptRow(number, round, Outcome(outcome), *rest) for number, round, outcome, *rest in rows[2]]
        return job

    def find(self, which: Filter, *, limit: int = 50, after: str | None = None) -> Page:
        if after is not None and not uuids([after]):
            return Page([], None)
        with self.db.read() as connection:
            return Finder(connection, self.db.namespace, self._totals(connection)).page(which, limit, after)

    def _totals(self, connection: Connection) -> dict[tuple[str, str], int]:
        """Finished jobs by (queue, state)."""
        return {(queue, state): jobs for queue, state, jobs in connection.execute(self.sql.all_totals).fetchall()}

    def count(self, which: Filter) -> int:
        total = 0
        with self.db.read() as connection:
            for live, states in parts(which):
                if not live and which == Filter(states=which.states, queue=which.queue):
                    total += sum(
                        jobs
                        for (queue, state), jobs in self._totals(connection).items()
                        if (states is None or state in states) and which.queue in (None, queue)
                    )
                    continue
                condition: Condition = where(which, states, self.db.namespace, live=live)
                table = f'"{self.db.namespace}".{"job" if live else "history"}'
                select = f"SELECT count(*) FROM {table} AS j WHERE {condition}"
                total += int(self.value(connection, select, condition.values))
        return total

    def queues(self, *, now: int | None = None) -> list[QueueRow]:
        now = self.db.at(now) or self.db.now()
        minute = now - now % MINUTE
        with self.db.read() as connection:
            counts: dict[str, dict[str, int]] = {}
            found = connection.execute(self.sql.depths).fetchall() + connection.execute(self.sql.all_totals).fetchall()
            for queue, state, count in found:
                if count:
                    states = counts.setdefault(queue, {})
                    states[state] = states.get(state, 0) + count
            paused = {row[0] for row in connection.execute(self.sql.paused).fetchall()}
            recent = {row[0] for row in connection.execute(self.sql.recent_queues, (minute - 60 * MINUTE,)).fetchall()}
            rates: dict[str, dict[str, float]] = {}
            for queue, name, value in connection.execute(self.sql.rates, (minute - MINUTE,)).fetchall():
                if not name.startswith("depth:"):
                    rates.setdefault(queue, {})[name] = value / 60
            oldest = dict(connection.execute(self.sql.oldest).fetchall())
        return [
            QueueRow(queue, queue in paused, counts.get(queue, {}), oldest.get(queue), rates.get(queue, {}))
            for queue in sorted((paused | recent | counts.keys()) - {""})
        ]

    def workers(self, *, now: int | None = None) -> list[WorkerRow]:
        with self.db.read() as connection:
            return [
                WorkerRow(_info(info), started_at, beat_at, bool(leader), held)
                for info, started_at, beat_at, leader, held in connection.execute(self.sql.workers).fetchall()
            ]

    def logs(self, id: str) -> list[Log]:
        if not uuids([id]):
            return []
        with self.db.read() as connection:
            return [Log(*row) for row in connection.execute(self.sql.logs, (id,)).fetchall()]

    def history(self, since: int, queue: str | None = None) -> list[Sample]:
        with self.db.read() as connection:
            return [Sample(*row) for row in connection.execute(self.sql.samples, (since, queue)).fetchall()]

    # -- records -----------------------------------------------------------------------------------------------

    def read(self, kind: str, key: str, *, now: int | None = None) -> Record | None:
        with self.db.read() as connection:
            row = connection.execute(self.sql.read_record, (self.db.at(now), kind, key)).fetchone()
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
            given = (self.db.at(now), kind, key, value, expected, ttl)
            version: int | None = self.value(connection, self.sql.write_record, given)
        return version

    def list(self, kind: str | None, *, now: int | None = None) -> Sequence[Record]:
        with self.db.read() as connection:
            return [
                Record(*row) for row in connection.execute(self.sql.list_records, (self.db.at(now), kind)).fetchall()
            ]

    def erase(self, kind: str, key: str, *, expected: int | None = None) -> bool:
        with self.db.write() as connection:
            return connection.execute(self.sql.erase_record, (kind, key, expected)).rowcount > 0
