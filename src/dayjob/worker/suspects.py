"""Suspects run alone: one child process at a time, with a worker of its own that claims nothing else.

A suspect was in a process that crashed. It, or one of its former neighbours, may crash the next one too; there it is
alone, and its parent sees it die. That crash counts, and harms nobody (P5).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dayjob.events import Bus, ProcessDied
from dayjob.service import Service
from dayjob.worker.channel import Failed, Hello, Ran
from dayjob.worker.launch import Child, Death, Launcher

if TYPE_CHECKING:
    from dayjob.store.contract import Cluster
    from dayjob.store.records import Gone

IDLE = 3600.0
LOOK = 0.5
LONGEST = 60.0
"""Seconds until the next child starts, when one after the other found nothing it might claim."""


class Suspects(Service):
    """Keeps a solo child as long as suspects wait.

    Args:
        options: for the child's worker.
        on_gone: told what the store took from a child that died. on_end: told when a child has ended, however.
    """

    longest_backoff = 30.0

    def __init__(
        self,
        launch: Launcher,
        store: Cluster,
        bus: Bus,
        options: dict[str, Any],
        on_gone: Callable[[Gone, str], None],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__("suspects", bus)
        self._launch, self._store, self._options = launch, store, options
        self._on_gone, self._on_end = on_gone, on_end
        self._wanted = False
        self._child: Child | None = None
        self._incarnations: list[str] = []
        self._barren = 0
        self._not_before = 0.0

    @property
    def busy(self) -> bool:
        """True while a child runs, or should."""
        return self._child is not None or self._wanted

    def wait_for(self) -> bool:
        """Suspects wait in the store: see to it that a child runs; False when the last one found none it might claim.

        Then their queues are paused, or others run them: the next one starts after a while. From any thread.
        """
        if not self.busy:
            if time.monotonic() < self._not_before:
                return False
            self._wanted = True
            if not self.running:
                self.start()
            self.kick()
        return True

    def stop(self) -> None:
        self._wanted = False
        child = self._child
        if child is not None:
            child.stop()
        super().stop()

    def hurry(self) -> None:
        """No more grace for the child."""
        child = self._child
        if child is not None:
            child.stop(now=True)

    def tick(self) -> float:
        """Start a child if one is wanted, and stay with it to its end."""
        if self._child is None:
            if not self._wanted or self.stopping:
                return IDLE
            self._start_child()
        assert self._child is not None
        child = self._child
        error, ran = self._listen(child)
        death = child.reap()
        assert death is not None
        self._bury(child, death)
        self._barren = 0 if ran or not child.orderly else self._barren + 1
        self._not_before = time.monotonic() + (min(LONGEST, 2.0**self._barren) if self._barren else 0.0)
        self._child = None
        self._on_end()
        if error or not child.orderly:
            if error:
                raise RuntimeError(f"the process for suspects could not start: {error}")
            return 0.2
        return IDLE if not self._wanted else 0.0

    def _start_child(self) -> None:
        self._incarnations = []
        self._child = self._launch("solo", self._options)
        self._wanted = False
        if self.stopping:  # said while it was being started
            self._child.stop()

    def _listen(self, child: Child) -> tuple[str, int]:
        error, ran = "", 0
        while True:
            try:
                message = child.receive(LOOK)
            except TimeoutError:
                continue
            if message is None:
                return error, ran
            if isinstance(message, Hello):
                self._incarnations.append(message.worker)
            elif isinstance(message, Ran):
                ran = message.jobs
            elif isinstance(message, Failed):
                error = message.error

    def _bury(self, child: Child, death: Death) -> None:
        """The child is gone: what it held goes back at once.

        A crash is a death without a goodbye, whatever the exit code, of a child that was not told to stop.
        """
        crashed = not (child.orderly or child.stopping)
        peak = "" if death.peak_mb is None else f", held up to {death.peak_mb:.0f} MB"
        for worker in self._incarnations:
            gone = self._store.leave(worker, death=f"{death.how}{peak}" if crashed else None)
            if gone is not None and crashed:
                self._on_gone(gone, death.how)
        if not child.orderly:
            self.bus.emit(ProcessDied(role="solo", pid=child.pid, death=death.how, peak_mb=death.peak_mb))
