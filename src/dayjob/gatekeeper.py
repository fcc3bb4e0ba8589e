"""From what was declared for a job to its row's `Gating`: keys are rendered, and each limit becomes a gate.

Declared ── arguments, meta ──▶ Gating(unique, lane, gates)         None for a job that waits for nothing
            other arguments ──▶ the same job's, rendered anew
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from dayjob.codec import decode_untyped
from dayjob.errors import ConfigError, shown
from dayjob.gating import Breaker, Concurrency, Debounce, Declared, Lane, RateLimit, Throttle, key_of
from dayjob.store.gating import Gate, Gating
from dayjob.store.gating import Unique as UniqueRow

if TYPE_CHECKING:
    from dayjob.task import NewJob

_NONE: Mapping[str, Any] = {}


def gating_of(new: NewJob[Any]) -> Gating | None:
    """What *new* waits for, by its arguments and the meta it has now.

    Raises:
        ConfigError: a key cannot be made: a value is missing, or it is no key.
    """
    declared = new.gating
    if declared is None:
        return None
    name = new.task_name
    if declared.made is not None and declared.made[0] == name:
        made: Gating = declared.made[1]
        return made
    args = arguments(new) if declared.reads else _NONE
    gating = Gating(
        _unique(declared, name, args, new.meta),
        None if declared.lane is None else key_of(declared.lane, name, args, new.meta),
        1 if declared.lane is None else declared.lane.weight,
        _gates(declared, name, args, new.meta),
    )
    if declared.fixed:
        declared.made = (name, gating)
    return gating


def arguments(new: NewJob[Any]) -> Mapping[str, Any]:
    """The arguments of *new* by name: as the task gets them, defaults included; without its code as they were given."""
    if new.task is not None:
        return new.task.signature.arguments(new.payload)
    args = decode_untyped(new.payload)
    return args if isinstance(args, dict) else {}


def regated(
    gating: Gating,
    declared: Declared,
    task: str,
    meta: Mapping[str, Any],
    old: Mapping[str, Any],
    new: Mapping[str, Any],
) -> Gating:
    """*gating* of a job of *task* whose arguments were *old* and become *new*: what *declared* made of the old ones is
    made of the new ones. The rest was said for this job alone, and stays; so does its unique key.

    Raises:
        ConfigError: a key cannot be made of *new*.
    """
    keys: dict[tuple[str, str], str] = {}
    for one in (declared.breaker, declared.lane, *declared.limits):
        if one is not None and (before := _rendered(one, task, old, meta)) is not None:
            keys[_name(before)] = key_of(one, task, new, meta)
    return replace(
        gating,
        lane=None if gating.lane is None else keys.get(("order", gating.lane), gating.lane),
        gates=_in_order(task, [replace(gate, key=keys.get(_name(gate), gate.key)) for gate in gating.gates]),
    )


def _rendered(
    one: Concurrency | RateLimit | Breaker | Lane, task: str, args: Mapping[str, Any], meta: Mapping[str, Any]
) -> Gate | None:
    """The gate that *one* was; None where its key cannot be made of these, as of the arguments of an older release."""
    try:
        return gate_of(one, task, args, meta)
    except ConfigError:
        return None


def gate_of(
    one: Concurrency | RateLimit | Breaker | Lane, task: str | None, args: Mapping[str, Any], meta: Mapping[str, Any]
) -> Gate:
    """The gate that *one* is for a job (or a call) with these values; a lane is one when it is strict."""
    key = key_of(one, task, args, meta)
    if isinstance(one, RateLimit):
        return Gate("rate", key, one.limit, float(one.per))  # type: ignore[arg-type]  # a float since it was checked
    if isinstance(one, Concurrency):
        return Gate("concurrency", key, one.limit)
    return Gate("breaker" if isinstance(one, Breaker) else "order", key)


def _gates(declared: Declared, task: str, args: Mapping[str, Any], meta: Mapping[str, Any]) -> tuple[Gate, ...]:
    strict = declared.lane is not None and declared.lane.order == "strict"
    parts = (declared.breaker, declared.lane if strict else None, *declared.limits)
    return _in_order(task, [gate_of(one, task, args, meta) for one in parts if one is not None])


def _in_order(task: str, gates: Iterable[Gate]) -> tuple[Gate, ...]:
    """In one order whatever the order of the options: jobs of the same gates form one line."""
    ordered = sorted(gates, key=_name)
    for first, second in pairwise(ordered):
        if _name(first) == _name(second):
            raise ConfigError(
                f"task {task!r}: two limits of this job have the key {shown(first.key)}: give each a key of its own"
            )
    return tuple(ordered)


def _name(gate: Gate) -> tuple[str, str]:
    return gate.kind, gate.key


def _unique(declared: Declared, task: str, args: Mapping[str, Any], meta: Mapping[str, Any]) -> UniqueRow | None:
    said = declared.unique
    if said is None:
        return None
    hash, key = declared.unique_key(task, args, meta)
    if isinstance(said, Debounce):
        # A job that has started does not see what comes now: from then on the next one is due.
        latest = None if said.max_wait is None else float(said.max_wait)  # type: ignore[arg-type]
        return UniqueRow(hash, key, "started", None, "replace", latest)
    if isinstance(said, Throttle):
        return UniqueRow(hash, key, "expired", float(said.every))  # type: ignore[arg-type]
    ttl = None if said.ttl is None else float(said.ttl)  # type: ignore[arg-type]
    return UniqueRow(hash, key, said.until, ttl, said.on_conflict)
