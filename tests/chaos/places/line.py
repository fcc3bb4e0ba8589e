"""A server of the run's own, behind a bad line."""

from __future__ import annotations

import time
from abc import abstractmethod
from pathlib import Path

from tests.chaos.places.place import Place
from tests.servers.proxy import Proxy


class Behind(Place):
    """A place whose workers and producers come through `proxy`.

    Attributes:
        dialect: what the operations are called in `tests.servers.wire.operations`.
    """

    dialect: str

    def __init__(self, folder: Path, proxy: Proxy) -> None:
        super().__init__(folder)
        self.proxy = proxy

    def crash(self) -> None:
        """Kill the store, and start it again."""
        self.kill()
        self.crashes.append(time.monotonic())
        self.start()

    @abstractmethod
    def kill(self) -> None:
        """The server is gone from one moment to the next."""

    @abstractmethod
    def start(self) -> None:
        """…and comes back; returns when it answers."""

    def close(self) -> None:
        self.proxy.close()
