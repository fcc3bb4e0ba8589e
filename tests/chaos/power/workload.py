"""What runs while the power may go: an application that enqueues, deletes, closes and opens, and a worker beside it.

Run as a program: `python -m tests.chaos.power.workload FOLDER SEED SYNCHRONOUS` is the application; it starts the worker.
FOLDER/disk has the database alone, FOLDER/ledger the ledger. Beside the facts of `tests.chaos.ledger` it says
`delete.tried` and `delete.acknowledged` of an id, and `write.accepted` with the *value* of a checkpoint.

The application has two tables of its own in the file: `ordered` has the id of each job that was enqueued in the same
transaction, `paid` that of each job which completed in the same transaction.
"""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dayjob import App, JobContext, Retention, Retry, Settings
from dayjob.store.records import Enqueued, NewRow, Settlement, Turn
from dayjob.store.sqlite.database import Database
from dayjob.store.sqlite.jobs import JobsPart
from tests.chaos.ledger import FileLedger

DATABASE = "jobs.db"
ROUNDS = 14
LOG_PAGES = (20, 120, 600)
"""Pages of the log after which it is checkpointed, as the seed says; 4,000 would not come about in a few seconds."""


def declare(url: str, ledger: FileLedger) -> App:
    """The app, in each of the two processes."""
    app = App(url, settings=Settings(lease=8, beat=2, sweep=2, max_payload=400_000))

    @app.task(name="power.work", retry=Retry(max_attempts=3, backoff="fixed", base=0.02, jitter=0))
    def work(ctx: JobContext, fails: int, size: int, padding: str) -> str:
        ledger.note("start", id=ctx.id, attempt=ctx.attempt - 1)
        if size % 3 == 0:
            ctx.save_checkpoint(ctx.attempt)
            ledger.note("write.accepted", id=ctx.id, value=ctx.attempt)
        if ctx.attempt <= fails:
            raise RuntimeError(padding[:200])
        ledger.note("effect", id=ctx.id)
        return padding[:size]

    @app.task(name="power.unkept", retention=Retention(completed=0))
    def unkept(ctx: JobContext, padding: str) -> None:
        ledger.note("start", id=ctx.id, attempt=ctx.attempt - 1)
        ledger.note("effect", id=ctx.id)

    @app.task(name="power.pay")
    def pay(ctx: JobContext) -> None:
        ledger.note("start", id=ctx.id, attempt=ctx.attempt - 1)
        with ctx.transaction() as transaction:
            transaction.execute("INSERT INTO paid VALUES (?)", (ctx.id,))
            ledger.note("effect", id=ctx.id)
            ledger.note("finish.sent", id=ctx.id, outcome="completed")
        ledger.note("finish.committed", id=ctx.id)

    return app


def instrument(ledger: FileLedger, pages: int, synchronous: str) -> None:
    """Note each call of the engine at the engine itself, and make its log *pages* long.

    Args:
        synchronous: FULL leaves the engine as it is; anything else is a bug, seeded.
    """
    enqueue, turn, set_up = JobsPart.enqueue, JobsPart.turn, Database._set_up

    def noted_enqueue(self: JobsPart, jobs: Sequence[NewRow], **how: Any) -> list[Enqueued]:
        for job in jobs:
            ledger.note("enqueue.tried", id=job.id)
        return enqueue(self, jobs, **how)

    def noted_turn(
        self: JobsPart, worker: str, claim_no: int | None = None, settlements: Sequence[Settlement] = (), *rest: Any
    ) -> Turn:
        for one in settlements:
            ledger.note("finish.sent", id=one.id, entry=one.entry, worker=worker, outcome=str(one.outcome))
        answer = turn(self, worker, claim_no, settlements, *rest)
        refused = set(answer.refused)
        for one in settlements:
            fact = "finish.refused" if (one.id, one.entry) in refused else "finish.accepted"
            ledger.note(fact, id=one.id, entry=one.entry, worker=worker, outcome=str(one.outcome))
        return answer

    def short_log(self: Database, connection: sqlite3.Connection) -> None:
        set_up(self, connection)
        connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        if synchronous != "FULL":
            connection.execute(f"PRAGMA synchronous = {synchronous}")

    JobsPart.enqueue, JobsPart.turn, Database._set_up = noted_enqueue, noted_turn, short_log  # type: ignore[method-assign, assignment]
    if synchronous != "FULL":
        Database._sync = lambda self, connection, synced: None  # type: ignore[method-assign]


class Application:
    """Enqueues one by one and in batches, and deletes what has finished."""

    def __init__(self, app: App, folder: Path, ledger: FileLedger, rng: random.Random) -> None:
        self.app, self.ledger, self.rng = app, ledger, rng
        self.work, self.unkept, self.pay = (app.registry.get(f"power.{name}") for name in ("work", "unkept", "pay"))
        self.connection = sqlite3.connect(folder / "disk" / DATABASE, isolation_level=None)
        self.connection.executescript("CREATE TABLE ordered (id TEXT); CREATE TABLE paid (id TEXT)")

    def _new(self) -> Any:
        rng = self.rng
        padding = rng.randbytes(rng.choice((20, 400, 3_000, 40_000 if rng.random() < 0.15 else 800))).hex()
        if rng.random() < 0.2:
            return self.unkept.job(padding)
        task = self.work
        if rng.random() < 0.2:
            task = task.using(id=uuid.uuid4()) if rng.random() < 0.5 else task.using(delay=0.05)
        return task.job(rng.choice((0, 0, 0, 1, 3)), rng.choice((0, 30, 5_000)), padding)

    def alone(self) -> None:
        self._acknowledged([self._new().enqueue()])

    def together(self, count: int) -> None:
        self._acknowledged(self.app.enqueue_many([self._new() for _ in range(count)]))

    def in_a_transaction(self) -> None:
        """The application's own write and a job, on its own connection."""
        id = str(uuid.uuid4())
        self.ledger.note("enqueue.tried", id=id)
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.execute("INSERT INTO ordered VALUES (?)", (id,))
        with self.app.transaction(self.connection):
            job = self.pay.using(id=id).enqueue()
        self.connection.execute("COMMIT")
        self._acknowledged([job])

    def _acknowledged(self, jobs: Sequence[Any]) -> None:
        for job in jobs:
            self.ledger.note("enqueue.acknowledged", id=job.id)

    def delete(self, count: int) -> None:
        """Delete some that have finished, so that pages become free and are used again."""
        ids = [job.id for job in self.app.jobs.find(state="completed", limit=count)] if count else []
        for id in ids:
            self.ledger.note("delete.tried", id=id)
        if ids:
            self.app.jobs.delete(ids)
        for id in ids:
            self.ledger.note("delete.acknowledged", id=id)

    def round(self) -> None:
        for _ in range(self.rng.randrange(2, 6)):
            self.alone()
        self.in_a_transaction()
        self.together(self.rng.choice((2, 10, 40)))
        self.delete(self.rng.choice((0, 3, 25)))
        time.sleep(0.03)  # the pace of the producer: the worker is to have its turns in between

    def drained(self) -> None:
        """Wait until nothing is left to do."""
        while self.app.jobs.count(state=("available", "running", "scheduled")):
            time.sleep(0.02)  # another process does it; its signal would say of one job only


def run(folder: Path, seed: int, synchronous: str) -> None:
    """The application's life: a new file, closed and opened; a worker beside it; the last jobs run here; closed."""
    rng = random.Random(seed)
    ledger = FileLedger(folder / "ledger")
    pages = rng.choice(LOG_PAGES)
    instrument(ledger, pages, synchronous)
    app = declare(f"sqlite:///{folder / 'disk' / DATABASE}", ledger)
    app.migrate()
    life = Application(app, folder, ledger, rng)
    life.alone()
    life.connection.close()
    app.close()  # the last connection takes the log away
    life.together(5)
    life.connection = sqlite3.connect(folder / "disk" / DATABASE, isolation_level=None)
    worker = subprocess.Popen([sys.executable, "-m", __spec__.name, str(folder), str(pages), synchronous, "worker"])
    try:
        for _ in range(ROUNDS):
            life.round()
        life.drained()
        for _ in range(6):
            life.delete(25)
            life.together(5)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)
    life.connection.close()
    app.close()
    life.together(20)
    app.worker(concurrency=2).run_until_idle()
    life.delete(10)
    life.together(10)
    app.close()


def work_beside(folder: Path, pages: int, synchronous: str) -> None:
    """The worker process."""
    ledger = FileLedger(folder / "ledger")
    instrument(ledger, pages, synchronous)
    declare(f"sqlite:///{folder / 'disk' / DATABASE}", ledger).worker(concurrency=4).run()


if __name__ == "__main__":
    (work_beside if sys.argv[4:] else run)(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
