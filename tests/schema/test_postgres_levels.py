"""Queues that come and go: what a claim looks at follows from those in use, not from all that ever were."""

from __future__ import annotations

import time
from contextlib import closing

import psycopg
import pytest

import dayjob.store
from dayjob.store.records import Cancel, Filter

if "postgresql" not in dayjob.store.ENGINES:
    pytest.skip("this release has no PostgreSQL engine", allow_module_level=True)

from tests.schema.passing import WORKER, Line, _always_checking, line, snapshot, touched

__all__ = ["_always_checking", "line"]

HOUR = 3_600_000_000


def levels(line: Line) -> list[str]:
    with psycopg.connect(line.url) as connection:
        return [row[0] for row in connection.execute("SELECT queue FROM dayjob.level ORDER BY 1").fetchall()]


def prune(line: Line, now: int) -> None:
    term = line.store.beat(WORKER, [], now=now).term
    assert term is not None
    line.store.prune(term, [], now=now)


def test_a_queue_that_was_empty_for_hours_costs_claims_nothing_any_more(line: Line) -> None:
    line.add(1, queue="tenant-1")
    line.claim()
    now = line.store.now()
    prune(line, now + 3 * HOUR)
    early = levels(line)
    prune(line, now + 5 * HOUR)

    assert (early, levels(line)) == (["tenant-1"], [])


def test_a_job_that_waits_for_days_is_claimed_all_the_same(line: Line) -> None:
    line.store.pause("slow", True)
    ids = line.add(2, queue="slow")
    prune(line, line.store.now() + 100 * HOUR)
    line.store.pause("slow", False)

    assert line.claim() == ids


def test_a_queue_that_comes_back_is_claimed_from(line: Line) -> None:
    line.add(1, queue="tenant-1")
    line.claim()
    line.settle_floors()
    prune(line, line.store.now() + 5 * HOUR)
    ids = line.add(2, queue="tenant-1")

    assert line.claim() == ids
    assert levels(line) == ["tenant-1"]


def test_a_writer_that_has_not_committed_keeps_its_level(line: Line) -> None:
    line.add(1, queue="tenant-1")
    line.claim()
    with psycopg.connect(line.url) as connection:
        connection.execute("UPDATE dayjob.level SET used_at = used_at - %s", (5 * HOUR,))
    rows = line.rows(1, queue="tenant-1")
    with closing(line.store.db.connect(autocommit=False)) as writer:
        line.store._insert(writer, rows, None)
        with psycopg.connect(line.url) as pruner:
            pruner.execute("SET lock_timeout = '200ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                pruner.execute("DELETE FROM dayjob.level WHERE used_at < %s", (line.store.now() - HOUR,))
        writer.commit()
    prune(line, line.store.now())

    assert line.claim() == [rows[0].id]
    assert line.store.act(Filter(queue="tenant-1"), Cancel()) == []


def test_the_oldest_is_found_without_a_walk_over_what_was_claimed(line: Line) -> None:
    def pages() -> int:
        with line.store.db.read() as connection:
            return touched(connection, line.store.sql.oldest)

    with snapshot(line.url):
        line.run(500)
        line.add(5)
        before = pages()
        line.claim()
        line.run(10_000, 1_000)
        with psycopg.connect(line.url) as connection:  # as many places as make it worth writing down
            connection.execute("SELECT setval('dayjob.entry', nextval('dayjob.entry') + 60000)")
        line.run(500)
        line.settle_floors()
        [oldest, *_] = line.add(5)
        after = pages()
        row = line.store.get(oldest)

    assert after < before * 1.5
    assert row is not None
    assert line.store.queues()[0].oldest == row.run_at


def test_eight_times_as_many_queues_cost_no_square_of_it(line: Line) -> None:
    def cost(queues: int) -> float:
        with psycopg.connect(line.url) as connection:
            connection.execute(
                "INSERT INTO dayjob.level (queue, priority, kind, used_at) SELECT 'tenant-' || n, 0, 0, dayjob.clock() "
                "FROM generate_series(1, %s) AS n ON CONFLICT DO NOTHING",
                (queues,),
            )
        line.settle_floors()
        taken = []
        for _ in range(5):
            began = time.perf_counter()
            line.claim(20)
            taken.append(time.perf_counter() - began)
        return min(taken)

    few, many = cost(400), cost(3_200)

    assert len(line.store.floors.ask().levels) == 3_200
    assert many < 20 * few
