"""How long `import dayjob` takes, in a fresh interpreter with its bytecode in place."""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks.children import ROOT
from benchmarks.model import Bench, Figure, Floor, Round, Scenario, figure

_CODE = "import time; start = time.perf_counter(); import {0}; print(time.perf_counter() - start)"
TIMES = 7


def measure(bench: Bench) -> Round:
    """The median of several, after one that writes the bytecode."""
    return {"import": _import("dayjob"), "import_click": _import("click")}


def _import(module: str) -> float:
    command = [sys.executable, "-c", _CODE.format(module)]
    taken = [float(subprocess.run(command, capture_output=True, check=True, cwd=ROOT).stdout) for _ in range(TIMES + 1)]
    return statistics.median(taken[1:]) * 1000


SCENARIO = Scenario(
    "import",
    "import in a fresh interpreter",
    (
        Figure("import", "import dayjob", "ms", "low"),
        Figure("import_click", "import click, for scale", "ms", "low"),
    ),
    (Floor("import dayjob", figure("import"), "ms", most=120),),
    measure,
)
