"""The demo's app: what its workers run. A small, whole example of how tasks are written.

Effects: each reading of a file appends one line to a file of its own process before it returns, as a task with side
effects would. The demo compares those lines with what the store says (`verify`).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from msgspec import Struct

from dayjob import App, JobContext, Retry, Settings, Snooze, Unrecoverable
from dayjob.cli.demo.reading import LAST_LINE, Binary, Reading, measure

FILES, REPORT = "files", "report"
ATTEMPTS = 3


class Effects:
    """Where this process notes what it did; a line is in the file when `note` returns, whatever kills us next."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / f"effects-{os.getpid()}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, job: str, attempt: int) -> None:
        os.write(self._file, json.dumps([job, attempt]).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


@contextlib.contextmanager
def effects() -> Iterator[Effects]:
    """Opened once per worker process; every job gets it as `ctx.state`."""
    _die_with_parent()
    kept = Effects(Path(os.environ["DAYJOB_DEMO_FOLDER"]))
    try:
        yield kept
    finally:
        kept.close()


def _die_with_parent() -> None:
    """Stop this worker in order when the demo itself is gone: its end of our stdin closes then, even by SIGKILL.

    Only the workers that the demo started have a pipe for their stdin; their own children follow them anyway.
    """
    if not os.environ.get("DAYJOB_DEMO_LEASH") or not stat.S_ISFIFO(os.fstat(0).st_mode):
        return

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="leash", daemon=True).start()


app = App(
    namespace=os.environ.get("DAYJOB_DEMO_NAMESPACE", "dayjob"),
    lifespan=effects,
    settings=Settings.from_env(os.environ),
)


@app.task(
    queue=FILES, timeout=60, retry=Retry(max_attempts=ATTEMPTS, backoff=[0.4, 0.8], jitter=0.1, retry_on=(OSError,))
)
def read_file(ctx: JobContext[Effects], name: str) -> Reading:
    """Read one file. One that cannot be read is tried again; a binary one is not text tomorrow either."""
    try:
        reading = measure(path_of(name))
    except Binary as binary:
        raise Unrecoverable(f"binary: {binary}") from binary
    ctx.state.note(ctx.id, ctx.attempt)
    return reading


@app.task(queue=FILES, timeout=60)
def follow(ctx: JobContext[Effects], name: str) -> Reading:
    """Read a file that someone still writes: wait for its last line. A long job, which can be told to stop."""
    path = Path(path_of(name))
    while not (lines := path.read_text().splitlines()) or lines[-1] != LAST_LINE:
        ctx.progress(len(lines), note="lines")
        ctx.raise_if_cancelled()
        time.sleep(0.02)
    reading = measure(str(path))
    ctx.state.note(ctx.id, ctx.attempt)
    return reading


class Totals(Struct, frozen=True):
    """What the last job makes of all others."""

    files: int
    size: int
    lines: int
    words: int
    encodings: dict[str, int]
    slowest: list[tuple[str, float]]
    """Name and seconds."""


@app.task(queue=REPORT, timeout=60)
def summarise(ctx: JobContext[Effects]) -> Totals:
    """Add up every reading; while files are still being read, put itself off (which costs no attempt)."""
    if ctx.app.jobs.count(queue=FILES, state=["scheduled", "blocked", "available", "running"]):
        raise Snooze(0.2)
    size = lines = words = files = 0
    encodings: dict[str, int] = {}
    times: list[tuple[str, float]] = []
    after = None
    while True:
        page = ctx.app.jobs.find(queue=FILES, state="completed", limit=1000, after=after)
        for job in page:
            reading: Reading = job.result(timeout=0)
            files, size, lines, words = files + 1, size + reading.size, lines + reading.lines, words + reading.words
            encodings[reading.encoding] = encodings.get(reading.encoding, 0) + 1
            times.append((job.args["name"], (job.finished_at - job.started_at).total_seconds()))
        after = page.after
        if after is None:
            break
    times.sort(key=lambda one: -one[1])
    return Totals(files, size, lines, words, encodings, times[:5])


def name_of(path: str) -> str:
    """*path* as text that fits into JSON: bytes that are no UTF-8 (file names may hold any) are percent-encoded."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "%:" + quote_from_bytes(os.fsencode(path))
    return path


def path_of(name: str) -> str:
    """The path that `name_of` made *name* of."""
    return os.fsdecode(unquote_to_bytes(name[2:])) if name.startswith("%:") else name
