"""Reading: the Inspector protocol, and the small versioned values of the Records protocol."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec

from dayjob.states import Outcome, State
from dayjob.store.postgres.database import Connection
from dayjob.store.postgres.filters import STATE, Condition, where
from dayjob.store.postgres.part import MINUTE, Part, uuids
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

_COMMON = "j.payload, j.priority, j.attempt, j.crashes, j.round, j.max_attempts, j.reason, j.created_at, j.run_at, j.expires_at"
_LIVE = (
    f"j.id::text, j.entry, j.task, j.queue, {STATE}, {_COMMON}, r.claimed_at, NULL::bigint, NULL::bigint, r.name, j.suspect, "
    "j.cancelling, j.progress, NULL::bytea, NULL::bytea, j.tags, j.meta, j.options"
)
_RUNS = (
    "LEFT JOIN LATERAL (SELECT l.claimed_at, w.name FROM {ns}.lease AS l LEFT JOIN {ns}.worker AS w ON w.id = l.worker "
    "WHERE l.open > 0 AND j.state = 'available' AND l.entries @> ARRAY[j.entry]) AS r ON true"
)
_DONE = (
    f"j.id::text, j.entry, j.task, j.queue, j.state, {_COMMON}, j.started_at, j.finished_at, j.keep_until, j.worker, false, "
    "false, j.progress, j.result, j.error, j.tags, j.meta, j.options"
)

_info = msgspec.json.Decoder(WorkerInfo).decode
_progress = msgspec.json.Decoder(Progress).decode


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
        live = f"SELECT {_LIVE} FROM {{ns}}.job AS j {_RUNS} WHERE j.id = $1::uuid".replace("{ns}", namespace)
        done = f"SELECT {_DONE} FROM {namespace}.history AS j WHERE j.id = $1::uuid ORDER BY j.entry DESC LIMIT 1"
        with self.db.session() as connection:
            together = contextlib.nullcontext() if self.db.pooled else connection.pipeline()
            with together:
                cursors = [
                    connection.execute(statement, (id,), binary=True) for statement in (live, done, self.sql.attempts)
                ]
            rows = [cursor.fetchall() for cursor in cursors]
        found = rows[0] or rows[1]
        if not found:
            return None
        job = _job(found[0])
        job.attempts = [AttemptRow(number, round, Outcome(outcome), *rest) for number, round, outcome, *rest in rows[2]]
        return job

    def find(self, which: Filter, *, limit: int = 50, after: str | None = None) -> Page:
        if after is not None and not uuids([after]):
            return Page([], None)
        found: list[JobRow] = []
        with self.db.read() as connection:
            for live, states in _parts(which):
                found += self._rows(connection, which, live=live, states=states, limit=limit + 1, after=after)
        # An id that was stored again while its finished job was there is shown as it is now.
        newest: dict[str, JobRow] = {}
        for job in found:
            if job.id not in newest or newest[job.id].entry < job.entry:
                newest[job.id] = job
        jobs = sorted(newest.values(), key=lambda job: job.id, reverse=True)
        page = jobs[:limit]
        return Page(page, page[-1].id if len(jobs) > limit and page else None)

    def _rows(
        self,
        connection: Connection,
        which: Filter,
        *,
        live: bool,
        states: list[State] | None,
        limit: int,
        after: str | None = None,
    ) -> list[JobRow]:
        namespace = f'"{self.db.namespace}"'
        condition = where(which, states, self.db.namespace, live=live)
        if after is not None:
            condition.add("j.id < ?::uuid", after)
        table = f"{namespace}.{'job' if live else 'history'} AS j"
        if states == [State.RUNNING]:  # by what is claimed, not past all that waits
            claimed = "(SELECT DISTINCT u.id FROM {ns}.lease AS l CROSS JOIN LATERAL unnest(l.ids) AS u (id) WHERE l.open > 0)"
            table = f"{claimed.replace('{ns}', namespace)} AS c JOIN {table} ON j.id = c.id"
        columns, joined = (_LIVE, _RUNS) if live else (_DONE, "")
        select = (
            f"SELECT {columns} FROM (SELECT j.* FROM {table} WHERE {condition} "
            f"ORDER BY j.id DESC, j.entry DESC LIMIT {condition.parameter(limit)}) AS j {joined} ORDER BY j.id DESC, j.entry DESC"
        )
        rows = connection.execute(select.replace("{ns}", namespace), condition.values, prepare=False, binary=True)
        return [_job(row) for row in rows.fetchall()]

    def count(self, which: Filter) -> int:
        total = 0
        with self.db.read() as connection:
            for live, states in _parts(which):
                if not live and which in (Filter(), Filter(states=which.states)):
                    counts = connection.execute(self.sql.all_totals).fetchall()
                    total += sum(jobs for _, state, jobs in counts if states is None or state in states)
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

    def list(self, kind: str, *, now: int | None = None) -> Sequence[Record]:
        with self.db.read() as connection:
            return [
                Record(*row) for row in connection.execute(self.sql.list_records, (self.db.at(now), kind)).fetchall()
            ]

    def erase(self, kind: str, key: str, *, expected: int | None = None) -> bool:
        with self.db.write() as connection:
            return connection.execute(self.sql.erase_record, (kind, key, expected)).rowcount > 0


def _parts(which: Filter) -> list[tuple[bool, list[State] | None]]:
    """(live, states to ask for there) of the tables that can hold what *which* means."""
    if which.states is None:
        return [(True, None), (False, None)]
    live = [state for state in which.states if not state.terminal]
    done = [state for state in which.states if state.terminal]
    return [(is_live, states) for is_live, states in ((True, live), (False, done)) if states]


def _job(row: tuple[Any, ...]) -> JobRow:
    job = JobRow(*row)
    job.state = State(row[4])
    if row[21] is not None:
        job.progress = _progress(row[21])
    return job
