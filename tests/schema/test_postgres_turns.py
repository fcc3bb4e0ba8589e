"""Who waits for whom: the turn of the claims, rows of jobs, the cluster's row. Nobody in a circle, and nobody for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

import dayjob.store
from dayjob.errors import StoreUnavailable
from dayjob.states import Outcome, State
from dayjob.store.records import (
    Action,
    Bound,
    Cancel,
    Claimed,
    Delete,
    Filter,
    NewRow,
    Retry,
    Settlement,
    Want,
    WorkerInfo,
)
from tests.contract.engines import EngineUnderTest, Postgres15, Postgres18
from tests.contract.ids import numbered

if "postgresql" not in dayjob.store.ENGINES:
    pytest.skip("this release has no PostgreSQL engine", allow_module_level=True)

from dayjob.store.postgres.store import PostgresStore

WORKER = WorkerInfo("w", "here:1", "here", 1, expiry=3600.0)


class Crossing:
    """A store with a worker that leads, and somebody else's connection."""

    def __init__(self, engine: EngineUnderTest) -> None:
        self.url = engine.url
        self.store = cast(PostgresStore, engine.store())
        self.other = cast(PostgresStore, engine.open())
        self.claims = 0
        self._pool = ThreadPoolExecutor(4)

    def lead(self) -> int:
        term = self.store.beat(WORKER, list(range(self.claims + 1))).term
        assert term is not None
        return term

    def claim(self, jobs: int) -> list[Claimed]:
        """Store and claim so many jobs, in the order of their ids."""
        self.lead()
        self.store.enqueue([NewRow(numbered(n), "t", "default", b"{}") for n in range(jobs)])
        self.claims += 1
        return sorted(self.store.turn("w", self.claims, wants=[Want(None, jobs)]).claimed, key=lambda job: job.id)

    def settlement(self, job: Claimed, outcome: Outcome = Outcome.COMPLETED) -> Settlement:
        return Settlement(job.id, job.entry, outcome, 1, 2, keep=3600.0, delay=3600.0, claim_no=self.claims)

    @contextmanager
    def holding(self, statement: str, *parameters: Any) -> Iterator[psycopg.Connection[Any]]:
        """Somebody's transaction that has executed *statement*; rolled back at the end."""
        with psycopg.connect(self.url) as connection:
            connection.execute("SET lock_timeout = '3s'")
            connection.execute(statement, parameters)
            yield connection
            connection.rollback()

    def starts(self, call: Callable[[], Any], waiting: int = 1) -> Future[Any]:
        """Make *call* in a thread and come back when so many sessions wait for a lock."""
        future = self._pool.submit(call)
        deadline = time.monotonic() + 10.0
        with psycopg.connect(self.url, autocommit=True) as watcher:
            while time.monotonic() < deadline and not future.done():
                select = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
                [(found,)] = watcher.execute(select).fetchall()
                if found >= waiting:
                    break
                threading.Event().wait(0.01)
        return future

    def close(self) -> None:
        self._pool.shutdown()


@pytest.fixture(params=[Postgres18, Postgres15], ids=lambda engine: engine.name)
def crossing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Crossing]:
    engine: EngineUnderTest = request.param(tmp_path)
    crossing = Crossing(engine)
    yield crossing
    crossing.close()
    engine.close()


def test_a_stage_that_waits_for_its_turn_stands_in_nobodys_way(crossing: Crossing) -> None:
    term = crossing.lead()
    with crossing.holding("SELECT dayjob.take_turn()") as cancel:
        staging = crossing.starts(lambda: crossing.store.stage(term))
        cancel.execute("UPDATE dayjob.cluster SET control = control + 1")  # as the cancel of a running job does

    assert staging.result() == (0, None)


@pytest.mark.parametrize("operation", ["stage", "act"])
def test_a_process_that_freezes_within_its_turn_loses_it_in_two_seconds(
    crossing: Crossing, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    term = crossing.lead()
    frozen, thaw = threading.Event(), threading.Event()
    take_turn = crossing.store.take_turn

    def freezing(*args: Any) -> None:
        take_turn(*args)
        frozen.set()
        thaw.wait(15.0)

    monkeypatch.setattr(crossing.store, "take_turn", freezing)
    calls = {"stage": lambda: crossing.store.stage(term), "act": lambda: crossing.store.act(Filter(ids=()), Cancel())}
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(calls[operation])
        frozen.wait(10.0)
        began = time.monotonic()
        crossing.other.turn("w", 1, wants=[Want(None, 1)])
        waited = time.monotonic() - began
        thaw.set()

        assert waited < 4.0  # a claim gives up after 5 s
        with pytest.raises(StoreUnavailable):
            stuck.result()


def test_a_mixed_batch_of_settlements_and_a_cancel_do_not_wait_for_each_other(crossing: Crossing) -> None:
    one, first, *middle, last = crossing.claim(5)
    crossing.store.turn("w", settlements=[crossing.settlement(one)])  # the day's partition is there
    batch = [crossing.settlement(first, Outcome.FAILED), *map(crossing.settlement, [*middle, last])]
    with crossing.holding("SELECT 1 FROM dayjob.job WHERE id = %s FOR UPDATE", last.id):  # it records its progress
        settling = crossing.starts(lambda: crossing.store.turn("w", settlements=batch))
        cancelling = crossing.starts(lambda: crossing.other.act(Filter(queue="default"), Cancel()), waiting=2)

    assert settling.result().refused == []
    assert cancelling.result() == [first.id]


@pytest.mark.parametrize("action", [Retry(), Delete()], ids=["retry", "delete"])
def test_acting_on_finished_jobs_needs_no_turn(crossing: Crossing, action: Action) -> None:
    jobs = crossing.claim(3)
    crossing.store.turn("w", settlements=[*map(crossing.settlement, jobs)])
    with crossing.holding("SELECT dayjob.take_turn()"):
        touched = crossing.store.act(Filter(queue="default", states=(State.COMPLETED,)), action)

    assert touched == [job.id for job in jobs]


def test_finished_jobs_that_somebody_else_took_meanwhile_make_no_short_batch(crossing: Crossing) -> None:
    jobs = crossing.claim(4)
    crossing.store.turn("w", settlements=[*map(crossing.settlement, jobs)])
    with crossing.holding("DELETE FROM dayjob.history WHERE id = %s", jobs[1].id) as other:
        which = Filter(queue="default", states=(State.COMPLETED,))
        deleting = crossing.starts(lambda: crossing.store.act(which, Delete(), limit=3))
        other.commit()

    assert deleting.result() == [jobs[n].id for n in (0, 2, 3)]


def test_to_look_for_what_a_bound_removes_delays_no_beat(crossing: Crossing) -> None:
    jobs = crossing.claim(3)
    crossing.store.turn("w", settlements=[*map(crossing.settlement, jobs)])
    term = crossing.lead()
    bounds = [Bound(State.COMPLETED, 1, task="t")]
    # Somebody holds the history, as if it took seconds to go through it.
    with crossing.holding("LOCK TABLE dayjob.history IN ACCESS EXCLUSIVE MODE"):
        pruning = crossing.starts(lambda: crossing.store.prune(term, bounds))
        with psycopg.connect(crossing.url) as beat:
            beat.execute("SELECT 1 FROM dayjob.cluster FOR UPDATE NOWAIT")

    assert pruning.result() == 2


def test_a_leader_that_was_deposed_while_it_looked_deletes_nothing(crossing: Crossing) -> None:
    jobs = crossing.claim(3)
    crossing.store.turn("w", settlements=[*map(crossing.settlement, jobs)])
    term = crossing.lead()
    with crossing.holding("LOCK TABLE dayjob.history IN ACCESS EXCLUSIVE MODE"):
        pruning = crossing.starts(lambda: crossing.store.prune(term, [Bound(State.COMPLETED, 0)]))
        crossing.other.leave("w")

    assert pruning.result() is None
    assert crossing.other.count(Filter(states=(State.COMPLETED,))) == 3


def test_what_is_retried_while_it_is_looked_for_is_not_deleted(crossing: Crossing) -> None:
    [one, other] = crossing.claim(2)
    crossing.store.turn("w", settlements=[*map(crossing.settlement, (one, other))])
    term = crossing.lead()
    with crossing.holding("SELECT 1 FROM dayjob.history WHERE id = %s FOR UPDATE", one.id):  # as a retry holds it
        pruned = crossing.store.prune(term, [Bound(State.COMPLETED, 0)])

    assert pruned == 1
    assert crossing.store.get(one.id) is not None
