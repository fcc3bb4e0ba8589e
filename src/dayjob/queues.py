"""`app.queues` and `app.workers()`: how the queues stand, their taps, and who works."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from dayjob.clock import SECOND, from_stamp, seconds
from dayjob.offload import offload
from dayjob.policies import check_name
from dayjob.states import WAITING, State
from dayjob.store.records import Delete, Filter

if TYPE_CHECKING:
    from dayjob.store.contract import Store

_BATCH = 1_000
_LOOK = 0.25
"""Seconds between looks at a queue that someone waits to see drained."""

_UNFINISHED = (State.SCHEDULED, State.BLOCKED, State.AVAILABLE, State.RUNNING)


class QueueStats(Struct, frozen=True):
    """A queue as it stands.

    Attributes:
        counts: jobs by state; every state is there.
        oldest: seconds for which the oldest available job has waited; None when none waits.
        rates: per second over the last full minute, by what happened (`completed`, `failed`, `retried` …).
    """

    name: str
    paused: bool
    counts: dict[str, int]
    oldest: float | None
    rates: dict[str, float]


class WorkerStats(Struct, frozen=True):
    """A worker as its last beat told it.

    Attributes:
        queues: as configured; `*` is all. running: jobs that ran at the last beat. held: jobs it has claimed.
        solo: it runs the jobs whose process died, each alone. leader: it keeps time for all.
    """

    id: str
    name: str
    host: str
    pid: int
    queues: str
    concurrency: int
    running: int
    held: int
    solo: bool
    leader: bool
    version: str
    started_at: datetime
    last_beat: datetime


class QueuesManager:
    """The queues. Every verb has an awaitable twin that never blocks the loop."""

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store

    def stats(self) -> list[QueueStats]:
        """All queues that hold jobs, are paused or had work within the hour, by name."""
        store = self._store()
        now = store.now()
        return [
            QueueStats(
                row.name,
                row.paused,
                {state.value: row.counts.get(state, 0) for state in State},
                None if row.oldest is None else max(0.0, (now - row.oldest) / SECOND),
                row.rates,
            )
            for row in store.queues()
        ]

    async def astats(self) -> list[QueueStats]:
        """Awaitable `stats`."""
        return await offload(self.stats)

    def pause(self, name: str) -> bool:
        """Stop claims from a queue, everywhere within a second; what runs goes on. False: it was paused already."""
        return self._tap(name, paused=True)

    async def apause(self, name: str) -> bool:
        """Awaitable `pause`."""
        return await offload(self.pause, name)

    def resume(self, name: str) -> bool:
        """Let workers take jobs from a queue again. False: it was not paused."""
        return self._tap(name, paused=False)

    async def aresume(self, name: str) -> bool:
        """Awaitable `resume`."""
        return await offload(self.resume, name)

    def drain(self, name: str, timeout: float | timedelta | None = None) -> int:
        """Wait until a queue holds no unfinished job, as before a deploy that breaks its payloads.

        Workers must run, and producers should have stopped or moved to another queue.

        Args:
            timeout: seconds to wait at most; None waits for ever.
        Returns: how many unfinished jobs are left: 0, or more when the time is up.
        """
        check_name("queue", name)
        deadline = None if timeout is None else time.monotonic() + seconds(timeout, "timeout")
        while left := self._store().count(Filter(states=_UNFINISHED, queue=name)):
            pause = _LOOK if deadline is None else min(_LOOK, deadline - time.monotonic())
            if pause <= 0:
                break
            time.sleep(pause)
        return left

    async def adrain(self, name: str, timeout: float | timedelta | None = None) -> int:
        """Awaitable `drain`."""
        return await offload(self.drain, name, timeout)

    def purge(self, name: str) -> int:
        """Delete all waiting jobs of a queue; returns how many. Running and finished ones (the dead, too) stay."""
        check_name("queue", name)
        store, gone = self._store(), 0
        which = Filter(states=tuple(WAITING), queue=name)
        while batch := len(store.act(which, Delete(), limit=_BATCH)):
            gone += batch
        return gone

    async def apurge(self, name: str) -> int:
        """Awaitable `purge`."""
        return await offload(self.purge, name)

    def workers(self) -> list[WorkerStats]:
        """The workers that are alive, by name."""
        return [
            WorkerStats(
                id=row.info.id,
                name=row.info.name,
                host=row.info.host,
                pid=row.info.pid,
                queues=row.info.queues,
                concurrency=row.info.concurrency,
                running=row.info.running,
                held=row.held,
                solo=row.info.solo,
                leader=row.leader,
                version=row.info.version,
                started_at=from_stamp(row.started_at),
                last_beat=from_stamp(row.last_beat),
            )
            for row in self._store().workers()
        ]

    def _tap(self, name: str, *, paused: bool) -> bool:
        store = self._store()
        changed = store.pause(check_name("queue", name), paused)
        store.notify("control")
        if not paused:
            store.notify("work", name.encode())
        return changed
