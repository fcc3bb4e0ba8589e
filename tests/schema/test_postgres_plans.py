"""No operation of the PostgreSQL engine may read a table from end to end, whatever the planner knew when it planned.

Each operation is run as it is, on an empty database, on one with a million jobs, with plans that were made when there was
nothing in it, before and after ANALYZE; the server tells what it did (auto_explain), also inside functions.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, cast

import psycopg
import pytest

import dayjob.store
from dayjob.states import Outcome, State
from dayjob.store import open_store
from dayjob.store.records import (
    Bound,
    Cancel,
    Edit,
    Filter,
    Lease,
    Log,
    NewRow,
    Progress,
    Retry,
    Settlement,
    Want,
    WorkerInfo,
)
from tests.contract.engines import Postgres18
from tests.contract.ids import numbered
from tests.servers.needed import needed
from tests.servers.postgres import Server, postgres

if "postgresql" not in dayjob.store.ENGINES:
    pytest.skip("this release has no PostgreSQL engine", allow_module_level=True)

from dayjob.store.postgres.database import Connection
from dayjob.store.postgres.finder import LOOKED_AT
from dayjob.store.postgres.store import PostgresStore

pytestmark = pytest.mark.timeout(120)  # the first test with a full database fills it

BATCH = 500
FULL = 1_000_000
DAY = 86_400_000_000

SMALL = {
    "cluster",
    "entry",
    "incarnation",
    "lease",
    "level",
    "overfull",
    "paused",
    "queue_limit",
    "record",
    "sample",
    "total",
    "worker",
}
"""Tables of one row, or of one for each queue, worker, batch in flight, or the like: read as a whole."""

FILL = f"""
SET auto_explain.log_min_duration = -1;
SELECT dayjob.add_day(current_date + d) FROM generate_series(0, 3) AS d;
INSERT INTO dayjob.job (id, entry, place, created_at, run_at, priority, state, queue, task, payload)
SELECT ('01890000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid, n, n, t, t + CASE WHEN n % 10 = 0 THEN {DAY} ELSE 0 END, n % 2,
    CASE WHEN n % 10 = 0 THEN 'scheduled' ELSE 'available' END, 'q' || (n % 4), 't', '{{}}'
FROM (SELECT nextval('dayjob.entry') AS n, dayjob.clock() AS t FROM generate_series(1, {FULL})) AS s;
INSERT INTO dayjob.ready (place, entry, id, priority, kind, queue)
SELECT place, entry, id, priority, 0, queue FROM dayjob.job
WHERE state = 'available' AND id >= '01890000-0000-7000-9000-000000000000' ORDER BY queue, priority, place;
INSERT INTO dayjob.level (queue, priority, kind, used_at) SELECT 'q' || q, p, 0, dayjob.clock()
FROM generate_series(0, 3) AS q, generate_series(0, 1) AS p ON CONFLICT DO NOTHING;
INSERT INTO dayjob.history (id, entry, created_at, run_at, started_at, finished_at, keep_until, goes, priority, attempt, crashes, round,
    recorded, state, queue, task, payload)
SELECT gen_random_uuid(), n, t, t, t, t, t + {DAY}, current_date + n % 3, 0, 1, 0, 0, false, 'completed', 'q' || (n % 4), 't', '{{}}'
FROM (SELECT n, dayjob.clock() AS t FROM generate_series(1, {FULL // 10}) AS n) AS s;
INSERT INTO dayjob.total SELECT goes, queue, state, count(*) FROM dayjob.history GROUP BY 1, 2, 3;
"""


class Scan(NamedTuple):
    """A step of a plan that reads a table. rows: how many it looked at, also those that it did not want."""

    kind: str
    table: str
    rows: int


class Watched:
    """A store whose server tells what each statement did."""

    def __init__(self, url: str, worker: str) -> None:
        self.store = cast(PostgresStore, open_store(url))
        self.worker = worker
        self.info = WorkerInfo(worker, "here:1", "here", 1, expiry=3600.0)
        self.scans: list[Scan] = []
        self.pages = 0
        self._claims = 0
        connect = self.store.db.connect

        def watched(*, autocommit: bool = True) -> Connection:
            connection = connect(autocommit=autocommit)
            connection.add_notice_handler(self._hear)
            return connection

        self.store.db.connect = watched  # type: ignore[method-assign]
        self.store.beat(self.info, [])

    def _hear(self, said: psycopg.errors.Diagnostic) -> None:
        _, found, plan = (said.message_primary or "").partition("plan:\n")
        if found:
            self._read(json.loads(plan)["Plan"])

    def _read(self, node: dict[str, Any], inner: bool = False) -> None:
        if not inner:
            self.pages += node["Shared Hit Blocks"] + node["Shared Read Blocks"]
        name = node.get("Relation Name") or node.get("Index Name")
        if name is not None and "Scan" in node["Node Type"]:
            each = (
                node["Actual Rows"]
                + node.get("Rows Removed by Filter", 0)
                + node.get("Rows Removed by Index Recheck", 0)
            )
            self.scans.append(Scan(node["Node Type"], name, round(each * node["Actual Loops"])))
        for part in node.get("Plans", ()):
            self._read(part, inner=True)

    def forget(self) -> None:
        """Begin to watch."""
        self.scans, self.pages = [], 0

    def _lead(self) -> int:
        """Beat, with all claims: on a slow machine what is not listed for long would be given back, at a cost that is no part of it."""
        term = self.store.beat(self.info, range(self._claims + 1)).term
        assert term is not None
        return term

    # -- operations

    def enqueue(self) -> None:
        self.store.enqueue(rows(BATCH))

    def enqueue_one(self) -> None:
        self.store.enqueue(rows(1))

    def repeat(self) -> None:
        found = rows(BATCH)
        self.store.enqueue(found, repeat=True)
        self.store.enqueue(found, repeat=True)

    def claim(self, limit: int = BATCH, queues: tuple[str, ...] | None = None) -> list[Any]:
        self._claims += 1
        return self.store.turn(self.worker, self._claims, wants=[Want(queues, limit)]).claimed

    def settle(self, outcome: Outcome = Outcome.COMPLETED, *, told: bool = True) -> None:
        done = [
            Settlement(
                job.id, job.entry, outcome, 1, 2, keep=86_400.0, delay=3600, claim_no=self._claims if told else None
            )
            for job in self.claim(100)
        ]
        turn = self.store.turn(self.worker, settlements=done)
        assert turn.refused == []

    def fail(self) -> None:
        self.settle(Outcome.FAILED)

    def release(self) -> None:
        self.settle(Outcome.RELEASED)

    def die(self) -> None:
        self.settle(Outcome.DEAD)

    def settle_without_claim(self) -> None:
        self.settle(told=False)

    def record(self) -> None:
        [job] = self.claim(1) or [None]
        if job is not None:
            self.store.record(Lease(self.worker, job.id, job.entry), [Progress(1, 2), Log(1, "info", "x")])

    def stage(self) -> None:
        self.store.enqueue(rows(100, delay=0.0001))
        self.store.stage(self._lead())

    def beat(self) -> None:
        self.claim(100)
        self._lead()

    def rescue(self) -> None:
        other = WorkerInfo(f"{self.worker} that dies {next(_numbers)}", "here:2", "here", 2, expiry=0.0)
        self.store.beat(other, [])
        self.store.turn(other.id, 1, wants=[Want(None, 100)])
        self.store.rescue(self._lead())

    def leave(self) -> None:
        other = WorkerInfo(f"{self.worker} that leaves {next(_numbers)}", "here:2", "here", 2)
        self.store.beat(other, [])
        self.store.turn(other.id, 1, wants=[Want(None, 100)])
        self.store.leave(other.id)

    def act_on_ids(self) -> None:
        for action in (Cancel(), Edit(priority=1)):
            found = rows(20)
            self.store.enqueue(found)
            touched = self.store.act(Filter(ids=tuple(row.id for row in found)), action)
            assert len(touched) == 20
        self.store.act(Filter(ids=(numbered(10**9),)), Retry())

    def prune(self) -> None:
        self.store.prune(self._lead(), [Bound(State.COMPLETED, 10**9)])

    def get(self) -> None:
        found = rows(1)
        self.store.enqueue(found)
        assert self.store.get(found[0].id) is not None
        self.store.get(numbered(10**9))

    def find(self) -> None:
        for which in FILTERS:
            page = self.store.find(which)
            self.store.find(which, after=page.after or numbered(10**6))

    def count_finished(self) -> None:
        assert self.store.count(Filter(states=DONE)) >= self.store.count(Filter(states=DONE, queue="q1"))


_numbers = iter(range(10**6))


def rows(jobs: int, **fields: Any) -> list[NewRow]:
    return [NewRow(numbered(next(_ids)), "t", f"q{n % 4}", b"{}", priority=n % 2, **fields) for n in range(jobs)]


_ids = iter(range(10**8))

DONE = (State.COMPLETED, State.CANCELLED, State.DEAD)
FILTERS = (
    Filter(), Filter(states=DONE), Filter(states=(State.DEAD,)), Filter(states=(State.RUNNING,)), Filter(states=(State.SCHEDULED,)),
    Filter(queue="q1"), Filter(queue="nowhere"), Filter(queue="q1", states=(State.COMPLETED,)), Filter(task="t"),
    Filter(task="nothing"), Filter(tag="nothing"), Filter(text="nothing"), Filter(since=1), Filter(since=10**17),
)  # fmt: skip

OPERATIONS: dict[Callable[[Watched], object], int] = {
    Watched.enqueue: BATCH * 4,
    Watched.enqueue_one: 10,
    Watched.repeat: BATCH * 20,
    Watched.claim: BATCH * 8,
    Watched.settle: BATCH * 4,
    Watched.settle_without_claim: BATCH * 4,
    Watched.fail: BATCH * 4,
    Watched.release: BATCH * 4,
    Watched.die: BATCH * 4,
    Watched.record: BATCH,
    Watched.stage: BATCH * 8,  # with what else has become due
    Watched.beat: BATCH * 4,
    Watched.rescue: BATCH * 8,
    Watched.leave: BATCH * 8,
    Watched.act_on_ids: BATCH * 4,
    Watched.prune: BATCH,
    Watched.get: BATCH,
    Watched.find: len(FILTERS) * 2 * 4 * LOOKED_AT,
    Watched.count_finished: 1_000,
}
"""What is done, and how many rows it may look at: some for each job of its batch, whatever else there is."""


STATES = ("empty", "full, planned when empty", "full, not analysed", "full, analysed")
SETTINGS = {
    "session_preload_libraries": "auto_explain", "auto_explain.log_min_duration": 0, "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off", "auto_explain.log_buffers": "on", "auto_explain.log_format": "json",
    "auto_explain.log_nested_statements": "on", "auto_explain.log_level": "warning",
}  # fmt: skip


class World:
    """A database on its way through `STATES`."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.name = server.create_database()
        with closing(open_store(server.url(self.name))) as store:
            store.migrate()
        for setting, value in SETTINGS.items():
            server.sql(f"ALTER DATABASE {self.name} SET {setting} = '{value}'")
        self._sql("ANALYZE")
        self._sql("ALTER TABLE dayjob.history_kept SET (autovacuum_enabled = off)")
        for table in ("job", "ready", "lease", "attempt", "arrival", "level"):
            self._sql(f"ALTER TABLE dayjob.{table} SET (autovacuum_enabled = off)")
        self.store = Watched(server.url(self.name), "early")
        self._state = 0
        for _ in range(7):  # a plan is made for good at the sixth time
            for operation in OPERATIONS:
                if operation is not Watched.find:  # planned each time
                    operation(self.store)

    def _sql(self, statement: str) -> None:
        self.server.sql(statement, database=self.name)

    def bring_to(self, state: str) -> Watched:
        """Do what lies between; the store to watch."""
        between = STATES[self._state : STATES.index(state) + 1]
        self._state += len(between)
        for passed in between:
            self._begin(passed)
        return self.store

    def _begin(self, state: str) -> None:
        if state == "full, planned when empty":
            self._sql(FILL)
        if state == "full, analysed":
            self._sql("ANALYZE")
        if state in ("full, not analysed", "full, analysed"):  # new connections, new plans
            self._close()
            self.store = Watched(self.server.url(self.name), state)

    def _close(self) -> None:
        self.store.store.leave(self.store.worker)  # the next one leads
        self.store.store.close()

    def end(self) -> None:
        self._close()
        self.server.drop_database(self.name)


_worlds: dict[int, World] = {}


@pytest.fixture(scope="module", autouse=True)
def _end_of_the_world() -> Iterator[None]:
    yield
    while _worlds:
        _worlds.popitem()[1].end()


@pytest.fixture(
    scope="module",
    params=[(major, state) for major in (18, 15) for state in STATES],
    ids=lambda param: f"{param[0]}, {param[1]}",
)
def watched(request: pytest.FixtureRequest) -> Watched:
    major, state = request.param
    server = needed(lambda: postgres(major))
    if major not in _worlds:
        _worlds[major] = World(server)
    return _worlds[major].bring_to(state)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_an_operation_looks_at_its_own_rows_only(watched: Watched, operation: Callable[[Watched], object]) -> None:
    operation(watched)  # what came before is not counted: a first look reads the catalogue
    watched.forget()
    operation(watched)

    far = [scan for scan in watched.scans if scan.kind == "Seq Scan" and scan.table not in SMALL]
    looked_at = sum(scan.rows for scan in watched.scans)

    assert far == []
    assert looked_at <= OPERATIONS[operation], sorted(watched.scans, key=lambda scan: -scan.rows)[:5]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_claim_over_many_queues_takes_the_most_urgent_and_oldest(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    stored = []
    for n in range(900):  # some queues have much, some little; some are old, some young
        queue = min(int(chance.expovariate(0.3)), 14) if n % 300 < 200 else n // 300
        stored.append(NewRow(numbered(n), "t", f"q{queue}", b"{}", priority=chance.choice((0, 0, 0, 5, 9))))
    engine = Postgres18(tmp_path)
    store = engine.store()
    store.enqueue(stored)
    store.beat(WorkerInfo("w", "here:1", "here", 1), [])
    claimed: list[str] = []
    for number in range(1, 40):
        claimed += [job.id for job in store.turn("w", number, wants=[Want(None, 1 + number * 3)]).claimed]
    engine.close()

    assert claimed == [row.id for row in sorted(stored, key=lambda row: (-row.priority, row.id))]
