"""Types are part of the contract: mypy and pyright read a user's program and must see the same mistakes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAM = HERE / "program.py"
SOURCE = HERE.parent.parent / "src"
MARKER = re.compile(r"# error: ([\w-]+), (\w+)$")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def due(which: int) -> dict[int, str]:
    """The marked lines, and the code (0: mypy's, 1: pyright's) each must be complained of with."""
    lines = enumerate(PROGRAM.read_text().splitlines(), 1)
    return {number: found.group(which + 1) for number, line in lines if (found := MARKER.search(line))}


def test_mypy_sees_each_mistake_and_no_other(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", "--no-pretty",
            "--cache-dir", str(tmp_path), "--config-file", "", str(PROGRAM),
        ],
        env={"MYPYPATH": str(SOURCE), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    seen: dict[int, str] = {}
    for found in re.finditer(r"program\.py:(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE):
        seen.setdefault(int(found.group(1)), found.group(2))

    assert done.stderr == ""
    assert seen == due(0), done.stdout


def test_pyright_sees_each_mistake_and_no_other(tmp_path: Path) -> None:
    (tmp_path / PROGRAM.name).write_text(PROGRAM.read_text())
    settings = tmp_path / "pyrightconfig.json"
    settings.write_text(
        json.dumps(
            {
                "include": [PROGRAM.name],
                "extraPaths": [str(SOURCE)],
                "typeCheckingMode": "standard",
                "pythonVersion": f"{sys.version_info.major}.{sys.version_info.minor}",
            }
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(settings)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout)["generalDiagnostics"]
    seen = {
        one["range"]["start"]["line"] + 1: one.get("rule", one["message"])
        for one in found
        if one["severity"] == "error"
    }

    assert seen == due(1), done.stdout
