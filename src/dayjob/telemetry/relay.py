"""Passes this process's events on to whoever listens in other processes, and costs nothing while nobody does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dayjob.events import Bus, Event, encode
from dayjob.service import Service

if TYPE_CHECKING:
    from dayjob.store.contract import Signals

LOOK = 1.0


class Relay(Service):
    """Looks once a second whether somebody listens, and is subscribed only then."""

    def __init__(self, store: Signals, bus: Bus) -> None:
        super().__init__("relay", bus)
        self._store = store
        self._end: Callable[[], None] | None = None

    def tick(self) -> float:
        listening = self._store.listening("event", within=1.5 * LOOK)
        if listening and self._end is None:
            self._end = self.bus.subscribe("*", self._forward)
        elif not listening and self._end is not None:
            self._end()
            self._end = None
        return LOOK

    def stop(self) -> None:
        super().stop()
        if self._end is not None:
            self._end()
            self._end = None

    def _forward(self, event: Event) -> None:
        self._store.notify("event", encode(event))
