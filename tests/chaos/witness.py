"""A store that is watched: what a process asks of it, and what it answers, becomes facts of the ledger.

task, producer, pump, beat ──▶ Witness ──▶ the engine
                                  └─▶ ledger
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from msgspec import json

from dayjob import App
from dayjob.store.contract import Store
from dayjob.store.records import (
    Action,
    Beat,
    Bound,
    Cancel,
    Enqueued,
    Filter,
    Gone,
    Lease,
    NewRow,
    Script,
    Settlement,
    Standing,
    Tally,
    Tick,
    Turn,
    Want,
    WorkerInfo,
    Write,
)
from tests.chaos.ledger import Ledger

T = TypeVar("T")


class Watched(App):
    """An app whose store has a witness, in whatever process it is opened: a worker's, or one of its children's.

    Attributes:
        calls: ids by the number of the call that enqueues them, as far as they have been sent (see `meta`).
    """

    def __init__(self, url: str, ledger: Ledger, **options: Any) -> None:
        super().__init__(url, **options)
        self._ledger = ledger
        self.calls: dict[int, list[str]] = {}

    def _open_store(self) -> Store:
        witness: Any = Witness(super()._open_store(), self._ledger, self.calls, self.settings.beat)
        return witness  # type: ignore[no-any-return]


class Witness:
    """*store*, and a note of all that concerns jobs and leases. `every`: seconds between two beats."""

    def __init__(self, store: Store, ledger: Ledger, calls: dict[int, list[str]], every: float) -> None:
        self._store, self._note, self._calls, self._every = store, ledger.note, calls, every
        self._committed: set[Lease] = set()
        self._up: set[str] = set()
        self._granted: set[tuple[int, str]] = set()
        self._claimed: dict[str, int | None] = {}
        self._due: dict[str, float] = {}
        """When the next beat of a worker is to be sent, which beat before."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    # -- producers

    def enqueue(self, jobs: Sequence[NewRow], *, repeat: bool = False, now: int | None = None) -> list[Enqueued]:
        self._tried(jobs)
        return self._store.enqueue(jobs, repeat=repeat, now=now)

    def enqueue_script(
        self, jobs: Sequence[NewRow], *, repeat: bool = False, now: int | None = None
    ) -> Script[list[Enqueued]]:
        self._tried(jobs)
        return self._store.enqueue_script(jobs, repeat=repeat, now=now)

    def _tried(self, jobs: Sequence[NewRow]) -> None:
        """Each id once, however often it is sent: it is one enqueue."""
        for job in jobs:
            said = json.decode(job.meta or "{}")
            sent = self._calls.setdefault(said["call"], [])
            if job.id not in sent:
                sent.append(job.id)
                self._note("enqueue.tried", id=job.id, task=job.task.rpartition(".")[2], plan=said["plan"])

    def act(self, which: Filter, action: Action, *, limit: int = 1000, now: int | None = None) -> list[str]:
        touched = self._store.act(which, action, limit=limit, now=now)
        if isinstance(action, Cancel):
            for id in touched:
                self._note("cancel.accepted", id=id)
        return touched

    # -- workers

    def turn(
        self,
        worker: str,
        claim_no: int | None = None,
        settlements: Sequence[Settlement] = (),
        wants: Sequence[Want] = (),
        *,
        now: int | None = None,
    ) -> Turn:
        ends = [{"id": s.id, "entry": s.entry, "worker": worker, "outcome": str(s.outcome)} for s in settlements]
        for end in ends:
            self._note("finish.sent", **end)
        again, self._claimed[worker] = self._claimed.get(worker) == claim_no, claim_no
        turn = self._store.turn(worker, claim_no, settlements, wants, now=now)
        for end in ends:
            refused = (end["id"], end["entry"]) in turn.refused
            self._note("finish.refused" if refused else "finish.accepted", **end)
        for job in turn.claimed:
            if job.meta and '"rate"' in job.meta and not again:  # a repeated claim was made before, nobody knows when
                self._note("claim", id=job.id, entry=job.entry, worker=worker, stamp=turn.now)
        return turn

    def record(self, lease: Lease, writes: Sequence[Write], *, now: int | None = None) -> bool:
        sent = time.monotonic()
        accepted = self._store.record(lease, writes, now=now)
        said = "write.accepted" if accepted else "write.refused"
        self._note(said, id=lease.id, entry=lease.entry, worker=lease.worker, sent=sent)
        return accepted

    def standing(self, lease: Lease) -> Standing:
        """Asked about a job that completes in a transaction whose commit was not answered, or was another's; maybe twice."""
        standing = self._store.standing(lease)
        if standing == "completed" and lease not in self._committed:
            self._committed.add(lease)
            self._note("finish.committed", id=lease.id, entry=lease.entry, worker=lease.worker)
        return standing

    def beat(
        self,
        worker: WorkerInfo,
        held: Sequence[int],
        tallies: Sequence[Tally] = (),
        *,
        claims: int | None = None,
        now: int | None = None,
    ) -> Beat:
        due = self._due.get(worker.id)
        if due is not None:
            self._note("beat", worker=worker.id, late=round(max(0.0, time.monotonic() - due), 4))
        try:
            beat = self._store.beat(worker, held, tallies, claims=claims, now=now)
        finally:  # an answer that is long in coming makes no beat late: it is counted from there
            self._due[worker.id] = time.monotonic() + self._every
        if worker.id not in self._up and not beat.lost:
            self._up.add(worker.id)
            self._note("worker.up", worker=worker.id, name=worker.name, solo=worker.solo)
        if beat.term is not None and (beat.term, worker.id) not in self._granted:
            self._granted.add((beat.term, worker.id))
            self._note("term.granted", term=beat.term, worker=worker.id)
        return beat

    # -- who leads

    def stage(self, term: int, *, limit: int = 1000, now: int | None = None) -> tuple[int, int | None] | None:
        return self._kept("stage", term, lambda: self._store.stage(term, limit=limit, now=now))

    def prune(self, term: int, bounds: Sequence[Bound], *, limit: int = 1000, now: int | None = None) -> int | None:
        return self._kept("prune", term, lambda: self._store.prune(term, bounds, limit=limit, now=now))

    def sample(self, term: int, *, now: int | None = None) -> bool | None:
        return self._kept("sample", term, lambda: self._store.sample(term, now=now))

    def _kept(self, what: str, term: int, call: Callable[[], T | None]) -> T | None:
        sent = time.monotonic()
        answer = call()
        if answer is not None:
            self._note("upkeep.accepted", term=term, what=what, sent=sent)
        return answer

    def tick(self, ticks: Sequence[Tick], *, now: int | None = None) -> list[list[Enqueued] | None]:
        for tick in ticks:
            for job in tick.jobs:
                self._note("tick.tried", id=job.id, schedule=tick.key)
        return self._store.tick(ticks, now=now)

    # -- whoever takes the jobs of another

    def rescue(self, term: int, *, now: int | None = None) -> list[Gone] | None:
        gone = self._kept("rescue", term, lambda: self._store.rescue(term, now=now))
        for one in gone or ():
            self._gone(one, None)
        return gone

    def leave(self, worker: str, *, death: str | None = None, now: int | None = None) -> Gone | None:
        gone = self._store.leave(worker, death=death, now=now)
        if gone is not None and death is not None:
            self._gone(gone, death)
        return gone

    def _gone(self, gone: Gone, death: str | None) -> None:
        self._note("worker.gone", of=gone.worker.id, jobs=len(gone.jobs), death=death)
        for job in gone.jobs:
            self._note("job.stalled", id=job.id, of=job.worker)
