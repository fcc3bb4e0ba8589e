"""What dayjob's modules take from Python's library, replaced while a simulation runs: time, threads, chance.

Modules import these by name, so each name is replaced where it was imported to, and put back afterwards. The engines keep
theirs: they are asked with `now=`, and their locks are never held across a strand's rest.
"""

from __future__ import annotations

import gc
import queue
import random
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import dayjob.clock
import dayjob.ids
from dayjob.services import scheduler
from dayjob.telemetry import relay
from dayjob.worker import executor, run, suspects, watchdog, worker
from tests.chaos.simulation.floor import Bell, Floor
from tests.chaos.simulation.machine import SECOND, START, Flag, Machine, Mutex, Queue, Strand

RARER: tuple[tuple[Any, str, float], ...] = (
    (watchdog, "LOOK", 1.0),
    (relay, "LOOK", 3600.0),
    (suspects, "LOOK", 3600.0),
    (scheduler, "LOOK", 5.0),
)
"""Looks around that find nothing new as often as they would: the simulation wakes who has something to see."""


class Time:
    """The module `time`, as a process of the machine sees it."""

    @staticmethod
    def monotonic() -> float:
        return Machine.present.process.monotonic() / SECOND

    @staticmethod
    def monotonic_ns() -> int:
        return Machine.present.process.monotonic() * 1000

    @staticmethod
    def time_ns() -> int:
        return wall() * 1000

    @staticmethod
    def time() -> float:
        return wall() / SECOND

    @staticmethod
    def sleep(seconds: float) -> None:
        Machine.present.sleep(seconds)


def wall() -> int:
    machine = Machine.present
    return START + machine.now + machine.process.skew


def monotonic() -> int:
    return Machine.present.process.monotonic()


def chance(seed: Any = None) -> random.Random:
    return random.Random(Machine.present.rng.getrandbits(64) if seed is None else seed)


def identity() -> uuid.UUID:
    return uuid.UUID(int=Machine.present.rng.getrandbits(128), version=4)


REPLACED: dict[int, Any] = {
    id(time): Time,
    id(run.monotonic): monotonic,
    id(dayjob.clock.wall): wall,
    id(random): SimpleNamespace(Random=chance),
    id(threading.Thread): Strand,
    id(threading.Event): Flag,
    id(threading.Lock): Mutex,
    id(threading.current_thread): lambda: Machine.present.strand,
    id(queue.SimpleQueue): Queue,
    id(uuid.uuid4): identity,
    id(dayjob.ids.new_id): lambda: Floor.world.new_id(),
}
"""By the id of what is replaced."""


@contextmanager
def staged() -> Iterator[None]:
    """While this is open, dayjob lives on the present machine."""
    undo: list[tuple[Any, str, Any]] = []

    def put(module: Any, name: str, value: Any) -> None:
        undo.append((module, name, getattr(module, name)))
        setattr(module, name, value)

    interval, collects = sys.getswitchinterval(), gc.isenabled()
    gc.disable()  # a fifth of the time; what a run leaves is small
    try:
        for module in [each for name, each in sys.modules.items() if _ours(name)]:
            for name, value in list(vars(module).items()):
                if id(value) in REPLACED and not name.startswith("__"):
                    put(module, name, REPLACED[id(value)])
        put(executor, "LoopPool", Floor)
        put(executor, "ThreadPool", Bell)
        put(worker, "gc", SimpleNamespace(collect=_nothing, freeze=_nothing, unfreeze=_nothing))
        for module, name, value in RARER:
            put(module, name, value)
        yield
    finally:
        for module, name, value in reversed(undo):
            setattr(module, name, value)
        sys.setswitchinterval(interval)
        if collects:
            gc.enable()


def _ours(name: str) -> bool:
    return name.startswith("dayjob.") and not name.startswith(("dayjob.store", "dayjob.testing"))


_nothing: Callable[[], None] = lambda: None  # noqa: E731
