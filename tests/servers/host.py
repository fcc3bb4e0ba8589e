"""What servers need of the machine: a free port, a user who is not root, and an end that comes for certain."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ENOUGH = 4 << 30
"""Bytes of memory that must be free for data to be kept there."""
KEEPER = """
read -r _
[ -e "$2" ] && kill -QUIT "$(head -n 1 "$2")" 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do [ -e "$2" ] || break; sleep 0.1; done
rm -rf "$1"
"""


class Missing(Exception):
    """This machine has no such server; says how to get it."""


class Unavailable(Missing):
    """Nothing brings such a server to this Python, so that no machine can be asked to have it."""


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Lodging:
    """A folder and a user for one server, and a keeper who outlives this process.

    However this process ends, even by SIGKILL: the keeper, a few lines of shell, sees its pipe close, ends the server
    whose process id the file *pid_file* (below the folder) begins with, and deletes the folder.

    Args:
        memory: the folder may be in memory, if there is enough.

    Attributes:
        folder: belongs to the server's user.
        dropped: arguments of `Popen` that make root's child a system user's; empty for everyone else.
    """

    def __init__(self, name: str, pid_file: str, *, memory: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"dayjob-{name}-", dir=_memory() if memory else None))
        self.dropped = _dropped(self.folder)
        self._owner = os.getpid()
        self._keeper = subprocess.Popen(
            ["sh", "-c", KEEPER, "keeper", self.folder, self.folder / pid_file],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def start(self, program: Path, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start a server that says all to the file `log`."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C is meant for the tests
                **self.dropped,
            )

    def run(
        self, program: Path, *arguments: str | Path, environ: Mapping[str, str] | None = None, told: str = ""
    ) -> str:
        """Run a program to its end; what it printed. told: what it reads."""
        done = subprocess.run(
            [program, *arguments],
            input=told,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**os.environ, **(environ or {})},
            check=False,
            **self.dropped,
        )
        if done.returncode:
            raise RuntimeError(f"{program.name} failed:\n{done.stdout}{done.stderr}")
        printed: str = done.stdout
        return printed

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def close(self) -> None:
        """End the server and delete the folder. Idempotent; nothing in a forked child, whose server it is not."""
        if os.getpid() == self._owner and self._keeper.poll() is None:
            self._keeper.communicate(b"\n")


def _memory() -> str | None:
    """A folder in memory: a new database there takes 10 ms, and on a busy disk 100."""
    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() and shutil.disk_usage(shared).free > ENOUGH else None


def _dropped(folder: Path) -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(folder, user.pw_uid, user.pw_gid)
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise Missing("these servers refuse to run as root, and there is neither a user `postgres` nor `nobody`")
