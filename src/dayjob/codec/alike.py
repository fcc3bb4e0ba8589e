"""Equal values make equal bytes, in every process, however they are spelled: what keys of uniqueness are made of.

`9.9` and `9.90`, noon in Berlin and the same moment in UTC, a set in whatever order: one and the same.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from msgspec import to_builtins
from msgspec.json import encode

from dayjob.codec.envelope import to_alike, write_alike

WIDEST = 40
"""Decimals of so many whole digits are still written without an exponent."""


def write_equal(value: Any) -> bytes:
    """*value* as JSON in one spelling; for comparing, not for reading back."""
    if type(value) is dict and _PLAIN.issuperset(map(type, value.values())):  # as most calls are, and ten times as fast
        return write_alike(value)
    return encode(
        _one_spelling(to_builtins(value, builtin_types=_KEPT, str_keys=True, enc_hook=to_alike, order=_ORDER))
    )


_PLAIN = frozenset({str, int, bool, type(None)})
_KEPT = (datetime, Decimal)
_ORDER: Any = "deterministic"


def _one_spelling(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {name: _one_spelling(item) for name, item in value.items()}
    if kind is list or kind is tuple:
        return [_one_spelling(item) for item in value]
    if kind is float:
        return value + 0.0  # there is one zero
    if kind is Decimal:
        return _digits(value)
    if kind is datetime and value.tzinfo is not None:
        try:
            return value.astimezone(UTC)
        except OverflowError:  # at the ends of the calendar
            return value
    return value


def _digits(value: Decimal) -> str:
    """*value* without the zeros that say nothing; exact, as `Decimal.normalize` is not."""
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):  # no number
        return str(value)
    text = "".join(map(str, digits)).lstrip("0")
    kept = text.rstrip("0")
    if not kept:
        return "0"
    exponent += len(text) - len(kept)
    if 0 < exponent <= WIDEST:
        kept, exponent = kept + "0" * exponent, 0
    return str(Decimal((sign, tuple(map(int, kept)), exponent)))
