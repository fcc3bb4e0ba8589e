"""A PostgreSQL store in which very many jobs are blocked behind one key, and as many wait for their time, watched as `test_postgres_plans` does it."""

from __future__ import annotations

from contextlib import closing

from dayjob.states import Outcome, State
from dayjob.store import open_store
from dayjob.store.gating import Gate, Gating, QueueLimits
from dayjob.store.records import Cancel, Filter, Settlement
from tests.schema.test_postgres_plans import SETTINGS, Watched, rows
from tests.servers.postgres import Server

BLOCKED = 100_000
BATCH = 100
ONE = Gate("concurrency", "one", 1)
STATES = ("few", "many, planned when few", "many, analysed", "many, analysed, new plans")

_FILL = f"""
SET auto_explain.log_min_duration = -1;
SET session_replication_role = replica;
WITH first AS MATERIALIZED (SELECT j.gating, w.line, w.rank, w.gates FROM dayjob.waits AS w JOIN dayjob.job AS j ON j.id = w.id LIMIT 1),
job AS (
    INSERT INTO dayjob.job (id, entry, place, created_at, run_at, priority, state, queue, task, payload, gating)
    SELECT ('01890000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid, n, n, t, t, 0, 'blocked', 'q0', 't', '{{}}', f.gating
    FROM first AS f, (SELECT nextval('dayjob.entry') AS n, dayjob.clock() AS t FROM generate_series(1, {BLOCKED})) AS s
    RETURNING id, place, entry
)
INSERT INTO dayjob.waits (id, line, rank, place, entry, priority, strict, queue, gates)
SELECT j.id, f.line, f.rank, j.place, j.entry, 0, false, 'q0', f.gates FROM job AS j, first AS f;
INSERT INTO dayjob.job (id, entry, place, created_at, run_at, priority, state, queue, task, payload)
SELECT ('01890000-0000-7000-a000-' || lpad(to_hex(n), 12, '0'))::uuid, n, n, t, t + 86400000000, 0, 'scheduled', 'q0', 't', '{{}}'
FROM (SELECT nextval('dayjob.entry') AS n, dayjob.clock() AS t FROM generate_series(1, {BLOCKED})) AS s;
"""


class Gated(Watched):
    """Operations of jobs that have limits; nothing of the key `one` is free unless it is said."""

    def many_keys(self, outcome: Outcome = Outcome.COMPLETED) -> None:
        """A batch of jobs of 20 keys comes, is admitted, claimed and settled, and its tokens come free."""
        self.come(BATCH, [Gate("concurrency", f"key{n}", 1_000) for n in range(20)])
        self._settle(outcome)

    def many_keys_fail(self) -> None:
        self.many_keys(Outcome.FAILED)

    def many_keys_again(self) -> None:
        self.many_keys(Outcome.RELEASED)
        self._settle(Outcome.COMPLETED)

    def rates(self) -> None:
        self.come(BATCH, [Gate("rate", f"rate{n}", 1_000_000, 0.001) for n in range(20)])
        self._settle(Outcome.COMPLETED)

    def one_token(self) -> None:
        """The token for which all wait comes free, and goes to the first."""
        assert self.store.turn(self.worker, settlements=[self._held]).refused == []
        self.hold()

    def hold(self) -> None:
        """Claim the one job that has the token."""
        [job] = self.claim(BATCH)
        self._held = Settlement(job.id, job.entry, Outcome.COMPLETED, 1, 2, keep=86_400.0, claim_no=self._claims)

    def join_the_line(self) -> None:
        self.come(10, [ONE])
        assert self._settle(Outcome.COMPLETED) == 0

    def leave_the_line(self) -> None:
        ids = self.come(10, [ONE])
        assert len(self.store.act(Filter(ids=ids), Cancel())) == 10

    def shed(self) -> None:
        """A batch comes to a full queue that drops its oldest."""
        self.store.limit_queue("q0", QueueLimits(max_depth=1, when_full="drop_oldest"))
        self.come(10, [ONE])
        self.store.limit_queue("q0", None)

    def ungated(self) -> None:
        self.store.enqueue(rows(BATCH))
        assert self._settle(Outcome.COMPLETED) == BATCH

    def sweep(self) -> None:
        self.come(BATCH, [Gate("concurrency", f"idle{n}", 1_000) for n in range(20)])
        term = self.store.beat(self.info, [self._claims]).term
        assert term is not None
        assert self.store.admit(term) is not None
        assert self.store.admit(term) is not None
        self._settle(Outcome.COMPLETED)

    def come(self, jobs: int, gates: list[Gate]) -> tuple[str, ...]:
        found = rows(jobs)
        for n, row in enumerate(found):
            row.queue, row.priority, row.gating = "q0", 0, Gating(gates=(gates[n % len(gates)],))
        self.store.enqueue(found)
        return tuple(row.id for row in found)

    def _settle(self, outcome: Outcome) -> int:
        """Settle what can be claimed; how many."""
        done = [
            Settlement(job.id, job.entry, outcome, 1, 2, keep=86_400.0, delay=3600, claim_no=self._claims)
            for job in self.claim(BATCH)
        ]
        assert self.store.turn(self.worker, settlements=done).refused == []
        return len(done)


OPERATIONS = {
    Gated.many_keys: 25 * BATCH,
    Gated.many_keys_fail: 25 * BATCH,
    Gated.many_keys_again: 50 * BATCH,
    Gated.rates: 25 * BATCH,
    Gated.one_token: 5 * BATCH,
    Gated.join_the_line: 5 * BATCH,
    Gated.leave_the_line: 5 * BATCH,
    Gated.shed: 10 * BATCH,
    Gated.ungated: 10 * BATCH,
    Gated.sweep: 25 * BATCH,
}
"""What is done, and how many rows it may look at: some for each job of its batch, however many are blocked."""


class Crowd:
    """A database on its way through `STATES`."""

    def __init__(self, server: Server) -> None:
        self.server, self.name = server, server.create_database()
        with closing(open_store(server.url(self.name))) as store:
            store.migrate()
        for setting, value in SETTINGS.items():
            server.sql(f"ALTER DATABASE {self.name} SET {setting} = '{value}'")
        self._sql("ANALYZE")
        for (table,) in server.sql(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'dayjob'::regnamespace",
            database=self.name,
        ):
            self._sql(f"ALTER TABLE dayjob.{table} SET (autovacuum_enabled = off)")
        self.store = Gated(server.url(self.name), "early")
        self.store.come(1, [ONE])
        self.store.hold()
        self.store.join_the_line()
        self._learn()
        assert self.store.store.count(Filter(states=(State.DEAD,))) == 70
        self._state = 1

    def _learn(self) -> None:
        for _ in range(7):  # a plan is made for good at the sixth time
            for operation in OPERATIONS:
                operation(self.store)

    def _sql(self, statement: str) -> None:
        self.server.sql(statement, database=self.name)

    def bring_to(self, state: str) -> Gated:
        """Do what lies between; the store to watch."""
        between = STATES[self._state : STATES.index(state) + 1]
        self._state += len(between)
        for passed in between:
            if passed == "many, planned when few":
                self._sql(_FILL)
            elif passed == "many, analysed":
                self._sql("ANALYZE")
            else:
                self._close()
                self.store = Gated(self.server.url(self.name), "late")
                self.store.hold()
                self._learn()
        return self.store

    def _close(self) -> None:
        self.store.store.leave(self.store.worker)  # the next one leads
        self.store.store.close()

    def end(self) -> None:
        self._close()
        self.server.drop_database(self.name)
