"""The one place where bytes leave and enter: every payload, result and error is written and read through here.

What is to hold for all of them (encryption at rest, compression) belongs here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from msgspec import Struct
from msgspec.json import Decoder, Encoder, encode

T = TypeVar("T")


def writer() -> Callable[[Any], bytes]:
    """A function that writes a value as JSON; fast, to be kept."""
    return Encoder(enc_hook=_to_builtins).encode


def reader(hint: type[T] | Any) -> Callable[[bytes], T]:
    """A function that reads JSON as *hint* says; raises `msgspec.DecodeError`. To be kept."""
    return cast("Callable[[bytes], T]", Decoder(hint, dec_hook=_from_builtins).decode)


def is_model(kind: object) -> bool:
    """True for Pydantic's models, which know their own JSON form; found without importing Pydantic."""
    return isinstance(kind, type) and hasattr(kind, "__pydantic_validator__") and hasattr(kind, "model_validate_json")


def _to_builtins(value: Any) -> Any:
    if is_model(type(value)):
        return value.model_dump(mode="json", by_alias=True, round_trip=True)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def to_alike(value: Any) -> Any:
    """As a writer sees *value*, but of a model that holds sets they are in order, and not in that of this process."""
    form = _to_builtins(value)
    return _in_order(form, value.model_dump(by_alias=True, round_trip=True))


def _in_order(form: Any, value: Any) -> Any:
    """The JSON *form* of *value*, where this is plain Python, with its sets in order."""
    if isinstance(value, (set, frozenset)) and isinstance(form, list):
        return sorted(form, key=write_alike)
    if isinstance(value, dict) and isinstance(form, dict) and len(value) == len(form):
        return {name: _in_order(one, own) for (name, one), own in zip(form.items(), value.values(), strict=True)}
    if isinstance(value, (list, tuple)) and isinstance(form, list) and len(value) == len(form):
        return [_in_order(one, own) for one, own in zip(form, value, strict=True)]
    return form


def _from_builtins(kind: type, value: Any) -> Any:
    if is_model(kind):
        return cast("Any", kind).model_validate_json(
            encode(value)
        )  # not model_validate: strict models read JSON only so
    raise TypeError(f"{kind.__name__} has no JSON form")


class Failure(Struct, frozen=True):
    """An error as it is stored: text, never an object.

    Attributes:
        type: the dotted name of its class. message: `str(error)`. traceback: formatted, the newest part when cut.
    """

    type: str
    message: str = ""
    traceback: str = ""


write: Callable[[Any], bytes] = writer()
write_alike: Callable[[Any], bytes] = Encoder(enc_hook=to_alike, order="deterministic").encode
"""As `write`, but the same in every process: sets and mappings are written in order."""
read_any: Callable[[bytes], Any] = reader(Any)
