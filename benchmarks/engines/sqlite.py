"""Bare sqlite3, as fast as a loop of this shape goes: WAL, `synchronous=FULL`, batches of 500, one thread,
the same settings of the connection as dayjob's.

It keeps what dayjob keeps of a job (the columns below), finds it by id, claims in the order of priority and place,
and moves it to history; it runs nothing, encodes nothing, checks nothing. Rows go in with `executemany`, as a plain loop
would write it; statements of fifty rows each, which are 1.6 times as fast, are measured beside it (`insert_best`).
They move as sets (`json_each` of the batch's keys): row by row costs 1.6 times as much, and a slow baseline would
flatter us.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

from benchmarks.measure import Stopwatch
from benchmarks.workload import BATCH, QUEUE, TASK, batches, ids, payload

_SCHEMA = """
CREATE TABLE job (
    entry INTEGER PRIMARY KEY, id TEXT NOT NULL, task TEXT NOT NULL, queue TEXT NOT NULL, state TEXT NOT NULL,
    priority INTEGER NOT NULL, attempt INTEGER NOT NULL, max_attempts INTEGER, created_at INTEGER NOT NULL,
    run_at INTEGER NOT NULL, started_at INTEGER, worker TEXT, claim_no INTEGER, tags TEXT, meta TEXT, options BLOB,
    payload BLOB NOT NULL
);
CREATE UNIQUE INDEX job_id ON job (id);
CREATE INDEX job_available ON job (queue, priority DESC, entry) WHERE state = 'available';
CREATE TABLE history (
    id TEXT PRIMARY KEY, task TEXT NOT NULL, queue TEXT NOT NULL, state TEXT NOT NULL, priority INTEGER NOT NULL,
    attempt INTEGER NOT NULL, max_attempts INTEGER, created_at INTEGER NOT NULL, run_at INTEGER NOT NULL,
    started_at INTEGER, finished_at INTEGER NOT NULL, worker TEXT, tags TEXT, meta TEXT, options BLOB,
    payload BLOB NOT NULL, result BLOB
);
"""
_INSERT = """
INSERT INTO job (id, task, queue, state, priority, attempt, max_attempts, created_at, run_at, payload)
VALUES (?, ?, ?, 'available', 0, 0, 5, ?, ?, ?)
"""
_SELECT = f"""
SELECT entry, id, task, queue, priority, attempt, max_attempts, created_at, run_at, tags, meta, options, payload
FROM job WHERE queue = ? AND state = 'available' ORDER BY priority DESC, entry LIMIT {BATCH}
"""
_CLAIM = """
UPDATE job SET state = 'running', worker = ?, claim_no = ? WHERE entry IN (SELECT value FROM json_each(?))
"""
_MOVE = """
INSERT INTO history
SELECT id, task, queue, 'completed', priority, attempt + 1, max_attempts, created_at, run_at, ?, ?, worker, tags, meta,
       options, payload, NULL
FROM job WHERE entry IN (SELECT value FROM json_each(?))
"""
_FORGET = "DELETE FROM job WHERE entry IN (SELECT value FROM json_each(?))"
_WIDE = 50
_WORKER = "0193a5f0-0000-7000-8000-000000000000"

Row = tuple[str, str, str, int, int, bytes]


class SQLite:
    """The embedded engine."""

    name = "sqlite"

    def url(self, folder: Path) -> str:
        return f"sqlite:///{folder / 'jobs.db'}"

    def versions(self) -> dict[str, str]:
        return {"SQLite": sqlite3.sqlite_version}

    def insert(self, folder: Path, jobs: int) -> float:
        base = _open(folder)
        rows = _rows(jobs)
        with Stopwatch() as watch:
            _fill(base, rows)
        _expect(base, "job", jobs)
        return jobs / watch.seconds

    def insert_best(self, folder: Path, jobs: int) -> float:
        base = _open(folder)
        rows = _rows(jobs)
        head, _, row = _INSERT.partition("VALUES")
        statement = f"{head} VALUES {', '.join([row] * _WIDE)}"
        with Stopwatch() as watch:
            for batch in batches(jobs):
                base.execute("BEGIN IMMEDIATE")
                for at in range(batch.start, batch.stop, _WIDE):
                    base.execute(statement, list(chain.from_iterable(rows[at : at + _WIDE])))
                base.execute("COMMIT")
        _expect(base, "job", jobs)
        return jobs / watch.seconds

    def drain(self, folder: Path, jobs: int) -> float:
        base = _open(folder)
        _fill(base, _rows(jobs))
        with Stopwatch() as watch:
            _drain(base)
        _expect(base, "history", jobs)
        return jobs / watch.seconds

    def singles(self, folder: Path) -> Callable[[int], float]:
        base = _open(folder)

        def store(jobs: int) -> float:
            rows = _rows(jobs)
            with Stopwatch() as watch:
                for row in rows:
                    base.execute("BEGIN IMMEDIATE")
                    base.execute(_INSERT, row)
                    base.execute("COMMIT")
            return watch.seconds

        return store

    def clear(self) -> None:
        """All of it lies in the folders."""


def _open(folder: Path) -> sqlite3.Connection:
    base = sqlite3.connect(folder / "bare.db", isolation_level=None)
    base.execute("PRAGMA journal_mode = WAL")
    base.execute("PRAGMA synchronous = FULL")
    base.execute("PRAGMA wal_autocheckpoint = 4000")
    base.execute("PRAGMA cache_size = -32000")
    base.executescript(_SCHEMA)
    return base


def _rows(jobs: int) -> list[Row]:
    now = time.time_ns() // 1000
    return [(id, TASK, QUEUE, now, now, payload(number)) for number, id in enumerate(ids(jobs))]


def _fill(base: sqlite3.Connection, rows: list[Row]) -> None:
    for batch in batches(len(rows)):
        base.execute("BEGIN IMMEDIATE")
        base.executemany(_INSERT, rows[batch.start : batch.stop])
        base.execute("COMMIT")


def _drain(base: sqlite3.Connection) -> None:
    """Settle the previous batch and claim the next in one transaction, as dayjob's turn does."""
    held, claim = "[]", 0
    while held:
        now, claim = time.time_ns() // 1000, claim + 1
        base.execute("BEGIN IMMEDIATE")
        if claim > 1:
            base.execute(_MOVE, (now, now, held))
            base.execute(_FORGET, (held,))
        rows = base.execute(_SELECT, (QUEUE,)).fetchall()
        held = json.dumps([row[0] for row in rows]) if rows else ""
        if rows:
            base.execute(_CLAIM, (_WORKER, claim, held))
        base.execute("COMMIT")


def _expect(base: sqlite3.Connection, table: str, jobs: int) -> None:
    found = base.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    base.close()
    if found != jobs:
        raise RuntimeError(f"the bare engine has {found} rows in {table}, not {jobs}")
