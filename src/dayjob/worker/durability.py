"""What a worker says of its store when it starts: what a crash of it would lose, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dayjob.errors import StoreError
from dayjob.events import Bus, StoreDurability, StoreEndangered

if TYPE_CHECKING:
    from dayjob.store.contract import Store


def tell_durability(store: Store, bus: Bus, worker: str) -> None:
    """Emit what *store* keeps when something crashes, and a warning for each thing that may lose more.

    Asked only if somebody listens. A store that does not answer, or not to this user, is said to be unknown: that is no
    reason not to work.
    """
    if not (bus.wants("store.durability") or bus.wants("store.endangered")):
        return
    try:
        found = store.durability()
    except StoreError as error:
        bus.emit(StoreDurability(worker=worker, store=store.url, engine="?", crash_costs=f"unknown: {error}"))
        return
    bus.emit(StoreDurability(worker=worker, store=store.url, engine=found.engine, crash_costs=found.crash_costs))
    for warning in found.warnings:
        bus.emit(StoreEndangered(worker=worker, store=store.url, warning=warning))
