"""Where a claim need not look any more: what keeps claims fast while vacuum may not remove dead rows.

A transaction that stays open anywhere (a report, a forgotten session, a standby's feedback) holds back vacuum: the rows
of jobs that were claimed long ago stay in `ready` and in its index, and a scan from the beginning walks over all of them.
So each process remembers up to which place a claim saw nothing left (by queue and priority), and begins there.

That is final only when nobody can come below that place any more: places rise, but who took one may commit late. A check,
once a second, makes sure of it. Whoever writes to `ready` holds its lock from before he takes a place until what he wrote is
there to see, so when all who held it at one check have let go by another one, everything up to the first one's *mark*
(the last place given away then, and its time) is there to see or will never be:

    check 1: mark M, writers {a, b}     check 2: a is left, M waits     check 3: none is left, M is decided

A claim that asks after that may raise floors up to M. Times of scheduled jobs are treated alike, as whoever schedules one
holds that lock, too. Only writers of dayjob's own hold it, for milliseconds; callers' long transactions go another way
(`arrival`). A crash of the server may take back the last claims, which are not waited for, and a restored backup many more.
Then its incarnation changes, or places begin below what we know: everything is forgotten but the floors that a check wrote
down, which are as old as the claims they speak of. A check that meets another incarnation than the one its floors come from
writes none down.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

REMEMBERED = 3600.0
"""Seconds after which a level that no claim speaks of any more is forgotten: queues named after customers come and go."""

CHECK = 1.0
"""Seconds between two checks of one process; each costs the server about half a millisecond."""

Level = tuple[str, int]


class Question(NamedTuple):
    """What a claim is told, and up to where its answer may be trusted.

    Attributes:
        levels, floors: places by queue and priority. due: the floor of due times. seen: the snapshot of the last claim.
        check: whether to look who writes. place, moment: decided when this was asked. age: of which memory it is.
        incarnation: the one that the floors speak of, as the last check told it.
    """

    levels: list[Level]
    floors: list[int]
    due: int
    seen: str | None
    check: bool
    place: int
    moment: int
    age: int
    incarnation: str | None


class Answer(NamedTuple):
    """What a claim tells.

    Attributes:
        moment: the store's clock. top: the last place that was given away before it looked. seen: its snapshot.
        levels: (queue, priority, place): nothing unclaimed was left there up to this place. more: more is due than was staged.
        writers: who writes to `ready`, and incarnation: which run of which server this is; only where it was to check.
    """

    moment: int
    top: int
    seen: str
    levels: Sequence[tuple[str, int, int]]
    more: bool
    writers: Iterable[str] | None = None
    incarnation: str | None = None


class Floors:
    """The memory of one process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._age = 0
        self._check_at = 0.0
        self._incarnation: str | None = None
        self.forget()

    def forget(self) -> None:
        """Look at everything again: another server may be behind the address, or what was claimed was taken back."""
        with self._lock:
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._age += 1  # answers to what was asked before count no more
        self._floors: dict[Level, int] = {}
        self._named: set[Level] = set()
        self._forget_at = time.monotonic() + REMEMBERED
        self._due = 0
        self._seen: str | None = None
        self._moment = 0
        self._decided = (0, 0)
        self._mark: tuple[int, int] | None = None
        self._writers: set[str] = set()

    def ask(self, *, check: bool = True) -> Question:
        """For the next claim; *check* False for whoever makes no check, which is another's then."""
        now = time.monotonic()
        with self._lock:
            check = check and now >= self._check_at
            if now >= self._forget_at:
                self._floors = {level: floor for level, floor in self._floors.items() if level in self._named}
                self._named, self._forget_at = set(), now + REMEMBERED
            if check:
                self._check_at = now + CHECK
            return Question(
                list(self._floors), list(self._floors.values()), self._due, self._seen, check, *self._decided, self._age,
                self._incarnation,
            )  # fmt: skip

    def learn(self, asked: Question, told: Answer) -> None:
        """From the answer to *asked*, which was committed. Answers may come in another order than claims were made."""
        with self._lock:
            if told.incarnation is not None and told.incarnation != self._incarnation:
                known, self._incarnation = self._incarnation, told.incarnation
                if known is not None:
                    self._begin_anew()
            if asked.age != self._age:
                return
            if told.moment < self._moment - 1_000_000 or told.top < asked.place:
                self._begin_anew()  # clock or places went back: a test's clock, somebody set the server's, a backup
                return
            if told.moment >= self._moment:
                self._moment, self._seen = told.moment, told.seen
            for queue, priority, place in told.levels:
                level = (queue, priority)
                self._named.add(level)
                self._floors[level] = max(self._floors.get(level, 0), min(place, asked.place))
            self._due = 0 if told.more else max(self._due, min(told.moment, asked.moment))
            if told.writers is not None:
                self._decide(set(told.writers), (told.top, told.moment))

    def _decide(self, writers: set[str], mark: tuple[int, int]) -> None:
        """After a check: the last mark is decided when nobody is left who wrote then."""
        self._writers &= writers
        if not self._writers:
            if self._mark is not None:
                self._decided = self._mark
            self._mark, self._writers = mark, writers
