"""What `dayjob doctor` sees of a server: facts, and warnings that each say what to do.

One short read transaction, and a notification sent to ourselves. The hot path is built to bear a held-back horizon, dead
rows and the rest; people should know of them all the same, and of how to end them.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import psycopg

from dayjob.clock import SECOND, wall
from dayjob.store.postgres.database import MOST, Connection, Database
from dayjob.store.records import Durability, Health
from dayjob.store.sqlfile import load

OLD = 600.0
"""Seconds after which a transaction is worth a warning; a nightly report may take that long."""
FAR = 10_000_000
"""The same in transactions, where nobody tells since when."""
SKEW = 2.0
HEARD_WITHIN = 2.0
FULL = 0.9
MANY = 1_000_000
"""Dead rows."""
LITTLE = 1 << 30
"""Bytes up to which space that dead rows left is not worth a word: it is used again."""


class Examination:
    """One look at a server."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._sql = load("dayjob.store.postgres", "health.sql", db.namespace)
        self._facts: dict[str, str] = {}
        self._warnings: list[str] = []

    def health(self) -> Health:
        """All of it.

        Raises:
            StoreError: the server cannot be reached, or refuses us.
        """
        with self._db.read(schema=False) as connection:
            self._connection(connection)
            version = self._server(connection)
            self._holders(connection)
            before, _ = self._db.versions(connection)
            if before:
                self._tables(connection)
        with self._db.session(schema=False) as connection:
            self._ears(connection)
        return Health(f"PostgreSQL {version}", before, self._db.wanted, self._facts, self._warnings)

    def durability(self) -> Durability:
        """What may be lost, alone.

        Raises:
            StoreError: the server cannot be reached, or refuses us.
        """
        with self._db.read(schema=False) as connection:
            version, _, standby, fsync, whole_pages, *_ = _row(connection, self._sql.server)
        self._keeping(standby, fsync, whole_pages)
        costs = "nothing" if fsync == whole_pages == "on" else "what the system had not written, or the whole database"
        return Durability(f"PostgreSQL {_number(version)}", costs, self._warnings)

    def _warn(self, what: str, remedy: str) -> None:
        self._warnings.append(f"{what}: {remedy}")

    # -- the line and the server ---------------------------------------------------------------------------------

    def _connection(self, connection: Connection) -> None:
        info = connection.info
        local = info.host.startswith("/") or info.hostaddr in ("127.0.0.1", "::1", "")
        secret = connection.pgconn.ssl_in_use
        self._facts["connection"] = (
            f"{'through a pooler' if self._db.pooled else 'direct'}, {'TLS' if secret else 'no TLS'}, at most {MOST} in this process and one to listen"
        )
        if not secret and not local:
            self._warn("the line to the server is not encrypted", "add ?sslmode=verify-full to the URL")

    def _server(self, connection: Connection) -> str:
        asked = wall()
        (version, encoding, standby, fsync, whole_pages, commit, vacuums, most, used, notices, clock) = _row(
            connection, self._sql.server
        )
        took = wall() - asked
        skew = (asked + took / 2 - clock) / SECOND
        self._facts["round trip"] = f"{took / 1000:.1f} ms"
        self._facts["clock"] = f"this process's wall clock is {skew:+.3f} s from the server's"
        self._facts["connections"] = f"{used} of {most} in use"
        self._facts["vacuum"] = f"autovacuum {'on' if vacuums else 'off'}"
        self._facts["commits"] = f"synchronous_commit {commit}, fsync {fsync}"
        if abs(skew) - took / SECOND > SKEW:
            self._warn(
                f"this process's wall clock is {skew:+.1f} s from the server's", "let both keep time (chrony, ntpd)"
            )
        if used >= FULL * most:
            self._warn(
                f"{used} of {most} connections are in use",
                f"raise max_connections, or put a pooler before it: a worker process of ours takes up to {MOST + 1}",
            )
        self._keeping(standby, fsync, whole_pages)
        if encoding != "UTF8":
            self._warn(
                f"the database's encoding is {encoding}", "make one with ENCODING 'UTF8': not every text fits this one"
            )
        if not vacuums:
            self._warn("autovacuum is off", "autovacuum = on and track_counts = on, or tables grow without end")
        if notices > 0.5:
            self._warn(
                f"the server's queue of notifications is {notices:.0%} full",
                "end the session that has executed LISTEN and keeps a transaction open",
            )
        return _number(version)

    def _keeping(self, standby: bool, fsync: str, whole_pages: str) -> None:
        if "off" in (fsync, whole_pages):
            self._warn(
                "the server does not wait for its disk", "fsync = on and full_page_writes = on, or a crash may lose all"
            )
        if standby:
            self._warn("this server is a standby and can only be read", "give the URL of the primary")

    def _ears(self, connection: Connection) -> None:
        """Whether a notification comes back."""
        if self._db.pooled:
            self._facts["wake-ups"] = (
                "by polling, once a second: there is no LISTEN behind a pooler in transaction mode"
            )
            return
        channel, asked = f"doctor_{uuid4().hex}", time.monotonic()
        try:
            connection.execute(f"LISTEN {channel}")
            connection.execute(f"NOTIFY {channel}")
            heard = [one for one in connection.notifies(timeout=HEARD_WITHIN, stop_after=1) if one.channel == channel]
            connection.execute(f"UNLISTEN {channel}")
        except psycopg.Error as error:
            self._facts["wake-ups"] = "by polling, once a second"
            self._warn(f"LISTEN does not work here ({str(error).strip()})", "workers look once a second instead")
            return
        if heard:
            self._facts["wake-ups"] = f"LISTEN and NOTIFY, {(time.monotonic() - asked) * 1000:.1f} ms there and back"
        else:
            self._facts["wake-ups"] = "by polling, once a second"
            self._warn(
                f"a notification did not come back within {HEARD_WITHIN:g} s",
                "look for a transaction that holds up commits with NOTIFY; workers look once a second meanwhile",
            )

    # -- what holds back vacuum ----------------------------------------------------------------------------------

    def _holders(self, connection: Connection) -> None:
        found = connection.execute(self._sql.holders).fetchall()
        if not found:
            self._facts["oldest transaction"] = "none is open"
            return
        told = [(f"{kind} {name}", seconds, behind or 0, end) for kind, name, seconds, behind, end in found]
        who, seconds, behind, _ = max(told, key=lambda one: (one[1] or 0.0, one[2]))
        since = "" if seconds is None else f" for {_time(seconds)}"
        self._facts["oldest transaction"] = f"{who}{since}, {behind:,} transactions ago"
        for who, seconds, behind, end in told:
            if (seconds or 0.0) > OLD or behind > FAR:
                since = f"{behind:,} transactions" if seconds is None else _time(seconds)
                self._warn(f"{who} has kept vacuum from removing dead rows for {since}", end)

    # -- our tables ----------------------------------------------------------------------------------------------

    def _tables(self, connection: Connection) -> None:
        rows = connection.execute(self._sql.tables).fetchall()
        dead = [f"{name} {many:,}" for name, _, many, *_ in rows if many]
        self._facts["dead rows"] = ", ".join(dead[:4]) or "none"
        for name, live, many, size, needed, vacuums in rows:
            table = f'"{self._db.namespace}".{name}'
            if not vacuums:
                self._warn(f"autovacuum is off for {table}", f"ALTER TABLE {table} RESET (autovacuum_enabled)")
            if many > MANY and many > 5 * live:
                self._warn(
                    f"{table} has {many:,} dead rows and {live:,} others",
                    f"end what holds vacuum back, if anything is named here, then VACUUM {table}",
                )
            elif size > LITTLE and size > 5 * needed:
                self._warn(
                    f"{table} takes {_bytes(size)}, its rows {_bytes(needed)}",
                    f"VACUUM FULL {table} while the workers are stopped, or leave it: the space is used again",
                )
        history, rest = _row(connection, self._sql.sizes)
        days, first, last, late = _row(connection, self._sql.days)
        self._facts["sizes"] = f"history {_bytes(history)}, all else {_bytes(rest)}"
        self._facts["history"] = (
            f"{days} day{'s' if days > 1 else ''}, by when they go: {first} to {last}" if days else "no day yet"
        )
        if late:
            self._warn(
                f"the history of {first} should be gone",
                "see whether a worker leads (dayjob workers), and whether a reader of the history never ends",
            )


def _number(version: str) -> str:
    return version.partition(" ")[0]


def _row(connection: Connection, statement: str) -> tuple[Any, ...]:
    row = connection.execute(statement).fetchone()
    assert row is not None
    return row


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"
