"""The app of these tests, a module of its own so that child processes can import it; and its tasks."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from dayjob import (
    App,
    Breaker,
    Call,
    CancelJob,
    JobContext,
    RateLimit,
    Retry,
    RetryAfter,
    Settings,
    Snooze,
    Unrecoverable,
    current_job,
)


@contextlib.contextmanager
def lifespan() -> Iterator[dict[str, int]]:
    if os.environ.get("SHOP_CLOSED"):
        raise RuntimeError("the shop is closed")
    yield {"pid": os.getpid()}


SETTINGS = Settings(lease=2.5, beat=0.2, sweep=0.2, grace=5.0, poll=0.2, blocked_after=0.3)
app = App("sqlite:///:memory:", lifespan=lifespan, settings=SETTINGS)


@app.around
def note_the_job(ctx: JobContext[Any]) -> Iterator[None]:
    around.set(ctx.id)
    yield


around: ContextVar[str] = ContextVar("around", default="")
held: list[sqlite3.Connection] = []
colour: ContextVar[str] = ContextVar("colour", default="none")


class Refused(Exception):
    """An error of the shop."""


def mark(file: str, text: str) -> None:
    """One effect, visible from every process."""
    with Path(file).open("a") as out:
        out.write(f"{text} {os.getpid()}\n")


def marks(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


@app.task
async def add(a: int, b: int) -> int:
    return a + b


@app.task
def join(a: str, b: str) -> str:
    return a + b


@app.task
def lock_out(file: str) -> str:
    """The first time, nobody writes to the store any more until this process ends."""
    first = not Path(file).exists()
    if first:
        writer = sqlite3.connect(app.url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
        writer.execute("BEGIN IMMEDIATE")
        held.append(writer)
    mark(file, "here")
    return "alone"


@app.task(executor="process")
def square(n: int) -> int:
    return n * n


@app.task(retry=Retry(max_attempts=2, backoff="fixed", base=0, jitter=0))
def refuse(ctx: JobContext[None], text: str) -> None:
    raise Refused(f"{text} {ctx.attempt}")


@app.task(retry=Retry(max_attempts=2, backoff="fixed", base=0, jitter=0))
async def direct(how: str) -> None:
    if how == "retry_after":
        raise RetryAfter(60) from Refused("busy")
    if how == "snooze":
        raise Snooze(60)
    if how == "cancel":
        raise CancelJob("not wanted")
    if how == "unrecoverable":
        raise Unrecoverable("no such order")
    if how == "exit":
        raise SystemExit(3)
    if how == "cancelled_error":
        raise asyncio.CancelledError


@app.task
async def unspeakable() -> int:
    return object()  # type: ignore[return-value]


@app.task
async def wait(file: str, seconds: float) -> str:
    mark(file, "begin")
    await asyncio.sleep(seconds)
    mark(file, "end")
    return "waited"


@app.task
def wait_in_thread(file: str, seconds: float) -> str:
    mark(file, "begin")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
    mark(file, "end")
    return "waited"


@app.task
def look_and_wait(ctx: JobContext[None], file: str) -> str:
    """Looks at its context, as a good sync task does."""
    mark(file, "begin")
    while not ctx.cancelled:
        time.sleep(0.01)
    mark(file, "saw it")
    ctx.raise_if_cancelled()
    return "not reached"


@app.task
def deaf(file: str, seconds: float) -> None:
    """Waits inside C, where no exception can reach it."""
    mark(file, "begin")
    time.sleep(seconds)  # one call


@app.task
async def swallow(file: str) -> None:
    """Ignores every cancellation."""
    mark(file, "begin")
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)


@app.task
async def block(file: str, seconds: float) -> None:
    """Blocks the loop, in Python code."""
    mark(file, "begin")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    mark(file, "end")


@app.task(executor="process")
def burn(file: str, seconds: float) -> str:
    mark(file, "begin")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    mark(file, "end")
    return "burnt"


@app.task(executor="process")
def burn_and_look(ctx: JobContext[None], file: str) -> None:
    mark(file, "begin")
    ctx.progress(1, 2, "half")
    ctx.log.info("burning %s", "well")
    ctx.save_checkpoint({"at": 1})
    while not ctx.cancelled:
        pass
    mark(file, "saw it")
    ctx.raise_if_cancelled()


@app.task(executor="process")
def remember(ctx: JobContext[None]) -> int:
    seen = ctx.checkpoint or 0
    ctx.save_checkpoint(seen + 1)
    if seen < 2:
        raise RetryAfter(0)
    return seen


@app.task(executor="process")
def vanish(file: str) -> None:
    mark(file, "begin")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(executor="process")
def fork_and_vanish(file: str) -> None:
    """What it has forked holds all its descriptors but those closed after a fork in Python."""
    mark(file, "begin")
    sockets = [os.dup(fd) for fd in range(3, 20) if Path(f"/proc/self/fd/{fd}").is_socket()]
    if os.fork() == 0:
        os.setsid()
        time.sleep(12)
        os._exit(len(sockets))
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def take_the_signal(number: int) -> None:
    """The kernel gives a process's signal to any of its threads: to this one."""
    signal.pthread_kill(threading.get_ident(), number)


@app.task
async def leave(file: str, code: int) -> None:
    """Ends whatever process runs it, with an exit code that sounds orderly."""
    mark(file, "begin")
    os._exit(code)


@app.task
async def leave_a_block(file: str, seconds: float) -> None:
    """Is done, and leaves behind what blocks the loop."""

    async def block_later() -> None:
        mark(file, "blocked")
        time.sleep(seconds)  # noqa: ASYNC251  # the fault that is tested

    left.append(asyncio.create_task(block_later()))


left: list[Any] = []


@app.task
async def poison(file: str) -> None:
    """Kills whatever process runs it."""
    mark(file, "begin")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(batch=10, batch_wait=0.2)
def poison_in_company(calls: list[Call[tuple[str, bool]]]) -> None:
    """Kills whatever process runs its poisonous call."""
    for call in calls:
        mark(call.value[0], f"batch:{len(calls)}")
    if any(call.value[1] for call in calls):
        os.kill(os.getpid(), signal.SIGKILL)


@app.task
async def who() -> str:
    job = current_job()
    return "" if job is None else job.task


@app.task
async def paint(text: str) -> str:
    before = colour.get()
    colour.set(text)
    return before


@app.task
async def nap(file: str, seconds: float) -> None:
    """Blocks the loop inside C, where no exception can reach it."""
    mark(file, "begin")
    time.sleep(seconds)  # noqa: ASYNC251  # the fault that is tested


@app.task(executor="process")
def hold_gil(file: str, seconds: int) -> None:
    """Waits in C without giving up the GIL: no other thread of its process runs."""
    mark(file, "begin")
    ctypes.PyDLL(None).sleep(seconds)


@app.task(executor="process")
def where_am_i(ctx: JobContext[dict[str, int]]) -> dict[str, int | str]:
    job = current_job()
    return {
        "here": os.getpid(),
        "lifespan": ctx.state["pid"],
        "around": around.get(),
        "current": "" if job is None else job.id,
    }


@app.task(executor="process")
def talk_in_child(ctx: JobContext[Any]) -> dict[str, Any]:
    ctx.progress(7, 9)
    ctx.log.info("seven of %d", 9)
    ctx.save_checkpoint({"at": 7})
    ctx.log.error("nearly")
    return {"checkpoint": ctx.checkpoint}


@app.task(executor="process", retry=False)
def fail_in_child(how: str) -> int:
    if how == "cancel":
        raise CancelJob("not wanted")
    if how == "error":
        raise Refused("no")
    return object()  # type: ignore[return-value]


@poison.on_dead
def bury(job: Any, error: BaseException) -> None:
    mark(job.args["file"], f"dead:{job.id}:{type(error).__name__}")


ACCOUNT = RateLimit(100, per=1, key="account:{account}")


@app.task(executor="process", breaker=Breaker("psp", failures=2, on=(ConnectionError,)), retry=Retry(base=3600))
def call_in_child(account: int, how: str) -> None:
    if how == "down":
        raise ConnectionError(how)
    if how == "wait":
        raise RetryAfter(300, pause=ACCOUNT)
    if how == "ours":
        raise ValueError(how)


@app.task(rate_limit=ACCOUNT)
def call_here(account: int) -> None: ...
