"""The process that a worker has to itself: its signals, its version, and an end that waits for no thread."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

from dayjob.worker.launch import EXIT_AGAIN

LOOK = 0.5


@contextmanager
def stop_signals(tell: Callable[[str, bool], None]) -> Iterator[None]:
    """While the block runs, SIGTERM and SIGINT call *tell* with their name; from the second one on with True: now.

    *tell* runs inside a signal handler, at any bytecode of the main thread: it must take no lock that is not reentrant.
    """
    times = 0

    def handle(number: int, frame: object) -> None:
        nonlocal times
        times += 1
        tell(signal.Signals(number).name, times > 1)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def next_command(commands: SimpleQueue[tuple[str, Any]], wait: float | None) -> tuple[str, Any]:
    """The next of *commands*, ("", "") after *wait* seconds without one. For the main thread, which hears signals meanwhile.

    It looks up from its waiting twice a second: a signal is mostly taken by the main thread, but the system may give it to
    any (after a SIGSTOP, or under a tracer, it does), and then nothing else wakes the one that runs Python's handlers.
    """
    give_up = math.inf if wait is None else time.monotonic() + wait
    while True:
        left = give_up - time.monotonic()
        try:
            return commands.get(timeout=max(0.0, min(left, LOOK)))
        except Empty:
            if left <= LOOK:
                return "", ""


def end_process() -> None:
    """End without waiting for threads: one of them runs a job that was given back."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_AGAIN)


def version() -> str:
    """Which dayjob this is, as far as it is known."""
    import dayjob

    try:
        return str(dayjob.__version__)
    except ImportError:  # not installed: run from a checkout
        return ""
