"""How long `import dayjob` takes, in a fresh interpreter with its bytecode in place."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.children import ROOT
from benchmarks.model import Bench, Figure, Floor, Round, Scenario, figure

_CODE = "import time; start = time.perf_counter(); {0}; print(time.perf_counter() - start)"
TIMES = 7


def measure(bench: Bench) -> Round:
    """The median of several, after one that writes the bytecode."""
    bytecode = bench.place("bytecode")
    return {
        "import": _import("import dayjob", bytecode),
        "app": _import("from dayjob import App", bytecode),
        "click": _import("import click", bytecode),
    }


def _import(statement: str, bytecode: Path) -> float:
    """Milliseconds; *bytecode* is where Python keeps what it compiled, whatever the environment says about that."""
    command = [sys.executable, "-c", _CODE.format(statement)]
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(bytecode), "PYTHONDONTWRITEBYTECODE": ""}
    taken = [
        float(subprocess.run(command, capture_output=True, check=True, cwd=ROOT, env=environment).stdout)
        for _ in range(TIMES + 1)
    ]
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
    engines=("sqlite",),
)
