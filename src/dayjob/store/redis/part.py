"""What all parts of the engine share: the server, and the length of a lease."""

from __future__ import annotations

from dayjob.clock import SECOND
from dayjob.store.redis.server import Server

MINUTE = 60 * SECOND
ENOUGH = 1 << 20
"""Bytes that one script reads or writes, about, when the next job would make it more: no other client waits long for it."""


class Part:
    """A group of operations over one namespace."""

    def __init__(self, server: Server, lease: float) -> None:
        self.server = server
        self.lease = lease
        self.half = int(lease / 2 * SECOND)
