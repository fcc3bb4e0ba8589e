"""Processes that are measured, held on a short line: one JSON document a line, both ways."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class Child:
    """`python -m MODULE ARGUMENTS` as a process; killed on the way out if it has not ended by itself.

    Args:
        env: added to this process's environment.
        program: what to run instead of `python -m`.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        program: Sequence[str] = (sys.executable, "-m"),
    ) -> None:
        self._name = f"{module} {' '.join(arguments)}"
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(
            [*program, module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env={**os.environ, **(env or {}), "PYTHONUNBUFFERED": "1"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        self._pending = b""

    def tell(self, **words: Any) -> None:
        """Send one document."""
        self._stdin.write(json.dumps(words).encode() + b"\n")
        self._stdin.flush()

    def hear(self, timeout: float = 60.0) -> dict[str, Any]:
        """The next document that it writes; a child that ended or is silent for *timeout* s is a `RuntimeError`."""
        while b"\n" not in self._pending:
            if not self._selector.select(timeout):
                self._process.send_signal(signal.SIGUSR1)  # a child of ours says where each of its threads stands
                time.sleep(0.5)
                raise RuntimeError(f"{self._name}: silent for {timeout:g} s\n{self._complaints()}")
            chunk = os.read(self._stdout.fileno(), 65536)
            if not chunk:
                raise RuntimeError(f"{self._name}: ended with {self._process.wait()}\n{self._complaints()}")
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        words: dict[str, Any] = json.loads(line)
        return words

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30.0) -> None:
        """Ask it to end, and wait."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        self._process.wait(timeout)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._selector.close()
        self._stdin.close()
        self._stdout.close()
        self._errors.close()

    def _complaints(self) -> str:
        """The last it wrote to its standard error."""
        self._errors.seek(0)
        return self._errors.read()[-8000:].decode(errors="replace")


def say(**words: Any) -> None:
    """In a child: write one document."""
    print(json.dumps(words), flush=True)


def listen() -> dict[str, Any]:
    """In a child: the next document from the parent; it ends the process when the parent has gone."""
    line = sys.stdin.readline()
    if not line:
        raise SystemExit(0)
    words: dict[str, Any] = json.loads(line)
    return words
