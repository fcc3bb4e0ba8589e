"""What a run needs of an engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from tests.chaos.places.disk import Disk


class Place(ABC):
    """A store of the run's own.

    Attributes:
        name: of the engine. url: for workers and producers, through the line where there is one. judged_at: for the
            harness, which no line disturbs. crashes: when the store itself crashed (monotonic).
        disk: on which the data are, if `small_disk` could make it. forgets_claims, forgets: see `Conditions`.
    """

    name: ClassVar[str]
    disk: Disk | None = None
    forgets_claims: ClassVar[float] = 0.0
    forgets: ClassVar[float] = 0.0
    url: str
    judged_at: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.crashes: list[float] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @abstractmethod
    def prepare(self) -> None:
        """Make the application's own tables, where transactions are shared; dayjob's are there."""

    def small_disk(self) -> None:  # noqa: B027  # not every engine can, nor every machine
        """Before all else: move the data to a file system of their own, so that it can be full."""

    def look(self) -> None:  # noqa: B027  # there is nothing to see everywhere
        """Look at the store while the run goes on, about once a second."""

    @abstractmethod
    def audit(self) -> tuple[list[str], int]:
        """What is wrong with the data, when nothing runs any more; and how many things were looked at."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the store."""


def unpaid(completed: Iterable[str], paid: Iterable[str]) -> list[str]:
    """What is wrong between jobs that complete in a transaction and the rows which they write in it.

    Args:
        completed: ids of those that did. paid: ids in the application's table, one for each row.
    """
    done, written = set(completed), Counter(paid)
    wrong = [f"{id} completed, and its transaction was not committed" for id in done - written.keys()]
    wrong += [f"{id} did not complete, and its transaction was committed" for id in written.keys() - done]
    return wrong + [f"{id} committed {count} times" for id, count in written.items() if count > 1]
