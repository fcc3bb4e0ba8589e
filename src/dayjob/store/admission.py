"""Who passes the gates next: lines of blocked jobs, merged by urgency over the tokens that are free. Pure, for all engines.

An engine offers the lines it looks at, each with its first jobs, and the gates at which further lines wait; `run` merges
them, most urgent first, and says what it needs to see before it can go on. No job passes that is less urgent than one
which could have passed, and what it costs is what passes, plus one look at each line that stops.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Hashable, Sequence
from itertools import count
from typing import Generic, NamedTuple, TypeVar

UNBOUNDED = 1 << 62
"""Free tokens of a gate that lets all pass."""

LineT = TypeVar("LineT", bound=Hashable)
GateT = TypeVar("GateT", bound=Hashable)


class Head(NamedTuple, Generic[GateT]):
    """A blocked job near the head of its line. `gates`: those of which it has no token yet, each once."""

    priority: int
    place: int
    entry: int
    id: str
    gates: tuple[GateT, ...]


class Need(NamedTuple, Generic[LineT, GateT]):
    """What must be offered before the merge goes on: more jobs of a line, or more of the lines that wait at a gate."""

    line: LineT | None = None
    gate: GateT | None = None


class _Line(Generic[GateT]):
    """Jobs of a line still to be looked at. `aside`: those that let all others go first."""

    __slots__ = ("aside", "heads", "more", "strict")

    def __init__(self, strict: bool) -> None:
        self.heads: deque[Head[GateT]] = deque()
        self.aside: deque[Head[GateT]] = deque()
        self.more = False
        self.strict = strict


class Merge(Generic[LineT, GateT]):
    """One admission.

    Args:
        free: free tokens by gate; it is used up. Every gate of every job offered must be in it by the next `run`.
        limit: how many jobs may pass.
        aside: ids of jobs that were just taken back: they pass only after all others that could.

    Attributes:
        admitted: (line, job), in the order in which they passed.
        stopped: line -> (the closed gate it waits at from now on, its head).
        ended: lines with no job left.
        left: line -> its head, of lines not looked at to the end because the limit was reached.
        unread: gates that may be open and have further lines, not looked at for the same reason.
    """

    def __init__(self, free: dict[GateT, int], limit: int, aside: Collection[str] = ()) -> None:
        self.free, self.limit = free, limit
        self.admitted: list[tuple[LineT, Head[GateT]]] = []
        self.stopped: dict[LineT, tuple[GateT, Head[GateT]]] = {}
        self.ended: list[LineT] = []
        self.left: dict[LineT, Head[GateT]] = {}
        self.unread: set[GateT] = set()
        self._aside = frozenset(aside)
        self._lines: dict[LineT, _Line[GateT]] = {}
        self._numbers = count()
        self._heap: list[tuple[bool, int, int, int, int, Need[LineT, GateT]]] = []

    def offer(
        self, line: LineT, heads: Sequence[Head[GateT]], *, more: bool, strict: bool = False
    ) -> Need[LineT, GateT] | None:
        """The first (or next) jobs of *line*, in its order; *more*: others stand behind them. With *strict* no job passes
        one that stands before it.

        Returns: the need of this very line, if all that was offered stands aside and others are behind.
        """
        standing = self._lines.setdefault(line, _Line(strict))
        standing.more = more
        for head in heads:
            (standing.aside if head.id in self._aside and not strict else standing.heads).append(head)
        return self._advance(line, standing)

    def wait(self, gate: GateT, priority: int, place: int) -> None:
        """Further lines wait at *gate*, none of them more urgent than this."""
        heapq.heappush(self._heap, (False, -priority, place, 0, next(self._numbers), Need(gate=gate)))

    def has(self, line: LineT) -> bool:
        """Whether *line* was offered before."""
        return line in self._lines

    def run(self) -> Need[LineT, GateT] | None:
        """Merge until something must be offered, or (None) it is done."""
        while self._heap:
            if len(self.admitted) >= self.limit:
                self._leave_off()
                return None
            need = heapq.heappop(self._heap)[-1]
            if need.gate is not None:
                if self.free[need.gate] > 0:
                    return need
            elif need.line is not None and (dry := self._pass(need.line)) is not None:
                return dry
        return None

    def _pass(self, line: LineT) -> Need[LineT, GateT] | None:
        """Let the head of *line* pass, or let the line stop at the first gate that is closed to it."""
        standing = self._lines[line]
        queue = standing.heads or standing.aside
        head = queue[0]
        for gate in head.gates:
            if self.free[gate] <= 0:
                self.stopped[line] = (gate, head)
                return None
        for gate in head.gates:
            self.free[gate] -= 1
        queue.popleft()
        self.admitted.append((line, head))
        return self._advance(line, standing)

    def _advance(self, line: LineT, standing: _Line[GateT]) -> Need[LineT, GateT] | None:
        if not standing.heads and standing.more:
            return Need(line=line)
        queue = standing.heads or standing.aside
        if not queue:
            self.ended.append(line)
            return None
        head = queue[0]
        late = head.id in self._aside
        need: Need[LineT, GateT] = Need(line)
        key = (late, -head.priority, head.place, head.entry, next(self._numbers), need)
        heapq.heappush(self._heap, key)
        return None

    def _leave_off(self) -> None:
        for *_, need in self._heap:
            if need.line is not None:
                standing = self._lines[need.line]
                self.left[need.line] = (standing.heads or standing.aside)[0]
            elif need.gate is not None:
                self.unread.add(need.gate)
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
