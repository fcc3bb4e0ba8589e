"""The engine as a whole: the parts over one database, its signals, its life."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dayjob.errors import ConfigError, NotSupported
from dayjob.store.contract import Listener, MigrationPart
from dayjob.store.records import Durability, Health
from dayjob.store.sqlite.cluster import ClusterPart
from dayjob.store.sqlite.copying import CopyingPart
from dayjob.store.sqlite.database import SCHEMA, Database
from dayjob.store.sqlite.signals import FileSignals, LocalSignals
from dayjob.store.sqlite.ticking import TicksPart


class SQLiteStore(ClusterPart, CopyingPart, TicksPart):
    """`dayjob.store.contract.Store` on SQLite.

    Attributes:
        url: as given. polls: False, wake-ups cross processes. processes: False for `:memory:`.
    """

    polls = False

    def __init__(self, url: str, *, clock: Callable[[], int] | None, lease: float, namespace: str) -> None:
        path = _path(url)
        super().__init__(Database(path, namespace, clock), lease)
        self.url = url
        self.processes = path is not None
        self._signals: FileSignals | LocalSignals = LocalSignals() if path is None else FileSignals(path)

    def notify(self, topic: str, data: bytes = b"") -> None:
        self._signals.notify(topic, data)

    def listening(self, topic: str, *, within: float = 0.05) -> bool:
        return self._signals.listening(topic, within=within)

    def listen(self, topics: Sequence[str]) -> Listener:
        return self._signals.listen(topics)

    def migrate(self, *, dry_run: bool = False, part: MigrationPart | None = None) -> list[str]:
        _refuse(part)
        return [step.name for step in self.db.missing()] if dry_run else self.db.migrate()

    def migration_sql(self, *, part: MigrationPart | None = None) -> str:
        _refuse(part)
        return self.db.migration_sql()

    def check(self) -> Health:
        if self.db.path is not None and not self.db.path.exists():
            facts = {"file": f"{self.db.path}, not there yet"}
            return Health(f"SQLite {sqlite3.sqlite_version}", 0, SCHEMA, facts, [])
        with self.db.read(schema=False) as connection:
            found = self.db.version(connection)
            facts = {
                "sqlite": sqlite3.sqlite_version,
                "journal": str(connection.execute("PRAGMA journal_mode").fetchone()[0]),
                "file": str(self.db.path or ":memory:"),
            }
            warnings = [
                f"the file is damaged ({row[0]}): restore a backup"
                for row in connection.execute("PRAGMA quick_check(3)")
                if row[0] != "ok"
            ]
        if found == SCHEMA:
            warnings += self._clock_warnings(facts)
        if self.db.path is not None:
            facts["size"] = f"{self.db.path.stat().st_size:,} bytes"
            mode = self.db.path.stat().st_mode & 0o777
            if mode & 0o077:
                warnings.append(f"the file's mode is {mode:o}: others can read payloads; chmod 600 {self.db.path}")
        return Health(f"SQLite {sqlite3.sqlite_version}", found, SCHEMA, facts, warnings)

    def _clock_warnings(self, facts: dict[str, str]) -> list[str]:
        skew = self.db.skew()
        facts["clock"] = f"the wall clock is {skew:+.3f} s from the store's"
        if abs(skew) < 2:
            return []
        return [
            f"this process's wall clock is {skew:+.1f} s from the store's clock: set the system's clock right; if the "
            "store's is the wrong one, it is taken anew at the next boot of the machine"
        ]

    def durability(self) -> Durability:
        costs = "all: it is in the memory of this process" if self.db.path is None else "nothing"
        return Durability(f"SQLite {sqlite3.sqlite_version}", costs, [])

    def now(self) -> int:
        return self.db.now()

    def close(self) -> None:
        self._signals.close()
        self.db.close()

    def drop(self) -> None:
        self.close()
        if self.db.path is not None:
            for ending in ("", "-wal", "-shm"):
                Path(f"{self.db.path}{ending}").unlink(missing_ok=True)
            shutil.rmtree(f"{self.db.path}-wake", ignore_errors=True)


def _refuse(part: MigrationPart | None) -> None:
    if part == "roles":
        raise NotSupported("--roles", "who may read and write a file is said by the file's mode")
    if part is not None:
        raise NotSupported(f"--{part}", "this engine's migrations have one part")


def _path(url: str) -> Path | None:
    """The file of an `sqlite:` URL, None for `:memory:`."""
    parts = urlsplit(url)
    if parts.netloc or not parts.path.startswith("/") or parts.query or parts.fragment:
        raise ConfigError(f"{url!r:.200}: write sqlite:///relative.db, sqlite:////absolute.db or sqlite:///:memory:")
    name = unquote(parts.path[1:])
    if name == ":memory:":
        return None
    if not name or "\0" in name:
        raise ConfigError(f"{url!r:.200} names no file: write sqlite:///jobs.db")
    return Path(name).absolute()
