"""How long `import dayjob` takes, in a fresh interpreter with its bytecode in place."""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks.children import ROOT
from benchmarks.model import Bench, Figure, Floor, Round, Scenario, figure

_CODE = "import time; start = time.perf_counter(); {0}; print(time.perf_counter() - start)"
TIMES = 7


def measure(bench: Bench) -> Round:
    """The median of several, after one that writes the bytecode."""
    return {
        "import": _import("import dayjob"),
        "app": _import("from dayjob import App"),
        "click": _import("import click"),
    }


def _import(statement: str) -> float:
    command = [sys.executable, "-c", _CODE.format(statement)]
    taken = [float(subprocess.run(command, capture_output=True, check=True, cwd=ROOT).stdout) for _ in range(TIMES + 1)]
    return statistics.median(taken[1:]) * 1000


SCENARIO = Scenario(
    "import",
    "import in a fresh interpreter",
    (
        Figure("import", "import dayjob", "ms", "low"),
        Figure("app", "from dayjob import App: all that a producer needs", "ms", "low"),
        Figure("click", "import click, for scale", "ms", "low"),
    ),
    (
        Floor("import dayjob", figure("import"), "ms", most=120),
        Floor("from dayjob import App", figure("app"), "ms", most=120),
    ),
    measure,
)
