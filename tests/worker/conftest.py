"""A shop on a store of its own, workers in threads, and a witness of what happens."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Condition, Thread
from types import ModuleType
from typing import Any

import pytest

from dayjob.events import Bus, Event
from dayjob.worker.worker import Worker


class Witness:
    """Sees every event of a bus; tests wait for what they expect instead of sleeping."""

    def __init__(self, bus: Bus) -> None:
        self.events: list[Event] = []
        self._news = Condition()
        self.end = bus.subscribe("*", self._see)

    def _see(self, event: Event) -> None:
        with self._news:
            self.events.append(event)
            self._news.notify_all()

    def of(self, name: str) -> list[Any]:
        with self._news:
            return [event for event in self.events if event.name == name]

    def wait_for(
        self, name: str, where: Callable[[Any], bool] = lambda event: True, *, count: int = 1, timeout: float = 15.0
    ) -> Any:
        """The *count*-th event of *name* that fits."""

        def found() -> list[Any]:
            return [event for event in self.events if event.name == name and where(event)]

        with self._news:
            if not self._news.wait_for(lambda: len(found()) >= count, timeout):
                seen = "\n".join(f"  {event}"[:300] for event in self.events[-40:])
                raise AssertionError(f"no {name} within {timeout:g} s; seen:\n{seen}")
            return found()[count - 1]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[ModuleType]:
    """The shop with an empty store in a file."""
    from tests.worker import shop as module

    module.app.close()
    module.app.url = f"sqlite:///{tmp_path}/shop.db"
    yield module
    module.app.close()


@pytest.fixture
def witness(shop: ModuleType) -> Iterator[Witness]:
    seen = Witness(shop.app.bus)
    yield seen
    seen.end()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where tasks leave their marks."""
    return tmp_path / "marks"


@contextlib.contextmanager
def working(worker: Worker) -> Iterator[Worker]:
    """*worker* at work in a thread; stopped at the end."""
    thread = Thread(target=worker.run, name="worker-under-test", daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop(now=True)
        thread.join(15)
        assert not thread.is_alive()
