"""What the demo's screen shows at one moment, from numbers to lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dayjob.cli.demo.display import Screen, bar, sparkline
from dayjob.cli.output import jobs

if TYPE_CHECKING:
    from dayjob.cli.demo.crew import Member

SAMPLE = 0.1
"""Seconds between two points of the graph."""


@dataclass
class Scene:
    """The numbers on the screen. `held`: jobs that the killed worker still holds; `since_kill`: seconds, or None."""

    total: int
    lease: float
    elapsed: float = 0.0
    depth: int = 0
    running: int = 0
    completed: int = 0
    dead: int = 0
    retried: int = 0
    rescued: int = 0
    held: int = 0
    since_kill: float | None = None
    leader: int | None = None
    busy: dict[int, int] = field(default_factory=dict)
    """Jobs that run in each worker, by its pid."""
    rates: list[float] = field(default_factory=list)
    _last: tuple[float, int] = (0.0, 0)

    @property
    def done(self) -> int:
        return self.completed + self.dead

    @property
    def rate(self) -> float:
        """Jobs a second, over the last half second."""
        recent = self.rates[-5:]
        return sum(recent) / len(recent) if recent else 0.0

    def sample(self) -> None:
        """Note the rate since the last sample, when that is long enough ago."""
        at, done = self._last
        if self.elapsed - at >= SAMPLE:
            self.rates.append((self.done - done) / (self.elapsed - at))
            self._last = (self.elapsed, self.done)

    def block(self, screen: Screen, members: list[Member]) -> list[str]:
        """The lines that move."""
        paint = screen.paint
        width = screen.width - 14
        share = self.done / self.total if self.total else 1.0
        parts = [(self.completed, "█", "green"), (self.dead, "█", "red"), (self.running, "▓", "yellow")]
        line, used = "", 0.0
        cells = 0
        for count, cell, colour in parts:
            used += count / max(1, self.total)
            wide = max(0, round(used * width) - cells)
            line += paint(bar([(1.0, cell)], wide), colour)
            cells += wide
        line += paint("░" * max(0, width - cells), "dim")
        figures = "   ".join(
            f"{paint(name, 'dim')} {paint(f'{value:,}', 'bold', colour)}"
            for name, value, colour in (
                ("depth", self.depth, "blue"),
                ("running", self.running, "yellow"),
                ("completed", self.completed, "green"),
                ("retries", self.retried, "magenta"),
                ("rescued", self.rescued, "cyan"),
                ("dead", self.dead, "red"),
            )
        )
        graph = sparkline(self.rates, max(10, screen.width - 30))
        return [
            "",
            f"  {line}  {paint(f'{share:5.0%}', 'bold')}",
            "",
            f"  {figures}",
            f"  {paint('jobs/s', 'dim')} {paint(f'{self.rate:>6,.0f}', 'bold')}   {paint(graph, 'green')}",
            "",
            *(f"  {self._worker(screen, member)}" for member in members),
            "",
        ]

    def summary(self) -> str:
        """The same in one line, for logs."""
        return (
            f"  {self.elapsed:5.1f} s  depth {self.depth:,}  running {self.running:,}  completed {self.completed:,}  "
            f"{self.rate:,.0f} jobs/s  retries {self.retried:,}  rescued {self.rescued:,}  dead {self.dead:,}"
        )

    def _worker(self, screen: Screen, member: Member) -> str:
        paint = screen.paint
        head = f"worker {member.number}  {paint(f'pid {member.pid}', 'dim')}"
        if member.fate == "killed":
            left = (
                f"holds {jobs(self.held)} until its lease ends"
                if self.held
                else "its jobs are rescued; each runs alone now"
            )
            if self.held and self.since_kill is not None:
                left += f", at most {max(0.0, self.lease - self.since_kill):.1f} s from now"
            return f"{paint('✖', 'red')} {head}  {paint('SIGKILL', 'red', 'bold')}  {left}"
        running = self.busy.get(member.pid)
        if running is None:
            return f"{paint('○', 'dim')} {head}  {paint('starting', 'dim')}"
        role = paint("  leads", "cyan") if member.pid == self.leader else ""
        return f"{paint('●', 'green')} {head}  {running} running{role}"
