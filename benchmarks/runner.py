"""Runs scenarios in rounds, each round in an empty folder."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.model import Answer, Baseline, Bench, Floor, Scenario


def run(scenario: Scenario, engine: Baseline, *, rounds: int | None, scale: float, root: Path | None = None) -> Answer:
    """Ask *scenario* its number of rounds. A round that fails ends it: the error is kept in the answer."""
    answer = Answer(scenario, engine.name)
    start = time.perf_counter()
    for _ in range(rounds or scenario.rounds):
        folder = Path(tempfile.mkdtemp(prefix="dayjob-bench-", dir=root))
        try:
            answer.rounds.append(scenario.measure(Bench(engine, folder, scale, answer.skipped)))
        except Exception as error:  # noqa: BLE001 - one scenario that fails must not hide the others
            answer.problem = f"{type(error).__name__}: {error}"
            break
        finally:
            engine.clear()
            shutil.rmtree(folder, ignore_errors=True)
    answer.seconds = time.perf_counter() - start
    return answer


def median(answer: Answer, value: Callable[[dict[str, float]], float]) -> float | None:
    """The median of *value* over the rounds that have what it needs; None when none has."""
    found = list(_each(answer.rounds, value))
    return statistics.median(found) if found else None


def spread(answer: Answer, value: Callable[[dict[str, float]], float]) -> tuple[float, float] | None:
    """The least and the greatest over the rounds."""
    found = list(_each(answer.rounds, value))
    return (min(found), max(found)) if found else None


def verdict(answer: Answer, floor: Floor) -> bool | None:
    """Whether the median reaches *floor*; None when it could not be measured."""
    value = median(answer, floor.value)
    return None if value is None else floor.reached(value)


def _each(rounds: Iterable[dict[str, float]], value: Callable[[dict[str, float]], float]) -> Iterable[float]:
    for measured in rounds:
        try:
            yield value(measured)
        except KeyError:  # this round has no such figure: a peer that is not installed
            continue
