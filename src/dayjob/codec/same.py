"""Round-trip equality: what a task receives equals what the caller passed, in value and in type."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from dayjob.codec.envelope import is_model
from dayjob.codec.survey import Refused, field_names
from dayjob.policies import shown


def same(sent: Any, received: Any, *, loose: bool = False) -> None:
    """Refuse *sent* when it would arrive as something else. `survey` has looked at it before.

    Equal are also: an int where a float is meant and the float is exact; an aware datetime and the same instant in
    another zone.

    Args:
        loose: tuples may arrive as lists (results without a type hint).
    """
    kind = type(sent)
    if kind is not type(received):
        _other_kind(sent, received, loose)
        if kind is not tuple:
            return
    if kind is list or isinstance(sent, tuple):
        if len(sent) != len(received):
            raise _changed(sent, received)
        for place, part in enumerate(sent):
            _part(f"[{place}]", part, received[place], loose)
    elif kind is dict:
        if len(sent) != len(received):
            raise _changed(sent, received)
        for (key, part), (got_key, got) in zip(sent.items(), received.items(), strict=True):
            _part(f"[key {shown(key, 30)}]", key, got_key, loose)
            _part(f"[{shown(key, 30)}]", part, got, loose)
    elif (names := None if is_model(kind) else field_names(kind)) is not None:
        for name in names:
            _part(f".{name}", getattr(sent, name), getattr(received, name), loose)
    elif not _equal(sent, received, kind):
        raise _changed(sent, received)


def _part(step: str, sent: Any, received: Any, loose: bool) -> None:
    try:
        same(sent, received, loose=loose)
    except Refused as refused:
        refused.steps.append(step)
        raise


def _equal(sent: Any, received: Any, kind: type) -> bool:
    if kind is datetime:
        # Python calls times that fall into the repeated hour of a zone unequal to every time of another zone.
        return bool(sent.astimezone(UTC) == received.astimezone(UTC))
    if kind is Decimal:
        return bool(sent.as_tuple() == received.as_tuple())
    if kind is set or kind is frozenset:
        return bool(sent == received) and sorted(map(_kind, sent)) == sorted(map(_kind, received))
    if isinstance(sent, Enum):
        return sent is received
    return bool(sent == received)


def _kind(value: Any) -> str:
    return type(value).__qualname__


def _other_kind(sent: Any, received: Any, loose: bool) -> None:
    if type(sent) is int and type(received) is float and sent == received:
        return
    if loose and type(sent) is tuple and type(received) is list:
        return
    article = "an" if _kind(sent)[0] in "aeiouAEIOU" else "a"
    if type(sent) is int and type(received) is float:
        raise Refused(f"the int {shown(sent)} would arrive as the float {received!r}: annotate the argument as int")
    raise Refused(
        f"{article} {_kind(sent)} would arrive as {_kind(received)}: "
        f"pass {_kind(received)}(...), or annotate the argument as {_kind(sent)}",
        invalid=True,
    )


def _changed(sent: Any, received: Any) -> Refused:
    return Refused(f"{shown(sent)} would arrive as {shown(received)}: pass it in another form", invalid=True)
