"""Starting child processes, and telling how they died."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from msgspec import Struct

from dayjob.worker.channel import Channel, Ran, Setup, Stop, not_for_forks

EXIT_AGAIN = 75
"""The exit code of a process that wants to be started again (sysexits: temporary failure)."""


_ROOT = str(Path(__file__).resolve().parents[2])
"""Where this dayjob was imported from: the child must find the same one before it can read where its app is. Said in its
own command, and not in the environment, which the programs that jobs start would inherit."""


class Ref(Protocol):
    """Where a child finds the app: `locate.AppRef`."""

    @property
    def target(self) -> str: ...
    @property
    def path(self) -> list[str]: ...
    @property
    def main_file(self) -> str | None: ...


class Death(Struct, frozen=True):
    """How a process ended. `code`: exit code, negative for a signal. `how`: in words. `peak_mb`: most memory it held."""

    code: int
    how: str
    peak_mb: float | None


class Child:
    """A child process with a channel to it.

    In a process group of its own, so that a terminal's Ctrl-C reaches only the parent, which decides. A pipe ties its
    life to ours: see `child.py`.

    Attributes:
        stopping: it was told to stop: whatever it dies of then is no crash. orderly: its last words were a goodbye.
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
                    "-c",
                    f"import sys; sys.path.append({_ROOT!r}); from dayjob.worker.child import entry; entry()",
                    role,
                    str(theirs.fileno()),
                    str(lifeline),
                ],
                pass_fds=(theirs.fileno(), lifeline),
                stdin=subprocess.DEVNULL,
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
        self.stopping = self.orderly = False
        self._reaping = Lock()
        not_for_forks(self)
        self.started = time.monotonic()
        self.channel.send(Setup(role, ref.target, list(ref.path), ref.main_file, options or {}))

    def stop(self, *, now: bool = False) -> None:
        """Tell it to end in order; *now*: without grace."""
        self.stopping = True
        self.channel.send(Stop(now=now))

    def receive(self, timeout: float) -> Any:
        """The next message; None when it has ended, even if what it forked keeps the channel open.

        Raises:
            TimeoutError: nothing came for *timeout* seconds, and it lives.
        """
        gone = self.reap(wait=False, close=False) is not None
        try:
            message = self.channel.receive(0.0 if gone else timeout)
        except TimeoutError:
            if gone:
                return None
            raise
        if message is not None:
            self.orderly = isinstance(message, Ran)
        return message

    def kill(self, *, rest: bool = False) -> None:
        """SIGKILL to it and to the programs that it started; harmless when it is over.

        Args:
            rest: the programs also when it is over. Only right after its death: the number is given to others.
        """
        if self.death is None or rest:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def reap(self, *, wait: bool = True, close: bool = True) -> Death | None:
        """How it ended; waits for that, or with *wait* False answers None while it lives.

        Args:
            close: False leaves the channel open: its last words may still be in there.
        """
        with self._reaping:
            death = self._reap(wait)
        if death is not None and close:
            self.channel.close()
        return death

    def forget(self) -> None:
        """See `not_for_forks`. It is no child of this process."""
        self._reaping = Lock()
        if self.death is None:
            self.death = Death(0, "another process's child", None)
            os.close(self._lifeline)

    def _reap(self, wait: bool) -> Death | None:
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


Launcher = Callable[[str, dict[str, Any]], Child]
