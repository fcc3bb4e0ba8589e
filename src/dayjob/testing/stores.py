"""Stores for tests: one that can be down, one that hands out a single job; and a worker that takes a job and dies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from dayjob.errors import ConfigError, StoreUnavailable
from dayjob.ids import new_id
from dayjob.states import WAITING, State
from dayjob.store.records import Settlement, Turn, Want, WorkerInfo

if TYPE_CHECKING:
    from dayjob.job import Job
    from dayjob.store.contract import Store

_HARMLESS = frozenset({"url", "polls", "processes", "now", "close", "listen", "notify", "listening"})
"""What a store answers without being reached, or never fails at."""


class FaultyStore:
    """A store that can be down.

    Attributes:
        down: True makes every operation fail with `StoreUnavailable`, as if it could not be reached.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.down = False

    def __getattr__(self, name: str) -> Any:
        if self.down and name not in _HARMLESS:
            raise StoreUnavailable("the store is down: the test said t.store_down()")
        return getattr(self._store, name)


class OneJobStore:
    """The store as a worker sees it that may claim nothing but one job, and that once.

    Args:
        id: the job.
    """

    def __init__(self, store: Store, id: str) -> None:
        self._store = store
        self._wants: Sequence[Want] = (Want(None, 1, id=id),)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def turn(
        self,
        worker: str,
        claim_no: int | None = None,
        settlements: Sequence[Settlement] = (),
        wants: Sequence[Want] = (),
        *,
        now: int | None = None,
    ) -> Turn:
        """As the contract says, but the first claim is for the one job, and there is no second."""
        if wants:
            wants, self._wants = self._wants, ()
        return self._store.turn(worker, claim_no, settlements, wants, now=now)


def kill_while_running(store: Store, job: Job[Any], how: str) -> None:
    """Let a worker without a process claim *job*, alone, and end as one does that dies."""
    row = store.get(job.id)
    # Solo: what died with this worker was one suspect by itself, and the crash counts.
    worker = WorkerInfo(new_id(), "phantom", "test", 0, concurrency=1, solo=row is not None and row.suspect)
    store.beat(worker, ())
    claimed = store.turn(worker.id, 1, (), [Want(None, 1, id=job.id)]).claimed
    store.leave(worker.id, death=how)
    if not claimed:
        raise ConfigError(f"job {job.id} cannot be claimed: it waits no longer, or at a limit that is taken")


def waits(state: State) -> bool:
    """True for a job that can be claimed, now, after a promotion, or when its limits let it pass, as a turn asks them first."""
    return state in WAITING


def as_store(proxy: FaultyStore | OneJobStore) -> Store:
    """A proxy under the type of what it stands for."""
    return cast("Store", proxy)
