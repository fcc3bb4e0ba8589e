"""What all parts of the engine share: the server, and the length of a lease."""

from __future__ import annotations

from dayjob.clock import SECOND
from dayjob.store.redis.server import Server

MINUTE = 60 * SECOND


class Part:
    """A group of operations over one namespace."""

    def __init__(self, server: Server, lease: float) -> None:
        self.server = server
        self.lease = lease
        self.half = int(lease / 2 * SECOND)
