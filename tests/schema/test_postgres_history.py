"""The history by days: made when they are needed, dropped when they are over, counted all the while."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import cast

import psycopg
import pytest

import dayjob.store
from dayjob.clock import SECOND, to_stamp
from dayjob.errors import StoreError, StoreUnavailable
from dayjob.states import Outcome, State
from dayjob.store.records import Cancel, Delete, Filter, Lease, Log, NewRow, Retry, Settlement, Want, WorkerInfo
from tests.contract.engines import EngineUnderTest, Postgres15, Postgres18
from tests.contract.ids import numbered

if "postgresql" not in dayjob.store.ENGINES:
    pytest.skip("this release has no PostgreSQL engine", allow_module_level=True)

from dayjob.store.postgres import upkeep
from dayjob.store.postgres.database import SETTINGS
from dayjob.store.postgres.store import PostgresStore

DAY = 86_400 * SECOND
MIDNIGHT = to_stamp(datetime(2026, 3, 1, tzinfo=UTC))
WORKER = WorkerInfo("w", "here:1", "here", 1, expiry=1e6)
FINISHED = (State.COMPLETED, State.CANCELLED, State.DEAD)


class Days:
    """A store whose jobs end when a test says, and the days that it keeps."""

    def __init__(self, engine: EngineUnderTest) -> None:
        self.engine = engine
        self.store = cast(PostgresStore, engine.store())
        self.url = engine.url
        self._jobs = self._claims = 0

    def finish(
        self, jobs: int = 1, *, now: int = MIDNIGHT, keep: float | None = 86_400.0, outcome: Outcome = Outcome.COMPLETED
    ) -> list[str]:
        """Jobs that end at *now*; their ids."""
        self.store.beat(WORKER, list(range(self._claims + 2)), now=now)
        rows = [NewRow(numbered(n), "t", "default", b"{}") for n in range(self._jobs, self._jobs + jobs)]
        self._jobs += jobs
        self._claims += 1
        self.store.enqueue(rows, now=now)
        claimed = self.store.turn("w", self._claims, wants=[Want(None, jobs)], now=now).claimed
        for job in claimed:
            self.store.record(Lease("w", job.id, job.entry), [Log(now, "info", "hello")], now=now)
        done = [Settlement(job.id, job.entry, outcome, now, now, keep=keep, claim_no=self._claims) for job in claimed]
        turn = self.store.turn("w", settlements=done, now=now)
        assert turn.refused == []
        assert len(claimed) == jobs
        return [row.id for row in rows]

    def prune(self, now: int) -> int | None:
        """The leader's sweep at *now*."""
        term = self.store.beat(WORKER, list(range(self._claims + 1)), now=now).term
        assert term is not None
        return self.store.prune(term, [], now=now)

    def kept(self) -> list[str]:
        """The days that there are."""
        with psycopg.connect(self.url) as connection:
            rows = connection.execute(
                "SELECT relname FROM pg_class WHERE relname ~ '^history_[0-9]+$' AND relkind = 'r' ORDER BY 1"
            )
            return [row[0].removeprefix("history_") for row in rows]

    def counted(self) -> int:
        """As `count` says; it must be what is there."""
        counted = self.store.count(Filter(states=FINISHED))
        with psycopg.connect(self.url) as connection:
            [(there,)] = connection.execute("SELECT count(*) FROM dayjob.history").fetchall()

        assert counted == there
        return counted

    def traces(self) -> int:
        with psycopg.connect(self.url) as connection:
            [(rows,)] = connection.execute("SELECT count(*) FROM dayjob.log").fetchall()
        return int(rows)


@pytest.fixture(params=[Postgres18, Postgres15], ids=lambda engine: engine.name)
def days(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Days]:
    engine: EngineUnderTest = request.param(tmp_path)
    yield Days(engine)
    engine.close()


def test_a_job_goes_with_the_day_on_which_it_may(days: Days) -> None:
    days.finish(3, keep=2 * 86_400.0)
    before = days.kept()
    early = days.prune(MIDNIGHT + 3 * DAY - 1)
    still_there = days.counted()
    late = days.prune(MIDNIGHT + 3 * DAY)

    assert "20260303" in before
    assert (early, still_there) == (0, 3)
    assert (late, days.counted(), days.kept()) == (3, 0, [])


def test_what_its_jobs_wrote_down_goes_with_a_day(days: Days) -> None:
    days.finish(3)
    before = days.traces()
    days.prune(MIDNIGHT + 2 * DAY)

    assert (before, days.traces()) == (3, 0)


@pytest.mark.parametrize("moment", [-1, 0, 1])
def test_at_midnight_nothing_is_lost(days: Days, moment: int) -> None:
    [id] = days.finish(now=MIDNIGHT + moment)
    found = days.store.get(id)

    assert found is not None
    assert found.keep_until == MIDNIGHT + moment + DAY
    assert days.counted() == 1


def test_shorter_than_a_day_goes_when_its_time_is_over(days: Days) -> None:
    days.finish(2, keep=60.0)
    early = days.prune(MIDNIGHT + 59 * SECOND)
    late = days.prune(MIDNIGHT + 61 * SECOND)

    assert (early, late) == (0, 2)
    assert days.counted() == 0


def test_months_make_no_hundreds_of_days_and_end_all_the_same(days: Days) -> None:
    months = 200 * 86_400.0
    for n in range(3):
        days.finish(1, now=MIDNIGHT + n * DAY, keep=months)
    made = days.kept()
    early, late = days.prune(MIDNIGHT + 200 * DAY - 1), days.prune(MIDNIGHT + 202 * DAY)

    assert made == []
    assert (early, late) == (0, 3)
    assert days.counted() == 0


@pytest.mark.parametrize("keep", [None, 1e10, 3e11, 1e13, 1e18], ids=str)
def test_a_very_long_time_is_for_ever(days: Days, keep: float | None) -> None:
    [id] = days.finish(keep=keep)
    [other] = days.finish(keep=keep, outcome=Outcome.DEAD)
    days.prune(MIDNIGHT + 1000 * DAY)

    assert days.counted() == 2
    assert {job.id for job in days.store.find(Filter(states=FINISHED)).jobs} == {id, other}
    found = days.store.get(id)
    assert found is not None
    assert found.keep_until is None or found.keep_until > MIDNIGHT + 1000 * DAY


def test_a_cancelled_job_may_be_kept_for_a_very_long_time(days: Days) -> None:
    days.store.enqueue([NewRow(numbered(1), "t", "default", b"{}")], now=MIDNIGHT)
    days.store.act(Filter(ids=(numbered(1),)), Cancel(keep=1e13), now=MIDNIGHT)

    assert days.counted() == 1


def test_a_reader_keeps_a_day_for_now_and_does_not_stop_the_sweep(days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    days.finish(2)
    days.finish(2, keep=60.0)
    with psycopg.connect(days.url) as reader:
        reader.execute("SELECT count(*) FROM dayjob.history")
        while_read = days.prune(MIDNIGHT + 2 * DAY)
        days.finish(1, now=MIDNIGHT + 2 * DAY, keep=86_400.0 * 9)  # nor does it stop the first job of a new day
    soon = days.prune(MIDNIGHT + 2 * DAY)  # completions wait while it is tried: not in every sweep
    clock = time.monotonic
    monkeypatch.setattr(upkeep.time, "monotonic", lambda: clock() + upkeep.RETRY[0])
    later = days.prune(MIDNIGHT + 2 * DAY)

    assert (while_read, soon, later) == (2, 0, 2)
    assert days.counted() == 1


def test_a_reader_keeps_all_days_for_no_longer_than_one(days: Days) -> None:
    for n in range(8):
        days.finish(1, now=MIDNIGHT + n * DAY)
    with psycopg.connect(days.url) as reader:
        reader.execute("SELECT count(*) FROM dayjob.history")
        began = time.monotonic()
        days.prune(MIDNIGHT + 20 * DAY)
        took = time.monotonic() - began

    assert took < 1.2  # eight times 0.2 s before


def test_the_traces_of_a_day_go_in_steps(days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "SWEEP", 3)
    days.finish(8)
    dropped = days.prune(MIDNIGHT + 2 * DAY)

    assert dropped == 8
    assert days.traces() == 0


def test_the_first_jobs_of_many_days_end_in_several_processes_at_once(days: Days) -> None:
    stores = [cast(PostgresStore, days.engine.open()) for _ in range(4)]
    failures: list[BaseException] = []
    days.store.enqueue([NewRow(numbered(n), "t", "default", b"{}") for n in range(80)], now=MIDNIGHT)
    together = threading.Barrier(4)

    def work(number: int, store: PostgresStore) -> None:
        me = f"w{number}"
        try:
            store.beat(WorkerInfo(me, me, "here", 1), [], now=MIDNIGHT)
            together.wait(10)
            for claim in range(1, 6):
                claimed = store.turn(me, claim, wants=[Want(None, 4)], now=MIDNIGHT).claimed
                store.turn(
                    me,
                    settlements=[
                        Settlement(job.id, job.entry, Outcome.COMPLETED, 1, 2, keep=86_400.0 * (claim + n), claim_no=claim)
                        for n, job in enumerate(claimed)
                    ],
                    now=MIDNIGHT,
                )  # fmt: skip
        except BaseException as error:  # whatever it is fails the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number, store)) for number, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(18)

    assert failures == []
    assert days.counted() == 80
    first = date(2026, 3, 1)
    assert days.kept() == [(first + timedelta(n)).strftime("%Y%m%d") for n in range(1, 9)]


def test_counts_stay_exact_while_jobs_end_and_go_and_counts_are_folded(days: Days) -> None:
    over = threading.Event()
    failures: list[BaseException] = []
    term = days.store.beat(WORKER, [], now=MIDNIGHT).term
    assert term is not None
    sweeper = cast(PostgresStore, days.engine.open())

    def sweep() -> None:
        try:
            while not over.is_set():
                sweeper.prune(term, [], now=MIDNIGHT)
                sweeper.count(Filter(states=FINISHED))
        except BaseException as error:  # whatever it is fails the test
            failures.append(error)

    thread = threading.Thread(target=sweep)
    thread.start()
    ids: list[str] = []
    for _ in range(15):
        ids += days.finish(20)
    days.store.act(Filter(ids=tuple(ids[:30])), Delete(), now=MIDNIGHT)
    days.store.act(Filter(ids=tuple(ids[30:50])), Retry(), now=MIDNIGHT)
    over.set()
    thread.join(10)

    assert failures == []
    assert days.counted() == 250


def test_jobs_without_a_day_of_their_own_are_pruned_one_by_one(days: Days) -> None:
    # A caller's transaction may not make one: what it completes stays among those that are kept.
    days.finish(1)
    with closing(days.store.db.connect()) as connection:
        connection.execute("UPDATE dayjob.history SET goes = 'infinity'")
        connection.execute("UPDATE dayjob.total SET goes = 'infinity'")
    early, late = days.prune(MIDNIGHT + DAY - 1), days.prune(MIDNIGHT + DAY)

    assert (early, late) == (0, 1)
    assert days.counted() == 0


# -- kept for no time: the id alone


def running(days: Days) -> tuple[NewRow, list[Settlement]]:
    """A job that runs and has a line in its log, and the end of it, after which its id alone is kept."""
    row = NewRow(numbered(1), "t", "default", b"{}")
    days.store.beat(WORKER, [])
    days.store.enqueue([row])
    [job] = days.store.turn("w", 1, wants=[Want(None, 1)]).claimed
    assert days.store.record(Lease("w", job.id, job.entry), [Log(1, "info", "hello")])
    return row, [Settlement(job.id, job.entry, Outcome.COMPLETED, 1, 2, keep=0.0, claim_no=1)]


def test_p9_a_job_goes_together_with_what_it_leaves_or_not_at_all(days: Days) -> None:
    row, end = running(days)
    refuse = "FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$"
    with psycopg.connect(days.url, autocommit=True) as connection:
        connection.execute(f"CREATE {refuse}")  # type: ignore[arg-type]  # a str will do
        connection.execute("CREATE TRIGGER r BEFORE INSERT ON dayjob.gone FOR EACH ROW EXECUTE FUNCTION refuse()")
        with pytest.raises(StoreError, match="not now"):
            days.store.turn("w", settlements=end)
        still_there = days.store.enqueue([row], repeat=True)[0].outcome
        connection.execute("DROP TRIGGER r ON dayjob.gone")

    assert still_there == "existing"
    assert days.store.turn("w", settlements=end).refused == []
    assert days.store.enqueue([row], repeat=True)[0].outcome == "existing"
    assert days.traces() == 0


def test_p9_an_id_is_remembered_though_the_claim_of_the_same_turn_fails(
    days: Days, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SETTINGS, "lock_timeout", "200ms")
    row, end = running(days)
    with psycopg.connect(days.url) as connection:
        connection.execute("SELECT dayjob.take_turn()")  # no claim until this ends
        with pytest.raises(StoreUnavailable):
            days.store.turn("w", 2, end, [Want(None, 1)])

    assert days.store.turn("w", 2, end, [Want(None, 1)]).claimed == []
    assert days.store.enqueue([row], repeat=True)[0].outcome == "existing"
    assert days.traces() == 0
