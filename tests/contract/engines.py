"""All that the contract suite knows of a particular engine. A new engine is one class here and a place in `ENGINES`."""

from __future__ import annotations

import itertools
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import ClassVar

from dayjob.store import open_store
from dayjob.store.contract import Store

_places = itertools.count()


class EngineUnderTest(ABC):
    """One engine with one place for its data, empty at first.

    Attributes:
        name: for the tests' ids.
        processes: whether other processes can open the same data.
        interruptible: whether `outage` can make the place unavailable.
        url: the place.
    """

    name: ClassVar[str]
    processes: ClassVar[bool] = True
    interruptible: ClassVar[bool] = True
    url: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._handles: list[Store] = []

    def open(self) -> Store:
        """A handle of its own on this place, as another process would have; nothing is migrated."""
        handle = open_store(self.url)
        self._handles.append(handle)
        return handle

    def store(self) -> Store:
        """A handle of its own on this place, migrated."""
        handle = self.open()
        handle.migrate()
        return handle

    @abstractmethod
    def outage(self) -> AbstractContextManager[None]:
        """While this is open, whatever would write to the place fails with `StoreUnavailable`, however it is opened."""

    def close(self) -> None:
        """Let go of every handle that was opened here."""
        for handle in self._handles:
            handle.close()


class SqliteFile(EngineUnderTest):
    """SQLite in a file: the embedded engine as people run it."""

    name = "sqlite-file"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = folder / f"jobs{next(_places)}.db"
        self.url = f"sqlite:///{self.path}"

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Someone else holds the write lock and does not let go."""
        intruder = sqlite3.connect(self.path, isolation_level=None)
        intruder.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            intruder.execute("ROLLBACK")
            intruder.close()


class SqliteMemory(EngineUnderTest):
    """SQLite in memory: one handle is the whole place, so every `open` answers the same one."""

    name = "sqlite-memory"
    processes = False
    interruptible = False
    url = "sqlite:///:memory:"

    def open(self) -> Store:
        return self._handles[0] if self._handles else super().open()

    def outage(self) -> AbstractContextManager[None]:
        raise NotImplementedError("memory does not fail")


ENGINES: tuple[type[EngineUnderTest], ...] = (SqliteFile, SqliteMemory)
