"""A whole worker that dies around a call of its store, or between two steps of its own; and what others make of what it left.

acknowledged ─▶ worker in a child ✗ ─▶ its live time runs out (a virtual clock) ─▶ rescued ─▶ another drains ─▶ judged
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dayjob import App, JobContext, Retry, Settings
from dayjob.clock import SECOND
from dayjob.events import JobCompleted
from dayjob.states import State
from dayjob.store.records import Filter, WorkerInfo
from dayjob.worker.executor import Executor
from dayjob.worker.pump import Pump
from tests.chaos.evidence import UNFINISHED
from tests.contract.ids import named
from tests.crash.points import Said, in_child

LEASE = 2.0
STEPS: tuple[tuple[type, str], ...] = (
    (Pump, "_claimed"),
    (Pump, "_settled"),
    (Executor, "begin"),
    (Executor, "complete"),
    (Executor, "fail"),
)
"""Of the worker's own: claimed and not fed; accepted and not told; started; the job's effect is there and not its end."""
EACH = 3
"""Calls of one method that it dies around: the later ones find what these find."""


class Watched:
    """A store whose calls are moments."""

    def __init__(self, store: Any, moment: Callable[[str], None]) -> None:
        self._store, self._moment = store, moment

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return around(found, name, self._moment) if callable(found) else found


def around(function: Callable[..., Any], name: str, moment: Callable[[str], None]) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        moment(f"before {name}")
        found = function(*args, **options)
        moment(f"after {name}")
        return found

    return call


class Named:
    """Counts moments by name, from all threads, and ends the process at one of them.

    Attributes:
        fatal: which time at which it dies: (name, number). counts: how often each came.
    """

    def __init__(self, fatal: tuple[str, int] | None) -> None:
        self.fatal = fatal
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1
            if (what, self.counts[what]) == self.fatal:
                os.kill(os.getpid(), signal.SIGKILL)


class Workshop:
    """An app on one place, with a few jobs of every kind, and a ledger beside it.

    Attributes:
        planned: how each acknowledged job is to end.
    """

    def __init__(self, engine: Any, folder: Path) -> None:
        self.engine, self.ledger = engine, folder / "ledger"
        self.planned: dict[str, State] = {}
        self.everything: dict[str, State] = {}

    def note(self, *words: object) -> None:
        """One line, whole, whatever happens next."""
        with self.ledger.open("ab", buffering=0) as file:
            file.write(" ".join(map(str, words)).encode() + b"\n")

    def app(self) -> App:
        """The app, as each process makes it for itself."""
        app = App(self.engine.url, settings=Settings(lease=LEASE, beat=LEASE / 4, sweep=LEASE / 4, poll=0.05))
        once_more = Retry(max_attempts=2, backoff="fixed", base=0, jitter=0)

        @app.task(name="lull")
        async def lull(ctx: JobContext[None]) -> str:
            self.note("effect", ctx.id)
            return "rested"

        @app.task(name="work")
        def work(ctx: JobContext[None]) -> str:
            ctx.progress(1, 2)
            ctx.save_checkpoint("half")
            self.note("effect", ctx.id)
            return "worked"

        @app.task(name="fail", retry=once_more)
        def fail(ctx: JobContext[None]) -> None:
            self.note("effect", ctx.id)
            raise ValueError("as planned")

        @app.task(name="hand_on")
        def hand_on(ctx: JobContext[None]) -> None:
            app.enqueue("lull", id=named(f"child of {ctx.id}"))
            self.note("effect", ctx.id)

        @app.task(name="pay")
        def pay(ctx: JobContext[None]) -> None:
            with ctx.transaction() as transaction:
                transaction.execute(f"INSERT INTO effect VALUES ('{ctx.id}')")
                self.note("effect", ctx.id)

        @app.on("job.completed")
        def remember(event: JobCompleted) -> None:
            self.note("completed", event.id)

        return app

    def open(self) -> None:
        """Store the jobs, acknowledged."""
        self.ledger.unlink(missing_ok=True)
        app = self.app()
        names = ["lull", "work", "fail", "hand_on", *(["pay"] if self.engine.joins else [])]
        self.planned = {}
        for name in names:
            job = app.enqueue(name)
            self.planned[job.id] = State.DEAD if name == "fail" else State.COMPLETED
            if name == "hand_on":
                self.planned[named(f"child of {job.id}")] = State.COMPLETED
        app.close()

    def work(self, fatal: tuple[str, int] | None) -> Said:
        """A worker in a child of its own, which dies at *fatal*."""

        def act(say: Callable[[str], None]) -> None:
            moment = Named(fatal)
            for owner, name in STEPS:
                setattr(owner, name, around(getattr(owner, name), f"{owner.__name__}.{name}", moment))
            app = self.app()
            with app._link.exchanged(Watched(app.store, moment)):  # type: ignore[arg-type]
                app.worker(concurrency=4).run_until_idle()
            for what, count in moment.counts.items():
                say(f"{count} {what}")

        return in_child(act)

    def rescue(self) -> None:
        """The live time of whoever is silent runs out; what it held goes back."""
        store = self.engine.open()
        now = store.now()
        rescuer = WorkerInfo(named("rescuer"), "rescuer", "here", os.getpid(), expiry=LEASE)
        for _ in range(8):
            now += int(LEASE / 4 * SECOND)
            beat = store.beat(rescuer, [], now=now)
            if beat.term is not None:
                store.rescue(beat.term, now=now)
        assert [worker.info.id for worker in store.workers(now=now)] == [rescuer.id]
        store.leave(rescuer.id, now=now)
        store.close()

    def drain(self) -> str:
        """Others work until nothing is left."""
        for _ in range(5):
            said = self.work(None)
            if said.error or not self.left():
                return said.error
        return f"{self.left()} are left"

    def left(self) -> int:
        store = self.engine.open()
        count = store.count(Filter(states=UNFINISHED))
        store.close()
        return int(count)

    def broken(self) -> list[str]:
        """What did not end as planned."""
        facts = Counter(self.ledger.read_text().splitlines())
        store = self.engine.open()
        wrong = []
        for id, state in self.planned.items():
            job = store.get(id)
            if job is None or job.state is not state:
                wrong.append(f"{id} is {job and job.state}, not {state}")
                continue
            if job.attempt != (2 if state is State.DEAD else 1):
                wrong.append(f"{job.task} has spent {job.attempt} attempts: {job.attempts}")
            if not facts[f"effect {id}"]:
                wrong.append(f"{job.task} has no effect")
            if facts[f"completed {id}"] > 1:
                wrong.append(f"{job.task} was settled twice")
        self.everything |= self.planned
        if store.count(Filter()) != len(self.everything):
            wrong.append("there are other jobs than planned")
        store.close()
        return wrong


__all__ = ["EACH", "STEPS", "Workshop"]
