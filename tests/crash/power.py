"""A cut of the power, as far as one process can play it: what was not flushed to the disk is gone from the file.

When the file is flushed is seen from outside, by the work of the server's thread that flushes: what WAITAOF says of it is
not true on every version (see `WAITAOF_LIES` in the engine's `health`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType

from tests.servers.redis import Server

LOOK = 0.005
SURE = 10
"""Looks before a flush was seen, whose size it has flushed for certain."""


class Disk:
    """Knows, as long as it is open, how much of a server's append-only file is flushed.

    Attributes:
        kept: bytes of the file. at: when they were seen to be flushed (monotonic), 0 before.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._ending = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="disk")
        self.kept, self.at = 0, 0.0

    def __enter__(self) -> Disk:
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._watcher.join()

    def _watch(self) -> None:
        sizes: deque[int] = deque(maxlen=SURE)
        before = self._flushes()
        while not self._ending.wait(LOOK):
            done = self._flushes()
            if done != before and len(sizes) == SURE:
                self.kept, self.at = sizes[0], time.monotonic()
            before = done
            sizes.append(self._file.stat().st_size)

    def _flushes(self) -> int:
        """A number that rises whenever the server's flushing thread has done something."""
        for task in Path(f"/proc/{self._server.pid}/task").glob("*"):
            if (task / "comm").read_text().startswith("bio_aof"):
                return int((task / "status").read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0])
        return -1

    @property
    def _file(self) -> Path:
        (found,) = self._server.folder.glob("appendonlydir/*.incr.aof")
        return found

    def cut(self, unflushed: float) -> float:
        """Cut the power when the last flush was *unflushed* seconds ago, and start anew; returns when it was cut."""
        while not self.at or time.monotonic() - self.at < unflushed:
            time.sleep(LOOK)  # no signal tells that time has passed
        self._ending.set()
        self._watcher.join()
        self._server.kill()
        moment = time.monotonic()
        with self._file.open("r+b") as file:
            file.truncate(self.kept)
        self._server.start()
        return moment
