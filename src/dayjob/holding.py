"""`app.limit(...)`: the limits of jobs around one call, in a job or outside of any.

    with app.limit(stripe): ...        take ─ none free: wait, ask again ─▶ the call ─▶ give back, whatever happens

What is taken is rows of the store, as a job's are: held by this block, renewed while it lasts, and free by themselves a minute
after its process is gone. Nobody interrupts a job while it takes and gives; what is left of a block that nobody names any more is
renewed no longer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from threading import Lock, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4
from weakref import WeakSet

from dayjob.clock import SECOND, seconds
from dayjob.context import RUNNING
from dayjob.errors import BreakerOpen, ConfigError, LimitTimeout, StoreError, shown
from dayjob.events import Bus, ServiceFailed
from dayjob.gatekeeper import gate_of
from dayjob.gating import Breaker, Concurrency, RateLimit
from dayjob.offload import offload
from dayjob.store.gating import Gate, Report
from dayjob.telemetry.breakers import tell

if TYPE_CHECKING:
    from dayjob.link import Link
    from dayjob.registry import Registry
    from dayjob.store.contract import Store

TTL = 60.0
"""Seconds after which what a dead process held is free."""
RENEWED = TTL / 4
LONGEST_LOOK = 1.0
"""Seconds between two looks at a limit at most: its number may be changed at any time."""

Limit = RateLimit | Concurrency | Breaker


class Holding:
    """One block of `app.limit(...)`: a context manager, sync and async, for one use at a time.

    Args:
        gates: what to hold. breaker: the one that hears how the call went. timeout: seconds to wait, None for ever.
    """

    def __init__(
        self,
        store: Callable[[], Store],
        bus: Bus,
        gates: Sequence[Gate],
        breaker: tuple[str, Breaker] | None,
        timeout: float | None,
    ) -> None:
        self._store, self._bus = store, bus
        self._gates, self._breaker, self._timeout = tuple(gates), breaker, timeout
        self._renewed = tuple(gate for gate in gates if gate.kind == "concurrency")
        self._lock = Lock()
        self._holder = ""

    # -- with ------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        until = self._begin()
        try:
            while (delay := self._take_whole()) is not None:
                time.sleep(self._pause(delay, until))
        except BaseException:
            with _undisturbed():
                self._give()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with _undisturbed():
            self._end(error)

    async def __aenter__(self) -> Self:
        until = self._begin()
        try:
            while (delay := await offload(self._take)) is not None:  # noqa: ASYNC110  # what frees it may be in another process
                await asyncio.sleep(self._pause(delay, until))
        except BaseException:
            await asyncio.shield(offload(self._give))  # also what a look took that nobody waits for any more
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await asyncio.shield(offload(self._end, error))

    # -- taking and giving -------------------------------------------------------------------------------------------

    def _begin(self) -> float | None:
        if self._holder:
            raise ConfigError("this app.limit(...) is entered already: make one for each block")
        self._holder = f"limit:{uuid4()}"
        return None if self._timeout is None else time.monotonic() + self._timeout

    def _take_whole(self) -> float | None:
        with _undisturbed():
            return self._take()

    def _take(self) -> float | None:
        """Take what there is to take; the seconds after which to ask again, or None when it is held."""
        with self._lock:
            if not self._holder or not self._gates:  # nobody waits any more; the job has it all
                return None
            store = self._store()
            delay = store.take(self._gates, self._holder, TTL)
            if delay is None:
                if self._renewed:
                    _RENEWER.add(self)
                return None
            if self._breaker is not None:
                self._refuse_open(store, self._breaker[0])
            return delay

    def _refuse_open(self, store: Store, key: str) -> None:
        """A call does not wait for what is broken: it fails at once."""
        for row in store.breakers():
            if row.key == key and row.state != "closed":
                left = None if row.until is None else max(0.0, (row.until - store.now()) / SECOND)
                raise BreakerOpen(key, left)

    def _pause(self, delay: float, until: float | None) -> float:
        delay = min(max(delay, 0.001), LONGEST_LOOK)
        if until is None:
            return delay
        left = until - time.monotonic()
        if left <= 0:
            raise LimitTimeout(tuple(f"{gate.kind} {gate.key}" for gate in self._gates), self._timeout or 0.0)
        return min(delay, left)

    def renew(self) -> None:
        """Hold what is held for longer."""
        with self._lock:
            if not self._holder:
                return
            try:
                self._store().take(self._renewed, self._holder, TTL)
            except (
                StoreError
            ) as error:  # it is tried again in time; if the store stays away, nobody else gets in either
                self._bus.emit(ServiceFailed(service="limit", error=str(error), traceback=""))

    def _give_back(self) -> None:
        with self._lock:
            holder, self._holder = self._holder, ""
            _RENEWER.discard(self)
            if holder and self._gates and self._store().give(holder):
                self._store().notify("work")

    def _end(self, error: BaseException | None) -> None:
        try:
            self._say(lambda: self._report(error))
        finally:  # whatever a predicate raises: what is held would be renewed for ever
            self._give()

    def _give(self) -> None:
        self._say(self._give_back)

    def _say(self, what: Callable[[], None]) -> None:
        """Tell the store something at the end. That it cannot be told must not make a call that was made look as if it had
        failed: tokens end by themselves, and one report more or less is none that a breaker hangs on."""
        try:
            what()
        except StoreError as error:
            self._bus.emit(ServiceFailed(service="limit", error=str(error), traceback=""))

    def _report(self, error: BaseException | None) -> None:
        if self._breaker is None or not (error is None or isinstance(error, Exception)):
            return
        key, said = self._breaker
        failed = error is not None and said.counts(error)
        report = Report(key, failed, said.failures, float(said.within), float(said.cooldown))  # type: ignore[arg-type]
        tell(self._bus, self._store().report([report]))


class _Renewer:
    """Renews what the blocks of this process hold, in one thread that is there while there are any."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._held: WeakSet[Holding] = WeakSet()
        self._thread: Thread | None = None

    def add(self, one: Holding) -> None:
        with self._lock:
            self._held.add(one)
            if self._thread is None or not self._thread.is_alive():  # a process that was forked has none
                self._thread = Thread(target=self._run, name="dayjob-limits", daemon=True)
                self._thread.start()

    def discard(self, one: Holding) -> None:
        with self._lock:
            self._held.discard(one)

    def _run(self) -> None:
        time.sleep(RENEWED)
        while self._renew():
            time.sleep(RENEWED)

    def _renew(self) -> bool:
        """False: nothing is held any more, and this thread is no longer the one."""
        with self._lock:
            held = list(self._held)
            if not held:
                self._thread = None
        for one in held:
            one.renew()
        return bool(held)


_RENEWER = _Renewer()


def _undisturbed() -> AbstractContextManager[None]:
    host = RUNNING.get()
    return nullcontext() if host is None else host.undisturbed()


def holding(
    store: Callable[[], Store],
    registry: Callable[[], Registry],
    bus: Bus,
    limits: Sequence[Limit],
    timeout: float | timedelta | None,
    values: Mapping[str, Any],
) -> Holding:
    """What `app.limit(...)` returns.

    Raises:
        ConfigError: no limit, something that is none, or a key whose values are not here.
    """
    if not limits:
        raise ConfigError("app.limit(...) takes what to hold: RateLimit(...), Concurrency(...), Breaker(...)")
    task, args, meta, own = _surroundings(registry)
    gates: dict[tuple[str, str], Gate] = {}
    breaker = None
    for one in limits:
        if not isinstance(one, (RateLimit, Concurrency, Breaker)):
            raise ConfigError(f"app.limit takes RateLimit(...), Concurrency(...) and Breaker(...), not {shown(one)}")
        gate = gate_of(one, task, {**args, **values}, meta)
        if gates.setdefault((gate.kind, gate.key), gate) != gate:
            raise ConfigError(f"app.limit: two limits have the key {shown(gate.key)}: give each a key of its own")
        if isinstance(one, Breaker):
            if breaker is not None:
                raise ConfigError("app.limit takes one Breaker: put one block into another")
            breaker = (gate.key, one)
            if gate.key == own:  # the job has passed it, and may be the one that probes it
                del gates[gate.kind, gate.key]
    return Holding(
        store, bus, tuple(gates.values()), breaker, None if timeout is None else seconds(timeout, "app.limit: timeout")
    )


def _surroundings(
    registry: Callable[[], Registry],
) -> tuple[str | None, Mapping[str, Any], Mapping[str, Any], str | None]:
    """Task, arguments, meta and the breaker's key of the job that runs here; nothing outside of one."""
    host = RUNNING.get()
    if host is None:
        return None, {}, {}, None
    context = host.context()
    known = registry()
    name, args = context.task, {}
    if name in known:
        task = known.get(name)
        name, args = task.name, task.signature.arguments(host.job.payload)
    own = None if host.breaker is None else gate_of(host.breaker, name, args, context.meta).key
    return name, args, context.meta, own


class Limiting:
    """The part of `App` that holds limits around calls."""

    _link: Link
    bus: Bus

    @property
    def registry(self) -> Registry:
        """The tasks."""
        raise NotImplementedError

    def limit(self, *limits: Limit, timeout: float | timedelta | None = None, **values: Any) -> Holding:
        """A block (`with`, `async with`) that holds limits around one call, in a job or outside of any.

        The same objects as for tasks, counted together with the jobs that have them. What is held is given back when the
        block ends, however it ends; a rate's token stays until its time.

        Args:
            limits: `RateLimit`, `Concurrency`, one `Breaker`: it hears how the block ends. One that the job itself has lets the
                block pass with it.
            timeout: seconds to wait at most; None waits for ever.
            values: for the names in the keys' templates; inside a job its arguments and meta are there, too.
        Raises:
            LimitTimeout: not free in time. BreakerOpen: the breaker is open; a call is not kept waiting for that.
            ConfigError: a key cannot be made. StoreError: the store cannot be asked.
        """
        return holding(self._link, lambda: self.registry, self.bus, limits, timeout, values)
