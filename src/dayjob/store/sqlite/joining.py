"""Taking part in transactions on the same file: a caller's own, and one that a job is lent."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, count
from pathlib import Path
from threading import Lock, Timer
from typing import Any

from dayjob.clock import SECOND
from dayjob.errors import BadRow, ConfigError, DayjobError, StoreError, StoreUnavailable, TransactionExpired
from dayjob.store.callers.caller import BROKEN
from dayjob.store.records import (
    EXISTING,
    INSERTED,
    Enqueued,
    Lease,
    Log,
    NewRow,
    Rows,
    Script,
    Settlement,
    Standing,
    Statement,
)
from dayjob.store.sqlite.database import Database, translated
from dayjob.store.sqlite.entering import EnteringPart, values_of, word
from dayjob.store.sqlite.part import chunked, with_rows

LIMIT = 1.0
"""Seconds for which a job may hold the only write lock of the file. Producers and workers wait for it up to 5 s."""

UNTIL_READ = 0.05
"""Seconds for the thread of an interrupted statement to read its error off the connection: the next statement on the
connection wipes it out, and the interrupted one would seem to have found nothing."""

_IN_OUR_FILE = " AND EXISTS (SELECT 1 FROM pragma_database_list WHERE name = 'main' AND file = ?) RETURNING entry"
_STANDINGS: tuple[Standing, ...] = ("lost", "held", "completed")


class JoiningPart(EnteringPart):
    """The Joining protocol. A caller's connection must have our file as its main database."""

    system, exclusive, located = "sqlite", True, True

    def locate(self) -> None:
        """Scripts look into the file by the way, which takes microseconds."""

    def enqueue_script(
        self, jobs: Sequence[NewRow], *, repeat: bool = False, now: int | None = None
    ) -> Script[list[Enqueued]]:
        now = self.db.glance() if now is None else now
        if any(job.gating is not None for job in jobs):
            yield from self._here(_numbered(self.gate_sql.mark_joined), (), 1)
            return (yield from self._enter_joined(jobs, now))
        rows = [(number, *values_of(job, now)) for number, job in enumerate(jobs, 1)]
        stored: set[str] = set()
        for size, chunk in chunked(rows):
            statement = _numbered(with_rows(self.sql.insert_joined, size, 14))
            found = yield from self._here(statement, tuple(chain.from_iterable(chunk)), size)
            if not found and int((yield Statement(self.gate_sql.is_limited))[0][0]):
                return (yield from self._enter_joined(jobs, now))
            stored.update(word(row[0]) for row in found)
        outcomes = []
        for job in jobs:
            outcomes.append(INSERTED if job.id in stored else EXISTING)
            stored.discard(job.id)  # given twice, the second exists
        return outcomes

    def _enter_joined(self, jobs: Sequence[NewRow], now: int) -> Script[list[Enqueued]]:
        """Rows that have gating, or queues that have limits; the write lock is held."""
        limited = yield Statement(self.gate_sql.is_limited)
        script = self.entry_script(jobs, bool(int(limited[0][0])), now)
        try:
            statement = next(script)
            while True:
                found = yield Statement(_numbered(statement.sql), statement.parameters)
                statement = script.send(found)
        except StopIteration as end:
            answers: list[Enqueued] = end.value
            return answers

    def completion_script(
        self, lease: Lease, settlement: Settlement, logs: Sequence[Log] = (), *, now: int | None = None
    ) -> Script[bool]:
        now = self.db.glance() if now is None else now
        keep_until = None if settlement.keep is None else now + int(settlement.keep * SECOND)
        row = (settlement.entry, settlement.id, settlement.started_at, settlement.finished_at or now, keep_until)
        constants = ("completed", None, True, True, 1, 0, lease.worker, lease.worker)
        finish = _numbered(with_rows(self.sql.finish, 1, 6) + _IN_OUR_FILE)
        found = yield from self._here(finish, (*row, settlement.result, *constants), 1)
        if not found:
            return False
        yield Statement(_numbered(self.sql.forget_one), (settlement.entry,))
        for size, chunk in chunked([(lease.id, log.at, log.level, log.message) for log in logs]):
            statement = _numbered(with_rows(self.sql.add_logs_joined, size, 4))
            yield Statement(statement, tuple(chain.from_iterable(chunk)))
        return True

    def _here(self, sql: str, parameters: tuple[Any, ...], wanted: int) -> Script[Rows]:
        """The rows of *sql*, whose last parameter is the file that it may write to; *wanted* of them, or there is a reason.

        A write into another file would be a job that nobody finds.
        """
        ours = self.db.main_file()
        found = yield Statement(sql, (*parameters, ours))
        if len(found) < wanted:
            named = yield Statement(self.sql.main_file)
            theirs = word(named[0][0] or "")
            if not _same(theirs, ours):
                raise self._elsewhere(theirs or ":memory:")
            if theirs != ours:  # the same under another name
                found = yield Statement(sql, (*parameters, theirs))
        return found

    def _elsewhere(self, theirs: str) -> ConfigError:
        return ConfigError(
            f"this connection is to {theirs}, the jobs are in {self.db.path or ':memory:'}: one transaction does not span "
            "two files. Keep the jobs in the application's file, or use app.outbox(...), which carries them over"
        )

    def standing(self, lease: Lease) -> Standing:
        with self.db.read() as connection:
            found = connection.execute(self.sql.stands, (lease.entry, lease.id, lease.worker)).fetchone()
        return _STANDINGS[int(found[0])]

    def begin(self, *, limit: float | None = None) -> LentTransaction:
        return LentTransaction(self.db, LIMIT if limit is None else limit)

    def joined_error(self, error: Exception) -> DayjobError:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, sqlite3.Error):
            cause = getattr(cause, "orig", None) or cause.__cause__  # SQLAlchemy has it in `orig`
        where = self.db.path or ":memory:"
        if isinstance(error, (OverflowError, UnicodeError)):
            return BadRow(f"{where} cannot store this row ({error})")
        if cause is None:
            return StoreError(f"{where}: your connection refused to run dayjob's statement: {error}")
        if (getattr(cause, "sqlite_errorcode", 0) & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreUnavailable(
                f"{where} is being written by another connection ({cause}): roll back and repeat your transaction; begun "
                "with BEGIN IMMEDIATE, on a connection with a timeout, it waits for its turn"
            )
        if "no such table" in str(cause):
            return self._elsewhere("a file without dayjob's tables")
        return translated(cause, self.db.path)


class LentTransaction:
    """A write transaction lent to a job: `contract.Transaction`.

    A timer ends it at its limit, whatever its job does then: all who write wait for it. What the job still executes
    afterwards fails, instead of being committed by itself.
    """

    def __init__(self, db: Database, limit: float) -> None:
        self.expired = self._broken = False
        self.limit = limit
        self._db = db
        self._over = False
        self._ending = Lock()
        self._lent = db.lent()
        self.connection: sqlite3.Connection = self._lent.__enter__()
        self._timer = Timer(limit, self._expire)
        self._timer.daemon = True
        self._timer.start()

    def run(self, statement: Statement) -> Rows:
        self._require_whole()
        try:
            return self.connection.execute(_marked(statement.sql), statement.parameters).fetchall()
        except sqlite3.Error:
            self._require_whole()
            raise

    def commit(self) -> None:
        with self._ending:
            self._require_whole()
            try:
                self.connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise translated(error, self._db.path) from error
            finally:
                self._let_go()

    def rollback(self) -> None:
        with self._ending:
            self._let_go()

    def _let_go(self) -> None:
        if not self._over:
            self._timer.cancel()
            with contextlib.suppress(StoreError):
                self._lent.__exit__(None, None, None)
            self._over = True  # last: what an interrupt has kept from its end is done again

    def _require_whole(self) -> None:
        if self._broken:
            raise TransactionExpired(self.limit) if self.expired else StoreError(BROKEN)

    def _expire(self) -> None:
        self._break(expired=True)

    def break_off(self) -> None:
        self._break(expired=False)

    def _break(self, *, expired: bool) -> None:
        with self._ending:
            if self._over or self._broken:
                return
            self.expired, self._broken = expired, True
            self.connection.interrupt()  # else we would wait for the statement that runs
            time.sleep(UNTIL_READ)
            with contextlib.suppress(sqlite3.Error):  # interrupted while it wrote, it has rolled back by itself
                if self._db.path is not None:
                    self.connection.execute("PRAGMA query_only = ON")
                self.connection.execute("ROLLBACK")
            if self._db.path is None:
                self._let_go()  # in memory the connection is the store's own


@lru_cache(maxsize=64)
def _numbered(sql: str) -> str:
    """*sql* with `$1`, `$2` … in the place of each `?`, and without comments, which libraries may take for something."""
    numbers = count(1)
    return re.sub(r"\?", lambda mark: f"${next(numbers)}", re.sub(r"^--.*\n", "", sql, flags=re.MULTILINE))


@lru_cache(maxsize=64)
def _marked(sql: str) -> str:
    return re.sub(r"\$\d+", "?", sql)


def _same(theirs: str, ours: str) -> bool:
    """True when both name one file; "" is memory, and nobody else's."""
    if not theirs or not ours:
        return theirs == ours
    try:
        return Path(theirs).samefile(ours)
    except OSError:
        return False
