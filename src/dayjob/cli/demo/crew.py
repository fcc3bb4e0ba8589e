"""The demo's worker processes: started like any others, one of them to be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

TARGET = "dayjob.cli.demo.tasks:app"


class Member(Struct, weakref=True):
    """One worker process. `fate`: how it looks on the screen."""

    number: int
    process: subprocess.Popen[bytes]
    log: Path
    fate: str = "starting"

    @property
    def pid(self) -> int:
        return self.process.pid


class Crew:
    """Starts the workers, ends them, and never leaves one behind.

    Each holds a pipe to us on its stdin: when we are gone, however, it closes and they stop by themselves.

    Args:
        folder: for their logs. environ: what they are started with.
    """

    def __init__(self, folder: Path, environ: dict[str, str], concurrency: int) -> None:
        self._folder = folder
        self._environ = environ
        self._concurrency = concurrency
        self.members: list[Member] = []

    def start(self, count: int) -> None:
        """Start *count* workers, each in a session of its own: Ctrl-C is ours to handle."""
        for number in range(len(self.members) + 1, len(self.members) + count + 1):
            log = self._folder / f"worker-{number}.log"
            with log.open("wb") as out:
                self.members.append(Member(number, self._spawn(out), log))

    def _spawn(self, out: BinaryIO) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "dayjob", "worker", TARGET, "-c", str(self._concurrency), "--grace", "5"],
            env=self._environ,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def fallen(self) -> Member | None:
        """A worker that ended without being told to."""
        return next((one for one in self.members if one.process.poll() is not None and one.fate != "killed"), None)

    def freeze(self, member: Member) -> None:
        """Stop a worker in mid-run, wherever it is; it has stopped when this returns."""
        os.kill(member.pid, signal.SIGSTOP)
        os.waitpid(member.pid, os.WUNTRACED)

    def kill(self, member: Member) -> None:
        """SIGKILL: no handler runs, nothing is flushed, nothing is said."""
        member.fate = "killed"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(member.pid, signal.SIGKILL)  # its pool children, too: the machine is gone, so to say
        member.process.wait()

    def stop(self, timeout: float = 8.0) -> None:
        """End all that still run: SIGTERM, then SIGKILL to what does not listen."""
        running = [one for one in self.members if one.process.poll() is None]
        for one in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGCONT)
                os.kill(one.pid, signal.SIGTERM)
        deadline = time.monotonic() + timeout
        for one in running:
            try:
                one.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(one.pid, signal.SIGKILL)
                one.process.wait()
        for one in self.members:
            if one.process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    one.process.stdin.close()
