"""Jobs in, and what running ones write down."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import psycopg
from psycopg.errors import LockNotAvailable

from dayjob.errors import StoreUnavailable
from dayjob.store.postgres.accepting import answered, written
from dayjob.store.postgres.database import Connection, Database
from dayjob.store.postgres.faults import translated
from dayjob.store.postgres.flight import Flight
from dayjob.store.postgres.flight import written as freight
from dayjob.store.postgres.part import encode, uuids
from dayjob.store.postgres.turns import TurnPart
from dayjob.store.postgres.wire import Blobs, Uuids, plain, sixteens, words
from dayjob.store.records import EXISTING, INSERTED, Checkpoint, Enqueued, Lease, Log, NewRow, Progress, Write


class _LimitedQueue(Exception):
    """Nothing was stored: one of the rows is for a queue with limits."""


class JobsPart(TurnPart):
    """Enqueue and record."""

    def __init__(self, db: Database, lease: float) -> None:
        super().__init__(db, lease)
        self._said = threading.local()
        """Per thread: when its last enqueue left nobody asleep who would have to be woken (monotonic), else 0."""

    def enqueue(self, jobs: Sequence[NewRow], *, repeat: bool = False, now: int | None = None) -> list[Enqueued]:
        now = self.db.at(now)
        if any(job.gating is not None for job in jobs):
            return self._accept(jobs, repeat, now)
        try:
            return self._enqueue_plain(jobs, repeat, now)
        except _LimitedQueue:
            return self._accept(jobs, repeat, now)

    def _enqueue_plain(self, jobs: Sequence[NewRow], repeat: bool, now: int | None) -> list[Enqueued]:
        if len(jobs) == 1 and not self.db.pooled:
            with self.db.session() as connection:
                return [INSERTED if self._put(connection, jobs[0], repeat, now) else EXISTING]
        try:
            if repeat or self.db.pooled:
                with self.db.write() as connection:
                    new = self._insert(connection, jobs, now, repeat=repeat)
            else:
                with self.db.session() as connection:
                    new = self._insert(connection, jobs, now)
        except StoreUnavailable as error:
            if len(jobs) == 1 or not isinstance(error.__cause__, LockNotAvailable):
                raise
            return self._enqueue_apart(jobs, repeat, now)
        if len(new) == len(jobs):
            return [INSERTED] * len(jobs)
        fresh = set(new)
        answers = []
        for job in jobs:
            answers.append(INSERTED if job.id in fresh else EXISTING)
            fresh.discard(job.id)
        return answers

    def _accept(self, jobs: Sequence[NewRow], repeat: bool, now: int | None) -> list[Enqueued]:
        """Rows of which one has a gating or a queue with limits: the server looks at those one by one."""
        with self.db.write() as connection:
            told = connection.execute(self.sql.accept, (written(jobs), now, None, repeat, True)).fetchall()
        self._said.awake = 0.0
        return [answered(job, row, self.db.url) for job, row in zip(jobs, told, strict=True)]

    def _enqueue_apart(self, jobs: Sequence[NewRow], repeat: bool, now: int | None) -> list[Enqueued]:
        """Somebody's open transaction has an id of *jobs*: that one is refused, its neighbours are stored.

        All of them waited for a second already, so each waits no longer than a commit takes.
        """
        answers = []
        with self.db.write() as connection:
            for job in jobs:
                try:
                    with connection.transaction():
                        new = self._insert(connection, [job], now, repeat=repeat, patience="20ms")
                    answers.append(INSERTED if new else EXISTING)
                except LockNotAvailable as error:
                    answers.append(Enqueued("refused", translated(error, self.db.url, self.db.wanted)))
        return answers

    def _insert(
        self,
        connection: Connection,
        jobs: Sequence[NewRow],
        now: int | None,
        *,
        repeat: bool = False,
        patience: str = "1s",
    ) -> list[str]:
        """Store those of *jobs* whose ids are not there; the ids of those that were new. Only a *repeat* finds the finished."""
        new = self._insert_live(connection, jobs, now, patience)
        if repeat and new:
            taken = {row[0] for row in connection.execute(self.sql.take_back, (plain(new),)).fetchall()}
            new = [id for id in new if id not in taken]
        return new

    def _insert_live(self, connection: Connection, jobs: Sequence[NewRow], now: int | None, patience: str) -> list[str]:
        """Store those of *jobs* whose ids are not waiting or running; the ids of those that were new.

        An id that somebody else's open transaction is storing is waited for no longer than *patience*.
        """
        row = connection.execute(
            self.sql.insert,
            (
                now,
                Uuids([one.id for one in jobs]),
                words([one.queue for one in jobs]),
                words([one.task for one in jobs]),
                Blobs([one.payload for one in jobs]),
                plain([one.priority for one in jobs]),
                plain([one.delay for one in jobs]),
                plain([one.run_at for one in jobs]),
                plain([one.expires for one in jobs]),
                plain([one.max_attempts for one in jobs]),
                words([one.tags for one in jobs]),
                words([one.meta for one in jobs]),
                Blobs([one.options for one in jobs]),
                patience,
            ),
            prepare=self._prepared,
        ).fetchone()
        assert row is not None
        if row[2]:
            raise _LimitedQueue
        self._said.awake = time.monotonic() if row[1] else 0.0
        return [one.id for one in jobs] if row[0] is None else list(row[0])

    def _put(self, connection: Connection, job: NewRow, repeat: bool, now: int | None) -> bool:
        """Store one job, and wake who sleeps; False when it is there, or was, already."""
        row = (
            now, sixteens((job.id,)), job.queue, job.task, job.payload, job.priority, job.delay, job.run_at, job.expires,
            job.max_attempts, job.tags, job.meta, job.options, repeat,
        )  # fmt: skip
        try:
            fresh = Flight(connection, "dayjob_put", self.sql.put, freight(row)).land() == b"t"
        except psycopg.DatabaseError as error:
            if error.diag.sqlstate == "DJ001":
                raise _LimitedQueue from error
            raise
        self._said.awake = time.monotonic()
        return fresh

    # -- record ------------------------------------------------------------------------------------------------

    def record(self, lease: Lease, writes: Sequence[Write], *, now: int | None = None) -> bool:
        if not uuids([lease.id]):
            return False
        with self.db.write() as connection:
            if connection.execute(self.sql.runs_under, (lease.worker, lease.id, lease.entry)).fetchone() is None:
                return False
            logs = [one for one in writes if isinstance(one, Log)]
            if logs:
                self._add_logs(connection, lease.id, logs, self.db.at(now))
            progress: str | None = None
            for one in writes:
                if isinstance(one, Progress):
                    progress = encode(one).decode()
                elif isinstance(one, Checkpoint):
                    connection.execute(self.sql.set_checkpoint, (lease.id, one.value))
            connection.execute(self.sql.note, (lease.id, progress))
        return True

    def _add_logs(self, connection: Connection, id: str, logs: Sequence[Log], now: int | None) -> None:
        texts = words([one.message.replace("\0", "\u2400") for one in logs])  # no text holds a NUL
        connection.execute(
            self.sql.add_logs, (id, plain([one.at for one in logs]), words([one.level for one in logs]), texts)
        )
        trimmed = connection.execute(self.sql.trim_logs, (id,)).rowcount
        if trimmed:
            self.add_tallies(connection, self._moment(connection, now), [("", "trimmed", trimmed)])

    def recorded(self, id: str) -> bytes | None:
        if not uuids([id]):
            return None
        with self.db.read() as connection:
            found: bytes | None = self.value(connection, self.sql.checkpoint, (id,))
        return found
