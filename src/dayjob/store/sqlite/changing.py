"""A waiting job that somebody changes: its gating, its line and its place from then on. Pure."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from dayjob.store.gating import Gating
from dayjob.store.sqlite.lines import held_line, lane_of, line_of, names_of


class Waiting(Protocol):
    """A waiting job, as much of it as is looked at here."""

    @property
    def entry(self) -> int: ...
    @property
    def state(self) -> str | None: ...
    @property
    def queue(self) -> str: ...
    @property
    def line(self) -> int | None: ...
    @property
    def place(self) -> int: ...
    @property
    def gating(self) -> Gating | None: ...


class Stand(NamedTuple):
    """Where a changed job stands: columns of its row."""

    state: str
    line: int | None
    place: int


def regated(old: Gating | None, new: Gating | None) -> Gating:
    """What a job with the gating *old* has when it is given lane, weight and gates of *new*: its key stays what it is."""
    key = None if old is None else old.unique
    return Gating(key) if new is None else Gating(key, new.lane, new.weight, new.gates)


def turns_left(old: Gating | None, new: Gating) -> set[str]:
    """The strict lanes in which a job with the gating *old* may have its turn, and which are not those of *new*."""
    return {name for name in names_of(old) if name[0] == "o"}.difference(names_of(new))


def restand(
    job: Waiting,
    entry: int,
    *,
    gating: Gating | None = None,
    queue: str | None = None,
    state: str | None = None,
    placed: bool = True,
) -> Stand:
    """Where *job* stands under its new *entry*.

    In a strict lane it keeps its place. One that came for a time ahead has none before that time: till then its place is its
    entry, and of all others that wait for a time the place is lower.

    Args:
        gating, queue, state: what it has from now on; None: what it had. Of the state it counts whether it is `scheduled`.
        placed: it comes last, as what is new does, and its place is its entry (until lanes have taken turns); else it stays.
    """
    to, given = queue or job.queue, gating or job.gating
    held = job.line is not None and to == job.queue and job.line == held_line(to)  # and is not new to another queue
    line = job.line if held else line_of(to, given)
    if (state or job.state) == "scheduled":
        becomes = "scheduled"
    else:
        becomes = "available" if line is None else "blocked"
    if line is not None and line < 0 and line == job.line:
        stood = job.state != "scheduled" or job.place < job.entry
        return Stand(becomes, line, job.place if stood else entry)
    # Not placed anew it stays before its equals in its lane, which go by their entries.
    return Stand(becomes, line, entry if placed else job.place - (lane_of(given) is not None))


__all__ = ["Stand", "Waiting", "regated", "restand", "turns_left"]
