"""Counts what happened, until the next beat takes the counts along to the store."""

from __future__ import annotations

from collections import Counter
from threading import Lock

from dayjob.clock import SECOND
from dayjob.states import Outcome
from dayjob.store.records import Tally


class Tallies:
    """Counts by queue and name.

    Attributes:
        counts: settled jobs by outcome, since the start.
    """

    def __init__(self) -> None:
        self.counts: Counter[Outcome] = Counter()
        self._since: dict[tuple[str, str], list[float]] = {}
        self._lock = Lock()

    def add(self, queue: str, what: Outcome | str, number: int = 1, busy: int = 0) -> None:
        """Count *number* times *what*, with *busy* microseconds of execution behind it."""
        if isinstance(what, Outcome):
            self.counts[what] += number
        with self._lock:
            tally = self._since.setdefault((queue, str(what)), [0, 0.0])
            tally[0] += number
            tally[1] += busy / SECOND

    def take(self) -> list[Tally]:
        """What was counted since the last call."""
        with self._lock:
            taken, self._since = self._since, {}
        return [Tally(queue, name, int(number), busy) for (queue, name), (number, busy) in taken.items()]

    def give_back(self, tallies: list[Tally]) -> None:
        """*tallies* reached nobody: count them again."""
        with self._lock:
            for tally in tallies:
                kept = self._since.setdefault((tally.queue, tally.name), [0, 0.0])
                kept[0] += tally.count
                kept[1] += tally.busy
