"""A transaction that stays open elsewhere must not slow claims, and what comes late below a floor must not be missed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any

import psycopg
import pytest

import dayjob.store
from dayjob.states import Outcome
from dayjob.store import open_store
from dayjob.store.records import Cancel, Edit, Filter, NewRow, Retry, Settlement, Want
from tests.contract.engines import Postgres
from tests.servers.postgres import FORGETFUL, Server, programs

if "postgresql" not in dayjob.store.ENGINES:
    pytest.skip("this release has no PostgreSQL engine", allow_module_level=True)

from tests.schema.passing import WORKER, Line, _always_checking, enqueue, idle_writer, line, prepared, snapshot

__all__ = ["_always_checking", "line"]


class TestClaimsStayFlat:
    @pytest.mark.parametrize("held", [snapshot, idle_writer, prepared])
    def test_a_claim_touches_no_more_pages_after_thirty_thousand_jobs(
        self, line: Line, held: Callable[[str], AbstractContextManager[None]]
    ) -> None:
        with held(line.url):
            line.run(2_000)
            line.settle_floors()
            line.add(500)
            before = line.pages()
            line.run(30_000, 1_000)
            line.settle_floors()
            after = line.pages()

        assert after < before * 1.5

    def test_without_floors_it_would(self, line: Line) -> None:
        with snapshot(line.url):
            line.run(2_000)
            line.add(500)
            before = line.pages()
            line.run(10_000, 1_000)
            line.store.floors.forget()
            after = line.pages()

        assert after > before * 3

    def test_a_new_process_begins_where_the_others_are(self, line: Line) -> None:
        with snapshot(line.url):
            line.run(2_000)
            line.settle_floors()
            line.add(500)
            before = line.pages()
            line.run(10_000, 1_000)
            with closing(line.store.db.connect()) as connection:  # as many places as days of work take
                connection.execute("SELECT setval('dayjob.entry', 1000000)")
            line.run(2_000)
            line.settle_floors()
            other = line.again()
            line.add(500)

            assert other.pages() < before * 1.5
            other.store.close()

    def test_jobs_that_fail_and_come_back_leave_nothing_to_walk_over(self, line: Line) -> None:
        def fail_once(jobs: int) -> None:
            line.add(jobs)
            line._claims += 1
            claimed = line.store.turn("w", line._claims, wants=[Want(None, jobs)]).claimed
            settlements = [
                Settlement(job.id, job.entry, Outcome.FAILED, 1, 2, claim_no=line._claims) for job in claimed
            ]
            line.store.turn("w", settlements=settlements)
            while line.claim(jobs):
                pass

        with snapshot(line.url):
            fail_once(500)
            line.settle_floors()
            line.add(500)
            before = line.pages()
            for _ in range(20):
                fail_once(500)
            line.settle_floors()
            line.add(500)
            after = line.pages()

        assert after < before * 1.5

    def test_arrivals_leave_nothing_to_walk_over(self, line: Line) -> None:
        def arrive(jobs: int) -> None:
            with psycopg.connect(line.url) as connection:
                enqueue(connection, line.rows(jobs))
            assert len(line.claim(jobs)) == jobs

        with snapshot(line.url):
            arrive(500)
            line.settle_floors()
            line.add(500)
            before = line.pages()
            for _ in range(20):
                arrive(500)
            line.settle_floors()
            after = line.pages()

        assert after < before * 1.5


class TestOwnWritersThatStall:
    """An enqueue of dayjob's own takes a place and commits late: a slow disk, a standby that does not answer."""

    @contextmanager
    def stalled(self, line: Line, rows: list[NewRow]) -> Iterator[psycopg.Connection[Any]]:
        with closing(line.store.db.connect(autocommit=False)) as connection:
            line.store._insert(connection, rows, None)
            yield connection

    def test_what_it_stored_is_claimed_as_soon_as_it_commits(self, line: Line) -> None:
        line.run(1_000)
        rows = line.rows(1)
        with self.stalled(line, rows) as writer:
            line.run(2_000)
            line.settle_floors()
            writer.commit()

        assert line.claim() == [rows[0].id]

    def test_also_when_it_commits_while_its_queue_is_paused(self, line: Line) -> None:
        line.run(1_000)
        rows = line.rows(1)
        with self.stalled(line, rows) as writer:
            line.run(1_000)
            line.store.pause("default", True)
            line.settle_floors()
            writer.commit()
        line.settle_floors()
        line.store.pause("default", False)

        assert line.claim() == [rows[0].id]

    def test_also_from_within_a_savepoint(self, line: Line) -> None:
        line.run(500)
        rows = line.rows(1)
        with closing(line.store.db.connect(autocommit=False)) as writer:
            writer.execute("SAVEPOINT inner_one")
            line.store._insert(writer, rows, None)
            writer.execute("RELEASE inner_one")
            line.run(1_000)
            line.settle_floors()
            writer.commit()

        assert line.claim() == [rows[0].id]

    def test_what_was_to_wait_for_its_time_is_not_missed_when_its_time_passed_before_it_was_stored(
        self, line: Line
    ) -> None:
        rows = line.rows(1, delay=0.05)
        with self.stalled(line, rows) as writer:
            time.sleep(0.06)
            line.run(1_000)
            line.settle_floors()
            writer.commit()

        assert line.claim() == [rows[0].id]

    def test_floors_rise_again_when_it_is_over(self, line: Line) -> None:
        with snapshot(line.url):
            line.run(1_000)
            line.settle_floors()
            line.add(500)
            before = line.pages()
            with self.stalled(line, line.rows(1)) as writer:
                line.run(10_000, 1_000)
                line.settle_floors()
                while_it_stalls = line.pages()
                writer.rollback()
            line.settle_floors()
            after = line.pages()

        assert while_it_stalls > before * 2  # nothing is taken for granted meanwhile
        assert after < before * 1.5


class TestCallersTransactions:
    def test_jobs_of_many_long_transactions_are_claimed_right_after_each_commits(self, line: Line) -> None:
        writers, rows = [], line.rows(6)
        for row in rows:
            writer = psycopg.connect(line.url)
            enqueue(writer, [row])
            writers.append(writer)
            line.run(500)
        line.settle_floors()
        claimed = []
        for at in (3, 0, 5, 1):
            writers[at].commit()
            claimed.append(line.claim())
            line.run(500)
        for at in (2, 4):
            writers[at].rollback()
        nothing = line.claim()
        for writer in writers:
            writer.close()

        assert claimed == [[rows[at].id] for at in (3, 0, 5, 1)]
        assert nothing == []

    def test_savepoints_keep_what_is_released_and_drop_what_is_rolled_back(self, line: Line) -> None:
        rows = line.rows(4)
        with psycopg.connect(line.url) as writer:
            enqueue(writer, [rows[0]])
            writer.execute("SAVEPOINT a")
            enqueue(writer, [rows[1]])
            writer.execute("SAVEPOINT b")
            enqueue(writer, [rows[2]])
            writer.execute("ROLLBACK TO b")
            writer.execute("RELEASE a")
            line.run(1_000)
            line.settle_floors()
            enqueue(writer, [rows[3]])

        assert line.claim() == [rows[0].id, rows[1].id, rows[3].id]

    def test_what_was_to_run_while_the_transaction_was_open_runs_at_its_end(self, line: Line) -> None:
        rows = line.rows(1, run_at=line.store.now() + 50_000)
        with psycopg.connect(line.url) as writer:
            enqueue(writer, rows)
            line.run(1_000)
            time.sleep(0.06)
            line.settle_floors()

        assert line.claim() == [rows[0].id]

    def test_more_of_them_than_are_staged_at_once_all_run(self, line: Line) -> None:
        rows = line.rows(2_500, run_at=line.store.now() + 50_000)
        with psycopg.connect(line.url) as writer:
            enqueue(writer, rows)
            line.run(500)
            time.sleep(0.06)
            line.settle_floors()
        other = line.again()
        found = {id for _ in range(4) for id in (*other.claim(1_000), *line.claim(1_000))}
        other.store.close()

        assert found == {row.id for row in rows}

    def test_the_leaders_sweep_finds_them_for_those_who_only_wait(self, line: Line) -> None:
        rows = line.rows(1)
        line.settle_floors()
        with psycopg.connect(line.url) as writer:
            enqueue(writer, rows)
        term = line.store.beat(WORKER, []).term
        assert term is not None
        line.store.stage(term)

        assert line.claim() == [rows[0].id]


class TestOldPlaces:
    """Jobs that come back below the floors."""

    def claim_and_hold(self, line: Line, limit: int) -> tuple[int, list[Any]]:
        line._claims += 1
        return line._claims, line.store.turn("w", line._claims, wants=[Want(None, limit)]).claimed

    def test_a_released_job_is_claimed_again_before_younger_ones(self, line: Line) -> None:
        [id] = line.add(1)
        number, [job] = self.claim_and_hold(line, 1)
        line.run(1_000)
        line.settle_floors()
        young = line.add(1)
        line.store.turn("w", settlements=[Settlement(id, job.entry, Outcome.RELEASED, 0, 0, claim_no=number)])

        assert line.claim() == [id, *young]

    def test_edited_promoted_and_retried_jobs_are_claimed(self, line: Line) -> None:
        edited, promoted = line.add(1, queue="slow")[0], line.add(1, delay=3600.0)[0]
        [retried] = line.add(1)
        line._claims += 1
        line.store.turn("w", line._claims, wants=[Want(("default",), 1)])
        line.store.act(Filter(ids=(retried,)), Cancel())
        line.store.pause("slow", True)
        line.run(1_000)
        line.settle_floors()
        line.store.act(Filter(ids=(edited,)), Edit(queue="default"))
        line.store.act(Filter(ids=(promoted,)), Retry())

        assert sorted(line.claim()) == sorted([edited, promoted])

    def test_a_job_whose_payload_was_edited_keeps_its_place_and_is_found(self, line: Line) -> None:
        line.store.pause("slow", True)
        ids = line.add(2, queue="slow")
        line.run(1_000)
        line.settle_floors()
        line.store.act(Filter(ids=(ids[0],)), Edit(payload=b"[]"))
        line.store.pause("slow", False)

        assert line.claim() == ids

    def test_more_due_jobs_than_are_staged_at_once_are_all_claimed(self, line: Line) -> None:
        now = line.store.now()
        ids = line.add(6_000, run_at=now + 1_000_000)
        line.settle_floors()
        found: list[str] = []
        for step in range(8):
            found += line.claim(1_000, now=now + 2_000_000 + step)

        assert sorted(found) == sorted(ids)

    def test_when_the_clock_goes_back_what_is_due_is_found(self, line: Line) -> None:
        now = line.store.now()
        for step in range(5):
            line.claim(1, now=now + 3_600_000_000 + step)
        line.store.enqueue(line.rows(1, run_at=now + 2), now=now)
        line.claim(1, now=now + 1)

        assert len(line.claim(1, now=now + 3)) == 1


class TestSeveralProcesses:
    def test_each_finds_what_the_others_left_and_nobody_what_was_taken(self, line: Line) -> None:
        crew = [line, line.again(), line.again().again()]
        stored: list[str] = []
        claimed: list[str] = []
        over = threading.Event()

        def produce() -> None:
            try:
                for n in range(60):
                    stored.extend(line.add(20, priority=n % 3))
            finally:
                over.set()

        def work(one: Line) -> None:
            while not over.is_set() or len(claimed) < len(stored):
                claimed.extend(one.claim(7))

        threads = [threading.Thread(target=produce), *(threading.Thread(target=work, args=(one,)) for one in crew)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(18)
        for one in crew[1:]:
            one.store.close()

        assert sorted(claimed) == sorted(stored)


def far_ahead(line: Line) -> None:
    """As many jobs go through as make a floor worth writing down."""
    with psycopg.connect(line.url) as connection:
        connection.execute("SELECT setval('dayjob.entry', nextval('dayjob.entry') + 400000)")


def test_a_restored_backup_is_looked_through_from_its_beginning_by_processes_that_lived_on(
    place: Postgres, line: Line
) -> None:
    server, name = place.server, place.database
    line.add(3)
    line.store.close()
    server.terminate(name)
    backup = server.create_database(template=name)  # takes all along, as a dump does
    far_ahead(line)
    line.store.beat(WORKER, [])
    line.run(1_000)
    line.settle_floors()
    line.store.close()
    server.drop_database(name)
    server.sql(f"ALTER DATABASE {backup} RENAME TO {name}")
    line.store.beat(WORKER, [])
    found = [*line.claim(), *line.claim()]

    assert len(found) == 3
    other = line.again()
    other.add(2)
    assert len(other.claim()) == 2
    other.store.close()


def test_a_floor_above_the_last_place_hides_nothing(line: Line) -> None:
    ids = line.add(2)
    with psycopg.connect(line.url) as connection:
        connection.execute("UPDATE dayjob.level SET floor = 1000000000")

    assert line.claim() == ids


@pytest.mark.parametrize("far", [False, True], ids=["soon", "after many"])
def test_claims_that_a_crash_of_the_server_takes_back_are_made_again(far: bool) -> None:
    # A claim is not waited for; the server writes it to the disk within this time, or never when it crashes first.
    try:
        server = Server(programs(18), {**FORGETFUL, "wal_writer_delay": "10s"})
    except LookupError as missing:
        pytest.skip(str(missing))
    try:
        name = server.create_database()
        with closing(open_store(server.url(name))) as store:
            store.migrate()
        line = Line(server.url(name))
        line.run(1_000)
        line.settle_floors()
        if far:
            far_ahead(line)
        ids = line.add(5)
        line._claims += 1
        claimed = line.store.turn("w", line._claims, wants=[Want(None, 5)]).claimed
        for _ in range(4):
            line._claims += 1
            line.store.turn("w", line._claims, wants=[Want(None, 5)])
        server.restart("immediate")
        found: list[str] = []
        for _ in range(2):
            found += line.claim()
        other = line.again()
        found += other.claim()
        other.store.close()
        line.store.close()
    finally:
        server.close()

    assert [job.id for job in claimed] == ids
    assert sorted(found) == sorted(ids)
