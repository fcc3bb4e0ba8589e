"""The app that is tortured, and its ledger: one JSON line per fact, outside the store, from every process.

Run as a program (`python -m tests.crash.arena`) it is one worker process. Facts: `start` and `effect` of each run with
its lease, and every event that the worker emits about jobs and leases.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from dayjob import App, Settings
from dayjob.context import RUNNING

LEASE = 2.0
LEDGER = Path(os.environ.get("ARENA_LEDGER", "ledger"))
CONCURRENCY = 6

app = App(
    os.environ.get("ARENA_URL", "sqlite:///arena.db"),
    settings=Settings(lease=LEASE, beat=LEASE / 4, sweep=LEASE / 4, poll=0.2, blocked_after=10.0),
)


def note(fact: str, **facts: Any) -> None:
    """Append a fact; one write, so lines of several threads do not mix, and a SIGKILL leaves no half line."""
    line = json.dumps({"fact": fact, "pid": os.getpid(), "at": time.monotonic(), **facts}) + "\n"
    descriptor = os.open(LEDGER / f"{os.getpid()}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def facts() -> list[dict[str, Any]]:
    """Everything in the ledger, in the order of time."""
    found = [json.loads(line) for path in LEDGER.glob("*.jsonl") for line in path.read_text().splitlines()]
    return sorted(found, key=lambda fact: fact["at"])


def note_run(fact: str) -> None:
    run: Any = RUNNING.get()
    lease = run.lease
    note(fact, id=lease.id, entry=lease.entry, worker=lease.worker)


@app.task
async def nap(seconds: float) -> str:
    """An async job with one effect."""
    note_run("start")
    await asyncio.sleep(seconds)
    note_run("effect")
    return "rested"


@app.task
def work(seconds: float) -> str:
    """A job in a thread with one effect."""
    note_run("start")
    time.sleep(seconds)
    note_run("effect")
    return "worked"


@app.task
def poison() -> None:
    """Kills the process it runs in."""
    note_run("start")
    os.kill(os.getpid(), signal.SIGKILL)


@app.on("*")
def _remember(event: Any) -> None:
    if event.name in (
        "lease.lost",
        "job.completed",
        "job.stalled",
        "job.dead",
        "worker.lost",
        "worker.gone",
        "process.died",
    ):
        said = {name: getattr(event, name) for name in event.__struct_fields__ if name != "at"}
        if "worker" in said and "id" in said:
            said["of"] = said.pop("worker")
        said.pop("pid", None)
        note(event.name, **said)


def producer(url: str, *names: str) -> tuple[App, list[Any]]:
    """An app for this process on the store at *url*, and the tasks of these names."""
    here = App(url, settings=app.settings)
    return here, [here.task(globals()[name].fn, name=f"tests.crash.arena.{name}") for name in names]


def main() -> None:
    app.worker(concurrency=CONCURRENCY, grace=5).run()


if __name__ == "__main__":
    from tests.crash import arena

    sys.exit(arena.main())
