"""pgbouncer in transaction mode before a PostgreSQL server: every transaction may run on another connection."""

from __future__ import annotations

import atexit
import shutil
import socket
import time
from functools import cache
from pathlib import Path

from tests.servers.host import Lodging, Missing, free_port
from tests.servers.postgres import Server, postgres

CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
max_client_conn = 500
default_pool_size = 20
pidfile = {folder}/pid
"""
"""Everything else is as the package has it: nothing is made easy for the engine."""
START_S = 10.0


class Bouncer:
    """One pgbouncer.

    Attributes:
        server: what stands behind it. port: where it listens.
    """

    def __init__(self, program: Path, server: Server) -> None:
        self.server, self.port = server, free_port()
        self._lodging = Lodging("pgbouncer", "pid")
        configuration = self._lodging.folder / "pgbouncer.ini"
        text = CONFIGURATION.format(server=server.port, port=self.port, folder=self._lodging.folder)
        configuration.write_text(text)
        users = self._lodging.folder / "users"
        users.write_text('"postgres" ""\n')
        for file in (configuration, users):
            file.chmod(0o644)
        self._process = self._lodging.start(program, configuration)
        self._await()

    def _await(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"pgbouncer did not start:\n{self._lodging.log.read_text()}") from None
            time.sleep(0.02)

    def url(self, database: str) -> str:
        """The URL of *database* through it."""
        return self.server.url(database, port=self.port)

    def close(self) -> None:
        """End it. Idempotent."""
        self._lodging.close()
        self._process.wait()


@cache
def bouncer(major: int = 18) -> Bouncer:
    """This process's pgbouncer before `postgres(major)`.

    Raises:
        Missing: this machine has none.
    """
    found = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        raise Missing("no pgbouncer: Debian's package pgbouncer brings it")
    before = Bouncer(Path(found), postgres(major))
    atexit.register(before.close)
    return before
