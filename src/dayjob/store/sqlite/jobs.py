"""Enqueue, record, act: the rest of the Jobs protocol."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any

from dayjob.clock import SECOND
from dayjob.states import State
from dayjob.store.exits import REMEMBERED
from dayjob.store.records import (
    EXISTING,
    FITS,
    INSERTED,
    Action,
    Cancel,
    Checkpoint,
    Delete,
    Edit,
    Enqueued,
    Filter,
    Lease,
    Log,
    NewRow,
    Progress,
    Retry,
    Write,
)
from dayjob.store.sqlite.filters import where
from dayjob.store.sqlite.part import chunked, encode, text, with_rows
from dayjob.store.sqlite.turns import TurnPart


class JobsPart(TurnPart):
    """Jobs in, and everything done to them but running."""

    def enqueue(self, jobs: Sequence[NewRow], *, repeat: bool = False, now: int | None = None) -> list[Enqueued]:
        if len(jobs) == 1 and not repeat:
            with contextlib.suppress(sqlite3.IntegrityError):  # the id is there already
                return self._insert_alone(jobs[0], now)
        with self.db.write() as connection:
            now = self.db.now() if now is None else now
            if not repeat:
                try:
                    self._insert(connection, jobs, now)
                    return [INSERTED] * len(jobs)
                except sqlite3.IntegrityError:
                    self.db.begin_anew(connection)  # an id is there already: sort the known from the new
            known = {row[0] for row in connection.execute(self.sql.known_ids, (text([job.id for job in jobs]),))}
            fresh: dict[str, NewRow] = {}
            outcomes = []
            for job in jobs:
                outcomes.append(EXISTING if job.id in known or job.id in fresh else INSERTED)
                fresh.setdefault(job.id, job)
            self._insert(connection, [job for job in fresh.values() if job.id not in known], now)
        return outcomes

    def _insert_alone(self, job: NewRow, now: int | None) -> list[Enqueued]:
        """The commonest enqueue of all, as a single statement."""
        self.db.write_one(self.sql.insert_alone, lambda: values_of(job, self.db.now() if now is None else now))
        return [INSERTED]

    def _insert(self, connection: sqlite3.Connection, jobs: Sequence[NewRow], now: int) -> None:
        entry = self.last_entry(connection)
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

    # -- act ---------------------------------------------------------------------------------------------------

    def act(self, which: Filter, action: Action, *, limit: int = 1000, now: int | None = None) -> list[str]:
        live_states, done_states = FITS[type(action)]
        with self.db.write() as connection:
            now = self.db.now() if now is None else now
            live = self._candidates(connection, "job", which, live_states, limit, action)
            done = self._candidates(connection, "history", which, done_states, limit - len(live), action)
            match action:
                case Cancel():
                    self._cancel(connection, live, action, now)
                case Retry():
                    self._retry(connection, live, done, now)
                case Delete():
                    self._delete(connection, live, done, now)
                case Edit():
                    self._edit(connection, live, action, now)
        return [row[1] for row in (*live, *done)]

    def _candidates(
        self,
        connection: sqlite3.Connection,
        table: str,
        which: Filter,
        states: Sequence[str],
        limit: int,
        action: Action,
    ) -> list[tuple[int, str, str]]:
        """(entry, id, state) of the jobs in *table* that the action fits, oldest first."""
        fitting = [state for state in states if which.states is None or State(state) in which.states]
        if not fitting or limit <= 0:
            return []
        condition, parameters = where(which, fitting)
        if isinstance(action, Cancel):
            condition += " AND cancelling = 0"
        return connection.execute(
            f"SELECT entry, id, state FROM {self.db.namespace}_{table} WHERE {condition} ORDER BY entry LIMIT ?",
            (*parameters, limit),
        ).fetchall()

    def _cancel(
        self, connection: sqlite3.Connection, live: list[tuple[int, str, str]], action: Cancel, now: int
    ) -> None:
        running = [entry for entry, _, state in live if state == "running"]
        waiting = [entry for entry, _, state in live if state != "running"]
        if waiting:
            keep_until = None if action.keep is None else now + int(action.keep * SECOND)
            self.cancel_waiting(connection, waiting, action.reason, now, keep_until)
        if running:
            connection.execute(self.sql.ask_to_cancel, (text(running), action.reason))
            connection.execute(self.sql.bump_control)

    def cancel_waiting(
        self,
        connection: sqlite3.Connection,
        entries: Sequence[int],
        reason: str | None,
        now: int,
        keep_until: int | None,
    ) -> None:
        """Waiting jobs go to the history as cancelled."""
        batch = text(entries)
        connection.execute(self.sql.cancel_waiting, (batch, reason, now, keep_until))
        connection.execute(self.sql.forget, (batch,))

    def _retry(
        self,
        connection: sqlite3.Connection,
        live: list[tuple[int, str, str]],
        done: list[tuple[int, str, str]],
        now: int,
    ) -> None:
        if live:
            batch = text([entry for entry, _, _ in live])
            connection.execute(self.sql.promote, (batch, self.last_entry(connection), now))
        if done:
            batch = text([entry for entry, _, _ in done])
            connection.execute(self.sql.revive, (batch, self.last_entry(connection), now))
            self.erase_finished(connection, [entry for entry, _, _ in done])
            connection.execute(self.sql.drop_checkpoints, (text([id for _, id, _ in done]),))

    def _delete(
        self,
        connection: sqlite3.Connection,
        live: list[tuple[int, str, str]],
        done: list[tuple[int, str, str]],
        now: int,
    ) -> None:
        ids = [id for _, id, _ in (*live, *done)]
        if ids:
            self.erase_finished(connection, [entry for entry, _, _ in done])
            connection.execute(self.sql.forget, (text([entry for entry, _, _ in live]),))
            self.forget_traces(connection, ids)
            connection.execute(self.sql.remember_gone, (text(ids), now + REMEMBERED))

    def _edit(self, connection: sqlite3.Connection, live: list[tuple[int, str, str]], change: Edit, now: int) -> None:
        base = self.last_entry(connection) if live else 0
        for number, (entry, _, state) in enumerate(live, base + 1):
            sets: list[str] = ["entry = ?"]
            values: list[Any] = [number]
            for column in ("priority", "queue", "payload"):
                if (value := getattr(change, column)) is not None:
                    sets.append(f"{column} = ?")
                    values.append(value)
            if change.run_at is not None:
                run_at = max(change.run_at, now)
                state = "scheduled" if run_at > now else "available"
                sets += ["run_at = ?", "state = ?"]
                values += [run_at, state]
            if change.run_at is not None or change.priority is not None or change.queue is not None:
                sets.append("place = ?")
                values.append(number)
            connection.execute(
                f"UPDATE {self.db.namespace}_job SET {', '.join(sets)} WHERE entry = ?", (*values, entry)
            )


def values_of(job: NewRow, now: int) -> tuple[Any, ...]:
    """The columns after entry and place."""
    state = "available"
    run_at = now
    if job.run_at is not None or job.delay:
        run_at = job.run_at if job.run_at is not None else now + int((job.delay or 0) * SECOND)
        if run_at > now:
            state = "scheduled"
    expires = None if job.expires is None else now + int(job.expires * SECOND)
    return (
        job.id, job.queue, job.task, state, job.priority, job.payload, job.max_attempts, now, run_at, expires, job.tags,
        job.meta, job.options,
    )  # fmt: skip
