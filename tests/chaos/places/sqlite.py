"""SQLite: a file. There is no server to kill; others who write into the file beside us take its place."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from tests.chaos import app as chaos
from tests.chaos.places.disk import Disk
from tests.chaos.places.place import Place, unpaid

STRANGER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
connection.execute("PRAGMA cache_size = 10")
connection.executemany("INSERT INTO chaos_stranger VALUES (?)", [(bytes(1000),)] * 500)
print("in", flush=True)
time.sleep(600)
"""
"""A program that writes into the same file, more than fits into its memory, and does not come to an end."""

ORPHANS = {
    "jobs that both wait and have finished": "SELECT id FROM dayjob_job WHERE id IN (SELECT id FROM dayjob_history)",
    "attempts of no job": "SELECT id FROM dayjob_attempt EXCEPT"
    " SELECT id FROM (SELECT id FROM dayjob_job UNION SELECT id FROM dayjob_history)",
    "checkpoints of no job": "SELECT id FROM dayjob_checkpoint EXCEPT"
    " SELECT id FROM (SELECT id FROM dayjob_job UNION SELECT id FROM dayjob_history)",
    "leases when nobody works": "SELECT worker || ' ' || entries FROM dayjob_lease",
    "workers when nobody works": "SELECT id FROM dayjob_worker WHERE lost_at IS NULL",
    "rows of transactions that were never committed": "SELECT rowid FROM chaos_stranger",
}


class Sqlite(Place):
    """A file on disk."""

    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._lie_at(folder / "jobs.db")

    def small_disk(self) -> None:
        with suppress(OSError):
            self.disk = Disk(self.folder / "disk")
            self._lie_at(self.disk.folder / "jobs.db")

    def _lie_at(self, path: Path) -> None:
        self.path = path
        self.url = self.judged_at = f"sqlite:///{path}"

    def write_back(self) -> None:
        """Empty the log of the last writes, so that the next ones need room for it."""
        with closing(sqlite3.connect(self.path, timeout=1)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def prepare(self) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute(f"CREATE TABLE {chaos.PAID} (id TEXT, entry INTEGER)")
            connection.execute(f"CREATE TABLE {chaos.SENT} (jobs INTEGER)")
            connection.execute("CREATE TABLE chaos_stranger (ballast BLOB)")

    @contextmanager
    def stranger(self) -> Iterator[subprocess.Popen[str]]:
        """Another process, which holds the write lock and has written half of what it wants; killed at the end."""
        program = [sys.executable, "-c", STRANGER, str(self.path)]
        while True:
            with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                assert process.stderr is not None
                if process.stdout.readline() == "in\n":
                    try:
                        yield process
                        return
                    finally:
                        process.kill()
                why = process.stderr.read()
                assert "disk is full" in why, why  # of another fault, which passes

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Somebody else is writing, and takes his time."""
        with closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")

    def damaged_copy(self, dice: random.Random) -> str:
        """The URL of a copy, taken under load, in which a quarter of the pages is noise."""
        path = self.folder / f"damaged-{dice.randrange(1_000_000)}.db"
        with closing(sqlite3.connect(self.path, timeout=30)) as source, closing(sqlite3.connect(path)) as copy:
            source.backup(copy)
            (size,) = copy.execute("PRAGMA page_size").fetchone()
        with path.open("r+b") as file:
            for page in range(2, path.stat().st_size // size, 4):
                file.seek(page * size)
                file.write(dice.randbytes(size))
        return f"sqlite:///{path}"

    def back_up(self, to: Path) -> None:
        """As the documentation says."""
        with closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as connection:
            connection.execute("VACUUM INTO ?", (str(to),))

    def restored(self, backup: Path) -> str:
        """The URL of a store made of *backup*."""
        return f"sqlite:///{backup}"

    def audit(self) -> tuple[list[str], int]:
        with closing(sqlite3.connect(self.path)) as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            looked_at = sum(connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables)
            wrong = [line for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"]
            for what, query in ORPHANS.items():
                wrong += [f"{what}: {row}" for (row,) in connection.execute(query)]
            done = connection.execute("SELECT id FROM dayjob_history WHERE task LIKE '%.pay' AND state = 'completed'")
            paid = connection.execute(f"SELECT id FROM {chaos.PAID}")
            return wrong + unpaid((id for (id,) in done), (id for (id,) in paid)), looked_at

    def close(self) -> None:
        """The file stays, for whoever wants to look at it."""
        if self.disk is not None:
            if self.path.exists():
                with closing(sqlite3.connect(self.path)) as connection:
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                shutil.copyfile(self.path, self.folder / "jobs.db")
            self.disk.close()
