"""Who passes the gates next: lines of blocked jobs, merged by urgency over the tokens that are free. Pure, for all engines.

An engine offers the lines it looks at, each with its first jobs, and the gates at which further lines wait; `run` merges
them, most urgent first, and says what it needs to see before it can go on. No job passes that is less urgent than one
which could have passed, and what it costs is what passes, plus one look at each line that stops.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Hashable, Sequence
from itertools import count
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import Struct

UNBOUNDED = 1 << 62
"""Free tokens of a gate that lets all pass."""

LineT = TypeVar("LineT", bound=Hashable)
GateT = TypeVar("GateT", bound=Hashable)


class Head(Struct, Generic[GateT], order=True, array_like=True, gc=False):
    """A blocked job near the head of its line. `urgency`: minus its priority, and 0 in a strict line: jobs of a line sort by
    their fields. `gates`: those of which it has no token yet, each once."""

    urgency: int
    place: int
    entry: int
    priority: int
    gates: tuple[GateT, ...] = ()


class Need(NamedTuple, Generic[LineT, GateT]):
    """What must be offered before the merge goes on: more jobs of a line, or more of the lines that wait at a gate."""

    line: LineT | None = None
    gate: GateT | None = None


class _Line(Generic[LineT, GateT]):
    """Jobs of a line still to be looked at, the next one last. `aside`: those that let all others go first."""

    __slots__ = ("aside", "counts", "heads", "more", "name")

    def __init__(self, name: LineT, counts: bool) -> None:
        self.name, self.counts = name, counts
        self.heads: list[Head[GateT]] = []
        self.aside: list[Head[GateT]] = []
        self.more = False


class Merge(Generic[LineT, GateT]):
    """One admission.

    Args:
        free: free tokens by gate; it is used up. Every gate of every job offered must be in it by the next `run`.
        limit: how many jobs may pass. enough: after so many of lines that count no other needs to; None: *limit*.
        aside: entries of jobs that were just taken back: they pass only after all others that could.

    Attributes:
        admitted: the jobs that passed, in order.
        stopped: line -> (the closed gate it waits at from now on, its head).
        ended: lines with no job left.
        left: line -> its head, of lines not looked at to the end because the limit was reached, or it was enough.
        unread: gates that may be open and have further lines, not looked at for the same reason.
    """

    def __init__(
        self, free: dict[GateT, int], limit: int, aside: Collection[int] = (), enough: int | None = None
    ) -> None:
        self.free, self.limit = free, limit
        self._wanted = limit if enough is None else enough
        self.admitted: list[Head[GateT]] = []
        self.stopped: dict[LineT, tuple[GateT, Head[GateT]]] = {}
        self.ended: list[LineT] = []
        self.left: dict[LineT, Head[GateT]] = {}
        self.unread: set[GateT] = set()
        self._aside = frozenset(aside)
        self._lines: dict[LineT, _Line[LineT, GateT]] = {}
        self._waits = count(1)
        # (stands aside, -priority, place, entry, line) of each line's head, (False, -priority, place, -number, gate)
        # where more lines wait: the fourth decides, so that the last are never compared.
        self._heap: list[tuple[bool, int, int, int, Any]] = []

    def offer(
        self, line: LineT, heads: Sequence[Head[GateT]], *, more: bool, strict: bool = False, counts: bool = True
    ) -> Need[LineT, GateT] | None:
        """The first (or next) jobs of *line*, in its order; *more*: others stand behind them. With *strict* no job passes
        one that stands before it. *counts*: its jobs are of those of which there may be enough.

        Returns: the need of this very line, if all that was offered stands aside and others are behind.
        """
        standing = self._lines.get(line)
        if standing is None:
            standing = self._lines[line] = _Line(line, counts)
        standing.more = more
        if self._aside and not strict:
            standing.aside = [head for head in reversed(heads) if head.entry in self._aside] + standing.aside
            heads = [head for head in heads if head.entry not in self._aside]
        standing.heads = [*reversed(heads), *standing.heads]
        key = self._key(standing)
        if key is not None:
            heapq.heappush(self._heap, key)
        elif more:
            return Need(line=line)
        return None

    def wait(self, gate: GateT, priority: int, place: int) -> None:
        """Further lines wait at *gate*, none of them more urgent than this."""
        heapq.heappush(self._heap, (False, -priority, place, -next(self._waits), gate))

    def run(self) -> Need[LineT, GateT] | None:
        """Merge until something must be offered, or (None) it is done."""
        heap, free = self._heap, self.free
        while heap:
            if len(self.admitted) >= self.limit or self._wanted <= 0:
                self._leave_off()
                return None
            line: Any = heap[0][4]
            if not isinstance(line, _Line):
                heapq.heappop(heap)
                if free[line] > 0:
                    return Need(gate=line)
                continue
            queue = line.heads or line.aside
            head = queue[-1]
            closed = next((gate for gate in head.gates if free[gate] <= 0), None)
            if closed is not None:
                self.stopped[line.name] = (closed, head)
                heapq.heappop(heap)
                continue
            for gate in head.gates:
                free[gate] -= 1
            self.admitted.append(queue.pop())
            self._wanted -= line.counts
            key = self._key(line)
            if key is not None:
                heapq.heapreplace(heap, key)
                continue
            heapq.heappop(heap)
            if line.more:
                return Need(line=line.name)
        return None

    def _key(self, line: _Line[LineT, GateT]) -> tuple[bool, int, int, int, Any] | None:
        """Where *line* stands among all; None: it is to be shown first, or it has ended."""
        if line.heads:
            head = line.heads[-1]
            return head.entry in self._aside, -head.priority, head.place, head.entry, line
        if line.more:
            return None
        if line.aside:
            head = line.aside[-1]
            return True, -head.priority, head.place, head.entry, line
        self.ended.append(line.name)
        return None

    def _leave_off(self) -> None:
        for *_, line in self._heap:
            if isinstance(line, _Line):
                self.left[line.name] = (line.heads or line.aside)[-1]
            else:
                self.unread.add(line)
        self._heap.clear()


def free_tokens(kind: str, limit: int, taken: int, shut: bool, breaker: str) -> int:
    """How many may pass a gate now.

    Args:
        limit: tokens, as they hold now. taken: those that are not free (of a breaker: taken since it is probed).
        shut: nobody may pass for a time. breaker: its state, of a breaker.
    """
    if shut:
        return 0
    if kind == "breaker":
        return {"closed": UNBOUNDED, "open": 0}.get(breaker, max(0, 1 - taken))
    return max(0, (1 if kind == "order" else limit) - taken)


def opens_at(stamps: Sequence[int], taken: int, limit: int) -> int | None:
    """When time alone frees a token of a gate: *stamps* of those *taken* that end by themselves, rising. None: never."""
    behind = taken - limit
    return stamps[behind] if 0 <= behind < len(stamps) else None


__all__ = ["UNBOUNDED", "Head", "Merge", "Need", "free_tokens", "opens_at"]
