"""Stores for tests: one that can be down, one that hands out a single job, and a worker that only takes and dies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from dayjob.errors import ConfigError, StoreUnavailable
from dayjob.ids import new_id
from dayjob.states import Outcome, State
from dayjob.store.records import Claimed, JobRow, Settlement, Turn, Want, WorkerInfo

if TYPE_CHECKING:
    from dayjob.job import Job
    from dayjob.store.contract import Store

_BATCH = 1_000
PHANTOM = "phantom"
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

    def get(self, id: str) -> JobRow | None:
        """The job without what a `Phantom` did on its way to another one: that is no business of the test's."""
        row: JobRow | None = self.__getattr__("get")(id)
        if row is not None:
            row.attempts = [one for one in row.attempts if one.worker != PHANTOM or one.outcome is not Outcome.RELEASED]
        return row

    def __getattr__(self, name: str) -> Any:
        if self.down and name not in _HARMLESS:
            raise StoreUnavailable("the store is down: the test said t.store_down()")
        return getattr(self._store, name)


class OneJobStore:
    """The store as a worker sees it that may claim nothing but one job, which waits at the head of its queue.

    Args:
        release: called after the claim: those who stood before the job may come back.
    """

    def __init__(self, store: Store, release: Phantom) -> None:
        self._store = store
        self._release: Phantom | None = release

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
        """As the contract says, but the first claim that brings a job is the last."""
        phantom = self._release
        if phantom is not None:
            wants = [Want(want.queues, 1, want.exclude, want.suspects) for want in wants[:1]]
            if phantom.suspect:
                wants = [Want(None, 1, suspects=True)] if wants else []
        turn = self._store.turn(worker, claim_no, settlements, wants if phantom is not None else (), now=now)
        if phantom is not None and turn.claimed:
            self._release = None
            phantom.leave()
        return turn


class Phantom:
    """A worker without a process: it claims as others do, and goes when the test says how.

    Args:
        job: the job it is after, with its queue and whether it is a suspect.
    """

    def __init__(self, store: Store, job: Job[Any]) -> None:
        row = store.get(job.id)
        self.suspect = row is not None and row.suspect
        self._store = store
        self._queue = job.queue
        self._target = job.id
        self._id = new_id()
        self._claims = 0
        self._held: list[Claimed] = []
        # Solo: a crash of this worker is a crash of the one job in it.
        store.beat(WorkerInfo(self._id, PHANTOM, "test", 0, queues=self._queue, concurrency=1, solo=self.suspect), ())

    def reach(self) -> Claimed:
        """Claim what stands before the job in its queue, and the job."""
        while True:
            self._claims += 1
            want = Want((self._queue,), 1 if self.suspect else _BATCH, suspects=self.suspect)
            claimed = self._store.turn(self._id, self._claims, (), [want]).claimed
            self._held += claimed
            for one in claimed:
                if one.id == self._target:
                    return one
            if not claimed:
                self.leave()
                raise ConfigError(
                    f"job {self._target} cannot be claimed: it does not wait, or its queue {self._queue!r} is paused"
                )

    def release(self, jobs: Sequence[Claimed]) -> None:
        """Give *jobs* back, to their old places."""
        given = {one.entry for one in jobs}
        self._held = [one for one in self._held if one.entry not in given]
        self._store.turn(
            self._id, None, [Settlement(one.id, one.entry, Outcome.RELEASED, 0, self._store.now()) for one in jobs], ()
        )

    def release_others(self) -> None:
        """Keep the job alone."""
        if others := [one for one in self._held if one.id != self._target]:
            self.release(others)

    def leave(self) -> None:
        """End in order: all that it holds goes back to its old place."""
        self._store.leave(self._id)

    def die(self, how: str) -> None:
        """End as a process does that is killed."""
        self._store.leave(self._id, death=how)


def waits(state: State) -> bool:
    """True for a job that can be claimed, now or after a promotion."""
    return state in (State.SCHEDULED, State.AVAILABLE)


def as_store(proxy: FaultyStore | OneJobStore) -> Store:
    """A proxy under the type of what it stands for."""
    return cast("Store", proxy)
