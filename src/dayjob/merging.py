"""What `on_conflict="merge"` does when a key is held: the new call's arguments go into those of the job that holds it.

enqueue: existing ─▶ holder waits? ─▶ merge ─▶ edit, if nobody changed it meanwhile ─▶ merged
             ▲             └ no: it is left as it is          │ somebody did
             └────────────────────────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dayjob.codec import decode_untyped, encode_untyped
from dayjob.errors import ConfigError, StoreUnavailable
from dayjob.states import WAITING
from dayjob.store.records import Edit, Enqueued, Filter, NewRow

if TYPE_CHECKING:
    from dayjob.jobs import JobsManager
    from dayjob.store.contract import Store
    from dayjob.task import Task

TRIES = 1_000
"""Each time somebody else has changed the job, which is progress; past so many something is wrong."""


def merges(row: NewRow) -> bool:
    """True when *row* is to be merged into whoever holds its key."""
    gating = row.gating
    return gating is not None and gating.unique is not None and gating.unique.on_conflict == "merge"


def refuse_joined(row: NewRow, *, outbox: bool = False) -> None:
    """Refuse to merge in a caller's transaction: what was read of the job may have changed by its commit. Nor can an
    outbox raise: that the key is held is known only when the relay delivers."""
    unique = None if row.gating is None else row.gating.unique
    if outbox and unique is not None and unique.on_conflict == "raise":
        raise ConfigError(
            f'task {row.task!r}: on_conflict="raise" cannot be told through an outbox: the key is looked at when the relay '
            'delivers. Use on_conflict="existing"'
        )
    if merges(row):
        raise ConfigError(
            f'task {row.task!r}: on_conflict="merge" cannot be part of a transaction of yours: the job may change before '
            'you commit. Enqueue after it, or use on_conflict="replace"'
        )


def merged(
    store: Store,
    row: NewRow,
    found: Enqueued,
    again: Callable[[NewRow], Enqueued],
    jobs: JobsManager,
    limit: int,
) -> Enqueued:
    """What became of *row* in the end, whose key was held by `found.id`.

    Args:
        again: enqueues *row*, once more. jobs: knows the tasks whose code is here. limit: bytes of a payload.
    Raises:
        PayloadError: the merged arguments are too large. ConfigError: they make no key of a limit. The job is as it was.
    """
    task = jobs.task(row.task)
    for _ in range(TRIES):
        if found.outcome != "existing" or found.id in (None, row.id):
            return found
        assert found.id is not None
        holder = store.get(found.id)
        if holder is not None and holder.state not in WAITING:
            return found
        if holder is not None:
            payload = _payload(row.task, holder.payload, row.payload, task, limit)
            change = Edit(payload=payload, gating=jobs.regated(holder, payload))
            if payload == holder.payload or store.act(Filter(ids=(holder.id,), entry=holder.entry), change, limit=1):
                return Enqueued("merged", None, holder.id)
        found = again(row)
    raise StoreUnavailable(f"job {found.id} changed {TRIES:,} times while arguments were to be merged into it")


def _payload(name: str, old: bytes, new: bytes, task: Task[Any, Any] | None, limit: int) -> bytes:
    if task is None:
        return encode_untyped(name, join(_plain(old), _plain(new)), limit)
    signature = task.signature
    return signature.encode((), join(signature.arguments(old), signature.arguments(new)), limit)


def _plain(payload: bytes) -> Mapping[str, Any]:
    args = decode_untyped(payload)
    return args if isinstance(args, dict) else {}


def join(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments *old*, with *new* merged into them: lists and sets joined, mappings updated, else the newer."""
    made = dict(old)
    for name, value in new.items():
        had = made.get(name)
        if isinstance(had, list) and isinstance(value, list):
            made[name] = [*had, *value]
        elif isinstance(had, dict) and isinstance(value, dict):
            made[name] = {**had, **value}
        elif isinstance(had, (set, frozenset)) and isinstance(value, (set, frozenset)):
            made[name] = had | value
        else:
            made[name] = value
    return made
