"""Errors as stored: text, bounded, whatever the exception does."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import DecodeError

from dayjob.codec.envelope import Failure, reader, write

_MESSAGE: Final = 2_000
_TYPE: Final = 200
_MACHINERY: Final = str(Path(__file__).parents[1] / "worker")


def encode_failure(exc: BaseException, limit: int) -> bytes:
    """*exc* with its traceback, causes and notes as bytes; never raises.

    Args:
        limit: bytes of traceback text kept; of a longer one the end, which names the error and the innermost calls.
    """
    return write(
        Failure(
            _clean(type_name(exc), _TYPE),
            _clean(_message(exc), min(_MESSAGE, limit)),
            _tail(_traceback(exc), limit),
        )
    )


def decode_failure(stored: bytes) -> Failure:
    """Read `encode_failure` back; what cannot be read becomes a `Failure` that shows it."""
    try:
        return _read(stored)
    except (DecodeError, UnicodeDecodeError):
        return Failure("unreadable", stored[:_MESSAGE].decode(errors="backslashreplace"))


def type_name(exc: BaseException) -> str:
    """The class of *exc*, dotted, builtins without their module."""
    kind = type(exc)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _message(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception as failure:  # noqa: BLE001  # a user's __str__; that it failed is what there is to say
        return f"<its message cannot be shown: __str__ raised {type_name(failure)}>"


def _traceback(exc: BaseException) -> str:
    """The traceback from the first frame that is not the worker's own: how the job was called is no news."""
    frames = exc.__traceback__
    while frames is not None and frames.tb_next is not None and _MACHINERY in frames.tb_frame.f_code.co_filename:
        frames = frames.tb_next
    try:
        return "".join(traceback.format_exception(type(exc), exc, frames, limit=-50))
    except Exception as failure:  # noqa: BLE001  # the same, inside the traceback module
        calls = "".join(traceback.format_tb(frames, limit=-50))
        return f"{calls}{type_name(exc)}: <cannot be shown: {type_name(failure)}>\n"


def _clean(text: str, limit: int) -> str:
    """*text* of at most *limit* bytes in UTF-8, without what a store cannot hold (surrogates, NUL)."""
    text = text[:limit].replace("\0", "\\0")
    data = text.encode(errors="backslashreplace")
    return data[:limit].decode(errors="ignore")


def _tail(text: str, limit: int) -> str:
    data = text[-limit:].replace("\0", "\\0").encode(errors="backslashreplace")
    if len(text) <= limit and len(data) <= limit:
        return data.decode()
    return "…" + data[-limit + 3 :].decode(errors="ignore")


_read: Callable[[bytes], Failure] = reader(Failure)
