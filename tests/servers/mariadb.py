"""A MariaDB server of Debian's package that lives as long as this process, for applications whose data is in one.

url = mariadb().url(mariadb().create_database())
"""

from __future__ import annotations

import atexit
import itertools
import shutil
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pymysql

from tests.servers.host import Lodging, Missing, free_port

PLACES = "/usr/sbin:/usr/bin:/usr/local/bin"
SETTINGS = {
    "innodb-flush-log-at-trx-commit": "0",  # what is written survives a crash of a client, which is what tests try
    "innodb-fast-shutdown": "2",
    "innodb-log-file-size": "16M",
    "innodb-buffer-pool-size": "64M",
    "skip-log-bin": "",
    "performance-schema": "OFF",
    "sql-mode": "NO_ENGINE_SUBSTITUTION",  # values that do not fit are cut off in silence: the careless setting of old servers
    "max-allowed-packet": "8M",
    "default-time-zone": "+05:45",
    "lc-messages": "de_DE",
}
"""Small and quick, and otherwise as a careless writer of statements would not expect it."""
SCRIPTS = ("mysql_system_tables.sql", "mysql_system_tables_data.sql")
QUICK = ("--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=0", "--skip-log-bin")
START_S = 30.0


class Server:
    """One MariaDB server on a port of the loopback address, with the superuser `root` and no password.

    Attributes:
        port: where it listens. data: its folder.
    """

    def __init__(self, program: Path, scripts: Path, settings: Mapping[str, str]) -> None:
        self._lodging = Lodging("mariadb", "data/server.pid", memory=True)
        self.port = free_port()
        self.data = self._lodging.folder / "data"
        self._names = itertools.count()
        here = ("--no-defaults", f"--datadir={self.data}")
        # What `mariadb-install-db` does, without the three packages that this script needs.
        self._lodging.run(Path(shutil.which("mkdir") or "mkdir"), self.data)
        told = "".join((scripts / name).read_text() for name in SCRIPTS)
        self._lodging.run(program, *here, "--bootstrap", *QUICK, told=f"CREATE DATABASE mysql;\nUSE mysql;\n{told}")
        places = {"port": str(self.port), "bind-address": "127.0.0.1", "socket": "socket", "pid-file": "server.pid"}
        options = [f"--{name}={value}" if value else f"--{name}" for name, value in {**places, **settings}.items()]
        self._process = self._lodging.start(program, *here, "--skip-name-resolve", *options)
        self._await()

    def _await(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            try:
                self.sql("SELECT 1")
                return
            except pymysql.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"MariaDB did not start:\n{self._lodging.log.read_text()[-3000:]}") from None
            time.sleep(0.05)

    def close(self) -> None:
        """End it for good and delete its data. Idempotent."""
        self._lodging.close()
        self._process.wait()

    def url(self, database: str, *, user: str = "root") -> str:
        """The URL of *database*, as SQLAlchemy has it."""
        return f"mysql+pymysql://{user}@127.0.0.1:{self.port}/{database}"

    def create_database(self) -> str:
        """A new database; its name."""
        name = f"test{next(self._names)}"
        self.sql(f"CREATE DATABASE {name} CHARACTER SET latin1")
        return name

    def sql(self, statement: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Execute as superuser and commit; the rows, if there are any."""
        connection = pymysql.connect(host="127.0.0.1", port=self.port, user="root", database=database, autocommit=True)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall())
        finally:
            connection.close()


@cache
def mariadb() -> Server:
    """This process's server.

    Raises:
        Missing: this machine has none.
    """
    program, scripts = shutil.which("mariadbd", path=PLACES), Path("/usr/share/mysql")
    if program is None or not all((scripts / name).exists() for name in SCRIPTS):
        raise Missing("no MariaDB: Debian's package mariadb-server-core brings it")
    server = Server(Path(program), scripts, SETTINGS)
    atexit.register(server.close)
    return server
