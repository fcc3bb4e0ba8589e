"""Jobs that go through a store on PostgreSQL beside somebody else's open transaction, and what a claim touches then."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, cast

import psycopg
import pytest

from dayjob.states import Outcome
from dayjob.store import open_store
from dayjob.store.postgres import floors
from dayjob.store.postgres.store import PostgresStore
from dayjob.store.records import NewRow, Settlement, Want, WorkerInfo
from tests.contract.engines import Postgres
from tests.contract.ids import numbered

WORKER = WorkerInfo("w", "here:1", "here", 1)


class Line:
    """A store, a worker, and jobs that go through."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.store = cast(PostgresStore, open_store(url))
        self.store.beat(WORKER, [])
        self._stored = self._claims = 0

    def again(self) -> Line:
        """Another process on the same database; its claims have numbers of their own."""
        other = Line(self.url)
        other._stored, other._claims = self._stored + 10_000_000, self._claims + 10_000_000
        return other

    def rows(self, jobs: int, **fields: Any) -> list[NewRow]:
        """New jobs, not stored yet."""
        first, self._stored = self._stored, self._stored + jobs
        return [NewRow(numbered(n), "t", fields.get("queue", "default"), b"{}", **{k: v for k, v in fields.items() if k != "queue"}) for n in range(first, first + jobs)]  # fmt: skip

    def add(self, jobs: int, **fields: Any) -> list[str]:
        """Store jobs; their ids."""
        rows = self.rows(jobs, **fields)
        self.store.enqueue(rows)
        return [row.id for row in rows]

    def claim(self, limit: int = 500, now: int | None = None) -> list[str]:
        """Claim and complete; the ids."""
        self._claims += 1
        found = self.store.turn("w", self._claims, wants=[Want(None, limit)], now=now).claimed
        done = [
            Settlement(job.id, job.entry, Outcome.COMPLETED, 1, 2, keep=86_400.0, claim_no=self._claims)
            for job in found
        ]
        self.store.turn("w", settlements=done, now=now)
        return [job.id for job in found]

    def run(self, jobs: int, batch: int = 500) -> None:
        """Jobs come and go, in batches."""
        for _ in range(jobs // batch):
            self.add(batch)
            assert len(self.claim(batch)) == batch

    def settle_floors(self) -> None:
        """As many claims as it takes until what was claimed before is below the floors."""
        for _ in range(4):
            self.claim(1)

    def pages(self, limit: int = 20) -> int:
        """Pages that a claim of *limit* jobs would touch now, also right after an ANALYZE; it is not made."""
        asked = self.store.floors.ask()._replace(check=False)
        given = self.store._claim_parameters("w", 2_000_000_000, None, [Want(None, limit)], asked)
        with closing(self.store.db.connect()) as connection:
            before = touched(connection, self.store.sql.claim, given)
            connection.execute("ANALYZE")  # autovacuum may come at any time, and plans change
            return max(before, touched(connection, self.store.sql.claim, given))


def touched(connection: psycopg.Connection[Any], statement: str, given: Sequence[Any] | Mapping[str, Any] = ()) -> int:
    """Pages that *statement* touches; what it does is taken back."""
    found = []
    for _ in range(4):  # the first reads the catalogue anew, and so does whichever follows an ANALYZE of autovacuum's
        with connection.transaction(force_rollback=True):
            row = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", given).fetchone()
        assert row is not None
        plan = (row[0] if isinstance(row[0], list) else json.loads(row[0]))[0]["Plan"]
        found.append(int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]))
    return min(found)


@pytest.fixture(autouse=True)
def _always_checking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each claim checks, as if a second had passed since the last one."""
    monkeypatch.setattr(floors, "CHECK", 0.0)


@pytest.fixture
def line(place: Postgres) -> Iterator[Line]:
    line = Line(place.url)
    yield line
    line.store.close()


@contextmanager
def elsewhere(url: str, *statements: str) -> Iterator[psycopg.Connection[Any]]:
    """A transaction of somebody else, open all the while."""
    with psycopg.connect(url) as connection:
        for statement in statements:
            connection.execute(statement)
        yield connection


@contextmanager
def snapshot(url: str) -> Iterator[None]:
    """A report that reads for hours."""
    with elsewhere(url, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM pg_class"):
        yield


@contextmanager
def idle_writer(url: str) -> Iterator[None]:
    """A session that wrote something and was forgotten."""
    with elsewhere(url, "CREATE TABLE forgotten (n int)"):
        yield


@contextmanager
def prepared(url: str) -> Iterator[None]:
    """The first half of a two-phase commit, whose second half never came."""
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE prepared (n int)")
        connection.execute("PREPARE TRANSACTION 'forgotten'")
    try:
        yield
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ROLLBACK PREPARED 'forgotten'")


def enqueue(connection: psycopg.Connection[Any], rows: list[NewRow]) -> None:
    """As a program does that stores jobs in its own transaction."""
    told = json.dumps(
        [{"id": r.id, "task": r.task, "queue": r.queue, "payload": "e30=", "run_at": r.run_at, "delay": r.delay} for r in rows]
    )  # fmt: skip
    connection.execute("SELECT dayjob.enqueue_rows(%s)", (told,))
