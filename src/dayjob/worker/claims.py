"""What a worker asks the store for, and the runs it makes of what it gets.

It asks for what has a free place, and ahead of that for what will start within about 20 ms at the rate observed: enough
that no place waits for a turn, and nothing of long jobs, which another worker could start now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dayjob.clock import SECOND
from dayjob.errors import UnknownTask
from dayjob.store.records import Claimed, Want
from dayjob.worker import outcomes
from dayjob.worker.packing import Packing
from dayjob.worker.parcels import Parcel
from dayjob.worker.run import Batch, Run, Slots, monotonic

if TYPE_CHECKING:
    from dayjob.registry import Plan, Registry
    from dayjob.worker.executor import Executor

AHEAD = 0.02
"""Seconds of work that is claimed ahead, on top of the time a turn takes."""
LARGEST = 1000
GROWTH = 4
"""One quick job does not make a rate: ahead is claimed at most so many times what has just ended."""
STALE = 1 * SECOND
"""What was claimed ahead and has not started after this time is released."""


class Claims:
    """The groups of slots, and how full they are. Used by the pump's thread alone.

    Args:
        groups: the slots, each with its queues.
    Attributes:
        turn_takes: seconds, as last observed.
    """

    def __init__(self, registry: Registry, executor: Executor, groups: Sequence[Slots]) -> None:
        self._registry, self._executor = registry, executor
        self.groups = groups
        self.turn_takes = 0.0
        self._by_queue: dict[str, Slots] = {name: slots for slots in groups for name in slots.queues or ()}
        self.packing = Packing(executor)
        self._rest = next((slots for slots in groups if slots.queues is None), groups[-1])

    def serves(self, queue: str) -> bool:
        """True when jobs of *queue* are for this worker."""
        if queue in self._by_queue:
            return True
        return self._rest.queues is None and queue not in self._rest.exclude

    def held_jobs(self) -> int:
        """Jobs claimed and not settled, without those that hang for good."""
        return sum(slots.held - len(slots.hung) for slots in self.groups)

    def hung_jobs(self) -> int:
        """Jobs that hang for good in a process that cannot be replaced."""
        return sum(len(slots.hung) for slots in self.groups)

    # -- letting go ------------------------------------------------------------------------------------------------

    def release(self, now: int, why: str, which: Callable[[Run], bool] | None = None) -> None:
        """Put back what has not started (and of that only *which*, if given)."""
        stamp = now + self._executor.offset
        for run in self.packing.unpack(which):
            self._executor.end(run, outcomes.settle_released(run.job, stamp, why))
        for slots in self.groups:
            for _ in range(len(slots.ready)):
                try:
                    run = slots.ready.popleft()
                except IndexError:  # somebody took the last ones
                    break
                if which is None or which(run):
                    self._executor.put_back(run, stamp, why)
                else:
                    slots.ready.append(run)

    def take_away(self) -> list[Run]:
        """What has not begun, of a lease that is lost: it is not to begin."""
        taken = self.packing.unpack()
        for slots in self.groups:
            while slots.ready:
                try:
                    run = slots.ready.popleft()
                except IndexError:  # somebody took the last one
                    break
                run.over = True
                taken += run.members or (run,)
        return taken

    def release_stale(self, now: int) -> None:
        """What was claimed ahead and did not get its turn goes back, so that another worker may have it."""
        for slots in self.groups:
            try:
                stale = _ready_since(slots.ready[0]) < now - STALE
            except IndexError:
                continue
            if stale:
                slots.rate = 0.0
                self.release(now, "waited", lambda run: _ready_since(run) < now - STALE)

    # -- asking --------------------------------------------------------------------------------------------------

    def wants(self, done: list[Run]) -> tuple[list[Want], list[Slots]]:
        """What to ask for in a turn that settles *done*, and for which slots."""
        wants, asked = [], []
        for slots in self.groups:
            held = self._places(slots, done)
            ahead = min(int(slots.rate * (AHEAD + self.turn_takes)), GROWTH * slots.recent, LARGEST)
            room = min(slots.limit + ahead - held, LARGEST)
            if room > 0:
                wants.append(Want(slots.queues, room, slots.exclude))
                asked.append(slots)
                for want in self.packing.more(slots, slots.limit - held, room, LARGEST):
                    wants.append(want)
                    asked.append(slots)
        return wants, asked

    def has_room(self, slots: Slots) -> bool:
        """True when a place of *slots* is free for which nothing is claimed."""
        return self._places(slots, ()) < slots.limit

    def _places(self, slots: Slots, done: Sequence[Run]) -> int:
        if self.packing.busy:
            return self.packing.places(slots, done)
        return slots.held - len(slots.hung) - self._of(slots, done)

    def nothing(self) -> tuple[list[Want], list[Slots]]:
        """No job, for a worker whose places are taken: the answer still tells whether suspects wait."""
        return [Want(slots.queues, 0, slots.exclude) for slots in self.groups], list(self.groups)

    def suspect_want(self) -> tuple[list[Want], list[Slots]]:
        """One suspect, for a worker that runs it alone."""
        queues = None if self._rest.queues is None else tuple(self._by_queue)
        return [Want(queues, 1, suspects=True)], [self._rest]

    def coming(self) -> float:
        """Ends per second to be expected of what runs now."""
        return sum(slots.rate for slots in self.groups if slots.busy)

    def observe(self, ended: list[Run], now: int) -> None:
        """Learn from what *ended* how fast each group works."""
        for slots in self.groups:
            number = self._of(slots, ended)
            if number:
                per_second = number * SECOND / max(now - slots.since, 100)
                slots.rate += (per_second - slots.rate) / 2
                slots.recent, slots.since = number, now

    def _of(self, slots: Slots, runs: Sequence[Run]) -> int:
        if len(self.groups) == 1:
            return len(runs)
        return sum(1 for run in runs if run.slots is slots)

    # -- getting -------------------------------------------------------------------------------------------------

    def take(self, claimed: list[Claimed], batch: Batch, now: int) -> dict[Slots, int]:
        """Make runs of *claimed* and feed the executor; returns how many each group got."""
        packed: list[Run] = []
        runs = self._runs_of(claimed, batch, packed)
        for slots, ready in runs.items():
            if not slots.busy:
                slots.since = now
            if ready:
                self._executor.feed(slots, ready)
        got = {slots: len(ready) for slots, ready in runs.items()}
        if packed:
            self.packing.add(packed, now)
            for run in packed:
                got[run.slots] += 1
        self.packing.learn(batch.runs.values() if packed else ())
        return got

    def _runs_of(self, claimed: list[Claimed], batch: Batch, packed: list[Run]) -> dict[Slots, list[Run]]:
        """A run for each job; those of the same task and queue in a row share what was looked up for the first. Calls of
        batch tasks go into *packed*."""
        executor, entered = self._executor, batch.runs
        made: dict[Slots, list[Run]] = {}
        task = queue = None
        for job in claimed:
            if job.task != task or job.queue != queue or job.options is not None:
                slots = self._by_queue.get(job.queue, self._rest)
                ready = made.setdefault(slots, [])
                plan, why = self._plan_of(job)
                if plan is not None and plan.batching is not None:
                    ready = packed
                task, queue = (job.task, job.queue) if plan is not None and job.options is None else (None, None)
            slots.held += 1
            run = entered[job.entry] = Run(job, plan, batch, slots, executor)  # type: ignore[arg-type]  # parked below
            if plan is not None:
                ready.append(run)
            else:
                stamp = monotonic() + executor.offset
                executor.end(run, outcomes.settle_parked(job, stamp, why, executor.rng))
        return made

    def _plan_of(self, job: Claimed) -> tuple[Plan | None, str]:
        try:
            return self._registry.plan(job.task, job.queue, job.options), ""
        except (UnknownTask, ValueError) as error:
            return None, str(error)
        except Exception as error:  # noqa: BLE001  # a job that nobody can plan must not strand those claimed with it
            return None, f"{type(error).__name__}: {error}"


def _ready_since(run: Run) -> int:
    """A parcel was waiting for company before."""
    return run.sealed_at if isinstance(run, Parcel) else run.batch.at
