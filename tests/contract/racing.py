"""Calls at the same moment, for hazards that need two."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")


def at_once(*calls: Callable[[], T]) -> list[T]:
    """Make all *calls* at the same moment, each in a thread of its own; their answers in order."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def both(one: Callable[[], A], other: Callable[[], B]) -> tuple[A, B]:
    """Make two calls at the same moment; their answers."""
    calls: list[Callable[[], A | B]] = [one, other]
    first, second = at_once(*calls)
    return cast(A, first), cast(B, second)
