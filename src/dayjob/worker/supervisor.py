"""N worker processes: started, replaced when they die or ask for it, stopped together.

    start ──▶ running ──Leaving(again)──▶ draining, its successor starts at once
                │ died: told to the store at once (its jobs need not wait for the lease), started again with back-off
                └ stop: Stop to all; a second signal: Stop(now) to all; after grace and some seconds: SIGKILL

The supervisor runs no user code and opens the store only when there is something to report to it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dayjob.errors import StoreError
from dayjob.events import Bus, ProcessDied, ProcessRecycled, SupervisorStopping
from dayjob.services.duties import tell_gone
from dayjob.worker.channel import Failed, Hello, Leaving
from dayjob.worker.launch import Child, Launcher

if TYPE_CHECKING:
    from dayjob.store.contract import Store

SHORTEST, LONGEST = 0.5, 30.0
"""Seconds of back-off after a death: doubled each time, forgotten after a minute of good work."""
GOOD_WORK = 60.0
OVERTIME = 15.0
"""Seconds past its grace after which a child that was told to stop is killed."""


class Seat:
    """The place of one worker process, and who sits there now."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.child: Child | None = None
        self.incarnations: list[str] = []
        self.failures = 0
        self.start_at = 0.0


class Supervisor:
    """Keeps *processes* workers going.

    Args:
        launch: starts a child of a role.
        store: gives the store, for deaths.
        options: for the children's workers (`queues`, `concurrency`, `grace`, `max_jobs`, `max_memory`).
        changed: for reloading: says now and then whether the code changed.
    Attributes:
        unstartable: the error of a child that could not start at all, when the very first one could not.
    """

    def __init__(
        self,
        launch: Launcher,
        store: Callable[[], Store],
        bus: Bus,
        *,
        processes: int,
        options: dict[str, Any],
        grace: float = 25.0,
        changed: Callable[[], str | None] | None = None,
    ) -> None:
        self._launch, self._store, self._bus = launch, store, bus
        self._options, self._grace, self._changed = options, grace, changed
        self._seats = [Seat(number) for number in range(processes)]
        self._leaving: list[Seat] = []
        self._stopping = 0
        self._deadline = 0.0
        self._ever_ready = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._why = ""
        self.unstartable = ""

    # -- the way to run it ---------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Supervise until stopped by a signal or `stop()`; returns 0, or 1 when no child could start."""
        before = {number: signal.signal(number, self._signalled) for number in (signal.SIGTERM, signal.SIGINT)}
        wakeup = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        try:
            while not self._over():
                self.tick()
            return 1 if self.unstartable else 0
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            for seat in [*self._seats, *self._leaving]:
                if seat.child is not None:
                    seat.child.kill()
                    seat.child.reap()

    def stop(self) -> None:
        """Stop all children in order; called again: at once. From any thread or signal handler."""
        self._stopping += 1
        self._why = self._why or "stop()"
        with contextlib.suppress(BlockingIOError):  # it is awake already
            os.write(self._wake_write, b"\0")

    def _signalled(self, number: int, frame: object) -> None:
        self._stopping += 1
        self._why = signal.Signals(number).name

    @property
    def children(self) -> list[Child]:
        """The processes there are, also those that drain."""
        return [seat.child for seat in (*self._seats, *self._leaving) if seat.child is not None]

    def _over(self) -> bool:
        return (bool(self._stopping) or bool(self.unstartable)) and not self.children

    # -- one round -----------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Start who is missing, hear the children, bury the dead; waits up to half a second for news."""
        now = time.monotonic()
        if self._stopping or self.unstartable:
            self._tell_to_stop(now)
        else:
            why = self._changed() if self._changed is not None else None
            if why is not None:
                self._reload(why)
            for seat in self._seats:
                if seat.child is None and now >= seat.start_at:
                    seat.incarnations = []
                    seat.child = self._launch("worker", dict(self._options))
        self._hear(0.5)
        for seat in [*self._seats, *self._leaving]:
            self._bury(seat)

    def _hear(self, patience: float) -> None:
        """Read what the children say, and wake when one's channel closes: it is gone then."""
        by_fd = {seat.child.channel.fileno(): seat for seat in (*self._seats, *self._leaving) if seat.child is not None}
        poll = select.poll()
        for fd in (*by_fd, self._wake_read):
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(patience * 1000):
            if fd == self._wake_read:
                _drain(fd)
            else:
                self._hear_one(by_fd[fd])

    def _hear_one(self, seat: Seat) -> None:
        child = seat.child
        assert child is not None
        for message in _messages(child):
            if isinstance(message, Hello):
                seat.incarnations.append(message.worker)
                self._ever_ready = True
            elif isinstance(message, Leaving) and message.again and seat in self._seats and not self._stopping:
                self._bus.emit(ProcessRecycled(pid=child.pid, why=message.why))
                self._replace(seat)
            elif isinstance(message, Failed) and not self._ever_ready and self._changed is None:
                self.unstartable = message.error

    def _replace(self, seat: Seat) -> None:
        """Let *seat*'s child drain beside its successor."""
        self._leaving.append(seat)
        self._seats[self._seats.index(seat)] = Seat(seat.number)

    def _reload(self, why: str) -> None:
        """New code: all children end in order and are followed by new ones."""
        for seat in list(self._seats):
            if seat.child is not None:
                self._bus.emit(ProcessRecycled(pid=seat.child.pid, why=why))
                seat.child.stop()
                self._replace(seat)
            seat.start_at = 0.0

    def _tell_to_stop(self, now: float) -> None:
        if not self._deadline:
            self._deadline = now + self._grace + OVERTIME
            self._bus.emit(SupervisorStopping(why=self._why or self.unstartable, processes=len(self.children)))
            for child in self.children:
                child.stop()
        if self._stopping > 1:
            self._deadline = min(self._deadline, now + OVERTIME)
            for child in self.children:
                child.stop(now=True)
            self._stopping = 1  # each further signal says it again
        if now >= self._deadline:
            for child in self.children:
                child.kill()

    # -- deaths --------------------------------------------------------------------------------------------------------

    def _bury(self, seat: Seat) -> None:
        child = seat.child
        if child is None:
            return
        if child.reap(wait=False, close=False) is None:
            return
        self._hear_one(seat)  # its last words
        death = child.reap()
        assert death is not None
        seat.child = None
        if seat in self._leaving:
            self._leaving.remove(seat)
        if child.orderly:
            seat.failures = 0
        else:
            good = time.monotonic() - child.started > GOOD_WORK
            seat.failures = 1 if good else seat.failures + 1
            delay = 0.0 if seat.failures == 1 else min(LONGEST, SHORTEST * 2 ** (seat.failures - 2))
            seat.start_at = time.monotonic() + delay
            self._bus.emit(
                ProcessDied(
                    role="worker",
                    pid=child.pid,
                    death=death.how,
                    peak_mb=death.peak_mb,
                    restart_in=None if self._stopping or self.unstartable else delay,
                )
            )
        if not child.orderly:  # such a one has left by itself; what it could not settle, the rescue records
            peak = "" if death.peak_mb is None else f", held up to {death.peak_mb:.0f} MB"
            self._report(seat, None if child.stopping else f"{death.how}{peak}")

    def _report(self, seat: Seat, death: str | None) -> None:
        """Give the dead child's jobs back at once: without a *death*, nobody is to blame. A store that does not answer will find out by the lease."""
        for worker in seat.incarnations:
            try:
                gone = self._store().leave(worker, death=death)
            except StoreError:
                continue
            if gone is not None:
                if death is not None:
                    tell_gone(self._bus, gone, death, None)
                self._store().notify("work")


def _messages(child: Child) -> list[Any]:
    """All frames that are there now."""
    found: list[Any] = []
    while True:
        try:
            message = child.receive(0.0)
        except TimeoutError:
            return found
        if message is None:
            return found
        found.append(message)


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        return
