"""Payloads without a signature: calls by name, `meta`, and what to show when the code is not here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NoReturn

from msgspec import DecodeError

from dayjob.codec.envelope import read_any, write
from dayjob.codec.survey import LEAVES, NOWHERE, Refused, a_kind, survey
from dayjob.errors import ConfigError, PayloadInvalid, PayloadNotSerializable, PayloadTooLarge, shown

VERSION_KEY: Final = "$v"
"""Where a payload names its version; absent in version 1. No parameter can have this name."""


def refuse(task: str, argument: str | None, refused: Refused, limit: int) -> NoReturn:
    """Raise the public error for *refused*, which was found in *argument*."""
    if refused.large:
        raise PayloadTooLarge(task, refused.large, limit) from None
    where = None if argument is None else argument + refused.path
    error = PayloadInvalid if refused.invalid else PayloadNotSerializable
    raise error(task, where, refused.problem) from None


def encode_untyped(task: str, args: Mapping[str, Any], limit: int, version: int = 1) -> bytes:
    """The payload of a call by name, without the task's code: *args* in their JSON forms.

    Scalars that have one JSON form (aware datetimes, Decimal, UUID, bytes …) are written in it.

    Raises:
        PayloadInvalid: *args* is no mapping by parameter name.
        PayloadNotSerializable: a value has no JSON form, or several. PayloadTooLarge: over *limit* bytes.
    """
    if not isinstance(args, Mapping):
        raise PayloadInvalid(task, None, f"arguments by name must be a mapping, not {type(args).__name__}")
    for name, value in args.items():
        if not str(name).isidentifier() or type(name) is not str:
            raise PayloadInvalid(task, shown(name, 40), "this can be no parameter's name")
        try:
            survey(value, limit)
            _plain(value)
        except Refused as refused:
            refuse(task, name, refused, limit)
    payload = write({VERSION_KEY: version, **args} if version > 1 else dict(args))
    if len(payload) > limit:
        raise PayloadTooLarge(task, len(payload), limit)
    return payload


def _plain(value: Any) -> None:
    """Refuse containers and objects that JSON does not know: without a hint nobody could tell them from its own."""
    kind = type(value)
    place: object = NOWHERE
    try:
        if kind is dict:
            for place, part in value.items():
                if type(place) is not str:
                    raise Refused("this key is no str, and JSON knows no other keys: use str keys")
                _plain(part)
        elif kind is list:
            for place, part in enumerate(value):  # noqa: B007  # told when something is refused
                _plain(part)
        elif kind not in LEAVES:
            raise Refused(
                f"{a_kind(value)} has no one JSON form: pass plain data (dict, list, str, numbers, bool, None)"
            )
    except Refused as refused:
        if place is not NOWHERE:
            refused.steps.append((kind, place))
        raise


def decode_untyped(encoded: bytes) -> Any:
    """Arguments by name (or a result) in their JSON forms; `ValueError` when *encoded* is no JSON."""
    try:
        data = read_any(encoded)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is no JSON: {error}") from None
    if isinstance(data, dict):
        data.pop(VERSION_KEY, None)
    return data


def encode_meta(meta: Mapping[str, Any], limit: int = 10_000) -> str:
    """*meta* as JSON text; `ConfigError` naming the key whose value cannot be stored."""
    if not isinstance(meta, Mapping):
        raise ConfigError(f"meta must be a mapping, not {type(meta).__name__} {shown(meta)}")
    return encode_plain("meta", dict(meta), limit).decode()


def encode_plain(what: str, value: Any, limit: int) -> bytes:
    """*value*, plain data, as JSON; it reads back equal, but for scalars of one JSON form (datetime, UUID, bytes …): as text.

    Raises:
        ConfigError: it has no JSON form, several, or is over *limit* bytes; names the place inside *what*.
    """
    try:
        survey(value, limit)
        _plain(value)
    except Refused as refused:
        if refused.large:
            raise ConfigError(f"{what} is over the limit of {limit:,} bytes: store a reference") from None
        raise ConfigError(f"{what}{refused.path}: {refused.problem}") from None
    encoded = write(value)
    if len(encoded) > limit:
        raise ConfigError(f"{what} has {len(encoded):,} bytes, the limit is {limit:,}: store a reference")
    return encoded
