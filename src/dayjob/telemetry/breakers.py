"""What is told of breakers, by whoever changed them."""

from __future__ import annotations

from collections.abc import Iterable

from dayjob.clock import SECOND
from dayjob.events import BreakerClosed, BreakerOpened, Bus
from dayjob.store.gating import BreakerRow


def tell(bus: Bus, changed: Iterable[BreakerRow]) -> None:
    """Emit that the breakers *changed* are as they are."""
    for row in changed:
        if row.state == "open":
            lasts = None if row.until is None else max(0.0, (row.until - row.since) / SECOND)
            bus.emit(BreakerOpened(key=row.key, failures=row.failures, seconds=lasts))
        elif row.state == "closed":
            bus.emit(BreakerClosed(key=row.key))
