"""What a benchmark is made of: figures measured in rounds, and floors that relate them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

Unit = Literal["/s", "ms", "s", "MB", "%", "x", "us"]
Round = dict[str, float]


@dataclass(frozen=True)
class Figure:
    """Something that is measured: `drain.raw`, in jobs per second.

    Attributes:
        best: which direction is better.
    """

    name: str
    title: str
    unit: Unit
    best: Literal["high", "low"] = "high"


@dataclass(frozen=True)
class Floor:
    """What must be reached: a figure, or a relation of figures of the same round, against a limit.

    Attributes:
        value: computes it from one round's figures; a `KeyError` means that round did not measure a part of it.
        least, most: the limit, one of them.
        engine: the one that it is meant for; None for all.
    """

    title: str
    value: Callable[[Mapping[str, float]], float]
    unit: Unit = "x"
    least: float | None = None
    most: float | None = None
    engine: str | None = None

    def reached(self, value: float) -> bool:
        """Whether *value* is within the limit."""
        if self.least is not None:
            return value >= self.least
        return self.most is None or value <= self.most

    @property
    def limit(self) -> str:
        """The limit as text, `>= 0.35`."""
        return f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"


class Baseline(Protocol):
    """An engine without dayjob: the same content, the same durability, nothing run.

    Every method works on a store of its own below *folder*; `insert` and `drain` return jobs per second.
    """

    name: str

    def url(self, folder: Path) -> str:
        """The URL of a store that does not exist yet."""

    def versions(self) -> dict[str, str]:
        """What is behind it, for the record."""

    def insert(self, folder: Path, jobs: int) -> float:
        """Store *jobs* rows in batches of 500."""

    def insert_best(self, folder: Path, jobs: int) -> float:
        """The same in the fastest form that the engine knows, however unlike a plain loop."""

    def drain(self, folder: Path, jobs: int) -> float:
        """Claim *jobs* stored rows and move them to history in batches of 500."""

    def singles(self, folder: Path) -> Callable[[int], float]:
        """A function that stores so many rows one by one, each in a durable commit of its own, and returns seconds."""

    def clear(self) -> None:
        """Give up every store made so far that lies outside of its folder, so that it costs later figures nothing."""


@dataclass(frozen=True)
class Bench:
    """What a scenario is given for one round.

    Attributes:
        engine: the engine under test. folder: an empty folder of this round.
        scale: 1.0, or less for a quick look (fewer jobs; the figures are then no measurement).
        skipped: what could not be measured, by the figure's title, and why.
    """

    engine: Baseline
    folder: Path
    scale: float = 1.0
    skipped: dict[str, str] = field(default_factory=dict)

    def jobs(self, number: int, least: int = 1_000) -> int:
        """*number* of jobs, scaled, in whole thousands."""
        return max(least, round(number * self.scale / 1_000) * 1_000)

    def place(self, name: str) -> Path:
        """A folder of its own for one part of the round."""
        place = self.folder / name
        place.mkdir()
        return place

    def store(self, name: str) -> str:
        """The URL of a new store of dayjob's, with its tables."""
        from dayjob.store import open_store

        url = self.engine.url(self.place(name))
        store = open_store(url)
        store.migrate()
        store.close()
        return url


@dataclass(frozen=True)
class Scenario:
    """One question, answered once per round.

    Attributes:
        measure: answers it, by figure name. rounds: how often, by default.
        engines: those whom it can be asked; empty for all.
    """

    name: str
    about: str
    figures: tuple[Figure, ...]
    floors: tuple[Floor, ...]
    measure: Callable[[Bench], Round]
    rounds: int = 3
    engines: tuple[str, ...] = ()

    def fits(self, engine: str) -> bool:
        """Whether it can be asked of *engine*."""
        return not self.engines or engine in self.engines


@dataclass
class Answer:
    """What the rounds of a scenario gave on *engine*. `problem` says why they ended early."""

    scenario: Scenario
    engine: str
    rounds: list[Round] = field(default_factory=list)
    seconds: float = 0.0
    problem: str | None = None
    skipped: dict[str, str] = field(default_factory=dict)


def ratio(upper: str, lower: str) -> Callable[[Mapping[str, float]], float]:
    """One figure over another, of the same round."""
    return lambda figures: figures[upper] / figures[lower]


def of_best(upper: str, lower: Collection[str]) -> Callable[[Mapping[str, float]], float]:
    """One figure over the greatest of several, of those that the round has."""

    def value(figures: Mapping[str, float]) -> float:
        found = [figures[name] for name in lower if name in figures]
        if not found:
            raise KeyError(f"none of {', '.join(lower)}")
        return figures[upper] / max(found)

    return value


def figure(name: str) -> Callable[[Mapping[str, float]], float]:
    """A figure as it is."""
    return lambda figures: figures[name]
