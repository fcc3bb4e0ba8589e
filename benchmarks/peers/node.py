"""What peers of Node have in common: npm installs them into a temporary folder when they are first measured."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from benchmarks.children import Child


def missing(script: Path, *packages: str) -> str | None:
    """Why *packages* cannot be used here; None when they can."""
    absent = [program for program in ("node", "npm") if shutil.which(program) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    return None if isinstance(there := installed(script, *packages), Path) else there


@cache
def installed(script: Path, *packages: str) -> Path | str:
    """*script* as a copy beside its *packages*, deleted at the end, or why there is none."""
    folder = Path(tempfile.mkdtemp(prefix=f"dayjob-{script.stem}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "package.json").write_text('{"private": true}')
    shutil.copy(script, folder)
    done = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", *packages],
        cwd=folder,
        env={**os.environ, "npm_config_update_notifier": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    return f"npm could not install it: {done.stderr.strip()[-300:]}" if done.returncode else folder / script.name


def process(script: Path, *packages: str, **environment: str) -> Child:
    """*script* as a process that is told what to do by *environment*."""
    copy = installed(script, *packages)
    assert isinstance(copy, Path)
    return Child(str(copy), env={"NODE_ENV": "production", **environment}, program=("node",))


def version() -> str:
    """Which Node it is."""
    return subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip().lstrip("v")
