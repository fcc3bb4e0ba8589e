"""Notices that source files changed, for `--reload`: by looking, twice a second, at what lies below a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

EVERY = 0.5
_SKIPPED = {"node_modules", "__pycache__", "site-packages", "build", "dist"}


class Reloader:
    """Call it often; it answers what changed, or None. Looks at most every half second.

    Args:
        root: the folder. Hidden folders, virtual environments and installed packages below it are left out.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen = self._stamps()
        self._next = time.monotonic() + EVERY

    def __call__(self) -> str | None:
        now = time.monotonic()
        if now < self._next:
            return None
        self._next = now + EVERY
        stamps = self._stamps()
        before, self._seen = self._seen, stamps
        changed = sorted(path for path in before.keys() | stamps.keys() if before.get(path) != stamps.get(path))
        if not changed:
            return None
        names = ", ".join(os.path.relpath(path, self._root) for path in changed[:3])
        return f"code changed: {names}" + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")

    def _stamps(self) -> dict[str, int]:
        return dict(_files(str(self._root)))


def _files(folder: str) -> Iterator[tuple[str, int]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:  # gone, or not ours to read
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _SKIPPED:
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                if not Path(entry.path, "pyvenv.cfg").exists():
                    yield from _files(entry.path)
            elif entry.name.endswith(".py"):
                yield entry.path, entry.stat().st_mtime_ns
        except OSError:  # removed while we looked
            continue
