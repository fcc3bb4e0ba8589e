"""No statement of the SQLite engine may read a table from end to end: on empty, small and analysed files."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator

import pytest

from dayjob.states import Outcome, State
from dayjob.store.records import Filter, NewRow, Settlement, Want, WorkerInfo
from dayjob.store.sqlfile import load
from dayjob.store.sqlite import SQLiteStore
from dayjob.store.sqlite.filters import where
from dayjob.store.sqlite.part import with_rows
from dayjob.store.sqlite.turns import _pick

COLUMNS = {
    "insert": 15,
    "insert_gated": 18,
    "insert_joined": 14,
    "add_logs_joined": 4,
    "adopt_live": 24,
    "adopt_finished": 26,
}
"""Of the statements whose `{rows}` have not six."""

STATEMENTS = {
    name: with_rows(statement, 2, COLUMNS.get(name, 6))
    for file in ("queries.sql", "gates.sql")
    for name, statement in vars(load("dayjob.store.sqlite", file)).items()
}

SCANS_ON_PURPOSE = {
    "count_available": "counts a partial index",
    "count_suspect": "counts a partial index",
    "count_scheduled": "counts a partial index",
    "count_history": "counts an index; the history is bounded by retention",
    "count_running": "leases: one row per batch in flight",
    "suspect_queues": "a partial index that is empty but after a crash",
    "situation": "the one row of dayjob_cluster",
    "end_leader": "the one row of dayjob_cluster",
    "last_entry": "the one row of dayjob_cluster, and two seeks",
    "keep_entries_rising": "the same",
    "insert_alone": "the same",
    "insert_joined": "the same, and seeks for each row",
    "bump_control": "the one row of dayjob_cluster",
    "cluster": "the one row of dayjob_cluster",
    "set_cluster": "the one row of dayjob_cluster",
    "leads": "the one row of dayjob_cluster",
    "paused": "one row per paused queue",
    "leases_of_worker": "leases: a planner with statistics may find a scan of few rows cheaper",
    "drop_leases": "the same",
    "expired_workers": "one row per worker",
    "prune_workers": "one row per worker",
    "workers": "one row per worker, and the leases of each",
    "list_all_records": "all of them are wanted",
    "prune_records": "once a minute, over few rows",
    "prune_gone": "the first rows by number",
    "count_blocked": "counts a partial index",
    "depth": "counts partial indexes of the queue; of scheduled jobs, of a queue with a depth limit, all",
    "oldest_waiting": "the same, and only when a full queue sheds",
    "is_gated": "the one row of dayjob_cluster",
    "is_limited": "the one row of dayjob_cluster",
    "mark_gated": "the one row of dayjob_cluster",
    "mark_limited": "the one row of dayjob_cluster, and whether there are limits",
    "highest": "the one row of dayjob_cluster, and two seeks",
    "first_places": "the base, a constant; seeks",
    "last_places": "the base, a constant; seeks",
    "pending": "gates that were freed since the last admission",
    "only_many_wait": "the first of those gates, if there is any",
    "paused_or_closed": "one row per paused queue, and per queue with limits",
    "limits_at_claim": "one row per queue with limits",
    "all_limits": "one row per queue with limits",
    "forget_limits": "one row per queue with limits",
    "breakers": "one row per breaker that ever opened, or has failures",
    "to_no_use_in_pause": "one row per paused queue, and only if there is one the tokens that jobs hold",
    "reserved": "whether a partial index has an entry",
    "prune_gates": "all gates, in the leader's rarest round",
    "beyond_task_count": "a bound of a single task; walks its queue's part of an index",
}
"""Statements that may scan, and why that is bounded."""


def fill(store: SQLiteStore, jobs: int) -> None:
    """*jobs* jobs in every state."""
    store.beat(WorkerInfo("w", "here:1", "here", 1), [])
    store.enqueue([NewRow(f"done-{n}", "t", f"q{n % 3}", b"{}") for n in range(jobs)])
    claimed = store.turn("w", 1, wants=[Want(None, jobs)]).claimed
    outcomes = (Outcome.COMPLETED, Outcome.FAILED, Outcome.DEAD)
    settlements = [
        Settlement(job.id, job.entry, outcomes[n % 3], 1, 2, delay=60, error=b"e") for n, job in enumerate(claimed)
    ]
    store.turn("w", settlements=settlements)
    store.enqueue([NewRow(f"wait-{n}", "t", f"q{n % 3}", b"{}", priority=n % 2) for n in range(jobs)])
    store.turn("w", 2, wants=[Want(None, max(1, jobs // 10))])


@pytest.fixture(scope="module", params=["empty", "small", "analysed", "analysed empty"])
def connection(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[sqlite3.Connection]:
    path = tmp_path_factory.mktemp("plans") / "plans.db"
    store = SQLiteStore(f"sqlite:///{path}", clock=None, lease=20, namespace="dayjob")
    store.migrate()
    if "empty" not in request.param:
        fill(store, 900)
    store.close()
    connection = sqlite3.connect(path)
    if "analysed" in request.param:
        connection.execute("ANALYZE")
    yield connection
    connection.close()


def scans(connection: sqlite3.Connection, statement: str) -> list[str]:
    """The steps of *statement*'s plan that read one of our tables without a seek."""
    numbered = {int(found) for found in re.findall(r"\?(\d+)", statement)}
    count = max(numbered, default=len(re.findall(r"\?", re.sub(r"--.*", "", statement))))
    plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", [None] * count).fetchall()
    tables = re.compile(r"^SCAN (?!json_each|s\b|c\b|l\b|e\b|n\b|g\b|q\b|due\b|\(|CONSTANT|\d+ CONSTANT)")
    return [row[3] for row in plan if tables.match(row[3]) and " VIRTUAL TABLE" not in row[3]]


@pytest.mark.parametrize("name", sorted(set(STATEMENTS) - set(SCANS_ON_PURPOSE)))
def test_a_statement_seeks_and_does_not_scan(connection: sqlite3.Connection, name: str) -> None:
    found = scans(connection, STATEMENTS[name])

    # Walking a partial or ordered index under a LIMIT is a seek that goes on, not a scan of the table.
    assert [step for step in found if "USING" not in step or "LIMIT" not in STATEMENTS[name]] == []


def test_the_list_of_scans_on_purpose_names_only_statements_that_exist() -> None:
    assert set(SCANS_ON_PURPOSE) <= set(STATEMENTS)


@pytest.mark.parametrize("queues", [1, 2, 50])
@pytest.mark.parametrize("suspects", [False, True])
def test_a_claim_picks_in_the_order_of_its_index(connection: sqlite3.Connection, queues: int, suspects: bool) -> None:
    plan = connection.execute(
        f"EXPLAIN QUERY PLAN {_pick(queues, suspects, 'dayjob')}", [None] * (queues + 1)
    ).fetchall()
    searches = [row[3] for row in plan if "dayjob_job" in row[3]]

    assert len(searches) == queues
    index = "dayjob_job_suspect" if suspects else "dayjob_job_ready"
    assert all(f"INDEX {index} (queue=?)" in step for step in searches)
    if queues == 1:  # one queue is read in the order of its index; several are merged
        assert not any("TEMP B-TREE" in row[3] for row in plan)


@pytest.mark.parametrize(
    "which",
    [Filter(), Filter(queue="q1"), Filter(states=(State.COMPLETED,)), Filter(states=(State.COMPLETED,), queue="q1")],
    ids=["all", "queue", "completed", "completed in queue"],
)
def test_a_page_of_common_jobs_walks_the_ids_and_sorts_nothing(connection: sqlite3.Connection, which: Filter) -> None:
    condition, values = where(which, which.states, by_id=True)
    statement = f"SELECT * FROM dayjob_history WHERE {condition} AND id < ? ORDER BY id DESC LIMIT 51"
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", (*values, "z"))]

    assert any("dayjob_history_id" in step for step in plan)
    assert not any("TEMP B-TREE" in step for step in plan)


def test_dead_jobs_among_many_completed_are_sought_by_their_state(connection: sqlite3.Connection) -> None:
    condition, values = where(Filter(states=(State.DEAD,)), (State.DEAD,))
    statement = f"SELECT * FROM dayjob_history WHERE {condition} ORDER BY +id DESC LIMIT 51"
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]

    assert any("dayjob_history_finished (state=?)" in step for step in plan)
