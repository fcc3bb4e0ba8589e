"""The engine as a whole: the parts over one database, its signals, its life."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from dayjob.store.contract import Listener, MigrationPart
from dayjob.store.postgres import schema
from dayjob.store.postgres.breakers import BreakersPart
from dayjob.store.postgres.copying import CopyingPart
from dayjob.store.postgres.database import Database
from dayjob.store.postgres.health import Examination
from dayjob.store.postgres.signals import Signals
from dayjob.store.postgres.ticking import TicksPart
from dayjob.store.records import Durability, Enqueued, Health, NewRow

JUST_NOW = 0.05
"""Seconds between an enqueue and the signal that belongs to it, at most."""


class PostgresStore(BreakersPart, CopyingPart, TicksPart):
    """`dayjob.store.contract.Store` on PostgreSQL.

    Attributes:
        url: without the password. processes: True.
    """

    processes = True

    def __init__(self, url: str, *, clock: Callable[[], int] | None, lease: float, namespace: str) -> None:
        super().__init__(Database(url, namespace, clock), lease)
        self.url = self.db.url
        self._signals = Signals(self.db, lambda: self.ears_open, self._awake)

    @property
    def polls(self) -> bool:
        """True behind a pooler in transaction mode, once a connection has shown it."""
        return self.db.pooled

    def enqueue(self, jobs: Sequence[NewRow], *, repeat: bool = False, now: int | None = None) -> list[Enqueued]:
        self.db.require_schema()
        if self.db.inserts:
            return super().enqueue(jobs, repeat=repeat, now=now)
        outcomes = self.enqueue_by_function(jobs, repeat=repeat, now=now)
        self._said.awake = time.monotonic()  # the function has told whoever sleeps
        return outcomes

    def _awake(self) -> bool:
        """Whether this thread's enqueue of just now found nobody asleep; asking forgets it."""
        found, self._said.awake = getattr(self._said, "awake", 0.0), 0.0
        return bool(time.monotonic() - found < JUST_NOW)

    def notify(self, topic: str, data: bytes = b"") -> None:
        self._signals.notify(topic, data)

    def listening(self, topic: str, *, within: float = 0.05) -> bool:
        return self._signals.listening(topic, within=within)

    def listen(self, topics: Sequence[str]) -> Listener:
        return self._signals.hub.listen(topics)

    def migrate(self, *, dry_run: bool = False, part: MigrationPart | None = None) -> list[str]:
        if part == "roles":
            return schema.role_names(self.db) if dry_run else schema.make_roles(self.db)
        return schema.migrate(self.db, dry_run=dry_run, part=part)

    def migration_sql(self, *, part: MigrationPart | None = None) -> str:
        return schema.roles_script(self.db) if part == "roles" else schema.script(self.db, part=part)

    def check(self) -> Health:
        return Examination(self.db).health()

    def durability(self) -> Durability:
        return Examination(self.db).durability()

    def now(self) -> int:
        return self.db.now()

    def close(self) -> None:
        self._signals.hub.close()
        self.lender.close()
        self.db.close()

    def drop(self) -> None:
        with self.db.write(schema=False) as connection:
            connection.execute(f'DROP SCHEMA IF EXISTS "{self.db.namespace}" CASCADE')
        self.close()
