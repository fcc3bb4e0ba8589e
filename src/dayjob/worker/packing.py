"""Gathers the calls of batch tasks into parcels, and says how many places they take.

A parcel takes one place, from the moment it is ready. Its queue may be asked for more than there are places, but only as
long as it brings nothing but calls of batch tasks: where others are mixed in, claiming more would hold back what another
worker could run now.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from dayjob.clock import SECOND
from dayjob.store.records import Want
from dayjob.worker.parcels import Parcel
from dayjob.worker.run import Run, Slots

if TYPE_CHECKING:
    from dayjob.worker.executor import Executor

_NEVER = 1 << 62


class Packing:
    """The open and the sealed parcels of a worker. Used by the pump's thread alone."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._open: dict[tuple[object, ...], Parcel] = {}
        self._sealed: list[Parcel] = []
        self._pure: dict[str, tuple[Slots, int]] = {}

    @property
    def busy(self) -> bool:
        """True when there are parcels."""
        return bool(self._open or self._sealed)

    @property
    def running(self) -> bool:
        """True while a function runs that may have ended all its calls already: it has its place still."""
        return any(parcel.started and not (parcel.over or parcel.replaced) for parcel in self._sealed)

    @property
    def seal_at(self) -> int:
        """Monotonic microseconds at which the next parcel waits no longer; far away when none is open."""
        return min((parcel.seal_at for parcel in self._open.values()), default=_NEVER)

    # -- in ----------------------------------------------------------------------------------------------------------

    def add(self, runs: Iterable[Run], now: int) -> None:
        """Put *runs*, calls of batch tasks, into parcels. Suspects go alone."""
        for run in runs:
            plan, slots = run.plan, run.slots
            assert plan.batching is not None
            key = (plan.task, run.job.queue, plan.timeout, slots)
            parcel = None if run.job.suspect else self._open.get(key)
            if parcel is None:
                parcel = Parcel(self._executor, run, now + int(plan.batching.wait * SECOND))
                parcel.add(run)
                if run.job.suspect:
                    self._seal(parcel, now)
                    continue
                self._open[key] = parcel
            else:
                parcel.add(run)
            if len(parcel.members) >= plan.batching.size:
                self._seal(self._open.pop(key), now)

    def seal(self, now: int, *, all: bool = False) -> None:
        """Make ready the parcels that have waited long enough; or *all*."""
        for key in [key for key, parcel in self._open.items() if all or now >= parcel.seal_at]:
            self._seal(self._open.pop(key), now)

    def _seal(self, parcel: Parcel, now: int) -> None:
        parcel.sealed_at = now
        self._sealed.append(parcel)
        self._executor.feed(parcel.slots, [parcel])

    # -- asking ------------------------------------------------------------------------------------------------------

    def learn(self, claimed: Collection[Run]) -> None:
        """From now on ask those queues for more of which a claim has brought nothing but calls of batch tasks."""
        if not claimed and not self._pure:
            return
        sizes: dict[str, tuple[Slots, int]] = {}
        for run in claimed:
            batching = getattr(run.plan, "batching", None)  # a run that is parked at once has no plan
            size = 1 if batching is None else batching.size
            slots, least = sizes.get(run.job.queue, (run.slots, size))
            sizes[run.job.queue] = (slots, min(least, size))
        self._pure = {queue: found for queue, found in sizes.items() if found[1] > 1}

    def more(self, slots: Slots, places: int, asked: int, most: int) -> Iterator[Want]:
        """Wishes beyond the *asked* jobs, so that *places* free ones are filled with full parcels; *most* in all."""
        for queue, (own, size) in self._pure.items():
            if own is not slots or most <= 0:
                continue
            gathered = sum(
                len(parcel.members)
                for parcel in self._open.values()
                if parcel.slots is slots and parcel.job.queue == queue
            )
            missing = min(places * size - gathered - asked, most)
            if missing > 0:
                most -= missing
                yield Want((queue,), missing)

    def places(self, slots: Slots, done: Iterable[Run]) -> int:
        """How many places of *slots* are taken once the ends at hand, *done*, are settled.

        Open parcels take none. Those that wait for a place count with all that they hold, as far as no place is free for
        them: they are claimed ahead.
        """
        alone = slots.held - len(slots.hung) - sum(1 for run in done if run.slots is slots and run.parcel is None)
        taken = 0
        waiting: list[Parcel] = []
        for parcel in (*self._open.values(), *self._sealed):
            if parcel.slots is not slots or parcel.replaced:
                continue
            alone -= parcel.left
            if not parcel.sealed_at or parcel.over:
                continue
            if parcel.started:
                taken += 1
            else:
                waiting.append(parcel)
        taken += alone
        for parcel in waiting:
            taken += 1 if taken < slots.limit else parcel.left
        return taken

    # -- out ---------------------------------------------------------------------------------------------------------

    def strike(self, runs: Iterable[Run]) -> None:
        """*runs* are held no more."""
        for run in runs:
            if run.parcel is not None:
                run.parcel.left -= 1
        self._sealed = [parcel for parcel in self._sealed if parcel.left or not parcel.over]

    def unpack(self, which: Callable[[Run], bool] | None = None) -> list[Run]:
        """Open no more what was gathered (and of that only *which*, if given): these runs are to go back."""
        taken = [key for key, parcel in self._open.items() if which is None or which(parcel.members[0])]
        return [run for key in taken for run in self._open.pop(key).members]
