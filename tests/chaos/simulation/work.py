"""What the jobs of the simulation do, and how each is to end: the tasks, and a plan per job."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from msgspec import Struct

from dayjob import App, Retry, Snooze, Unrecoverable
from dayjob.config import Settings
from dayjob.policies import Retention
from dayjob.states import Outcome
from dayjob.store.gating import Gating
from dayjob.worker.run import Run
from tests.chaos.ledger import Plan
from tests.chaos.simulation.machine import Machine

if TYPE_CHECKING:
    from tests.chaos.simulation.world import World

FOREVER = 1e6
LIMIT = 8.0
SETTINGS = Settings(retention=Retention(completed=None, cancelled=None, dead=None), timeout=None)
app = App("sqlite:///:memory:", settings=SETTINGS)
QUICK = Retry(max_attempts=5, base=1.0, cap=30.0)


class Spec(Struct, frozen=True):
    """One job. *times*: how often it fails, snoozes or hangs before it succeeds. *seconds*: how long its work takes. *gating*: what it waits for. *schedule*: that made it."""

    task: str
    plan: Plan
    seconds: float = 0.0
    times: int = 0
    cancel_after: float | None = None
    gating: Gating | None = None
    schedule: str | None = None

    @property
    def watched(self) -> bool:
        """True when others depend on the moments in which its leases begin and end."""
        return self.gating is not None or self.schedule is not None


@app.task(name="steady")
async def steady() -> None: ...


@app.task(name="flaky", retry=QUICK)
async def flaky() -> None: ...


@app.task(name="doomed", retry=Retry(max_attempts=3, base=2.0, backoff="fixed"))
async def doomed() -> None: ...


@app.task(name="final")
async def final() -> None: ...


@app.task(name="snoozer")
async def snoozer() -> None: ...


@app.task(name="slow", timeout=LIMIT, retry=QUICK)
async def slow() -> None: ...


@app.task(name="deaf", timeout=LIMIT, retry=QUICK)
def deaf() -> None: ...


@app.task(name="writer")
async def writer() -> None: ...


@app.task(name="poison")
async def poison() -> None: ...


def draw(rng: random.Random) -> Spec:
    """A job."""
    task = rng.choices(
        ("steady", "flaky", "doomed", "final", "snoozer", "slow", "deaf", "writer", "long", "poison"),
        (50, 10, 3, 2, 6, 5, 0.3, 8, 4, 0.5),
    )[0]
    delay = rng.choice((1.0, 5.0, 60.0)) if rng.random() < 0.1 else 0.0
    times, seconds = rng.randint(1, 3), rng.choice((0.01, 0.1, 1.0, 3.0)) * (0.5 + rng.random())
    cancelled = task in ("steady", "long", "flaky") and rng.random() < 0.05
    plans = {
        "flaky": Plan(attempts=times + 1, delay=delay, cancelled=cancelled),
        "slow": Plan(attempts=times + 1, delay=delay),
        "deaf": Plan(attempts=2, delay=delay),
        "doomed": Plan(end="dead", reason="failed", attempts=3, delay=delay),
        "final": Plan(end="dead", reason="unrecoverable", delay=delay),
        "snoozer": Plan(snoozes=times, delay=delay),
        "poison": Plan(end="dead", reason="crashed", attempts=0, crashes=3, delay=delay),
    }
    plan = plans.get(task, Plan(delay=delay, cancelled=cancelled))
    if task == "long":
        task, seconds = "steady", rng.uniform(20.0, 240.0)
    return Spec(task, plan, seconds, 1 if task == "deaf" else times, rng.uniform(0.0, 20.0) if cancelled else None)


def act(world: World, run: Run) -> None:
    """Do what the job of *run* does; it returns, raises, or takes its process along."""
    machine, spec, job = Machine.present, world.specs[run.job.id], run.job
    if spec.task in ("slow", "deaf") and job.attempt < spec.times:
        _hang(machine, stubborn=spec.task == "deaf")
    if spec.task == "snoozer" and world.snoozed(job.id) < spec.times:
        machine.sleep(spec.seconds / 10)
        raise Snooze(spec.seconds)
    if spec.task == "writer":
        machine.sleep(spec.seconds / 2)
        world.checkpoint(run)
    machine.sleep(spec.seconds)
    if spec.task == "doomed" or (spec.task == "flaky" and job.attempt < spec.times):
        raise ValueError("not this time")
    if spec.task == "final":
        raise Unrecoverable("no use")
    if spec.task == "poison":
        if machine.process.stopping:  # a death then is no crash, and leaves no trace by which to judge the next start
            _hang(machine, stubborn=False)
        world.crash(machine.process, "a job kills its process")
        machine.sleep(FOREVER)
    world.note("effect", id=job.id, entry=job.entry, worker=run.batch.worker)


def _hang(machine: Machine, *, stubborn: bool) -> None:
    """Never end; if *stubborn*, whatever is said."""
    while True:
        try:
            machine.sleep(FOREVER)
        except (Exception, asyncio.CancelledError):
            if not stubborn:
                raise


def snoozes(outcomes: list[Outcome]) -> int:
    return sum(each is Outcome.SNOOZED for each in outcomes)
