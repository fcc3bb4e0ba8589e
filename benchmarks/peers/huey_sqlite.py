"""huey on SQLite: its own consumer, in a process of its own.

Jobs return None, so it stores no results; it keeps no history and takes a job out before it runs (at most once), which
saves it the settling.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.children import Child
from benchmarks.measure import Stopwatch
from benchmarks.model import Baseline
from benchmarks.workload import arguments


class Setting(NamedTuple):
    """A way to run huey's consumer. *fsync* False gives up durability."""

    workers: int
    kind: str
    fsync: bool = True


DURABLE = (Setting(1, "thread"), Setting(4, "thread"), Setting(1, "process"), Setting(2, "process"))
LOOSE = Setting(1, "thread", fsync=False)


def installed() -> bool:
    """Whether huey is there to be measured."""
    return importlib.util.find_spec("huey") is not None


class Huey:
    """huey, with every commit durable."""

    name = "huey"
    title = "huey, its best durable setting"
    jobs = 1_000
    settings = DURABLE

    def missing(self) -> str | None:
        return None if installed() else "not installed: huey"

    def version(self) -> str:
        return metadata.version("huey")

    def drain(self, engine: Baseline, folder: Path, jobs: int) -> float:
        best = 0.0
        for number, setting in enumerate(self.settings):
            (place := folder / str(number)).mkdir()
            best = max(best, drain(place, jobs, setting)[1])
        return best

    def insert(self, engine: Baseline, folder: Path, jobs: int) -> float | None:
        """It stores one job at a time."""
        return None


class LooseHuey(Huey):
    """What huey gains by giving durability up."""

    name = "huey_loose"
    title = "huey without durability (fsync off)"
    settings = (LOOSE,)

    def version(self) -> str:
        return ""


class Tasks(NamedTuple):
    """A huey with the tasks of the benchmark."""

    huey: Any
    noop: Callable[..., Any]
    mark: Callable[..., Any]
    stamp: Callable[..., Any]


def build(file: str, fsync: bool) -> Tasks:
    """huey on *file*; consumer and producer build the same."""
    from huey import SqliteHuey

    huey = SqliteHuey("bench", filename=file, fsync=fsync, results=False)

    @huey.task()  # type: ignore[untyped-decorator]
    def noop(order_id: int, email: str, note: str) -> None:
        pass

    @huey.task()  # type: ignore[untyped-decorator]
    def mark(path: str) -> None:
        with Path(path).open("a") as out:
            out.write(f"{time.monotonic_ns()}\n")

    @huey.task()  # type: ignore[untyped-decorator]
    def stamp(sent: int, path: str) -> None:
        late = time.monotonic_ns() - sent
        with Path(path).open("a") as out:
            out.write(f"{late}\n")

    return Tasks(huey, noop, mark, stamp)


def consumer(folder: Path, setting: Setting) -> Child:
    """Its consumer as a process. huey polls: 0.1 s at first and slower when idle, its defaults."""
    environment = {"HUEY_FILE": str(folder / "huey.db"), "HUEY_FSYNC": "1" if setting.fsync else ""}
    return Child("benchmarks.peers.huey_consumer", str(setting.workers), setting.kind, env=environment)


def drain(folder: Path, jobs: int, setting: Setting) -> tuple[float, float]:
    """(stored, run) jobs per second; the run is timed from its first job to its last, without start-up."""
    tasks = build(str(folder / "huey.db"), setting.fsync)
    marks = folder / "marks"
    tasks.mark(str(marks))
    with Stopwatch() as watch:
        for number in range(jobs):
            tasks.noop(**arguments(number))
    tasks.mark(str(marks))
    with consumer(folder, setting) as running:
        first, last = wait_for_lines(marks, 2)[:2]
        running.stop()
    return jobs / watch.seconds, jobs / ((last - first) / 1e9)


def wait_for_lines(path: Path, number: int, timeout: float = 50.0) -> list[int]:
    """The numbers that jobs wrote to *path*, once there are *number* of them."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if path.exists() and len(lines := path.read_text().splitlines()) >= number:
            return [int(line) for line in lines]
        time.sleep(0.05)
    raise RuntimeError(f"huey did not do its {number} jobs in {timeout:g} s")
