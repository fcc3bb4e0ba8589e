"""`app.queues` and `app.workers()`: how the queues stand, their taps, and who works."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, Unpack
from uuid import uuid4

from msgspec import Struct, json, structs

from dayjob.bounds import Bounds, Origin, bounded
from dayjob.clock import SECOND, from_stamp, seconds
from dayjob.errors import ConfigError, shown
from dayjob.offload import offload
from dayjob.policies import check_name
from dayjob.states import WAITING, State
from dayjob.store.gating import Gate, QueueLimits
from dayjob.store.records import Delete, Filter, QueueRow

if TYPE_CHECKING:
    from dayjob.store.contract import Store

Newcomers = Literal["accept", "refuse", "hold"]

_BATCH = 1_000
_LOOK = 0.25
"""Seconds between looks at a queue that someone waits to see drained."""

_ALONE = 10.0
"""Seconds after which whoever died while it changed a queue is in nobody's way."""

_UNFINISHED = (State.SCHEDULED, State.BLOCKED, State.AVAILABLE, State.RUNNING)


class QueueStats(Struct, frozen=True):
    """A queue as it stands.

    Attributes:
        counts: jobs by state; every state is there.
        oldest: seconds for which the oldest available job has waited; None when none waits.
        rates: per second over the last full minute, by what happened (`completed`, `failed`, `retried` …).
        limits: what holds for the queue as a whole; None: nothing. limits_from: who said it, `code` or `run` (at run time, which
            wins). limits.closed: it takes no new jobs (`refuse`), or holds them back (`hold`), until it is resumed.
    """

    name: str
    paused: bool
    counts: dict[str, int]
    oldest: float | None
    rates: dict[str, float]
    limits: QueueLimits | None = None
    limits_from: Origin | None = None

    @property
    def closed(self) -> Literal["refuse", "hold"] | None:
        """What becomes of new jobs while it is being drained; None: it takes them."""
        return None if self.limits is None else self.limits.closed


class _Closing(Struct, frozen=True):
    """Kept while a queue is closed: since when, by the store's clock, and whether limits were set at run time before."""

    at: int
    said: bool


_CLOSING = "closing"


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
        """All queues that hold jobs, are paused, limited or had work within the hour, by name."""
        store = self._store()
        now, limits = store.now(), store.queue_limits()
        rows = {row.name: row for row in store.queues()}
        for name in limits:
            rows.setdefault(name, QueueRow(name, False, {}, None, {}))
        return [
            QueueStats(
                row.name,
                row.paused,
                {state.value: row.counts.get(state, 0) for state in State},
                None if row.oldest is None else max(0.0, (now - row.oldest) / SECOND),
                row.rates,
                *limits.get(name, (None, None)),
            )
            for name, row in sorted(rows.items())
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
        """Let workers take jobs from a queue again, and let it take new ones. False: it was neither paused nor closed."""
        opened = self._open(check_name("queue", name))
        return self._tap(name, paused=False) or opened

    async def aresume(self, name: str) -> bool:
        """Awaitable `resume`."""
        return await offload(self.resume, name)

    # -- limits ------------------------------------------------------------------------------------------------------

    def limit(self, name: str, **said: Unpack[Bounds]) -> QueueLimits:
        """Change the limits of a queue for everybody, at once, as `app.queue` declares them; None takes one away.

        From now on these hold, whatever the code says, until `unlimit`. What is not said stays as it is.

        Returns: the limits that hold now.
        Raises:
            ConfigError: a value makes no sense; nothing was changed.
        """
        bounded(check_name("queue", name), said, self._store().queue_limits().get(name, (None, None))[0])
        with self._alone(name) as store:
            before, _ = store.queue_limits().get(name, (None, None))
            limits = bounded(name, said, before)
            self._say(store, name, limits)
            closing = self._closing(store, name)
            if closing is not None:
                store.write(_CLOSING, name, json.encode(structs.replace(closing, said=True)))
        return limits

    async def alimit(self, name: str, **said: Unpack[Bounds]) -> QueueLimits:
        """Awaitable `limit`."""
        return await offload(self.limit, name, **said)

    def unlimit(self, name: str) -> None:
        """Forget what was said of a queue at run time: what its code declares holds again. A closed one stays closed."""
        with self._alone(check_name("queue", name)) as store:
            limits, origin = store.queue_limits().get(name, (QueueLimits(), "code"))
            if origin == "code":
                return
            closing = self._closing(store, name)
            if limits.closed is None:
                self._say(store, name, None)
                return
            code, _ = store.queue_limits(origin="code").get(name, (QueueLimits(), "code"))
            self._say(store, name, structs.replace(code, closed=limits.closed))  # at once: it is open at no moment
            if closing is not None:
                store.write(_CLOSING, name, json.encode(structs.replace(closing, said=False)))

    async def aunlimit(self, name: str) -> None:
        """Awaitable `unlimit`."""
        await offload(self.unlimit, name)

    # -- draining ----------------------------------------------------------------------------------------------------

    def drain(self, name: str, timeout: float | timedelta | None = None, *, new: Newcomers = "accept") -> int:
        """Wait until a queue has finished what is in it, as before a deploy that breaks its payloads.

        Workers must run. Scheduled jobs and retries to come are waited for, too.

        Args:
            timeout: seconds to wait at most; None waits for ever.
            new: what becomes of jobs enqueued meanwhile, and after it, until `resume`: `refuse` them (`QueueClosed`); `hold` them back,
                stored and `blocked`; or `accept` them: then they are waited for as well.
        Returns: how many unfinished jobs are left of those waited for: 0, or more when the time is up.
        """
        check_name("queue", name)
        deadline = None if timeout is None else time.monotonic() + seconds(timeout, "timeout")
        if new not in ("accept", "refuse", "hold"):
            raise ConfigError(f'drain(new={shown(new)}) must be "accept", "refuse" or "hold"')
        since = None if new == "accept" else self._close(name, new)
        while left := self._left(name, since if new == "hold" else None):
            pause = _LOOK if deadline is None else min(_LOOK, deadline - time.monotonic())
            if pause <= 0:
                break
            time.sleep(pause)
        return left

    async def adrain(self, name: str, timeout: float | timedelta | None = None, *, new: Newcomers = "accept") -> int:
        """Awaitable `drain`."""
        return await offload(self.drain, name, timeout, new=new)

    def _left(self, name: str, since: int | None) -> int:
        """Unfinished jobs of a queue; without those that were enqueued *since*, which wait for it to be opened.

        Those are counted first: what comes in between must not make the others look like none.
        """
        store = self._store()
        later = 0 if since is None else store.count(Filter(states=_UNFINISHED, queue=name, since=since))
        return max(0, store.count(Filter(states=_UNFINISHED, queue=name)) - later)

    def _close(self, name: str, how: Literal["refuse", "hold"]) -> int:
        """Close a queue; returns since when it is closed, by the store's clock."""
        with self._alone(name) as store:
            limits, origin = store.queue_limits().get(name, (QueueLimits(), "code"))
            closing = self._closing(store, name)
            if closing is None or limits.closed is None:
                closing = _Closing(store.now(), origin == "run")
                store.write(_CLOSING, name, json.encode(closing))
            if limits.closed != how:
                self._say(store, name, structs.replace(limits, closed=how))
        return closing.at

    def _open(self, name: str) -> bool:
        """Open a queue that was closed, and leave no trace of it: limits that code declares are the code's again."""
        if name not in self._store().queue_limits() and self._closing(self._store(), name) is None:
            return False
        with self._alone(name) as store:
            limits, _ = store.queue_limits().get(name, (QueueLimits(), "code"))
            closing = self._closing(store, name)
            if limits.closed is not None:
                own = closing is not None and not closing.said
                self._say(store, name, None if own else structs.replace(limits, closed=None))
            if closing is not None:
                store.erase(_CLOSING, name)
        return limits.closed is not None

    @contextmanager
    def _alone(self, name: str) -> Iterator[Store]:
        """A block in which nobody else changes what holds for a queue: it is read, changed and written. Its token ends by itself."""
        store, holder = self._store(), f"queues:{uuid4()}"
        while (delay := store.take([Gate("concurrency", f"dayjob.queue:{name}", 1)], holder, _ALONE)) is not None:
            time.sleep(min(delay, _LOOK))
        try:
            yield store
        finally:
            store.give(holder)

    def _closing(self, store: Store, name: str) -> _Closing | None:
        record = store.read(_CLOSING, name)
        return None if record is None else json.decode(record.value, type=_Closing)

    def _say(self, store: Store, name: str, limits: QueueLimits | None) -> None:
        store.limit_queue(name, limits, origin="run")
        store.notify("control")
        store.notify("work", name.encode())

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
