"""Where a claim need not look any more: what keeps claims fast while vacuum may not remove dead rows.

A transaction that stays open anywhere (a report, a forgotten session, a standby's feedback) holds back vacuum: the rows
of jobs that were claimed long ago stay in `ready` and in its index, and a scan from the beginning walks over all of them.
Rows there get rising places, in transactions of milliseconds; so once a claim has gone up to a place, nothing new appears
below it after a short while. Each process remembers those places (per queue and priority) and begins there.

"A short while" is a guess, so it is checked: once in a while a claim looks at everything. How often is measured: such
looks may take one part in a hundred of the time, and cost nothing where vacuum works, as then once a second.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import NamedTuple

LAG = 2.0
"""Seconds until what a claim has passed is taken as final: far more than a transaction of an enqueue takes."""
LOOK_BACK = 1.0
SHARE = 100.0

Level = tuple[str, int]


class Question(NamedTuple):
    """What a claim is told: floors by queue and priority, the floor of due times, the snapshot of the last claim."""

    levels: list[Level]
    floors: list[int]
    due: int
    seen: str | None
    everything: bool


class Floors:
    """The memory of one process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Look at everything the next time: another server may be behind the address, or a backup."""
        self._sure: dict[Level, int] = {}
        self._due = 0
        self._moment = 0
        self._recent: deque[tuple[float, list[tuple[Level, int]], int]] = deque()
        self._seen: str | None = None
        self._look_at = 0.0

    def ask(self) -> Question:
        """For the next claim."""
        now = time.monotonic()
        with self._lock:
            while self._recent and self._recent[0][0] < now - LAG:
                _, levels, due = self._recent.popleft()
                for level, place in levels:
                    self._sure[level] = max(place, self._sure.get(level, 0))
                self._due = max(self._due, due)
            if now >= self._look_at:
                return Question([], [], 0, self._seen, True)
            return Question(list(self._sure), list(self._sure.values()), self._due, self._seen, False)

    def learn(
        self, asked: Question, levels: list[tuple[str, int, int | None]], moment: int, seen: str, took: float
    ) -> None:
        """From the answer: places reached, the store's time of it, its snapshot, and how many seconds it took."""
        now = time.monotonic()
        with self._lock:
            if moment < self._moment:
                self.forget()  # the clock went back: a test's, or a restored server's
            self._moment, self._seen = moment, seen
            reached = [((queue, priority), place) for queue, priority, place in levels if place is not None]
            # At full speed a process claims a hundred times a second: one memory each tenth of a second is enough.
            if not self._recent or now - self._recent[-1][0] > 0.1 or reached != self._recent[-1][1]:
                self._recent.append((now, reached, moment))
            if asked.everything:
                self._look_at = now + max(LOOK_BACK, SHARE * took)
