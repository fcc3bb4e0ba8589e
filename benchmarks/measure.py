"""Clocks, percentiles, and what machine this is."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType


class Stopwatch:
    """`with Stopwatch() as watch: ...`, then `watch.seconds`; wall time of this process."""

    seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._start


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of *values* that at least *share* of them do not exceed (nearest rank)."""
    ranked = sorted(values)
    rank = max(1, -(-len(ranked) * share // 1))
    return ranked[int(rank) - 1]


def machine(folder: Path) -> dict[str, str]:
    """This machine in a few words: processor, cores, memory, kernel, the file system of *folder*, the Python."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "file system": _file_system(folder),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _file_system(folder: Path) -> str:
    """The kind of file system that *folder* is on: on `tmpfs` a durable commit costs nothing and means nothing."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except FileNotFoundError:
        return "unknown"
    place = str(folder.resolve())
    holders = [(mount[1], mount[2]) for mount in mounts if f"{place}/".startswith(mount[1].rstrip("/") + "/")]
    return max(holders, key=lambda holder: len(holder[0]))[1] if holders else "unknown"
