"""A caller's own connection to the place of an engine, in a transaction that the test begins and ends."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Protocol

import psycopg
import pytest

from dayjob.states import Outcome
from dayjob.store.callers import Caller, Lent, adapt, perform
from dayjob.store.contract import Joining, Transaction
from dayjob.store.records import Claimed, Enqueued, Lease, Log, NewRow
from tests.contract.engines import ENGINES, EngineUnderTest, SqliteFile
from tests.contract.scene import Puppet, Scene

joinable = pytest.mark.parametrize(
    "engine",
    [one for one in ENGINES if one.processes and one.joins],
    ids=lambda engine: engine.name,
    indirect=True,
)
"""For tests of applications' own transactions: in place of all engines those that others can open, too."""


class Driver(Protocol):
    """What the drivers' connections have in common."""

    def execute(self, sql: str, /) -> Any: ...

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def close(self) -> None: ...


class Theirs:
    """An application's connection, and what dayjob does on it.

    Attributes:
        connection: the driver's.
    """

    def __init__(self, scene: Scene, connection: Driver) -> None:
        self.scene, self.connection = scene, connection
        self.store: Joining = scene.store
        self.caller: Caller = adapt(connection)

    def note(self, text: str) -> None:
        """An effect of the application's own."""
        self.connection.execute(f"INSERT INTO effect VALUES ('{text}')")

    def enqueue(self, *rows: NewRow, repeat: bool = False) -> list[Enqueued]:
        script = self.store.enqueue_script(rows, repeat=repeat, now=self.scene.now)
        return perform(self.store, self.caller, script)

    def complete(self, worker: Puppet, job: Claimed, logs: Sequence[Log] = (), **fields: Any) -> bool:
        lease = Lease(worker.id, job.id, job.entry)
        settlement = worker.settlement(job, Outcome.COMPLETED, **fields)
        script = self.store.completion_script(lease, settlement, logs, now=self.scene.now)
        return perform(self.store, self.caller, script)

    def commit(self) -> None:
        self.connection.commit()

    def rollback(self) -> None:
        self.connection.rollback()


@contextmanager
def theirs(scene: Scene) -> Iterator[Theirs]:
    """A connection of the application's, with a table `effect` of its own beside dayjob's."""
    with closing(connect(scene.engine)) as connection:
        yield Theirs(scene, connection)


def connect(engine: EngineUnderTest) -> Driver:
    """A driver's connection to the place of *engine*, not in autocommit."""
    if isinstance(engine, SqliteFile):
        connection: Driver = sqlite3.connect(engine.path, timeout=0.05)
    else:
        connection = psycopg.connect(engine.url)
    connection.execute("CREATE TABLE IF NOT EXISTS effect (note text)")
    connection.commit()
    return connection


def effects(engine: EngineUnderTest) -> list[str]:
    """The application's effects that are committed."""
    with closing(connect(engine)) as connection:
        return [row[0] for row in connection.execute("SELECT note FROM effect ORDER BY note").fetchall()]


def complete_on(transaction: Transaction, scene: Scene, worker: Puppet, job: Claimed) -> bool:
    """Complete *job* on a connection that the store has lent."""
    script = scene.store.completion_script(
        Lease(worker.id, job.id, job.entry), worker.settlement(job, Outcome.COMPLETED), now=scene.now
    )
    return perform(scene.store, Lent(transaction, scene.store.system), script)
