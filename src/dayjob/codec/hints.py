"""Type hints of tasks: resolved, and refused at decoration when no value of them could travel."""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from inspect import Parameter
from types import FrameType, NoneType, UnionType
from typing import Any, Generic, TypeVar, Union, get_args, get_origin
from uuid import UUID

from msgspec import Struct
from msgspec.inspect import CustomType, type_info

from dayjob.codec.envelope import is_model
from dayjob.codec.survey import LEAVES, Check, Refused
from dayjob.errors import ConfigError, NotSupported

T = TypeVar("T")


class Private(Generic[T]):
    """`Private[str]`: a value that is encrypted at rest and redacted wherever it is shown."""


def resolve(fn: Callable[..., Any], task: str) -> dict[str, Any]:
    """The type hints of *fn* with strings evaluated; `ConfigError` naming what cannot be found."""
    try:
        return typing.get_type_hints(fn, localns=_locals(), include_extras=True)
    except NameError as error:
        raise ConfigError(
            f"task {task!r}: a type hint uses the name {error.name!r}, which {fn.__module__} does not know at run time: "
            "import or define it above the task, outside `if TYPE_CHECKING`"
        ) from None
    except (TypeError, SyntaxError, AttributeError) as error:
        raise ConfigError(f"task {task!r}: a type hint cannot be evaluated: {error}") from None


def _locals() -> dict[str, Any]:
    """The names around the decorated function, for tasks that are defined inside a function."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("dayjob."):
        frame = frame.f_back
    return {} if frame is None or frame.f_code.co_name == "<module>" else dict(frame.f_locals)


def is_context(hint: Any) -> bool:
    """True for `JobContext` and `JobContext[State]`. A hint of it means that its module is loaded."""
    origin = get_origin(hint) or hint
    room = sys.modules.get("dayjob.context")
    return room is not None and isinstance(origin, type) and issubclass(origin, room.JobContext)


def check_hint(task: str, where: str, hint: Any) -> None:
    """Refuse a *hint* whose values have no JSON form: `ConfigError` naming *where*, and what to do."""
    if hint is Any or exact_kinds(hint):
        return
    _refuse_private(hint, where)
    if isinstance(hint, TypeVar):
        raise ConfigError(f"task {task!r}, {where}: a type variable says nothing about the value: write its type")
    try:
        info = type_info(hint)
    except (TypeError, ValueError, NameError) as error:
        raise ConfigError(f"task {task!r}, {where}: the type {_name(hint)} cannot travel as JSON: {error}") from None
    stranger = _stranger(info, set())
    if stranger is not None:
        raise ConfigError(
            f"task {task!r}, {where}: values of type {_name(stranger)} have no JSON form: "
            f"use plain types, a dataclass, or an id by which the task finds the {_name(stranger)}"
        )


def _refuse_private(hint: Any, where: str) -> None:
    if hint is Private or get_origin(hint) is Private:
        raise NotSupported("Private[...]", f"encryption is not part of this release ({where}); pass a reference")
    for inner in get_args(hint):
        _refuse_private(inner, where)


def _stranger(info: Any, seen: set[int]) -> Any:
    """The first type below *info* that neither msgspec nor Pydantic can write, or None."""
    if id(info) in seen:
        return None
    seen.add(id(info))
    if isinstance(info, CustomType):
        return None if is_model(info.cls) else info.cls
    if isinstance(info, tuple):
        parts: tuple[Any, ...] = info
    elif isinstance(info, Struct):
        parts = tuple(getattr(info, name) for name in info.__struct_fields__)
    else:
        return None
    for part in parts:
        found = _stranger(part, seen)
        if found is not None:
            return found
    return None


def _name(hint: Any) -> str:
    return getattr(hint, "__qualname__", None) or str(hint)


def _check_nul(value: str) -> None:
    if "\0" in value:
        raise Refused("NUL")  # the long way says it better


_KINDS: dict[Any, dict[type, Check | None]] = {
    kind: {kind: LEAVES[kind]} for kind in (float, bool, bytes, UUID, Decimal, datetime, date)
}
_KINDS[None] = _KINDS[NoneType] = {NoneType: None}
# What LEAVES checks beyond this, the writer refuses by itself: lone surrogates, ints of more than 4,300 digits.
_KINDS[str] = {str: _check_nul}
_KINDS[int] = {int: None}


def exact_kinds(hint: Any) -> dict[type, Check | None]:
    """Types whose values fit *hint* and arrive unchanged when their check passes; all others are looked at closely.

    Empty when *hint* is not made of scalars.
    """
    if get_origin(hint) in (Union, UnionType):
        parts = [exact_kinds(part) for part in get_args(hint)]
        return {kind: check for part in parts for kind, check in part.items()} if all(parts) else {}
    try:
        return _KINDS.get(hint, {})
    except TypeError:  # an unhashable hint (Literal or Annotated with a list inside)
        return {}


def check_annotated(parameters: list[Parameter], task: str) -> None:
    """Refuse parameters without a type hint: `ConfigError` with the line to write."""
    for p in parameters:
        if p.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            stars = "*" if p.kind is Parameter.VAR_POSITIONAL else "**"
            raise ConfigError(
                f"task {task!r}: {stars}{p.name} has no fixed payload: name the parameters, "
                "or take one list[...] or dict[str, ...]"
            )
        if p.annotation is p.empty:
            if p is parameters[0] and p.name in ("ctx", "context"):
                line = f"{p.name}: JobContext"
            elif p is parameters[0] and p.name in ("self", "cls"):
                raise ConfigError(f"task {task!r}: a method cannot be a task: make it a function")
            else:
                line = f"{p.name}: {_guess(p.default)}"
            raise ConfigError(f"task {task!r}: parameter {p.name!r} has no type hint: write `{line}`")


def _guess(default: Any) -> str:
    if default is Parameter.empty:
        return "int` (or whatever it is: str, Decimal, a dataclass …), as in `def task(amount: int)"
    name = "SomeType | None" if default is None else type(default).__name__
    return f"{name} = {default!r:.40}"
