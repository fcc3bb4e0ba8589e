"""The app of the live runs: each task a way in which a job can behave, and the worker process that runs them.

    python -m tests.chaos.app worker QUEUE*   runs jobs (of these queues) until SIGTERM
    python -m tests.chaos.app producer SEED   enqueues them until SIGTERM

Where the store and the ledger are is said by `CHAOS_URL` and `CHAOS_LEDGER`.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dayjob import (
    Concurrency,
    JobContext,
    RateLimit,
    Retention,
    Retry,
    Settings,
    Snooze,
    Unique,
    Unrecoverable,
)
from dayjob.context import RUNNING
from dayjob.errors import StoreError, TransactionExpired
from tests.chaos.ledger import FileLedger
from tests.chaos.witness import Watched

if "FAKETIME_TIMESTAMP_FILE" in os.environ:
    # libfaketime 0.9.10 answers EINVAL to clock_nanosleep by the monotonic clock, which `time.sleep` uses since 3.11.
    time.sleep = lambda seconds: select.select((), (), (), seconds)

if "CHAOS_MUTANT" in os.environ and "CHAOS_URL" in os.environ:  # a process of a run, or a child of one
    from tests.chaos.mutants import ENGINE_OF, apply_from_environment

    apply_from_environment(ENGINE_OF[os.environ["CHAOS_URL"].partition(":")[0].partition("+")[0]])

T = TypeVar("T")

LEASE, BEAT, SWEEP, GRACE = 2.0, 0.5, 0.5, 5.0
SLOTS = 4
SETTINGS = Settings(
    lease=LEASE,
    beat=BEAT,
    sweep=SWEEP,
    grace=GRACE,
    poll=0.2,
    concurrency=SLOTS,
    blocked_after=10.0,
    retention=Retention(completed=None, cancelled=None, dead=None),
)
QUEUES = ("default", "mail", "reports")
DEADLY = "deadly"
"""The queue of jobs that kill their process, which not every worker serves."""
MUCH = 100 << 20
SOON = Retry(5, "fixed", 0.2)
URL = os.environ.get("CHAOS_URL", "sqlite:///chaos.db")
if URL.startswith("postgresql"):
    from psycopg import OperationalError
else:
    from sqlite3 import OperationalError
PLACEHOLDER = "%s" if URL.startswith("postgresql") else "?"
PAID = "chaos_paid"
"""The application's own table (id, entry), in which a job that completes in a transaction writes; nothing in it is unique."""
SENT = "chaos_sent"
"""…and one in which a producer writes in the transaction of its enqueues: how many jobs."""

RATE = RateLimit(20, per=5.0, key="stripe")

ledger = FileLedger(Path(os.environ.get("CHAOS_LEDGER", ".")))
app = Watched(URL, ledger, settings=SETTINGS)


def note(fact: str) -> None:
    """Note *fact* about the job that runs here, with its lease."""
    run: Any = RUNNING.get()
    ledger.note(fact, id=run.lease.id, entry=run.lease.entry, worker=run.lease.worker)


def start() -> None:
    """Every task begins so."""
    run: Any = RUNNING.get()
    lease, job = run.lease, run.job
    ledger.note("start", id=lease.id, entry=lease.entry, worker=lease.worker, attempt=job.attempt, crashes=job.crashes)


def insist(call: Callable[[], T]) -> T:
    """What *call* answers; asked again while the store is away, so that an outage spends no attempt."""
    while True:
        try:
            return call()
        except StoreError:
            time.sleep(0.1)


# -- jobs that do their work


@app.task(retry=SOON)
async def nap(seconds: float) -> str:
    """On the loop."""
    start()
    await asyncio.sleep(seconds)
    note("effect")
    return "rested"


@app.task(retry=SOON)
def work(seconds: float) -> str:
    """In a thread."""
    start()
    time.sleep(seconds)
    note("effect")
    return "worked"


@app.task(retry=SOON, executor="process")
def compute(rounds: int) -> int:
    """In a process."""
    start()
    total = sum(number * number % 7 for number in range(rounds))
    note("effect")
    return total


@app.task(retry=SOON)
def steps(ctx: JobContext, count: int) -> int:
    """Writes down how far it is, and goes on from there in a later attempt."""
    start()
    for done in range(insist(lambda: ctx.checkpoint) or 0, count):
        time.sleep(0.02)
        insist(lambda done=done: ctx.save_checkpoint(done + 1))  # type: ignore[misc]
        ctx.progress(done + 1, count)
    note("effect")
    return count


@app.task(retry=SOON)
def pay(ctx: JobContext) -> str:
    """Completes in the transaction of its writes."""
    start()
    run: Any = RUNNING.get()
    while True:
        try:
            with ctx.transaction() as transaction:
                transaction.execute(
                    f"INSERT INTO {PAID} VALUES ({PLACEHOLDER}, {PLACEHOLDER})", (run.lease.id, run.lease.entry)
                )
                note("effect")
                transaction.result = "paid"
        except (StoreError, TransactionExpired, OperationalError):
            time.sleep(0.1)
        else:
            note("finish.committed")
            return "paid"


@app.task(retry=SOON)
async def regret() -> str:
    """Long enough that somebody can cancel it."""
    start()
    await asyncio.sleep(4.0)
    note("effect")
    return "nobody minded"


# -- jobs that wait for each other


@app.task(retry=SOON, unique=Unique(key="order:{order}"))
async def single(order: int, seconds: float) -> str:
    """Of each order one at a time; who comes meanwhile is told who is there."""
    start()
    await asyncio.sleep(seconds)
    note("effect")
    return "the only one"


@app.task(retry=SOON, concurrency=Concurrency(1, key="tenant:{tenant}"))
def shared(tenant: int, seconds: float) -> str:
    """Of each tenant one runs at a time."""
    start()
    time.sleep(seconds)
    note("effect")
    return "had its turn"


@app.task(retry=SOON, rate_limit=RATE)
async def called() -> str:
    """So many start in a while."""
    start()
    note("effect")
    return "called"


# -- jobs that schedules make


@app.task(retry=SOON)
async def tick() -> str:
    """Of a schedule that was set while all runs."""
    start()
    note("effect")
    return "ticked"


@app.cron("*/2 * * * * *", name="toll", overlap="allow", catch_up="all")
@app.task(retry=SOON)
async def toll() -> str:
    """Of a schedule that code declares."""
    start()
    note("effect")
    return "tolled"


TICKS = {"tick": 1.0, "toll": 2.0}
"""Seconds between two ticks, by schedule."""


# -- jobs that fail, or put themselves off


class Expected(Exception):
    """An attempt that fails as planned."""


@app.task(retry=SOON)
def flaky(ctx: JobContext, fails: int) -> str:
    """Fails so often, and then completes."""
    start()
    if ctx.attempt <= fails:
        raise Expected(f"attempt {ctx.attempt} of {fails} that fail")
    note("effect")
    return "at last"


@app.task(retry=Retry(3, "fixed", 0.2))
async def doomed() -> None:
    """Fails always."""
    start()
    raise Expected("as always")


@app.task(retry=SOON)
def hopeless() -> None:
    """No attempt can help."""
    start()
    raise Unrecoverable("nothing can help")


@app.task(retry=SOON)
def dozy(ctx: JobContext) -> str:
    """Puts itself off once: if the store knows of no such attempt."""
    start()
    attempts = insist(lambda: ctx.app.jobs.get(ctx.id)).attempts
    if not any(attempt.outcome == "snoozed" for attempt in attempts):
        raise Snooze(0.3)
    note("effect")
    return "awake"


@app.task(retry=Retry(2, "fixed", 0.2), timeout=0.3)
async def overdue() -> None:
    """Over its time limit."""
    start()
    await asyncio.sleep(600.0)


# -- jobs that harm their process


@app.task(retry=SOON)
def hog(seconds: float) -> str:
    """Keeps the GIL in C code, so that no other thread of its process runs."""
    start()
    ledger.note("fault", name="hog", target=os.getpid(), until=time.monotonic() + seconds)
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))
    note("effect")
    return "let go"


@app.task(retry=SOON)
def burn(seconds: float) -> str:
    """Busy in Python code."""
    start()
    until = time.monotonic() + seconds
    ledger.note("fault", name="burn", target=os.getpid(), until=until)
    while time.monotonic() < until:
        pass
    note("effect")
    return "burnt"


@app.task(retry=Retry(2, "fixed", 0.2), executor="process")
def devour() -> None:
    """Wants more memory than there is: for a moment its process, which is its own, can have little more than it has."""
    start()
    begun = time.monotonic()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + 2 * MUCH, hard))
    try:
        bytearray(3 * MUCH)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        ledger.note("fault", name="out of memory", target=os.getpid(), at=begun, until=time.monotonic())


DEATHS: dict[str, Callable[[], object]] = {
    "signal": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(17),
    "segfault": lambda: ctypes.string_at(0),
}


@app.task(retry=SOON)
def poison(death: str) -> None:
    """Kills its process."""
    start()
    ledger.note("fault", name=f"self-kill by {death}", target=os.getpid(), until=time.monotonic())
    DEATHS[death]()
    time.sleep(60.0)  # a signal may take a moment


def main(role: str, *arguments: str) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if role == "producer":
        from tests.chaos.producer import Producer

        Producer(int(arguments[0])).run()
    else:
        app.worker(arguments or None).run()


if __name__ == "__main__":
    from tests.chaos import app as module  # by its name, as its children import it

    module.main(*sys.argv[1:])
