"""PostgreSQL 18: a server that is killed now and then. It does not wait for the disk, which only a power cut would show."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psycopg

from tests.chaos import app as chaos
from tests.chaos.places.line import Behind
from tests.chaos.places.place import unpaid
from tests.servers.postgres import FORGETFUL, Server, programs
from tests.servers.proxy import Proxy
from tests.servers.wire.postgres import PostgresWire

ORPHANS = {
    "jobs that both wait and have finished": "SELECT id FROM dayjob.job WHERE id IN (SELECT id FROM dayjob.history)",
    "finished jobs that are there twice": "SELECT id FROM dayjob.history GROUP BY id HAVING count(*) > 1",
    "ready when nothing waits": "SELECT id FROM dayjob.ready",
    "arrivals when nothing waits": "SELECT a.id FROM dayjob.arrival AS a",
    "attempts of no job": "SELECT id FROM dayjob.attempt EXCEPT"
    " (SELECT id FROM dayjob.job UNION SELECT id FROM dayjob.history)",
    "checkpoints of no job": "SELECT id FROM dayjob.checkpoint EXCEPT"
    " (SELECT id FROM dayjob.job UNION SELECT id FROM dayjob.history)",
    "leases when nobody works": "SELECT worker || ' ' || claim_no FROM dayjob.lease WHERE open > 0",
    "workers when nobody works": "SELECT id FROM dayjob.worker WHERE lost_at IS NULL AND NOT resigned",
    "totals that are not so": "SELECT queue || ' ' || state || ': ' || sum(jobs) FROM (SELECT queue, state, jobs FROM"
    " dayjob.total UNION ALL SELECT queue, state, -1 FROM dayjob.history) AS t GROUP BY queue, state HAVING sum(jobs) <> 0",
}
IDLE = (
    "SELECT pid || ' ' || query FROM pg_stat_activity WHERE datname = 'postgres' AND state LIKE 'idle in transaction%%'"
    " AND xact_start < clock_timestamp() - interval '10 s' AND application_name <> 'pg_dump'"
)


class Postgres(Behind):
    """Version 18 with its own settings."""

    name = "postgres"
    dialect = "postgres"
    forgets_claims = 1.0

    def __init__(self, folder: Path) -> None:
        self.server = Server(programs(18), FORGETFUL)
        super().__init__(folder, Proxy(self.server.port, PostgresWire))
        self.judged_at = self.server.url()
        self.url = self.server.url(port=self.proxy.port)
        self._idle: set[str] = set()

    def prepare(self) -> None:
        self.server.sql(f"CREATE TABLE {chaos.PAID} (id uuid, entry bigint); CREATE TABLE {chaos.SENT} (jobs int)")

    def kill(self) -> None:
        self.server.stop("immediate")

    def start(self) -> None:
        self.server.start()

    def kill_a_backend(self) -> None:
        """SIGKILL to one connection's process: the server takes all of them down, and recovers."""
        [(pid,)] = self.server.sql(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            " ORDER BY backend_start LIMIT 1"
        )
        os.kill(pid, signal.SIGKILL)
        self.crashes.append(time.monotonic())

    def back_up(self, to: Path) -> None:
        """As any database's; again, when it crashes meanwhile."""
        until = time.monotonic() + 15.0
        while True:
            try:
                self._run("pg_dump", "--format=custom", f"--file={to}", f"--dbname={self.judged_at}")
            except subprocess.CalledProcessError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)  # until the server has recovered
            else:
                return

    def restored(self, backup: Path) -> str:
        """The URL of a store made of *backup*: another database of this server."""
        url = self.server.url(self.server.create_database("template0"))
        self._run("pg_restore", f"--dbname={url}", str(backup))
        return url

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run([self.server.programs / program, *arguments], check=True)

    def look(self) -> None:
        try:
            with psycopg.connect(self.judged_at, connect_timeout=2, autocommit=True) as connection:
                self._idle |= {f"open for more than 10 s: {row}" for (row,) in connection.execute(IDLE)}
        except psycopg.Error:
            return  # it is being killed

    def audit(self) -> tuple[list[str], int]:
        tables = self.server.sql("SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND oid > 16384")
        looked_at = sum(self.server.sql(f"SELECT count(*) FROM {name}")[0][0] for (name,) in tables)
        wrong = sorted(self._idle)
        for what, query in ORPHANS.items():
            wrong += [f"{what}: {row}" for (row,) in self.server.sql(query)]
        done = self.server.sql("SELECT id FROM dayjob.history WHERE task LIKE '%.pay' AND state = 'completed'")
        paid = self.server.sql(f"SELECT id FROM {chaos.PAID}")
        return wrong + unpaid((str(id) for (id,) in done), (str(id) for (id,) in paid)), looked_at

    def close(self) -> None:
        super().close()
        self.server.close()
