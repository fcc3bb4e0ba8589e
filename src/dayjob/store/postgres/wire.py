"""Batches as array parameters: a whole column crosses as one value, made in one go.

psycopg's own lists are adapted element by element in Python, at about a microsecond each; these cost a tenth of that.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from psycopg import DataError, pq
from psycopg.adapt import Dumper

if TYPE_CHECKING:
    from psycopg.abc import AdaptContext

_BYTEA, _BYTEA_ARRAY, _INT8, _INT8_ARRAY, _UUID, _UUID_ARRAY = 17, 1001, 20, 1016, 2950, 2951
_header = struct.Struct("!iiIii").pack  # dimensions, has nulls, type of elements, length, lower bound
_length = struct.Struct("!i").pack
_NULL = _length(-1)
_SIXTEEN = _length(16)


class Blobs(list[bytes | None]):
    """A column of bytes, as `bytea[]`."""


class Bigints(list[int]):
    """A column of integers without nulls, as `bigint[]`."""


class Uuids(list[str]):
    """A column of UUIDs without nulls, given as text, as `uuid[]`."""


class BlobsDumper(Dumper):
    """`Blobs` in the binary format."""

    format = pq.Format.BINARY
    oid = _BYTEA_ARRAY

    def dump(self, obj: Blobs) -> bytes:
        if not obj:
            return _header(0, 0, _BYTEA, 0, 1)[:12]
        parts = [_header(1, 1, _BYTEA, len(obj), 1)]
        add = parts.append
        for blob in obj:
            if blob is None:
                add(_NULL)
            else:
                add(_length(len(blob)))
                add(blob)
        return b"".join(parts)


class BigintsDumper(Dumper):
    """`Bigints` in the binary format."""

    format = pq.Format.BINARY
    oid = _INT8_ARRAY

    def dump(self, obj: Bigints) -> bytes:
        if not obj:
            return _header(0, 0, _INT8, 0, 1)[:12]
        flat = [8] * (2 * len(obj))
        flat[1::2] = obj
        return _header(1, 0, _INT8, len(obj), 1) + struct.pack(f"!{'iq' * len(obj)}", *flat)


class UuidsDumper(Dumper):
    """`Uuids` in the binary format: the server would take three times as long to read them as text."""

    format = pq.Format.BINARY
    oid = _UUID_ARRAY

    def dump(self, obj: Uuids) -> bytes:
        if not obj:
            return _header(0, 0, _UUID, 0, 1)[:12]
        digits = sixteens(obj)
        parts = [_header(1, 0, _UUID, len(obj), 1)]
        add = parts.append
        for at in range(0, len(digits), 16):
            add(_SIXTEEN)
            add(digits[at : at + 16])
        return b"".join(parts)


def sixteens(ids: Sequence[str]) -> bytes:
    """*ids* in their 16 bytes each, one after the other."""
    try:
        digits = bytes.fromhex("".join(ids).replace("-", ""))
    except ValueError:
        digits = b""
    if len(digits) != 16 * len(ids):
        raise DataError("an id is no UUID")
    return digits


def plain(values: Iterable[Any]) -> str:
    """An array literal of values that need no quotes: numbers, UUIDs, booleans, None."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def words(values: Sequence[str | None]) -> str:
    """An array literal of texts, quoted. Columns of a batch mostly hold one word over and over."""
    known: dict[str | None, str] = {None: "NULL"}
    for value in set(values):
        if value is not None:
            known[value] = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "{" + ",".join([known[value] for value in values]) + "}"


def set_up(context: AdaptContext) -> None:
    """Teach a connection these types."""
    context.adapters.register_dumper(Blobs, BlobsDumper)
    context.adapters.register_dumper(Bigints, BigintsDumper)
    context.adapters.register_dumper(Uuids, UuidsDumper)


__all__ = ["Bigints", "Blobs", "Uuids", "plain", "set_up", "sixteens", "words"]
