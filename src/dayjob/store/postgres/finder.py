"""How `find` looks for a page of jobs, newest id first, without ever reading a table from end to end.

    given ids, or what runs        by those ids
    nothing but a place to go on   along the ids
    finished: a state or queue of  by its index, all of them
      which there are few
    anything else                  along the ids, past what does not match, but no further than `LOOKED_AT` rows

The last way may end with a short page, even an empty one, and where to go on. Nothing else would do: an index for each
thing that people look for would be paid by every job, and without one a word that is nowhere takes as long as there are jobs.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dayjob.states import State
from dayjob.store.gating import Gating
from dayjob.store.postgres.database import Connection
from dayjob.store.postgres.filters import STATE, Condition, where
from dayjob.store.records import Filter, JobRow, Page, Progress

LOOKED_AT = 5_000
"""Rows, at most, that one page looks at in each table, 10 to 40 ms; for a large page ten for each job of it."""

_COMMON = "j.payload, j.priority, j.attempt, j.crashes, j.round, j.max_attempts, j.reason, j.created_at, j.run_at, j.expires_at"
LIVE = (
    f"j.id::text, j.entry, j.task, j.queue, {STATE}, {_COMMON}, r.claimed_at, NULL::bigint, NULL::bigint, r.name, j.suspect, "
    "j.cancelling, j.progress, NULL::bytea, NULL::bytea, j.tags, j.meta, j.options, j.place, j.gating::text"
)
RUNS = (
    "LEFT JOIN LATERAL (SELECT l.claimed_at, w.name FROM {ns}.lease AS l LEFT JOIN {ns}.worker AS w ON w.id = l.worker "
    "WHERE l.open > 0 AND j.state = 'available' AND l.entries @> ARRAY[j.entry]) AS r ON true"
)
DONE = (
    f"j.id::text, j.entry, j.task, j.queue, j.state, {_COMMON}, j.started_at, j.finished_at, j.keep_until, j.worker, false, "
    "false, j.progress, j.result, j.error, j.tags, j.meta, j.options, 0::bigint, j.gating::text"
)
_CLAIMED = "(SELECT u.id FROM {ns}.lease AS l CROSS JOIN LATERAL unnest(l.ids) AS u (id) WHERE l.open > 0)"
_NEWEST = "ORDER BY j.id DESC, j.entry DESC"
_TERMINAL = [state for state in State if state.terminal]

_progress = msgspec.json.Decoder(Progress).decode
_gating = msgspec.json.Decoder(Gating).decode


class Finder:
    """One page, in one read transaction.

    Args:
        totals: finished jobs by (queue, state).
    """

    def __init__(self, connection: Connection, namespace: str, totals: dict[tuple[str, str], int]) -> None:
        self._connection = connection
        self._namespace = namespace
        self._totals = totals

    def page(self, which: Filter, limit: int, after: str | None) -> Page:
        """See `contract.Inspector.find`."""
        # A partition without statistics seems to be so small that the planner would rather read and sort all of it.
        self._connection.execute("SELECT set_config('enable_sort', 'off', true)")
        found: list[JobRow] = []
        reached = ""  # further down nothing can be said yet
        for live, states in parts(which):
            rows, end = self._look(which, live, states, limit + 1, after)
            found += rows
            reached = max(reached, end or "")
        # An id that was stored again while its finished job was there is shown as it is now.
        newest: dict[str, JobRow] = {}
        for job in found:
            if job.id >= reached and (job.id not in newest or newest[job.id].entry < job.entry):
                newest[job.id] = job
        jobs = sorted(newest.values(), key=lambda job: job.id, reverse=True)
        if len(jobs) > limit:
            return Page(jobs[:limit], jobs[limit - 1].id)
        return Page(jobs, reached or None)

    def _look(
        self, which: Filter, live: bool, states: list[State] | None, limit: int, after: str | None
    ) -> tuple[list[JobRow], str | None]:
        """What matches in one table; and the id up to which was looked, None when that is all there is."""
        table = f"{{ns}}.{'job' if live else 'history'} AS j"
        condition = where(which, states, self._namespace, live=live)
        beyond = "true" if after is None else f"j.id < {condition.parameter(after)}::uuid"
        if which.ids is not None or not condition.narrows:
            source = f"SELECT j.* FROM {table} WHERE {condition} AND {beyond}"
        elif states == [State.RUNNING]:
            source = f"SELECT j.* FROM {table} WHERE j.id = ANY (ARRAY{_CLAIMED}) AND {condition} AND {beyond}"
        elif not live and self._few(which, states):
            sought = condition.parameter([str(state) for state in states or _TERMINAL])
            # OFFSET 0: or the planner would rather walk along the ids.
            within = f"SELECT j.* FROM {table} WHERE j.state = ANY ({sought}::text[]) AND {condition} OFFSET 0"
            source = f"SELECT j.* FROM ({within}) AS j WHERE {beyond}"
        else:
            most = max(LOOKED_AT, 10 * limit)
            within = f"SELECT j.* FROM {table} WHERE {beyond} {_NEWEST} LIMIT {condition.parameter(most)}"
            found = self._rows(f"SELECT j.* FROM ({within}) AS j WHERE {condition}", condition, live, limit)
            return found, None if len(found) == limit else self._end(table, after, most)
        return self._rows(source, condition, live, limit), None

    def _few(self, which: Filter, states: list[State] | None) -> bool:
        """Whether finished jobs of these states and this queue are so few that looking at all of them is quick."""
        if states is None and which.queue is None:
            return False
        jobs = sum(
            number
            for (queue, state), number in self._totals.items()
            if (states is None or state in states) and which.queue in (None, queue)
        )
        return jobs <= LOOKED_AT

    def _rows(self, source: str, condition: Condition, live: bool, limit: int) -> list[JobRow]:
        columns, joined = (LIVE, RUNS) if live else (DONE, "")
        page = f"{source} {_NEWEST} LIMIT {condition.parameter(limit)}"
        select = f"SELECT {columns} FROM ({page}) AS j {joined} {_NEWEST}"
        return [job(row) for row in self._execute(select, condition.values)]

    def _end(self, table: str, after: str | None, looked_at: int) -> str | None:
        """The last of the next *looked_at* ids, None when there are not so many."""
        beyond = "true" if after is None else "j.id < $2::uuid"
        select = f"SELECT j.id::text FROM {table} WHERE {beyond} ORDER BY j.id DESC OFFSET $1 LIMIT 1"
        rows = self._execute(select, [looked_at - 1] if after is None else [looked_at - 1, after])
        return str(rows[0][0]) if rows else None

    def _execute(self, select: str, values: list[Any]) -> list[tuple[Any, ...]]:
        statement = select.replace("{ns}", f'"{self._namespace}"')
        return self._connection.execute(statement, values, prepare=False, binary=True).fetchall()


def parts(which: Filter) -> list[tuple[bool, list[State] | None]]:
    """(live, states to ask for there) of the tables that can hold what *which* means."""
    if which.states is None:
        return [(True, None), (False, None)]
    live = [state for state in which.states if not state.terminal]
    done = [state for state in which.states if state.terminal]
    return [(is_live, states) for is_live, states in ((True, live), (False, done)) if states]


def job(row: tuple[Any, ...]) -> JobRow:
    """A row of `LIVE` or `DONE`."""
    found = JobRow(*row)
    found.state = State(row[4])
    if row[21] is not None:
        found.progress = _progress(row[21])
    if row[28] is not None:
        gating = _gating(row[28])
        found.gating = None if gating == Gating() else gating  # held: a queue's matter, not the job's
    return found
