"""A waiting job that somebody changes: in which line it stands from then on, and at which place. Pure."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from dayjob.store.gating import Gating
from dayjob.store.sqlite.lines import held_line, lane_of, line_of


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


def restand(job: Waiting, entry: int, *, queue: str | None = None, state: str | None, placed: bool = True) -> Stand:
    """Where *job* stands under its new *entry*.

    In a strict lane it keeps its place. One that came for a time ahead has none before that time: till then its place is its
    entry, and of all others that wait for a time the place is lower.

    Args:
        queue, state: what it has from now on; None: what it had. Of the state it counts whether it is `scheduled`.
        placed: it comes last, as what is new does, and its place is its entry (until lanes have taken turns); else it stays.
    """
    to = queue or job.queue
    held = job.line is not None and to == job.queue and job.line == held_line(to)  # and is not new to another queue
    line = job.line if held else line_of(to, job.gating)
    if (state or job.state) == "scheduled":
        becomes = "scheduled"
    else:
        becomes = "available" if line is None else "blocked"
    if line is not None and line < 0 and line == job.line:
        stood = job.state != "scheduled" or job.place < job.entry
        return Stand(becomes, line, job.place if stood else entry)
    # Not placed anew it stays before its equals in its lane, which go by their entries.
    return Stand(becomes, line, entry if placed else job.place - (lane_of(job.gating) is not None))


__all__ = ["Stand", "Waiting", "restand"]
