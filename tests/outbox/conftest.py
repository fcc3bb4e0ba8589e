"""A scene: an application's database of each kind, and a queue in another store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dayjob import App
from dayjob.outbox.desk import Desk
from dayjob.outbox.relay import OutboxRelay
from dayjob.outbox.source import Source
from tests.contract.engines import Postgres18
from tests.outbox.places import connect, execute
from tests.servers.mariadb import mariadb
from tests.servers.needed import needed
from tests.transactions.kinds import KINDS, Side

TABLE = "dayjob_outbox"


class Scene:
    """Attributes: app: its jobs are in one store; url: the application's database, with an outbox. send: a task."""

    def __init__(self, url: str, store: str) -> None:
        self.url, self.app = url, App(store)
        self._desks: list[Desk] = []

        @self.app.task(name="shop.send")
        def send(order: int) -> int:
            return order

        self.send = send
        self.desk().make()
        self.sql("CREATE TABLE effect (note text)")

    def desk(self, holder: str = "tester") -> Desk:
        self._desks.append(Desk(Source(self.url), TABLE, holder, 10.0))
        return self._desks[-1]

    def relay(self, holder: str = "relay", **options: Any) -> OutboxRelay:
        return OutboxRelay(self.desk(holder), self.app.store, self.app.bus, **options)

    def connect(self) -> Any:
        return connect(self.url)

    def sql(self, text: str, *values: Any) -> list[Any]:
        """Execute and commit; the rows, if there are any. `?` stands for a value."""
        with closing(self.connect()) as connection:
            rows = execute(connection, text, values)
            connection.commit()
            return rows

    def rewrite(self, id: str, change: Callable[[bytes], Any]) -> None:
        """Change the body of a row."""
        ((body,),) = self.sql("SELECT body FROM dayjob_outbox WHERE job_id = ?", id)
        self.sql("UPDATE dayjob_outbox SET body = ? WHERE job_id = ?", change(bytes(body)), id)

    def free(self) -> None:
        """As if whoever has the outbox were silent for long."""
        self.sql("UPDATE dayjob_outbox_relay SET held_until = 0")

    def put(self, *orders: int, **options: Any) -> list[str]:
        """Write jobs into the outbox, and commit."""
        with closing(self.connect()) as connection, self.app.outbox(connection):
            jobs = self.app.enqueue_many([self.send.using(**options).job(order=order) for order in orders])
            connection.commit()
        return [job.id for job in jobs]

    def stored(self) -> list[str]:
        """The ids of the jobs in the store, in the order in which they came there."""
        return sorted((job.id for job in self.app.jobs.find(limit=1000)), key=str)

    def orders(self) -> list[int]:
        """The orders that a worker takes, one after the other."""
        taken: list[int] = []
        self.app.on("job.completed")(lambda event: taken.append(self.app.jobs.get(event.id).args["order"]))
        self.app.worker(concurrency=1).run_until_idle()
        return taken

    def close(self) -> None:
        for desk in self._desks:
            desk.source.close()
        self.app.close()


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """The queue in an SQLite file; the application on SQLite, on PostgreSQL and on MariaDB."""
    yield from _scene(str(request.param), tmp_path)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[Side]:
    found: type[Side] = request.param
    return found


@pytest.fixture
def staged(kind: type[Side], tmp_path: Path) -> Iterator[Scene]:
    """The same, for every kind of connection."""
    yield from _scene(kind.system, tmp_path)


def _scene(system: str, folder: Path) -> Iterator[Scene]:
    if system == "sqlite":
        path = folder / "shop.db"
        sqlite3.connect(path).close()
        made = Scene(f"sqlite:///{path}", f"sqlite:///{folder / 'jobs.db'}")
        yield made
        made.close()
        return
    if system == "mariadb":
        yield from on_mariadb(folder)
        return
    engine = Postgres18(folder)
    made = Scene(engine.url, f"sqlite:///{folder / 'jobs.db'}")
    yield made
    made.close()
    engine.close()


def on_mariadb(folder: Path) -> Iterator[Scene]:
    """The application on MariaDB, where this machine has it."""
    server = needed(mariadb)
    database = server.create_database()
    made = Scene(server.url(database), f"sqlite:///{folder / 'jobs.db'}")
    yield made
    made.close()
    server.sql(f"DROP DATABASE {database}")
