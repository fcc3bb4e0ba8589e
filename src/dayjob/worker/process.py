"""The process that a worker has to itself: its signals, its version, and an end that waits for no thread."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dayjob.worker.launch import EXIT_AGAIN


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
