"""Waiting for jobs to finish: one listener thread per app, however many wait.

The thread hears the topic `done` and wakes those whose job is named. Signals may be lost, so it also asks the store
once a second about all jobs that someone waits for, in one question. It ends when nobody has waited for a while.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from threading import Event, Lock, Thread, current_thread
from typing import TYPE_CHECKING
from weakref import WeakSet

from dayjob.clock import seconds
from dayjob.errors import JobNotFound, StoreError, StoreUnavailable, WaitTimeout
from dayjob.offload import offload
from dayjob.states import TERMINAL
from dayjob.store.records import Filter, JobRow

if TYPE_CHECKING:
    from dayjob.store.contract import Listener, Store

POLL = 1.0
LINGER = 5.0
"""Seconds for which the thread stays when nobody waits: the next wait often follows soon."""

_FINISHED = tuple(TERMINAL)
_CHUNK = 500


class Waiting:
    """All waits of one app.

    Args:
        store: gives the store to ask.
    Attributes:
        guard: called before a wait without end; a test's refuses it where nothing would ever end it.
    """

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store
        self.guard: Callable[[], None] = lambda: None
        _ALL.add(self)
        self._reset()

    def _reset(self) -> None:
        self._lock = Lock()
        self._wakers: dict[str, list[Callable[[], object]]] = {}
        self._thread: Thread | None = None
        self._listener: Listener | None = None
        self._closing = Event()
        self._idle_since = 0.0

    def wait(self, id: str, timeout: float | timedelta | None) -> JobRow:
        """Block until job *id* has finished; its row.

        Raises:
            WaitTimeout: after *timeout* seconds. JobNotFound: there is no such job, or no longer.
        """
        deadline = _deadline(timeout)
        event = Event()
        with self._registered(id, event.set):
            while True:
                event.clear()
                if (row := self._look(id)) is not None:
                    return row
                if deadline is None:
                    self.guard()
                left = None if deadline is None else deadline - time.monotonic()
                if (left is not None and left <= 0) or not event.wait(left):
                    raise self._too_late(id, timeout)

    async def await_(self, id: str, timeout: float | timedelta | None) -> JobRow:
        """`wait` for a running loop, which it never blocks."""
        import asyncio

        deadline = _deadline(timeout)
        loop = asyncio.get_running_loop()
        event = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there any more
                loop.call_soon_threadsafe(event.set)

        with self._registered(id, wake):
            while True:
                event.clear()
                if (row := await offload(self._look, id)) is not None:
                    return row
                if deadline is None:
                    await offload(self.guard)
                try:
                    async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.monotonic())):
                        await event.wait()
                except TimeoutError:
                    raise await offload(self._too_late, id, timeout) from None

    def close(self) -> None:
        """Let go of the store now; the thread ends, or goes on with a new ear while someone still waits."""
        with self._lock:
            thread, listener = self._thread, self._listener
            self._closing.set()
        if listener is not None:
            listener.wake()
        if thread is not None and thread is not current_thread():
            thread.join(2 * POLL)

    def _look(self, id: str) -> JobRow | None:
        """The row when the job has finished; None while it has not, or while the store is away."""
        try:
            row = self._store().get(id)
        except StoreUnavailable:
            return None
        if row is None:
            raise JobNotFound(id)
        return row if row.state in TERMINAL else None

    def _too_late(self, id: str, timeout: float | timedelta | None) -> WaitTimeout:
        state: str | None = None
        with contextlib.suppress(StoreUnavailable):
            row = self._store().get(id)
            state = None if row is None else str(row.state)
        return WaitTimeout(id, seconds(timeout or 0.0, "timeout"), state)

    @contextlib.contextmanager
    def _registered(self, id: str, wake: Callable[[], object]) -> Iterator[None]:
        with self._lock:
            self._wakers.setdefault(id, []).append(wake)
            if self._thread is None:
                self._closing.clear()
                self._thread = Thread(target=self._listen, name="dayjob-waiting", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                wakers = self._wakers.get(id, [])
                if wake in wakers:
                    wakers.remove(wake)
                if not wakers:
                    self._wakers.pop(id, None)

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._idle_since = time.monotonic()
        while self._wanted():
            self._closing.clear()
            try:
                self._hear()
            except StoreError:
                # Everyone looks for himself: to learn of the error, or to wait until the store is back.
                self._wake(list(self._wakers))
                self._closing.wait(POLL)

    def _hear(self) -> None:
        """Wake those whose jobs finish, until nobody waits or we shall let go."""
        with contextlib.closing(self._store().listen(["done"])) as self._listener:
            try:
                asked = time.monotonic()
                while not self._closing.is_set() and self._wanted(keep=True):
                    for _, ids in self._listener.wait(POLL):
                        self._wake(ids.decode(errors="replace").split(","))
                    if time.monotonic() - asked >= POLL:
                        self._ask()
                        asked = time.monotonic()
            finally:
                self._listener = None

    def _wanted(self, *, keep: bool = False) -> bool:
        """False when the thread may end; its place is free then, unless *keep* says that it looks once more."""
        with self._lock:
            if self._wakers:
                self._idle_since = time.monotonic()
                return True
            if not self._closing.is_set() and time.monotonic() - self._idle_since < LINGER:
                return True
            if not keep:
                self._thread = None
            return False

    def _ask(self) -> None:
        with self._lock:
            ids = list(self._wakers)
        for start in range(0, len(ids), _CHUNK):
            chunk = tuple(ids[start : start + _CHUNK])
            finished = self._store().find(Filter(ids=chunk, states=_FINISHED), limit=len(chunk))
            self._wake(row.id for row in finished.jobs)

    def _wake(self, ids: Iterable[str]) -> None:
        with self._lock:
            wakers = [wake for id in ids for wake in self._wakers.get(id, ())]
        for wake in wakers:
            wake()


def _deadline(timeout: float | timedelta | None) -> float | None:
    return None if timeout is None else time.monotonic() + seconds(timeout, "timeout")


_ALL: WeakSet[Waiting] = WeakSet()


def _after_fork() -> None:
    for waiting in list(_ALL):
        waiting._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
