"""A bounded look at values before they are written: what has no JSON form is named here, with the way to it.

`survey` costs at most as many steps as the payload may have bytes, so that neither a circle nor a list of a million
objects holds an `enqueue` up. It looks at values only; whether they fit the hints is for the reader to say, and
whether they would arrive unchanged for `same`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite
from typing import Any, Final
from uuid import UUID

from msgspec import Struct, UnsetType

from dayjob.codec.envelope import is_model
from dayjob.errors import shown

DEEPEST: Final = 100
"""Levels of nesting in a payload. More is data that belongs elsewhere; readers' stacks differ, so the bound is ours."""

WIDEST_INT: Final = 14_281
"""Bits of an int: 4,300 digits, Python's own bound for reading one."""


NOWHERE: Final = object()


class Refused(Exception):
    """A value cannot travel.

    Attributes:
        problem: in words. invalid: it does not fit its hint, rather than having no JSON form.
        large: bytes, when size is the problem. steps: the way to the culprit inside the argument, innermost first.
    """

    def __init__(self, problem: str, *, invalid: bool = False, large: int = 0) -> None:
        super().__init__(problem)
        self.problem, self.invalid, self.large = problem, invalid, large
        self.steps: list[tuple[type, object]] = []

    @property
    def path(self) -> str:
        """The place inside the argument, like `.lines[3].sku`; the middle of a long way is left out."""
        steps = [_step(*step) for step in reversed(self.steps[-6:])]
        return "".join(steps) + ("…" if len(self.steps) > 6 else "")


def _step(inside: type, place: object) -> str:
    if inside is dict:
        return f"[{shown(place, 30)}]"
    if issubclass(inside, (set, frozenset)):
        return f"{{{shown(place, 30)}}}"
    return f"[{place}]" if isinstance(place, int) else f".{place}"


def check_int(value: int) -> None:
    """Refuse an int that no reader would take."""
    if value.bit_length() > WIDEST_INT:
        raise Refused("an int of more than 4,300 digits cannot be read back: pass it as str or hex text")


def check_float(value: float) -> None:
    """Refuse NaN and infinities: JSON has none, and `null` would arrive instead."""
    if not isfinite(value):
        raise Refused(f"{value} has no JSON form: pass None or leave the value out")


def check_str(value: str) -> None:
    """Refuse what is no Unicode text, and NUL, which PostgreSQL's text and most C libraries cut or refuse."""
    if "\0" in value:
        raise Refused(f"the text holds a NUL character at {value.index(chr(0))}: remove it, or pass bytes")
    if value.isascii():
        return
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Refused(
            f"the text holds a lone surrogate (U+{ord(value[error.start]):04X} at {error.start}), which is no character: "
            "it was decoded with errors='surrogateescape'; pass bytes, or decode it with errors='replace'"
        ) from None


def check_decimal(value: Decimal) -> None:
    """Refuse NaN and infinities."""
    if not value.is_finite():
        raise Refused(f"Decimal {value} has no JSON form: pass None or leave the value out")


def check_datetime(value: datetime) -> None:
    """Refuse naive datetimes, and offsets that JSON's form (whole minutes) would change."""
    offset = value.utcoffset()
    if offset is None:
        raise Refused(
            f"the datetime {value.isoformat()} has no time zone, so its reader could not know when it is: "
            "use datetime.now(timezone.utc), or .replace(tzinfo=ZoneInfo(...))",
            invalid=True,
        )
    if offset.seconds % 60:
        raise Refused(
            f"the offset of {value.isoformat()} is no whole minute: convert it with .astimezone(timezone.utc)"
        )


def check_time(value: time) -> None:
    """Refuse times of day in a zone: without a date most zones have no offset."""
    if value.tzinfo is not None and value.utcoffset() is None:
        raise Refused(f"the time {value.isoformat()} would lose its zone: pass an aware datetime, or the zone as a str")


Check = Callable[[Any], None]
LEAVES: dict[type, Check | None] = {
    type(None): None,
    bool: None,
    int: check_int,
    float: check_float,
    str: check_str,
    bytes: None,
    bytearray: None,
    datetime: check_datetime,
    date: None,
    time: check_time,
    timedelta: None,
    UUID: None,
    Decimal: check_decimal,
    UnsetType: None,
}
"""The types of values without parts, and what refuses the ones that cannot travel."""


def survey(value: Any, limit: int) -> None:
    """Refuse *value* when something in it cannot travel, or when it surely takes more than *limit* bytes."""
    _Surveyor(limit).walk(value, 0)


class _Surveyor:
    __slots__ = ("foreign", "left", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = self.left = limit
        self.foreign = 0  # > 0 inside a model of Pydantic's, whose own types it writes by itself

    def walk(self, value: Any, depth: int) -> None:
        kind = type(value)
        self.left -= len(value) if kind is str or kind is bytes else 1
        if self.left < 0:
            raise Refused("too large", large=self.limit - self.left)
        check = LEAVES.get(kind, _container)
        if check is None:
            return
        if check is not _container:
            check(value)
            return
        if depth >= DEEPEST:
            raise Refused(f"it is nested more than {DEEPEST} levels deep, or contains itself: pass flat data")
        self.inside(value, kind, depth + 1)

    def inside(self, value: Any, kind: type, depth: int) -> None:
        place: object = NOWHERE
        try:
            if kind is list or kind is tuple:
                for place, part in enumerate(value):  # noqa: B007  # told when something is refused
                    self.walk(part, depth)
            elif kind is dict:
                for place, part in value.items():
                    if type(place) is not str or not place.isascii() or "\0" in place:
                        self.key(place)
                    self.walk(part, depth)
            else:
                for place, part in self.parts(value, kind):  # noqa: B007  # the same
                    self.walk(part, depth)
        except Refused as refused:
            if place is not NOWHERE:
                refused.steps.append((kind, place))
            raise

    def key(self, key: Any) -> None:
        check = LEAVES.get(type(key), _container)
        if check is _container and not isinstance(key, Enum):
            raise Refused(f"{a_kind(key)} as a key of a dict has no JSON form: use str keys, or pass a list of pairs")
        if check is not None and check is not _container:
            check(key)

    def parts(self, value: Any, kind: type) -> Iterator[tuple[object, Any]]:
        """The values inside *value*, each with its place there; objects that are no data are refused."""
        if kind is set or kind is frozenset:
            for part in value:
                yield part, part
        elif issubclass(kind, tuple) and hasattr(kind, "_fields"):
            yield from zip(kind._fields, value, strict=True)
        elif isinstance(value, Enum):
            if not isinstance(value.value, (str, int)):
                raise Refused(f"{shown(value)} has no JSON form: enums need values of str or int")
        elif (names := field_names(kind)) is not None:
            for name in names:
                if not hasattr(value, name):
                    raise Refused(f"the field {name!r} of {kind.__name__} was never set")
                yield name, getattr(value, name)
        elif is_model(kind):
            self.foreign += 1
            yield from vars(value).items()
            self.foreign -= 1
        elif not self.foreign:
            raise Refused(_stranger(value, kind))


def _container(value: Any) -> None:
    """Stands in `LEAVES.get` for what has parts, or is a stranger."""


def field_names(kind: type) -> tuple[str, ...] | None:
    """The fields of a dataclass, msgspec Struct or attrs class, else None."""
    found = _FIELDS.get(kind)
    if found is None and kind not in _FIELDS:
        if issubclass(kind, Struct):
            found = kind.__struct_fields__
        elif is_dataclass(kind):
            found = tuple(field.name for field in fields(kind))
        elif hasattr(kind, "__attrs_attrs__"):
            found = tuple(attribute.name for attribute in kind.__attrs_attrs__)
        if found is not None:
            _FIELDS[kind] = found
    return found


_FIELDS: dict[type, tuple[str, ...]] = {}


def a_kind(value: object) -> str:
    """The type of *value* with its article."""
    name = type(value).__name__
    return name if value is None else f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _stranger(value: Any, kind: type) -> str:
    """Why a value of a type that JSON does not know is refused, and what to do."""
    if isinstance(value, type):
        return f"the class {value.__qualname__} is code, not data: pass a name or an Enum"
    if isinstance(value, Coroutine):
        return "it is a coroutine that nobody awaited: await it (or is a decorator hiding an `async def`?)"
    if callable(value):
        return f"{a_kind(value)} is code, not data: pass a name, or make it a task of its own"
    for base in (bool, int, float, str, bytes, UUID, Decimal, datetime, date, dict, list, tuple, set, frozenset):
        if issubclass(kind, base):
            return f"{a_kind(value)} would arrive as a plain {base.__name__}: convert it with {base.__name__}(...)"
    return f"{a_kind(value)} has no JSON form: pass a dataclass, plain data, or an id by which the task finds it"
