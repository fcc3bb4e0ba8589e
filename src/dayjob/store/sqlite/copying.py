"""Jobs as they are, out of the file and into it: the Copying protocol."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec

from dayjob.states import Outcome, State
from dayjob.store.records import EXISTING, INSERTED, AttemptRow, Enqueued, JobRow, Log, Whole
from dayjob.store.sqlite.entering import EnteringPart, key_of, run
from dayjob.store.sqlite.inspector import DONE, LIVE, InspectorPart, job_of
from dayjob.store.sqlite.lines import lane_of, line_of
from dayjob.store.sqlite.part import chunked, encode, rows, text, with_rows


class CopyingPart(InspectorPart, EnteringPart):
    """Export and adopt."""

    def export(self, ids: Sequence[str]) -> list[Whole]:
        names, among = text(list(ids)), "j.id IN (SELECT value FROM json_each(?))"
        found: dict[str, Whole] = {}
        with self.db.read() as connection:
            for table, columns in (("history", DONE), ("job", LIVE)):
                for row in connection.execute(self.select(table, columns, among), (names,)):
                    found[row[0]] = Whole(job_of(row))
            for id, number, round, outcome, *rest in connection.execute(self.sql.attempts_of, (names,)):
                if id in found:
                    found[id].job.attempts.append(AttemptRow(number, round, Outcome(outcome), *rest))
            for id, *log in connection.execute(self.sql.logs_of, (names,)):
                if id in found:
                    found[id].logs.append(Log(*log))
            for id, value in connection.execute(self.sql.checkpoints_of, (names,)):
                if id in found:
                    found[id].checkpoint = value
        return [found[id] for id in dict.fromkeys(ids) if id in found]

    def adopt(self, jobs: Sequence[Whole], *, now: int | None = None) -> list[Enqueued]:
        ids = text([one.job.id for one in jobs])
        fresh: dict[str, Whole] = {}
        answers = []
        with self.db.write() as connection:
            now = self.db.now() if now is None else now
            self._give_way(connection, ids)
            known = {row[0] for row in connection.execute(self.sql.known_ids, (ids,))}
            for one in jobs:
                answers.append(EXISTING if one.job.id in known or one.job.id in fresh else INSERTED)
                if answers[-1] is INSERTED:
                    fresh[one.job.id] = one
            self._adopt(connection, list(fresh.values()), now)
        return answers

    def _give_way(self, connection: sqlite3.Connection, ids: str) -> None:
        """What was moved away comes back: its finished row goes, and what was kept with it, as that comes along."""
        gone = connection.execute(self.sql.moved_away, (ids,)).fetchall()
        if gone:
            self.erase_finished(connection, [entry for entry, _ in gone])
            self.forget_traces(connection, [id for _, id in gone])

    def _adopt(self, connection: sqlite3.Connection, jobs: Sequence[Whole], now: int) -> None:
        self._take_free_keys(connection, [one.job for one in jobs], now)
        last = self.last_entry(connection)
        live: list[tuple[Any, ...]] = []
        done: list[tuple[Any, ...]] = []
        for entry, one in enumerate(jobs, last + 1):
            if one.job.state.terminal:
                done.append(_finished(entry, one.job))
            else:
                live.append(_waiting(entry, one, now))
        for statement, batch, columns in ((self.sql.adopt_live, live, 24), (self.sql.adopt_finished, done, 26)):
            for size, chunk in chunked(batch):
                connection.execute(with_rows(statement, size, columns), list(chain.from_iterable(chunk)))
        self._park(connection, [one.job for one in jobs], last, now)
        attempts = [
            (one.job.id, a.number, a.round, a.outcome, a.started_at, a.finished_at, a.worker, a.error, a.reason)
            for one in jobs
            for a in one.job.attempts
        ]
        connection.executemany(self.sql.adopt_attempt, attempts)
        logs = [(one.job.id, log.at, log.level, log.message) for one in jobs for log in one.logs]
        connection.executemany(self.sql.add_logs, logs)
        checkpoints = [(one.job.id, one.checkpoint) for one in jobs if one.checkpoint is not None]
        connection.executemany(self.sql.set_checkpoint, checkpoints)

    def _take_free_keys(self, connection: sqlite3.Connection, jobs: Sequence[JobRow], now: int) -> None:
        """Waiting jobs take their keys; one whose key is held comes without."""
        wanting = [
            job for job in jobs if not job.state.terminal and job.gating is not None and job.gating.unique is not None
        ]
        if not wanting:
            return
        hashes = [key_of(job, now)[0] for job in wanting]
        taken = {row[0] for row in rows(connection, self.gate_sql.holders, (text(hashes), now))}
        keys = []
        for job, name in zip(wanting, hashes, strict=True):
            if name in taken:
                assert job.gating is not None
                job.gating = msgspec.structs.replace(job.gating, unique=None)
            else:
                taken.add(name)
                keys.append(key_of(job, now))
        connection.execute(self.gate_sql.take_keys, (text(keys),))

    def _park(self, connection: sqlite3.Connection, jobs: Sequence[JobRow], last: int, now: int) -> None:
        """Adopted jobs stand at their gates, or in the turn of their lanes."""
        waiting = [(entry, job) for entry, job in enumerate(jobs, last + 1) if job.gating is not None]
        waiting = [(entry, job) for entry, job in waiting if not job.state.terminal]
        if not waiting:
            return
        connection.execute(self.gate_sql.mark_gated)
        run(connection, self.name_gates([job for _, job in waiting]))
        blocked = [(line_of(job.queue, job.gating), job.priority, entry) for entry, job in waiting if job.run_at <= now]
        run(connection, self.stand([stand for stand in blocked if stand[0] is not None]))
        run(connection, self.take_turns(last))


def _progress(job: JobRow) -> str | None:
    return None if job.progress is None else encode(job.progress).decode()


def _gating(job: JobRow) -> str | None:
    return None if job.gating is None else encode(job.gating).decode()


def _waiting(entry: int, one: Whole, now: int) -> tuple[Any, ...]:
    """The columns of `adopt_live`."""
    job = one.job
    line = line_of(job.queue, job.gating)
    state = State.SCHEDULED if job.run_at > now else State.AVAILABLE if line is None else State.BLOCKED
    return (
        entry, entry, job.id, job.queue, job.task, state, job.priority, job.payload, job.max_attempts, job.created_at,
        job.run_at, job.expires_at, job.tags, job.meta, job.options, job.attempt, job.crashes, job.round, job.suspect,
        one.checkpoint is not None, _progress(job), _gating(job), lane_of(job.gating), line,
    )  # fmt: skip


def _finished(entry: int, job: JobRow) -> tuple[Any, ...]:
    """The columns of `adopt_finished`."""
    return (
        entry, job.id, job.queue, job.task, job.state, job.reason, job.priority, job.payload, job.result, job.error,
        job.max_attempts, job.created_at, job.run_at, job.expires_at, job.started_at, job.finished_at, job.keep_until,
        job.tags, job.meta, job.options, job.attempt, job.crashes, job.round, job.worker, _progress(job), _gating(job),
    )  # fmt: skip
