"""What a relay tells of itself: a record in the queue's store, so that `stats` shows it wherever the store can be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from typing import Protocol

    from dayjob.store.contract import Lifecycle, Records

    class Clocked(Records, Lifecycle, Protocol):
        """A store with its clock."""


KIND: Final = "outbox"
TTL: Final = 7 * 86_400.0
SILENT: Final = 60.0
"""Seconds after which a relay that says nothing is taken to be gone."""


class OutboxStats(Struct, frozen=True, kw_only=True):
    """One outbox, as its relay last told.

    Attributes:
        id: which outbox it is, kept in its own tables. name: where it is, as its relay sees that.
        relay: host and process of the relay that works. at: when it told this, by the store's clock.
        waiting: rows not delivered yet, counted up to 100,000. lag: age of the oldest of them in seconds.
        failed: rows that were set aside. delivered: rows since this relay took over.
        error: why it delivers nothing just now, or None. heard: seconds since it told that.
    """

    id: str
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
    store.write(KIND, stats.id, msgspec.json.encode(stats), ttl=TTL)


def forget(store: Records, id: str) -> None:
    """Take back what was told of the outbox *id*. Raises `StoreError`."""
    store.erase(KIND, id)


def read(store: Clocked) -> list[OutboxStats]:
    """All outboxes that were heard of within a week, by name."""
    found = [msgspec.json.decode(record.value, type=OutboxStats) for record in store.list(KIND)]
    now = store.now() if found else 0
    heard = [msgspec.structs.replace(one, heard=max(0.0, (now - one.at) / 1_000_000)) for one in found]
    return sorted(heard, key=lambda one: (one.name, one.id))
