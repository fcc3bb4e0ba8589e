"""Starting child processes, and telling how they died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Struct

from dayjob.worker.channel import Channel, Setup


class Ref(Protocol):
    """Where a child finds the app: `locate.AppRef`."""

    target: str
    path: list[str]
    main_file: str | None


class Death(Struct, frozen=True):
    """How a process ended. `code`: exit code, negative for a signal. `how`: in words. `peak_mb`: most memory it held."""

    code: int
    how: str
    peak_mb: float | None


class Child:
    """A child process with a channel to it.

    In a process group of its own, so that a terminal's Ctrl-C reaches only the parent, which decides. A pipe ties its
    life to ours: see `child.py`.
    """

    def __init__(self, role: str, ref: Ref, options: dict[str, Any] | None = None) -> None:
        self.role = role
        self.channel, theirs = Channel.pair()
        lifeline, self._lifeline = os.pipe()
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]  # as multiprocessing does
                    "-m",
                    "dayjob.worker.child",
                    str(theirs.fileno()),
                    str(lifeline),
                ],
                pass_fds=(theirs.fileno(), lifeline),
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(_path(ref))},
                process_group=0,
            )
        except BaseException:
            self.channel.close()
            os.close(self._lifeline)
            raise
        finally:
            theirs.close()
            os.close(lifeline)
        self.pid = self._process.pid
        self.death: Death | None = None
        self.channel.send(Setup(role, ref.target, list(ref.path), ref.main_file, options or {}))

    def kill(self) -> None:
        """SIGKILL; harmless when it is over."""
        if self.death is None:
            self._signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM; harmless when it is over."""
        if self.death is None:
            self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass

    def reap(self, *, wait: bool = True) -> Death | None:
        """How it ended; waits for that, or with *wait* False answers None while it lives."""
        if self.death is None:
            try:
                pid, status, usage = os.wait4(self.pid, 0 if wait else os.WNOHANG)
            except ChildProcessError:  # somebody else has reaped it
                pid, status, usage = self.pid, 0, None
            if pid == 0:
                return None
            code = os.waitstatus_to_exitcode(status)
            self._process.returncode = code
            self.death = Death(code, describe(code), _peak_mb(usage))
            self.channel.close()
            os.close(self._lifeline)
        return self.death


def describe(code: int) -> str:
    """An exit code in words: `signal 9 (SIGKILL)`, `exit code 1`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"


def _peak_mb(usage: Any) -> float | None:
    if usage is None:
        return None
    return float(usage.ru_maxrss / (1 << 20) if sys.platform == "darwin" else usage.ru_maxrss / 1024)


def _path(ref: Ref) -> list[str]:
    """The child must find dayjob itself before it can read the rest of the path from its first frame."""
    return [entry for entry in (*ref.path, *sys.path) if entry]


Launcher = Callable[[str, dict[str, Any]], Child]
