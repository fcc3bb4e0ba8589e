"""Workers and producers who all want the same few tokens, by the real clock; and what somebody beside them saw.

Who runs is counted from the answer to the claim until just before the settlement is sent: the store's own count of what
runs is never less than that. So an overlap seen here was one.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable, Iterable

import msgspec
from msgspec import Struct

from dayjob.states import Outcome, State
from dayjob.store.contract import Store
from dayjob.store.records import Claimed, Filter, Settlement, Want, WorkerInfo

LIVE = tuple(state for state in State if not state.terminal)
ENDS = (*[Outcome.COMPLETED] * 7, Outcome.FAILED, Outcome.SNOOZED, Outcome.RELEASED)
AWHILE = 0.002


class Run(Struct, frozen=True):
    """One run of a job. *keys*: what it ran under. *began*, *ended*: CLOCK_MONOTONIC. *stamp*: the store's clock at its claim."""

    id: str
    keys: list[str]
    began: float
    ended: float
    stamp: int


def work(store: Store, name: str, seed: int, busy: Callable[[], bool] = lambda: False) -> list[Run]:
    """Work until nothing is left and nobody is *busy* adding more. Payloads are JSON lists of the keys."""
    dice, runs, batch = random.Random(seed), list[Run](), list[Settlement]()
    info = WorkerInfo(id=name, name=name, host="contest", pid=1)
    store.beat(info, [])
    for number in itertools.count(1):
        if number % 100 == 0:
            store.beat(info, [number - 1])
        turn = store.turn(name, number, batch, [Want(None, dice.randint(1, 4))])
        began = time.monotonic()
        batch = []
        if not turn.claimed:
            was_busy = busy()
            if not was_busy and not store.count(Filter(states=LIVE)):
                return runs
        time.sleep(dice.uniform(0.0, AWHILE))  # the job's work, or a moment until the next look
        ended = time.monotonic()
        for job in turn.claimed:
            runs.append(Run(job.id, json.loads(job.payload), began, ended, turn.now))
            batch.append(end_of(job, dice.choice(ENDS)))
    raise AssertionError("numbers do not end")


def end_of(job: Claimed, end: Outcome) -> Settlement:
    return Settlement(job.id, job.entry, end, 1, 2, delay=0.005)


def most_at_once(runs: Iterable[Run]) -> dict[str, int]:
    """By key: how many ran at the same moment, at the most."""
    steps = [(at, step, key) for run in runs for key in run.keys for at, step in ((run.began, 1), (run.ended, -1))]
    now, most = dict[str, int](), dict[str, int]()
    for _, step, key in sorted(steps):
        now[key] = now.get(key, 0) + step
        most[key] = max(most.get(key, 0), now[key])
    return most


def most_within(runs: Iterable[Run], key: str, window: int) -> int:
    """How many of *key* started within *window* microseconds of the store's clock, at the most."""
    stamps = sorted(run.stamp for run in runs if key in run.keys)
    return max(sum(first <= stamp < first + window for stamp in stamps) for first in stamps)


def told(runs: list[Run]) -> list[dict[str, object]]:
    """As JSON, to another process."""
    return [msgspec.to_builtins(run) for run in runs]
