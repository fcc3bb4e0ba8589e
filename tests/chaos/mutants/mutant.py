"""What a seeded bug is, and the words with which they are told: the rules of the checker, the places of the texts."""

from __future__ import annotations

from contextlib import AbstractContextManager

from msgspec import Struct

from tests.chaos.mutation import Change, seeded
from tests.chaos.rules.jobs import PLANNED as PLANNED
from tests.chaos.rules.leases import ALONE as ALONE
from tests.chaos.rules.leases import EXPLAINED as EXPLAINED
from tests.chaos.rules.leases import SPARED as SPARED
from tests.chaos.rules.leases import UNDISTURBED as UNDISTURBED
from tests.chaos.storms import Storm

LOST = "acknowledged jobs reach a terminal state"
INVENTED = "jobs in the store were enqueued, each is there once"
WORKED = "completed jobs did their work"
ENDS_ONCE = "one accepted terminal transition per job"
LEGAL = "attempts and crashes follow the table"
STALE = "stale writes of workers are refused"
REPLAYED = "settlements under past leases are refused"
EARLY = "delayed jobs do not start early"
PROMPT = "who sleeps is woken by a job"
LEFT = "a process that is told to stop ends in order"
DRAINED = "all is done soon after the last fault"
BEATING = "beats are sent in time"
OBEYED = "cancels are obeyed"
REIGNS = "only who leads keeps time"
UNIQUE = "of a unique key one job is active"
TOLD = "who is told of a key's holder is told the truth"
CONCURRENT = "leases within their concurrency limit"
RATED = "starts within their rate by the store's clock"
ONCE = "each tick makes its job, once"
IN_TIME = "who leads ticks in time"
BESIDE = "jobs of a schedule overlap as it allows"

SQLITE = "store/sqlite/queries.sql"
POSTGRES = "store/postgres/queries.sql"
SCHEMA = "store/postgres/migrations/002_gates.sql"
LUA = "store/redis/lua"
EXITS = "store/redis/lua/shared/exits.lua"
SQLITE_CLUSTER = "dayjob.store.sqlite.cluster:ClusterPart"
POSTGRES_CLUSTER = "dayjob.store.postgres.cluster:ClusterPart"
SQLITE_TURN = "dayjob.store.sqlite.turns:TurnPart"
POSTGRES_TURN = "dayjob.store.postgres.turns:TurnPart"
RETURNED = "dayjob.store.exits:returned"
EXIT_OF = "dayjob.store.exits:exit_of"
GIVEN_UP = "dayjob.store.exits:given_up"
PUMP = "dayjob.worker.pump:Pump"
COMBINER = "dayjob.combiner:Combiner"

ENGINES = ("sqlite", "postgres", "redis")


class Mutant(Struct, frozen=True, kw_only=True):
    """One seeded bug.

    Attributes:
        breaks: what it does. promise: of DESIGN, section 3. noticed: the rules, one of which has to be broken at least.
        storm: in which it shows. live: it can show in a live run, too, in which there is all that it needs.
        sqlite, postgres, redis: the changes by engine. everywhere: those that concern no engine.
    """

    name: str
    promise: str
    breaks: str
    noticed: tuple[str, ...]
    storm: Storm
    live: bool = True
    sqlite: tuple[Change, ...] = ()
    postgres: tuple[Change, ...] = ()
    redis: tuple[Change, ...] = ()
    everywhere: tuple[Change, ...] = ()

    @property
    def engines(self) -> tuple[str, ...]:
        """Where it can be seeded."""
        return tuple(engine for engine in ENGINES if self.everywhere or self.of(engine))

    @property
    def own(self) -> bool:
        """True when it changes an engine."""
        return not self.everywhere

    def of(self, engine: str) -> tuple[Change, ...]:
        """Its changes on *engine*."""
        changes: tuple[Change, ...] = getattr(self, engine)
        return (*self.everywhere, *changes)

    def seeded(self, engine: str) -> AbstractContextManager[None]:
        """While this is open, dayjob has the bug."""
        changes = self.of(engine)
        if not changes:
            raise LookupError(f"{self.name} has no place in {engine}")
        return seeded(changes)
