"""Bare psycopg, as fast as a loop of this shape goes: one connection, batches of 500, binary parameters, every commit
waits for the disk. The server is one of this process's own, on the same cores as its clients.

It keeps what dayjob keeps of a job (the columns below) in tables of the same parts: `job`, the narrow `ready` that a
claim deletes from, and `history`. It finds a job by id, claims in the order of priority and place, and moves it to
history; it runs nothing, encodes nothing, checks nothing, and holds no lease.

Rows travel as arrays (`unnest`): of the forms tried, `executemany` reached 0.6 of that, statements of 500 value lists
0.4, two binary COPYs 0.9. A batch is claimed and moved by one statement in one commit; in a transaction of two it
reaches about 0.9 of that, and without the lower bound on `entry`, which spares it the entries it has deleted before,
half.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from tests.servers.postgres import Server, postgres

from benchmarks.children import Child, listen, say
from benchmarks.measure import Stopwatch
from benchmarks.workload import BATCH, QUEUE, TASK, batches, ids, payload

_SCHEMA = """
CREATE TABLE job (
    id uuid PRIMARY KEY, entry bigint NOT NULL, task text NOT NULL, queue text NOT NULL, state text NOT NULL,
    priority smallint NOT NULL, attempt integer NOT NULL, max_attempts integer, created_at bigint NOT NULL,
    run_at bigint NOT NULL, tags text[], meta text, options bytea, payload bytea NOT NULL
);
CREATE TABLE ready (
    queue text NOT NULL, rank smallint NOT NULL, entry bigint NOT NULL, id uuid NOT NULL,
    PRIMARY KEY (queue, rank, entry)
);
CREATE SEQUENCE entries;
CREATE TABLE history (
    id uuid PRIMARY KEY, task text NOT NULL, queue text NOT NULL, state text NOT NULL, priority smallint NOT NULL,
    attempt integer NOT NULL, max_attempts integer, created_at bigint NOT NULL, run_at bigint NOT NULL,
    started_at bigint, finished_at bigint NOT NULL, worker uuid, tags text[], meta text, options bytea,
    payload bytea NOT NULL, result bytea
);
"""
_INSERT = """
WITH new AS (
    SELECT nextval('entries') AS entry, id, task, queue, at, payload
    FROM unnest(%b::uuid[], %b::text[], %b::text[], %b::bigint[], %b::bytea[]) AS row (id, task, queue, at, payload)
), stored AS (
    INSERT INTO job (id, entry, task, queue, state, priority, attempt, max_attempts, created_at, run_at, payload)
    SELECT id, entry, task, queue, 'available', 0, 0, 5, at, at, payload FROM new
)
INSERT INTO ready (queue, rank, entry, id) SELECT queue, 0, entry, id FROM new
"""
_ONE = """
WITH stored AS (
    INSERT INTO job (id, entry, task, queue, state, priority, attempt, max_attempts, created_at, run_at, payload)
    VALUES (%b, nextval('entries'), %b, %b, 'available', 0, 0, 5, %b, %b, %b) RETURNING queue, entry, id
)
INSERT INTO ready (queue, rank, entry, id) SELECT queue, 0, entry, id FROM stored
"""
_TOLD = """
WITH stored AS (
    INSERT INTO job (id, entry, task, queue, state, priority, attempt, max_attempts, created_at, run_at, payload)
    VALUES (%b, nextval('entries'), %b, %b, 'available', 0, 0, 5, %b, %b, %b) RETURNING queue, entry, id
), listed AS (
    INSERT INTO ready (queue, rank, entry, id) SELECT queue, 0, entry, id FROM stored
)
SELECT pg_notify('work', '')
"""
_MOVE = f"""
WITH picked AS MATERIALIZED (
    SELECT ctid FROM ready WHERE queue = %b AND rank = 0 AND entry > %b
    ORDER BY entry LIMIT {BATCH} FOR UPDATE SKIP LOCKED
), claimed AS (
    DELETE FROM ready WHERE ctid = ANY (ARRAY (SELECT ctid FROM picked)) RETURNING id, entry
), settled AS (
    DELETE FROM job USING claimed WHERE job.id = claimed.id AND job.entry = claimed.entry RETURNING job.*
), kept AS (
    INSERT INTO history
    SELECT id, task, queue, 'completed', priority, attempt + 1, max_attempts, created_at, run_at, %b, %b, %b, tags, meta,
           options, payload, NULL
    FROM settled
)
SELECT entry, id, task, queue, priority, attempt, max_attempts, created_at, run_at, tags, meta, options, payload
FROM settled
"""
_WORKER = UUID("0193a5f0-0000-7000-8000-000000000000")

Row = tuple[UUID, str, str, int, bytes]
Connection = psycopg.Connection[Any]


class Postgres:
    """PostgreSQL 18 from its wheel. A store is a database of its own."""

    name = "postgres"

    def __init__(self) -> None:
        self._made: list[str] = []

    @property
    def server(self) -> Server:
        """The server, started on first use, ended with this process."""
        return postgres(18, durable=True)

    def url(self, folder: Path) -> str:
        name = self.server.create_database()
        self._made.append(name)
        self.server.sql("CHECKPOINT")  # everybody begins with as much room in the log
        return self.server.url(name)

    def versions(self) -> dict[str, str]:
        return {"PostgreSQL": str(self.server.sql("SHOW server_version")[0][0]), "psycopg": psycopg.__version__}

    def insert(self, folder: Path, jobs: int) -> float:
        with self._open(folder) as base:
            rows = _rows(jobs)
            with Stopwatch() as watch:
                _fill(base, rows)
            _expect(base, "job", jobs)
        return jobs / watch.seconds

    def insert_best(self, folder: Path, jobs: int) -> float:
        """The plain form is the fastest here."""
        return self.insert(folder, jobs)

    def drain(self, folder: Path, jobs: int) -> float:
        with self._open(folder) as base:
            _fill(base, _rows(jobs))
            self.server.sql("CHECKPOINT")
            with Stopwatch() as watch:
                _drain(base)
            _expect(base, "history", jobs)
        return jobs / watch.seconds

    def drain_together(self, folder: Path, jobs: int, processes: int) -> float:
        """`drain` by so many processes at once; jobs per second until the last of them finds nothing."""
        with self._open(folder) as base, ExitStack() as stack:
            _fill(base, _rows(jobs))
            self.server.sql("CHECKPOINT")
            url = self.server.url(base.info.dbname)
            loops = [stack.enter_context(Child("benchmarks.engines.postgres", url)) for _ in range(processes)]
            for loop in loops:
                loop.hear()
            for loop in loops:
                loop.tell(go=True)
            seconds = max(float(loop.hear()["seconds"]) for loop in loops)
            _expect(base, "history", jobs)
        return jobs / seconds

    def singles(self, folder: Path) -> Callable[[int], float]:
        base = self._open(folder)

        def store(jobs: int) -> float:
            rows = _rows(jobs)
            with Stopwatch() as watch:
                for id, task, queue, at, content in rows:
                    base.execute(_ONE, (id, task, queue, at, at, content))
            return watch.seconds

        return store

    def latency(self, folder: Path, samples: int, steadily: Callable[[int, Callable[[], object]], None]) -> list[float]:
        """Milliseconds from just before a row is stored, with a NOTIFY in its commit, until another process, which
        listens, has it: moved to history by one statement. *steadily* calls so often what it is given."""
        with (
            self._open(folder) as base,
            Child("benchmarks.engines.postgres", self.server.url(base.info.dbname), "listen") as ear,
        ):
            ear.hear()
            ear.tell(samples=samples)

            def send() -> None:
                sent = time.monotonic_ns()
                base.execute(_TOLD, (UUID(next(iter(ids(1)))), TASK, QUEUE, 0, 0, str(sent).encode()))

            steadily(samples, send)
            return [nanoseconds / 1e6 for nanoseconds in ear.hear()["late"]]

    def clear(self) -> None:
        """Drop the databases: vacuuming them would cost the next figure something."""
        while self._made:
            self.server.drop_database(self._made.pop())

    def _open(self, folder: Path) -> Connection:
        base = psycopg.connect(self.url(folder), autocommit=True, prepare_threshold=0)
        base.execute(_SCHEMA, prepare=False)
        return base


def _rows(jobs: int) -> list[Row]:
    now = time.time_ns() // 1000
    return [(UUID(id), TASK, QUEUE, now, payload(number)) for number, id in enumerate(ids(jobs))]


def _fill(base: Connection, rows: list[Row]) -> None:
    for batch in batches(len(rows)):
        base.execute(_INSERT, [list(column) for column in zip(*rows[batch.start : batch.stop], strict=True)])


def _drain(base: Connection) -> None:
    """Claim and settle batch after batch, and fetch what was claimed."""
    cursor = base.cursor(binary=True)
    last = 0
    while True:
        now = time.time_ns() // 1000
        rows = cursor.execute(_MOVE, (QUEUE, last, now, now, _WORKER)).fetchall()
        if not rows:
            return
        last = max(row[0] for row in rows)


def _expect(base: Connection, table: str, jobs: int) -> None:
    found = base.execute(f"SELECT count(*) FROM {table}", prepare=False).fetchone()
    if found != (jobs,):
        raise RuntimeError(f"the bare engine has {found} rows in {table}, not {jobs}")


def _listen(base: Connection) -> list[int]:
    """The other process of `latency`: how late each of so many rows came, in nanoseconds."""
    cursor = base.cursor(binary=True)
    base.execute("LISTEN work")
    say(ready=True)
    samples = int(listen()["samples"])
    late: list[int] = []
    last = 0
    while len(late) < samples:
        list(base.notifies(timeout=20.0, stop_after=1))
        rows = cursor.execute(_MOVE, (QUEUE, last, 0, 0, _WORKER)).fetchall()
        here = time.monotonic_ns()
        last = max([last, *(row[0] for row in rows)])
        late += [here - int(row[-1]) for row in rows]
    return late


def main() -> None:
    """One of the processes of `drain_together`, or the one of `latency`."""
    with psycopg.connect(sys.argv[1], autocommit=True, prepare_threshold=0) as base:
        if sys.argv[2:] == ["listen"]:
            say(late=_listen(base))
            return
        say(ready=True)
        listen()
        with Stopwatch() as watch:
            _drain(base)
        say(seconds=watch.seconds)


if __name__ == "__main__":
    main()
