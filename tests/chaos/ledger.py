"""The ledger: what every process of a run says happened, one JSON line per fact, outside the store it judges.

Times are CLOCK_MONOTONIC in seconds, which all processes of a machine share and no jump of a wall clock moves; in a
simulation they are virtual. Every fact has `fact`, `pid` and `at`; the other fields are:

| fact | fields | said by |
|---|---|---|
| `enqueue.tried` | id, task, plan | producer, before the call; *plan* as a dict |
| `enqueue.acknowledged` | id | producer, after it |
| `enqueue.unknown` | id, error | producer whose every try ended without an answer |
| `tick.tried` | id, schedule | leader, before the store is asked to make the job of a tick |
| `ticks.wanted` | schedule, period, since, until | harness: it ticks at each multiple of *period* seconds between two stamps |
| `enqueue.existing` | id, holder, outcome | producer whose job was not stored, as *holder* has its key; *outcome* is what it was told |
| `claim` | id, entry, worker, stamp | worker, of a job with a rate; *stamp*: the store's clock at its claim |
| `lease.ended` | id | simulation, when the store ends a lease by what it is told; there `claim` is noted so, too, of all that wait for others |
| `start` | id, entry, worker, attempt, crashes | the task, first of all; what was spent before this claim |
| `effect` | id, entry, worker | the task, where its work is done |
| `finish.sent` | id, entry, worker, outcome | worker, before it settles |
| `finish.accepted`, `finish.refused` | id, entry, worker, outcome | worker, after the store's answer |
| `finish.committed` | id, entry, worker | worker, where a job completed inside a transaction |
| `write.accepted`, `write.refused` | id, entry, worker, sent | worker, after a fenced write of a running job that was sent at *sent* |
| `replay.accepted`, `replay.refused` | id, entry, worker, outcome | harness, which settles again under leases of the past |
| `worker.up` | worker, name, solo | worker process, with its first beat; *name* is what the store's attempts call it |
| `worker.gone` | of, jobs, death | whoever took the jobs of worker *of* |
| `job.stalled` | id, of | as above, for each job |
| `cancel.accepted` | id | whoever cancels, after the store's answer that named the job |
| `term.granted` | term, worker | worker, after a beat that made it the leader |
| `upkeep.accepted` | term, what, sent | leader, after the store did *what* that was sent at *sent* under its term; `late`: he had given it up |
| `beat` | worker, late | worker: seconds by which it was sent too late |
| `schedule.declared` | schedule, cron and tz or every, overlap, catch_up, since, until | whoever stored a schedule first; its ticks lie between the stamps *since* and *until* |
| `tick` | schedule, cursor | leader, after the store took its ticks up to the stamp *cursor* |
| `fault` | name, target, until | harness: a fault from `at` to *until*; *target* is a pid, or null for the store or the line; a job that
  harms its own process says it, too |
| `told`, `exit` | target, and for `exit` code | harness: SIGTERM sent to process *target*; its end seen |
| `sample` | target, descriptors, memory | harness: what process *target* holds (memory in bytes) |

*plan* says how the job is to end: a `Plan`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import Struct

Fact = dict[str, Any]


class Plan(Struct, frozen=True, omit_defaults=True):
    """How a job is to end, decided when it is enqueued.

    Attributes:
        end: the state. reason: of a dead or cancelled job, None for any.
        attempts, crashes: the counters it is to end with. snoozes: how often it puts itself off.
        delay: seconds before which it must not start.
        cancelled: somebody asks to cancel it: it may also end as cancelled, with fewer attempts.
        unique: its key, which only one job has at a time; until it is `done`, has `started`, or *ttl* seconds have `expired`. shares: a concurrency limit's key, and the limit. rate: a rate's
            key, the limit, and the seconds.
    """

    end: str = "completed"
    attempts: int = 1
    crashes: int = 0
    snoozes: int = 0
    delay: float = 0.0
    reason: str | None = None
    cancelled: bool = False
    unique: str | None = None
    until: str = "done"
    ttl: float | None = None
    shares: tuple[str, int] | None = None
    rate: tuple[str, int, float] | None = None


class Ledger(Protocol):
    """Takes facts; facts are never changed."""

    def note(self, fact: str, **fields: Any) -> None:
        """Append a fact; whoever says it dies no earlier than it is written."""


class FileLedger:
    """A file per process in *folder*; safe from all threads, and after a fork."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[tuple[Path, int], int] = {}

    def note(self, fact: str, **fields: Any) -> None:
        line = json.dumps({"fact": fact, "pid": os.getpid(), "at": time.monotonic(), **fields}) + "\n"
        # One write, so that lines of several threads do not mix, and a SIGKILL leaves no half line.
        os.write(self._descriptor(), line.encode())

    def _descriptor(self) -> int:
        """The file of this process, which stays open: there may be no descriptor left when there is something to note."""
        name = (self.folder, os.getpid())
        if name not in self._open:
            made = os.open(self.folder / f"{os.getpid()}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            if self._open.setdefault(name, made) != made:  # another thread was first
                os.close(made)
        return self._open[name]

    def facts(self, *only: str) -> list[Fact]:
        """Everything in the ledger, or *only* facts of these names, of all processes, in the order of time."""
        return sorted(self._read(only), key=lambda fact: fact["at"])

    def _read(self, only: tuple[str, ...]) -> Iterator[Fact]:
        """An hour's millions of facts consist of few words: each word is there once."""
        for path in self.folder.glob("*.jsonl"):
            with path.open("rb") as lines:
                for line in lines:
                    fact = msgspec.json.decode(line)
                    if not only or fact["fact"] in only:
                        yield {name: sys.intern(said) if type(said) is str else said for name, said in fact.items()}
