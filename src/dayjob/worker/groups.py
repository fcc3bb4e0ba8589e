"""Which queues a worker takes from, and how many of their jobs run at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dayjob.worker.run import Slots

Queues = Mapping[str, int | None] | Sequence[str] | None
"""Names; names with a concurrency of their own (None: they share the worker's); None for all queues."""


def group_queues(queues: Queues, concurrency: int) -> list[Slots]:
    """One group of slots for each queue with a number of its own, and one for all the others."""
    if queues is None:
        return [Slots(None, concurrency)]
    if not isinstance(queues, Mapping):
        return [Slots(tuple(queues), concurrency)]
    own = [Slots((name,), limit) for name, limit in queues.items() if limit is not None]
    shared = tuple(name for name, limit in queues.items() if limit is None)
    return [*own, Slots(shared, concurrency)] if shared else own


def queue_names(queues: Queues) -> str:
    """*queues* for show: `mail:2,late`."""
    if queues is None:
        return "*"
    if isinstance(queues, Mapping):
        return ",".join(name if limit is None else f"{name}:{limit}" for name, limit in queues.items())
    return ",".join(queues)


def sendable(queues: Queues) -> Any:
    """*queues* as a child process can be told."""
    return dict(queues) if isinstance(queues, Mapping) else None if queues is None else list(queues)
