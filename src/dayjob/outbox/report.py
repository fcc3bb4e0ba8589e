"""What a relay tells of itself: a record in the queue's store, so that `stats` shows it wherever the store can be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from dayjob.clock import wall

if TYPE_CHECKING:
    from dayjob.store.contract import Records

KIND: Final = "outbox"
TTL: Final = 7 * 86_400.0
SILENT: Final = 60.0
"""Seconds after which a relay that says nothing is taken to be gone."""


class OutboxStats(Struct, frozen=True, kw_only=True):
    """One outbox, as its relay last told.

    Attributes:
        name: where it is. relay: host and process of the relay that works. at: stamp of that relay's wall clock.
        waiting: rows not delivered yet, counted up to 100,000. lag: age of the oldest of them in seconds.
        failed: rows that were set aside. delivered: rows since this relay took over.
        error: why it delivers nothing just now, or None. heard: seconds since it told that, as the reader's clock has it.
    """

    name: str
    relay: str
    at: int
    waiting: int
    lag: float
    failed: int
    delivered: int
    error: str | None = None
    heard: float = 0.0

    @property
    def silent(self) -> bool:
        """True when the relay should have been heard of since."""
        return self.heard > SILENT


def write(store: Records, stats: OutboxStats) -> None:
    """Tell everyone. Raises `StoreError`."""
    store.write(KIND, stats.name, msgspec.json.encode(stats), ttl=TTL)


def read(store: Records) -> list[OutboxStats]:
    """All outboxes that were heard of within a week, by name."""
    found = [msgspec.json.decode(record.value, type=OutboxStats) for record in store.list(KIND)]
    return [msgspec.structs.replace(one, heard=max(0.0, (wall() - one.at) / 1_000_000)) for one in found]
