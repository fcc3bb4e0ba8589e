"""Who enqueues: at a steady pace, in every way there is, and each job with the plan of its end.

One dice, many jobs: `MIX` says which jobs there are, how often, and how each is to end.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from msgspec import json, structs

from dayjob.errors import StoreError
from dayjob.task import NewJob
from tests.chaos import app as chaos
from tests.chaos.ledger import Plan

PACE = float(os.environ.get("CHAOS_PACE", "28"))
"""Jobs per second of one producer."""
MOST = 60
"""Jobs in one call, when it has fallen behind."""


class Kind(NamedTuple):
    """Jobs of one kind: how many in a hundred, which task, with which arguments, to which end.

    Attributes:
        late: seconds by which it may be delayed. joins: it needs a store that shares transactions.
    """

    share: float
    task: Any
    arguments: Callable[[random.Random], tuple[Any, ...]] = lambda dice: ()
    plan: Callable[..., Plan] = lambda *arguments: Plan()
    late: float = 0.0
    joins: bool = False


def _moment(dice: random.Random) -> tuple[float]:
    return (round(dice.uniform(0.002, 0.08), 4),)


def _numbered_moment(dice: random.Random) -> tuple[int, float]:
    return (dice.randrange(2), *_moment(dice))


MIX = (
    Kind(31, chaos.nap, _moment),
    Kind(3, chaos.single, _numbered_moment, lambda order, seconds: Plan(unique=f"order:{order}")),
    Kind(3, chaos.shared, _numbered_moment, lambda tenant, seconds: Plan(shares=(f"tenant:{tenant}", 1))),
    Kind(3, chaos.called, plan=lambda: Plan(rate=("stripe", chaos.RATE.limit, chaos.RATE.per))),
    Kind(24, chaos.work, _moment),
    Kind(4, chaos.nap, _moment, late=3.0),
    Kind(2, chaos.compute, lambda dice: (dice.randrange(10_000, 200_000),)),
    Kind(6, chaos.steps, lambda dice: (dice.randint(2, 5),)),
    Kind(6, chaos.pay, joins=True),
    Kind(8, chaos.flaky, lambda dice: (dice.randint(1, 3),), lambda fails: Plan(attempts=fails + 1)),
    Kind(2, chaos.doomed, plan=lambda: Plan("dead", attempts=3, reason="failed")),
    Kind(2, chaos.hopeless, plan=lambda: Plan("dead", attempts=1, reason="unrecoverable")),
    Kind(4, chaos.dozy, plan=lambda: Plan(snoozes=1)),
    Kind(1, chaos.overdue, plan=lambda: Plan("dead", attempts=2, reason="failed")),
    Kind(2, chaos.regret, plan=lambda: Plan(cancelled=True)),
)


def new_job(kind: Kind, dice: random.Random, call: int) -> NewJob[Any]:
    """A job of *kind* for the call of this number."""
    arguments = kind.arguments(dice)
    plan = kind.plan(*arguments)
    options: dict[str, Any] = {
        "queue": dice.choice(chaos.QUEUES),
        "priority": dice.choice((-5, 0, 0, 0, 5)),
    }
    if kind.late:
        options["delay"] = round(dice.uniform(0.2, kind.late), 3)
        plan = structs.replace(plan, delay=options["delay"])
    options["meta"] = {"call": call, "plan": json.decode(json.encode(plan))}  # plain: no tuples
    job: NewJob[Any] = kind.task.using(**options).job(*arguments)
    return job


Jobs = Sequence[NewJob[Any]]


class Sender:
    """Enqueues, and notes what was tried, acknowledged, and left open."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def send(self, make: Callable[[int], Jobs], way: Callable[[Jobs], Iterable[Any]]) -> list[Any]:
        """Enqueue what *make* makes for a call of this number, in this *way*; the jobs that were acknowledged."""
        call = next(self._numbers)
        tried = chaos.app.calls.setdefault(call, [])
        stored = []
        try:
            for job in way(make(call)):
                if job.id not in tried:
                    continue  # another has the key: this one was not stored, and nobody is to wait for it
                chaos.ledger.note("enqueue.acknowledged", id=job.id)
                tried.remove(job.id)
                stored.append(job)
        except (StoreError, *driver_errors()) as error:
            for id in tried:
                chaos.ledger.note("enqueue.unknown", id=id, error=f"{type(error).__name__}: {error}"[:200])
        del chaos.app.calls[call]
        return stored


class Producer:
    """A producer process, whose jobs and ways follow from *seed*."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._sender = Sender()
        self._ending = False
        self._regretted: list[tuple[float, str]] = []
        self._loop = asyncio.Runner()
        joins = bool(chaos.app.store.system)
        self._kinds = [kind for kind in MIX if joins or not kind.joins]
        self._ways = [self._singly, self._at_once, self._async, *([self._joined] if joins else [])]

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._end)
        begun, made = time.monotonic(), 0
        while not self._ending:
            due = min(MOST, int((time.monotonic() - begun) * PACE) - made)
            if due > 0:
                made += due
                way = self._dice.choice(self._ways)
                jobs = self._sender.send(lambda call, due=due: self._make(due, call), way)  # type: ignore[misc]
                regretted = [job.id for job in jobs if job.task.endswith(".regret")]
                self._regretted += [(time.monotonic() + self._dice.uniform(0.0, 0.8), id) for id in regretted]
            self._cancel()
            time.sleep(self._dice.uniform(0.02, 0.25))  # the pace: now one job, now some
        self._loop.close()
        chaos.app.close()

    def _end(self, number: int, frame: object) -> None:
        self._ending = True

    def _make(self, count: int, call: int) -> list[NewJob[Any]]:
        kinds = self._dice.choices(self._kinds, [kind.share for kind in self._kinds], k=count)
        return [new_job(kind, self._dice, call) for kind in kinds]

    def _cancel(self) -> None:
        due = [id for at, id in self._regretted if at <= time.monotonic()]
        self._regretted = [(at, id) for at, id in self._regretted if id not in due]
        for id in due:
            try:
                chaos.app.jobs.cancel(id)
            except StoreError:
                continue  # then it completes

    # -- the ways

    def _singly(self, jobs: Jobs) -> Iterable[Any]:
        return (job.enqueue() for job in jobs)

    def _at_once(self, jobs: Jobs) -> Iterable[Any]:
        return chaos.app.enqueue_many(jobs)

    def _async(self, jobs: Jobs) -> Iterable[Any]:
        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*(job.aenqueue() for job in jobs), return_exceptions=True)

        for end in self._loop.run(all_of_them()):
            if isinstance(end, BaseException):
                raise end
            yield end

    def _joined(self, jobs: Jobs) -> Iterable[Any]:
        """In a transaction of our own, with a row of our own."""
        with closing(connect()) as connection:
            connection.execute("BEGIN IMMEDIATE" if chaos.app.store.exclusive else "BEGIN")
            connection.execute(f"INSERT INTO {chaos.SENT} VALUES ({len(jobs)})")
            with chaos.app.transaction(connection):
                stored = chaos.app.enqueue_many(jobs)
            connection.execute("COMMIT")
        return stored


def connect() -> Any:
    """A connection of the application's own to the database in which the jobs are; out of the driver's transactions."""
    if chaos.URL.startswith("postgresql"):
        import psycopg

        return psycopg.connect(chaos.URL, autocommit=True, connect_timeout=5)
    import sqlite3

    return sqlite3.connect(chaos.URL.removeprefix("sqlite:///"), timeout=5.0, isolation_level=None)


def driver_errors() -> tuple[type[Exception], ...]:
    """What a connection of `connect` raises."""
    import sqlite3

    if chaos.URL.startswith("postgresql"):
        import psycopg

        return (psycopg.Error,)
    return (sqlite3.Error,)
