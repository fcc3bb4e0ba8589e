"""Migrations: numbered files `NNN_name.sql` in an engine's `migrations` folder, applied in order, each whole or not."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple


class Migration(NamedTuple):
    """One step of a schema: its number, its file's name without the ending, and its SQL."""

    version: int
    name: str
    sql: str


def migrations(package: str) -> list[Migration]:
    """The migrations that ship in *package*, in order; a gap or a number given twice is a ValueError."""
    found = sorted(
        Migration(int(entry.name[:3]), entry.name.removesuffix(".sql"), entry.read_text("utf-8"))
        for entry in files(package).iterdir()
        if entry.name.endswith(".sql")
    )
    if [step.version for step in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"migrations of {package} are not numbered 1..n: {[step.name for step in found]}")
    return found
