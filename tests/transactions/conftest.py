"""A stage: a place of one database system, an app whose jobs are there, and the application's kind of connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest

from dayjob import App, Retry, Settings
from tests.contract.engines import EngineUnderTest, Postgres18, SqliteFile
from tests.transactions.kinds import KINDS, Side

T = TypeVar("T")

SETTINGS = Settings(lease=2.5, beat=0.2, sweep=0.2, poll=0.2)
TWICE = Retry(max_attempts=2, backoff="fixed", base=0, jitter=0)


class Stage:
    """Where a test plays.

    Attributes:
        app: its jobs are in the place. send: a task. kind: the connection in question.
    """

    def __init__(self, engine: EngineUnderTest, kind: type[Side]) -> None:
        engine.store()
        self.kind, self.url = kind, engine.url
        self.app = App(self.url, settings=SETTINGS)

        @self.app.task(name="shop.send")
        def send(order: int) -> int:
            return order

        self.send = send
        with closing(self.connect()) as connection:
            connection.execute("CREATE TABLE effect (note text)")
            connection.commit()

    def connect(self) -> Any:
        """A connection of the test's own."""
        if self.kind.system == "sqlite":
            return sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=10.0)
        return psycopg.connect(self.url)

    def effects(self) -> list[str]:
        """What the application has committed."""
        with closing(self.connect()) as connection:
            return [row[0] for row in connection.execute("SELECT note FROM effect ORDER BY note").fetchall()]

    def play(self, story: Callable[[Side], Coroutine[Any, Any, T]]) -> T:
        return self.kind.play(self.url, story)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[Side]:
    found: type[Side] = request.param
    return found


@pytest.fixture
def stage(kind: type[Side], tmp_path: Path) -> Iterator[Stage]:
    engine: EngineUnderTest = (SqliteFile if kind.system == "sqlite" else Postgres18)(tmp_path)
    found = Stage(engine, kind)
    with found.app:
        yield found
    engine.close()
