"""What the leader does, one class each: every tick is one call of the store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from dayjob.clock import SECOND
from dayjob.events import Bus, JobDead, JobStalled, Pruned, WorkerGone
from dayjob.services.scheduler import Scheduler
from dayjob.states import State
from dayjob.store.records import Bound, Gone

if TYPE_CHECKING:
    from dayjob.config import Settings
    from dayjob.registry import Registry
    from dayjob.services.leader import Duty
    from dayjob.store.contract import Store, Upkeep

BATCH = 1000


def duties(
    store: Store,
    bus: Bus,
    settings: Settings,
    registry: Registry,
    on_dead: Callable[[str, str, str], None] | None = None,
    declared: Collection[str] = (),
) -> list[Duty]:
    """All duties, the most urgent first. *declared*: the schedules of this worker's code."""
    return [
        Scheduler(store, bus, lease=settings.lease, declared=declared),
        Rescuer(store, bus, every=settings.sweep, on_dead=on_dead),
        Stager(store),
        Admitter(store),
        Pruner(store, bus, bounds(registry)),
        Sampler(store),
    ]


def bounds(registry: Registry) -> list[Bound]:
    """How many finished jobs are kept: per queue as its defaults or the settings say, per task as it declares.

    A task's count holds beside its queue's: whichever is reached first.
    """
    found = []
    for state in (State.COMPLETED, State.CANCELLED, State.DEAD):
        own = tuple(queue for queue, _, _ in registry.retentions() if queue is not None)
        for queue, task, retention in registry.retentions():
            count = retention.count(state)
            if count is not None:
                found.append(Bound(state, count, queue, task, () if queue or task else own))
    return found


class Stager:
    """Makes due jobs available, and cancels waiting ones that expired.

    Every turn of every pump stages, too, and pumps wake for what is due; this is for the time when all are busy.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def tick(self, term: int) -> float | None:
        staged = self._store.stage(term, limit=BATCH)
        if staged is None:
            return None
        touched, next_due = staged
        if touched >= BATCH:
            return 0.0
        if touched:
            self._store.notify("work")
        if next_due is None:
            return 5.0
        return min(5.0, max(0.05, (next_due - self._store.now()) / SECOND))


class Admitter:
    """Lets through what waits at limits, and takes back what was let through to no use.

    Turns admit, too; this is for jobs of queues whose workers are busy, and for tokens that time alone sets free.
    """

    def __init__(self, store: Store, *, every: float = 1.0) -> None:
        self._store, self._every = store, every

    def tick(self, term: int) -> float | None:
        admitted = self._store.admit(term, limit=BATCH)
        if admitted is None:
            return None
        count, opens = admitted
        if count:
            self._store.notify("work")
        if count >= BATCH or opens is None:  # of very many the turns let in more, each what it claims
            return self._every
        return min(self._every, max(0.05, (opens - self._store.now()) / SECOND))


class Rescuer:
    """Takes the jobs from workers that are gone.

    Args:
        every: seconds between two sweeps.
        on_dead: called with the id and task of each job that died by it.
    """

    def __init__(
        self, store: Store, bus: Bus, *, every: float, on_dead: Callable[[str, str, str], None] | None = None
    ) -> None:
        self._store, self._bus, self._every, self._on_dead = store, bus, every, on_dead

    def tick(self, term: int) -> float | None:
        gone = self._store.rescue(term)
        if gone is None:
            return None
        for one in gone:
            tell_gone(self._bus, one, None, self._on_dead)
        if gone:
            self._store.notify("work")
        return self._every


def tell_gone(bus: Bus, gone: Gone, death: str | None, on_dead: Callable[[str, str, str], None] | None) -> None:
    """Emit what became of a worker that is gone and of its jobs; used by whoever took them from it."""
    info = gone.worker
    bus.emit(WorkerGone(worker=info.id, host=info.host, pid=info.pid, jobs=len(gone.jobs), death=death))
    for job in gone.jobs:
        bus.emit(
            JobStalled(
                id=job.id, task=job.task, queue=job.queue, worker=info.id, state=str(job.state), crashes=job.crashes
            )
        )
        if job.state is State.DEAD:
            why = death or "its worker process died"
            bus.emit(
                JobDead(id=job.id, task=job.task, queue=job.queue, attempt=0, reason=job.reason or "crashed", error=why)
            )
            if on_dead is not None:
                on_dead(job.id, job.task, why)


class Pruner:
    """Deletes finished jobs past their retention, a batch at a time, so that no transaction is long."""

    def __init__(self, store: Upkeep, bus: Bus, bounds: Sequence[Bound], *, every: float = 15.0) -> None:
        self._store, self._bus, self._bounds, self._every = store, bus, bounds, every

    def tick(self, term: int) -> float | None:
        pruned = self._store.prune(term, self._bounds, limit=BATCH)
        if pruned is None:
            return None
        if pruned:
            self._bus.emit(Pruned(jobs=pruned))
        return 0.05 if pruned >= BATCH else self._every


class Sampler:
    """Writes down how deep the queues are, each minute; not in a term's first second, as many a burst lasts no longer."""

    def __init__(self, store: Upkeep, *, every: float = 60.0) -> None:
        self._store, self._every = store, every
        self._term: int | None = None

    def tick(self, term: int) -> float | None:
        if term != self._term:
            self._term = term
            return 1.0
        return None if self._store.sample(term) is None else self._every
