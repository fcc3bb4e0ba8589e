"""A file system of its own for a store, which can be full. Only root can make one, and not in every container."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = 1 << 30


class Disk:
    """In memory, mounted at *folder*.

    Raises:
        OSError: this machine does not let us.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        try:
            if not _mount(f"size={SIZE},mode=0777", folder):
                raise OSError("cannot mount")
        except OSError:
            folder.rmdir()
            raise

    @contextmanager
    def full(self) -> Iterator[None]:
        """It has no room: it is made as small as what it holds, which costs no memory as filling it would."""
        while True:
            state = os.statvfs(self.folder)
            held = (state.f_blocks - state.f_bfree) * state.f_frsize
            if _mount(f"remount,size={held or 1}", self.folder):  # 0 would be no limit at all
                break
            time.sleep(0.01)  # it grew meanwhile
        try:
            yield
        finally:
            assert _mount(f"remount,size={SIZE}", self.folder)

    def close(self) -> None:
        """Everything on it is gone."""
        subprocess.run(["umount", "--lazy", self.folder], check=True)
        shutil.rmtree(self.folder, ignore_errors=True)  # a process that still ends may write below it


def _mount(options: str, folder: Path) -> bool:
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    return not subprocess.run(mount, capture_output=True, check=False).returncode
