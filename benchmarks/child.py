"""A dayjob process that is measured: `python -m benchmarks.child drain | serve`, told what to do on standard input."""

from __future__ import annotations

import faulthandler
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.children import listen, say
from benchmarks.jobs import DONE


def drain() -> None:
    """Be ready, wait for the word, run everything that waits, and say how long that took."""
    from benchmarks.served import app

    worker = app.worker()
    app.open()
    say(ready=True)
    listen()
    start = time.perf_counter()
    counts = worker.run_until_idle()
    seconds = time.perf_counter() - start
    say(seconds=seconds, counts={str(outcome): number for outcome, number in counts.items()})
    app.close()


def serve() -> None:
    """Run a worker until SIGTERM; to every word on standard input answer with what this process has cost so far."""
    trips = count_trips(os.environ["DAYJOB_URL"])
    from benchmarks.served import app

    threading.Thread(target=_answer, args=(trips,), daemon=True).start()
    app.worker().run()


def _answer(trips: list[str]) -> None:
    while True:
        listen()
        cost = {"cpu": time.process_time(), "rss": _resident(), "trips": len(trips), "kinds": _tally(trips)}
        say(at=time.monotonic(), done=DONE[0], **cost)


def _tally(trips: list[str]) -> dict[str, int]:
    return {name: trips.count(name) for name in sorted(set(trips))}


def count_trips(url: str) -> list[str]:
    """Note every call that reaches the store of *url* in this process: the contract's methods but the signals."""
    from dayjob.store import contract, open_store

    trips: list[str] = []

    def counted(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            trips.append(name)
            return method(*args, **kwargs)

        return call

    kind: Any = type(open_store(url))
    for protocol in (contract.Jobs, contract.Upkeep, contract.Cluster, contract.Inspector, contract.Records):
        for name in vars(protocol):
            if not name.startswith("_") and callable(getattr(kind, name, None)):
                setattr(kind, name, counted(name, getattr(kind, name)))
    return trips


def _resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)
    {"drain": drain, "serve": serve}[sys.argv[1]]()
