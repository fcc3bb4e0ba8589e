"""Round-trip equality: what a task receives equals what the caller passed, in value and in type."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, NoReturn

from dayjob.codec.envelope import is_model
from dayjob.codec.survey import Refused, a_kind, field_names

_ATOMS = frozenset({type(None), bool, int, float, str, bytes})


def same(sent: Any, received: Any, *, loose: bool = False) -> None:
    """Refuse *sent* when it would arrive as something else. `survey` has looked at it before.

    Equal are also: an int where a float is meant, if the float is exact; an aware datetime and the same instant in
    another zone.

    Args:
        loose: tuples may arrive as lists (results without a type hint).
    """
    kind = type(sent)
    if kind is not type(received):
        _check_kinds(sent, received, loose)
        if kind is int:
            return
    if kind in _ATOMS:
        if sent != received:
            raise _changed(kind)
    elif isinstance(sent, (list, tuple)):
        _same_sequence(sent, received, loose)
    elif kind is dict:
        _same_dict(sent, received, loose)
    elif (names := None if is_model(kind) else field_names(kind)) is not None:
        for name in names:
            try:
                same(getattr(sent, name), getattr(received, name), loose=loose)
            except Refused as refused:
                refused.steps.append((kind, name))
                raise
    elif not _equal(sent, received, kind):
        raise _changed(kind)


def _same_sequence(sent: Sequence[Any], received: Sequence[Any], loose: bool) -> None:
    if len(sent) != len(received):
        raise _changed(type(sent))
    place = 0
    try:
        for place, part in enumerate(sent):
            same(part, received[place], loose=loose)
    except Refused as refused:
        refused.steps.append((type(sent), place))
        raise


def _same_dict(sent: dict[Any, Any], received: dict[Any, Any], loose: bool) -> None:
    if len(sent) != len(received):
        raise Refused("several of its keys would arrive as one: use str keys", invalid=True)
    key: Any = None
    try:
        for (key, part), (got_key, got) in zip(sent.items(), received.items(), strict=True):
            if key != got_key or type(key) is not type(got_key):
                _refuse_key(key, got_key)
            same(part, got, loose=loose)
    except Refused as refused:
        refused.steps.append((dict, key))
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


def _check_kinds(sent: Any, received: Any, loose: bool) -> None:
    if type(sent) is int and type(received) is float:
        if sent == received:
            return
        raise Refused("an int this large would arrive rounded to a float: annotate it as int", invalid=True)
    if loose and type(sent) is tuple and type(received) is list:
        return
    raise Refused(
        f"{a_kind(sent)} would arrive as {a_kind(received)}: pass that, or annotate it as {_kind(sent)}", invalid=True
    )


def _refuse_key(sent: Any, received: Any) -> NoReturn:
    if type(sent) is type(received):
        raise Refused("a key of the dict would arrive changed: use str keys", invalid=True)
    raise Refused(
        f"the key {a_kind(sent)} would arrive as {a_kind(received)}: use str keys, or annotate it as dict[{_kind(sent)}, ...]",
        invalid=True,
    )


def _changed(kind: type) -> Refused:
    return Refused(f"the {kind.__name__} would arrive changed: pass it in another form", invalid=True)
