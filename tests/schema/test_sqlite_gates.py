"""What the SQLite engine does about gates below the contract: triggers, plans, and what a store without gates pays."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from dayjob.clock import SECOND
from dayjob.states import Outcome
from dayjob.store.gating import Gate, Gating, Unique
from dayjob.store.records import Delete, Edit, Filter, NewRow, Settlement, Turn, Want, WorkerInfo
from dayjob.store.sqlfile import load
from dayjob.store.sqlite import SQLiteStore

NOW = 1_000_000_000 * SECOND
ONE = Gating(unique=Unique("0" * 32, "key"), gates=(Gate("concurrency", "k", 1), Gate("rate", "r", 5, 60.0)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(f"sqlite:///{tmp_path / 'jobs.db'}", clock=lambda: NOW, lease=20, namespace="dayjob")
    store.migrate()
    store.beat(WorkerInfo("w", "here:1", "here", 1), [])
    yield store
    store.close()


def turn(store: SQLiteStore, number: int, *done: Settlement, limit: int = 10) -> Turn:
    return store.turn("w", number, done, [Want(None, limit)])


def rows(store: SQLiteStore, table: str) -> list[tuple[object, ...]]:
    with store.db.read() as connection:
        return connection.execute(f"SELECT * FROM dayjob_{table}").fetchall()


def statements_of(store: SQLiteStore, number: int, *rows: NewRow) -> list[str]:
    """What an enqueue and a turn run, without their values."""
    seen: list[str] = []
    with store.db.write() as connection:
        connection.set_trace_callback(seen.append)
    store.enqueue(rows)
    turn(store, number)
    with store.db.write() as connection:
        connection.set_trace_callback(None)
    bare = [" ".join(line for line in sql.splitlines() if not line.startswith("--")) for sql in seen]
    return [sql for sql in bare if sql.split()[0] not in ("BEGIN", "COMMIT", "PRAGMA", "BEGIN IMMEDIATE")]


class TestTheOneLeave:
    def test_a_worker_that_knows_no_gates_frees_token_and_key_when_it_deletes_a_job(self, store: SQLiteStore) -> None:
        store.enqueue(
            [NewRow("1", "t", "q", b"{}", gating=ONE), NewRow("2", "t", "q", b"{}", gating=Gating(gates=ONE.gates))]
        )
        turn(store, 1)
        with store.db.write() as connection:
            connection.execute("DELETE FROM dayjob_job WHERE id = '1'")

        assert rows(store, "key") == []
        assert [job.id for job in turn(store, 2).claimed] == ["2"]

    def test_a_new_entry_frees_the_token_whoever_gives_it(self, store: SQLiteStore) -> None:
        store.enqueue([NewRow(id, "t", "q", b"{}", gating=Gating(gates=(Gate("concurrency", "k"),))) for id in "12"])
        turn(store, 1)
        with store.db.write() as connection:
            connection.execute("UPDATE dayjob_job SET entry = 99, state = 'scheduled', lease = NULL WHERE id = '1'")

        assert [job.id for job in turn(store, 2).claimed] == ["2"]

    def test_the_order_of_a_strict_lane_outlives_a_new_entry(self, store: SQLiteStore) -> None:
        store.enqueue([NewRow(id, "t", "q", b"{}", gating=Gating(gates=(Gate("order", "k"),))) for id in "12"])
        [job] = turn(store, 1).claimed
        failed = Settlement(job.id, job.entry, Outcome.FAILED, NOW, NOW, delay=60)

        assert turn(store, 2, failed).claimed == []

    def test_nothing_is_left_when_all_jobs_are_gone(self, store: SQLiteStore) -> None:
        store.enqueue([NewRow(str(n), "t", "q", b"{}", gating=Gating(gates=ONE.gates[:1])) for n in range(20)])
        for number in range(1, 11):
            turn(
                store,
                number,
                *[Settlement(job.id, job.entry, Outcome.COMPLETED, NOW, NOW) for job in turn(store, number).claimed],
            )
        store.act(Filter(queue="q"), Edit(priority=3))
        store.act(Filter(queue="q"), Delete())
        turn(store, 50)

        assert {table: rows(store, table) for table in ("key", "token", "line", "freed")} == {
            "key": [], "token": [], "line": [], "freed": []
        }  # fmt: skip


class TestATurnLetsInWhatItClaims:
    @staticmethod
    def behind(store: SQLiteStore, queue: str, jobs: int) -> None:
        ample = Gating(gates=(Gate("concurrency", "k", 10_000),))
        store.enqueue([NewRow(f"{queue}{n}", "t", queue, b"{}", gating=ample) for n in range(jobs)])

    def test_and_a_few_more_but_not_all_that_could_pass(self, store: SQLiteStore) -> None:
        self.behind(store, "q", 900)
        for number in range(1, 4):
            assert len(turn(store, number, limit=150).claimed) == 150

        assert len(rows(store, "token")) == 450

    def test_however_many_of_another_queue_are_more_urgent(self, store: SQLiteStore) -> None:
        self.behind(store, "other", 300)
        self.behind(store, "q", 10)

        assert len(store.turn("w", 1, (), [Want(("q",), 10)]).claimed) == 10

    def test_and_of_two_wants_none_starves(self, store: SQLiteStore) -> None:
        self.behind(store, "q", 300)
        self.behind(store, "other", 10)
        claimed = store.turn("w", 1, (), [Want(("q",), 100), Want(("other",), 10)]).claimed

        assert len([job for job in claimed if job.queue == "other"]) == 10


class TestWhereEnoughHavePassedNobodyIsLookedAt:
    """Thirty lines wait to be looked at, and more than a claim takes have passed before."""

    @pytest.fixture(autouse=True)
    def full(self, store: SQLiteStore) -> None:
        self.of_keys(store, range(120))
        assert [job.id for job in turn(store, 1).claimed] == [f"{n}" for n in range(10)]
        self.of_keys(store, range(200, 230))

    @staticmethod
    def of_keys(store: SQLiteStore, numbers: range, key: str = "key", priority: int = 0) -> None:
        store.enqueue(
            [NewRow(f"{n}", "t", "q", b"{}", priority=priority,
                    gating=Gating(gates=(Gate("concurrency", f"{key}{n}", 1),))) for n in numbers]
        )  # fmt: skip

    def test_until_they_are_needed(self, store: SQLiteStore) -> None:
        passed = len(rows(store, "token"))
        claimed = [job.id for number in range(2, 10) for job in turn(store, number).claimed]

        assert len(rows(store, "token")) == passed
        assert claimed == [f"{n}" for n in range(10, 90)]
        assert [job.id for number in range(10, 16) for job in turn(store, number).claimed] == [
            f"{n}" for n in [*range(90, 120), *range(200, 230)]
        ]

    def test_but_one_that_is_more_urgent(self, store: SQLiteStore) -> None:
        self.of_keys(store, range(300, 301), priority=1)

        assert turn(store, 2).claimed[0].id == "300"

    def test_but_those_at_a_gate_that_has_come_free(self, store: SQLiteStore) -> None:
        gate = (Gate("concurrency", "key0", 1),)
        store.enqueue([NewRow("next", "t", "q", b"{}", priority=1, gating=Gating(gates=gate))])
        turn(store, 2)
        self.of_keys(store, range(400, 430))
        first = store.get("0")
        assert first is not None
        done = Settlement(first.id, first.entry, Outcome.COMPLETED, NOW, NOW)

        assert turn(store, 3, done).claimed[0].id == "next"

    def test_but_those_whom_time_lets_in(self, tmp_path: Path) -> None:
        ticks = [NOW]
        store = SQLiteStore(f"sqlite:///{tmp_path / 'other.db'}", clock=lambda: ticks[0], lease=20, namespace="dayjob")
        store.migrate()
        store.beat(WorkerInfo("w", "here:1", "here", 1), [])
        rate = Gating(gates=(Gate("rate", "r", 1, 60.0),))
        store.enqueue([NewRow(f"r{n}", "t", "q", b"{}", priority=1, gating=rate) for n in range(2)])
        self.of_keys(store, range(120))
        assert turn(store, 1).claimed[0].id == "r0"
        self.of_keys(store, range(200, 230))

        assert turn(store, 2).claimed[0].id == "9"
        ticks[0] += 61 * SECOND
        assert turn(store, 3).claimed[0].id == "r1"
        store.close()


class TestWhoHasNoGatesPaysNothing:
    def test_jobs_without_gating_run_the_statements_they_always_did(self, store: SQLiteStore) -> None:
        seen = statements_of(store, 1, NewRow("1", "t", "q", b"{}"))

        # The enqueue; the situation, the queues, the pick, the lease, the claim, and what was claimed.
        assert [sql.split()[0] for sql in seen] == ["INSERT", "SELECT", "WITH", "SELECT", "INSERT", "UPDATE", "SELECT"]
        assert not [
            sql for sql in seen if any(f"dayjob_{word}" in sql for word in ("token", "line", "key", "gate", "freed"))
        ]

    def test_a_rate_that_frees_a_start_wakes_nobody_where_nobody_waits(self, store: SQLiteStore) -> None:
        store.enqueue([NewRow("1", "t", "q", b"{}", gating=Gating(gates=(Gate("rate", "r", 5, 60.0),)))])

        assert [job.id for job in turn(store, 1).claimed] == ["1"]
        assert turn(store, 2).next_due is None


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("heads", "dayjob_job_blocked"),
        ("waiting_lines", "dayjob_line_gate"),
        ("end_tokens", "dayjob_token_ends"),
        ("last_places", "dayjob_job_lane"),
        ("first_places", "dayjob_job_ready"),
    ],
)
def test_what_an_admission_looks_at_is_read_in_the_order_of_an_index(store: SQLiteStore, name: str, index: str) -> None:
    statement = getattr(load("dayjob.store.sqlite", "gates.sql"), name)
    with store.db.read() as connection:
        plan = [
            row[3]
            for row in connection.execute(
                f"EXPLAIN QUERY PLAN {statement}", (None,) * (3 if "?3" in statement else statement.count("?"))
            )
        ]

    assert any(index in step for step in plan)
    assert not any("TEMP B-TREE" in step for step in plan)


def test_a_file_of_the_release_before_is_brought_up_with_its_jobs(tmp_path: Path) -> None:
    store = SQLiteStore(f"sqlite:///{tmp_path / 'jobs.db'}", clock=None, lease=20, namespace="dayjob")
    first = store.migration_sql().split("-- 002_gates")[0]
    with sqlite3.connect(tmp_path / "jobs.db") as connection:
        connection.executescript(first)
        connection.execute(
            "INSERT INTO dayjob_job (entry, id, place, queue, task, state, priority, payload, created_at, run_at) "
            "VALUES (1, '1', 1, 'q', 't', 'available', 0, x'7b7d', 0, 0)"
        )
    connection.close()

    assert store.migrate() == ["002_gates"]
    store.beat(WorkerInfo("w", "here:1", "here", 1), [])
    assert [job.id for job in turn(store, 1).claimed] == ["1"]
    store.close()
