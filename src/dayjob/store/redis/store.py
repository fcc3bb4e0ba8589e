"""The engine as a whole: the parts over one namespace, its signals, its life."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import local

from dayjob.errors import NotSupported, SchemaMismatch
from dayjob.store.contract import Listener, MigrationPart
from dayjob.store.records import Durability, Enqueued, Health, NewRow
from dayjob.store.redis.cluster import ClusterPart
from dayjob.store.redis.copying import CopyingPart
from dayjob.store.redis.gates import GatesPart
from dayjob.store.redis.health import Examination
from dayjob.store.redis.joining import JoiningPart
from dayjob.store.redis.server import SCHEMA, Server
from dayjob.store.redis.signals import Signals
from dayjob.store.redis.ticking import TicksPart

JUST_NOW = 0.05
"""Seconds between an enqueue and the signal that belongs to it, at most."""
STEP = "001_initial"


class RedisStore(ClusterPart, CopyingPart, JoiningPart, GatesPart, TicksPart):
    """`dayjob.store.contract.Store` on Redis and Valkey.

    Attributes:
        url: without secrets. polls: False. processes: True.
    """

    polls, processes = False, True

    def __init__(self, url: str, *, clock: Callable[[], int] | None, lease: float, namespace: str) -> None:
        super().__init__(Server(url, namespace, clock), lease)
        self.url = self.server.url
        self._said = local()
        self._signals = Signals(self.server, lambda: self.ears_open, self._woken)

    def enqueue(self, jobs: Sequence[NewRow], *, repeat: bool = False, now: int | None = None) -> list[Enqueued]:
        outcomes = super().enqueue(jobs, repeat=repeat, now=now)
        self._said.at, self._said.queues = time.monotonic(), {job.queue.encode() for job in jobs}
        return outcomes

    def _woken(self, queue: bytes) -> bool:
        """Whether this thread's enqueue of just now has woken whoever sleeps; asking forgets it."""
        queues: set[bytes] = getattr(self._said, "queues", set())
        if time.monotonic() - getattr(self._said, "at", 0.0) > JUST_NOW or queue not in queues:
            return False
        queues.discard(queue)
        return True

    def notify(self, topic: str, data: bytes = b"") -> None:
        self._signals.notify(topic, data)

    def listening(self, topic: str, *, within: float = 0.05) -> bool:
        return self._signals.listening(topic, within=within)

    def listen(self, topics: Sequence[str]) -> Listener:
        return self._signals.hub.listen(topics)

    def migrate(self, *, dry_run: bool = False, part: MigrationPart | None = None) -> list[str]:
        if part == "roles":
            raise NotSupported("--roles", "users are made with ACL SETUSER: see the page on Redis")
        if part == "post":
            return []
        if dry_run:
            found = int(self.server.command("HGET", self.server.meta, "schema") or 0)
        else:
            found = self.server.call("migrate", SCHEMA)
        if found > SCHEMA:
            raise SchemaMismatch(found, SCHEMA)
        return [] if found else [STEP]

    def migration_sql(self, *, part: MigrationPart | None = None) -> str:
        raise NotSupported("migration SQL", "this engine has none; `dayjob migrate` writes one field")

    def check(self) -> Health:
        return Examination(self.server).health()

    def durability(self) -> Durability:
        return Examination(self.server).durability()

    def now(self) -> int:
        return self.server.now()

    def close(self) -> None:
        self._signals.hub.close()
        self.server.close()

    def drop(self) -> None:
        cursor = 0
        while True:
            found, keys = self.server.command("SCAN", cursor, "MATCH", f"{self.server.prefix}*", "COUNT", 1000)
            if keys:
                self.server.command("UNLINK", *keys)
            cursor = int(found)
            if not cursor:
                break
        self.close()
