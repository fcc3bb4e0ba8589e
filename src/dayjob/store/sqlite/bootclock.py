"""A store clock for an engine without a server (P6).

SQLite has nobody to ask for the time, and a process's wall clock may jump. The time since boot does not: it is the
same for all processes of the machine and cannot be set. The file keeps, per boot, the offset from boot time to UTC as
the first process of that boot saw it. So all processes agree, and a jump of one wall clock changes nothing.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_KEPT_BOOTS = 4


class BootClock:
    """Boot time plus the file's offset; the wall clock where the system has no boot time (not Linux)."""

    def __init__(self) -> None:
        self.boot = _boot_id()
        self.offset: int | None = None if self.boot else 0

    @property
    def known(self) -> bool:
        """True once the offset is known."""
        return self.offset is not None

    def now(self) -> int:
        """The store's clock as a stamp."""
        return (_since_boot() if self.boot else time.time_ns() // 1000) + (self.offset or 0)

    def learn(self, connection: sqlite3.Connection, namespace: str) -> None:
        """Read this boot's offset from the file, inside a write transaction; the first process of a boot writes it."""
        table = f"{namespace}_clock"
        offset = time.time_ns() // 1000 - _since_boot()
        connection.execute(f"INSERT OR IGNORE INTO {table} (boot, offset) VALUES (?, ?)", (self.boot, offset))
        connection.execute(f"DELETE FROM {table} WHERE no <= (SELECT max(no) FROM {table}) - {_KEPT_BOOTS}")
        self.offset = int(connection.execute(f"SELECT offset FROM {table} WHERE boot = ?", (self.boot,)).fetchone()[0])

    def look(self, connection: sqlite3.Connection, namespace: str) -> bool:
        """Read this boot's offset, if a process has written it; True when it is known now."""
        found = connection.execute(f"SELECT offset FROM {namespace}_clock WHERE boot = ?", (self.boot,)).fetchone()
        if found is not None:
            self.offset = int(found[0])
        return found is not None

    def skew(self) -> float:
        """Seconds by which this process's wall clock is ahead of the store's clock."""
        return (time.time_ns() // 1000 - self.now()) / 1e6


def _boot_id() -> str | None:
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return None


def _since_boot() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
