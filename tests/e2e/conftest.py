"""A small project in an empty folder, and the command line started in it as a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Condition, Thread
from typing import IO, Any

import pytest

PROJECT = """
[tool.dayjob]
app = "shop:app"
"""
APP = """
import os, signal, time
from contextlib import asynccontextmanager
from dayjob import App, CancelJob, JobContext, RateLimit, Retry, Snooze, Unique

@asynccontextmanager
async def resources():
    yield {"db": "open"}

app = App(lifespan=resources)

@app.task(name="greet", queue="mail")
async def greet(name: str, times: int = 1) -> str:
    return f"Hello, {name}!" * times

@app.task(name="fail", retry=Retry(max_attempts=1))
def fail(ctx: JobContext[dict[str, str]], why: str) -> None:
    ctx.log.info("db is %s", ctx.state["db"])
    ctx.progress(1, 3, "steps")
    raise ValueError(why)

@app.task(name="limited", rate_limit=RateLimit(1, per=3600, key="api"), unique=Unique("n:{n}"))
def limited(n: int) -> None:
    pass

@app.task(name="pid", queue="pids")
def pid() -> int:
    return os.getpid()

@app.task(name="long", queue="long")
def long(ctx: JobContext[dict[str, str]], marker: str) -> None:
    with open(marker, "a") as file:
        file.write("begun\\n")
    while not ctx.cancelled:
        time.sleep(0.01)
    ctx.raise_if_cancelled()
"""


class Run:
    """How a command ended."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"exit {self.status}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class Going:
    """A command that goes on; what it says is read as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid
        self._news = Condition()
        self._lines: dict[str, list[str]] = {"out": [], "err": []}
        self._heard = 0
        self._readers = [
            Thread(target=self._read, args=(stream, name), daemon=True)
            for name, stream in (("out", process.stdout), ("err", process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str], name: str) -> None:
        for line in stream:
            with self._news:
                self._lines[name].append(line)
                self._news.notify_all()
        stream.close()

    def said(self, words: str, *, on: str = "err", patience: float = 12.0) -> str:
        """The next line with *words* in it; each line is heard once."""
        lines = self._lines[on]

        def next_one() -> str | None:
            while self._heard < len(lines):
                self._heard += 1
                if words in lines[self._heard - 1]:
                    return lines[self._heard - 1]
            return None

        with self._news:
            found = self._news.wait_for(next_one, patience)
        assert found is not None, f"{words!r} was not said, but:\n{''.join(lines)}"
        return found

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 10) -> int:
        """Its exit status, once all that it said is read."""
        status = self.process.wait(timeout)
        for reader in self._readers:
            reader.join(timeout)
        return status

    def end(self) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self.wait()


class Project:
    """The folder, and what can be done in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("DAYJOB_")}
        self.environ |= {"DAYJOB_BEAT": "0.3", "DAYJOB_LEASE": "5", "DAYJOB_SWEEP": "0.3", "COLUMNS": "200"}
        self._processes: list[Going] = []

    def __call__(self, *args: str, stdin: str | None = None, status: int | None = 0, **environ: str) -> Run:
        """`dayjob ARGS`; unless *status* is None it must end so."""
        done = subprocess.run(
            [sys.executable, "-m", "dayjob", *args],
            cwd=self.folder,
            env=self.environ | environ,
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=15,
            check=False,
        )
        run = Run(done.returncode, done.stdout, done.stderr)
        assert status is None or run.status == status, run
        return run

    def start(self, *args: str, **environ: str) -> Going:
        """`dayjob ARGS`, going on; it is ended with the test."""
        process = subprocess.Popen(
            [sys.executable, "-m", "dayjob", *args],
            cwd=self.folder,
            env=self.environ | environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._processes.append(Going(process))
        return self._processes[-1]

    def enqueue(self, task: str, *options: str, **args: Any) -> str:
        """`dayjob enqueue`; the job's id."""
        return self("enqueue", task, "--args", json.dumps(args), *options).out.strip()

    def state(self, id: str) -> str:
        return str(self("jobs", "show", id, "--json").json["state"])

    def end(self) -> None:
        for process in self._processes:
            process.end()


def _made(folder: Path) -> Iterator[Project]:
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "shop.py").write_text(APP)
    made = Project(folder)
    yield made
    made.end()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    yield from _made(tmp_path)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with an empty store, for tests that write nothing."""
    for project in _made(tmp_path_factory.mktemp("project")):
        project("migrate")
        yield project
