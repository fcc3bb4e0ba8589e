"""Migrations: numbered files in an engine's `migrations` folder, applied in order, each whole or not.

`NNN_name.sql` only adds (its part is `pre`); `NNN_name.post.sql` of the same number takes away what only the release
before it needed. An engine that knows one part only applies both as they come.
"""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple


class Migration(NamedTuple):
    """One step of a schema: its number, its file's name without the ending, its SQL, and its part (`pre`, `post`)."""

    version: int
    name: str
    sql: str
    part: str = "pre"


def migrations(package: str) -> list[Migration]:
    """The migrations that ship in *package*, in order; a gap or a number given twice is a ValueError."""
    found = []
    for entry in files(package).iterdir():
        if entry.name.endswith(".sql"):
            name = entry.name.removesuffix(".sql")
            part = "post" if name.endswith(".post") else "pre"
            found.append(Migration(int(name[:3]), name, entry.read_text("utf-8"), part))
    found.sort(key=lambda step: (step.version, step.part == "post"))
    numbers = [step.version for step in found if step.part == "pre"]
    if numbers != list(range(1, len(numbers) + 1)) or len({step[::3] for step in found}) < len(found):
        raise ValueError(f"migrations of {package} are not numbered 1..n: {[step.name for step in found]}")
    return found
