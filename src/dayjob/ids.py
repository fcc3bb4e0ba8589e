"""Job ids: UUIDv7 text, made by the producer (P9), rising within a process.

The first 48 bits are the wall clock's milliseconds, so that ids sort by age and an index on them grows at its end;
74 bits are random per millisecond and process, the last 48 of them counted up within it (RFC 9562, section 6.2,
method 2). The time in an id is for show and order only: what is due is the store's to say (P6).
"""

from __future__ import annotations

import os
import re
import time
import uuid
from threading import Lock

from dayjob.errors import ConfigError, shown

_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_LOW = 1 << 48


class IdMaker:
    """Makes UUIDv7 texts that rise within this object; from any thread. Not for use after a fork: `reset` first."""

    __slots__ = ("_lock", "_low", "_millisecond", "_prefix")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew with fresh random bits, as a forked child must: it would repeat its parent's ids."""
        self._lock = Lock()
        self._millisecond = 0
        self._prefix = ""
        self._low = 0

    def one(self) -> str:
        """The next id."""
        millisecond = time.time_ns() // 1_000_000
        with self._lock:
            if millisecond > self._millisecond or not self._prefix:
                self._draw(millisecond)
            self._low += 1
            return f"{self._prefix}{self._low:012x}"

    def many(self, count: int) -> list[str]:
        """The next *count* ids, cheaper by the dozen: they share one look at the clock."""
        millisecond = time.time_ns() // 1_000_000
        with self._lock:
            if millisecond > self._millisecond or not self._prefix:
                self._draw(millisecond)
            prefix, first = self._prefix, self._low + 1
            self._low += count
        return [f"{prefix}{low:012x}" for low in range(first, first + count)]

    def _draw(self, millisecond: int) -> None:
        """Start a new millisecond. The lowest part starts in its lower half: it has 2^47 ids before it could run over."""
        bits = int.from_bytes(os.urandom(10), "big")
        self._millisecond = millisecond
        self._low = bits & (_LOW // 2 - 1)
        first, second = bits >> 48 & 0xFFF, bits >> 60 & 0x3FFF
        self._prefix = f"{millisecond >> 16:08x}-{millisecond & 0xFFFF:04x}-7{first:03x}-{0x8000 | second:04x}-"


_maker = IdMaker()
new_id = _maker.one
new_ids = _maker.many
os.register_at_fork(after_in_child=_maker.reset)


def check_id(value: object) -> str:
    """*value*, a UUID of any version as text or object, in canonical form; anything else is a `ConfigError`."""
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, str):
        if _CANONICAL.fullmatch(value):
            return value
        try:
            if len(value) <= 45:
                return str(uuid.UUID(value))
        except ValueError:
            pass
    raise ConfigError(
        f"id={shown(value)} is not a UUID: pass uuid.uuid4(), uuid.uuid5(namespace, your_key), or leave id= out"
    )
