"""A job as it lies in an outbox: one JSON document, written by a producer and read by a relay, maybe of another release."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct, structs

from dayjob.store.records import NewRow

FORMAT: Final = 1


class BadBody(ValueError):
    """A row that this relay cannot read."""


class KnownRow(NewRow, omit_defaults=True, forbid_unknown_fields=True):
    """A job of which this release understands every word: what a newer one added must not be dropped in silence.

    What has its default is not written, so that a newer producer's row is refused only when it uses what is new.
    """


class Body(Struct):
    """Attributes: format: of this document. row: the job. Times of `row` count from the row's own `created_at`."""

    format: int
    row: KnownRow


class _Format(Struct):
    format: int


_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Body)
_format = msgspec.json.Decoder(_Format)


def encode(row: NewRow) -> bytes:
    """*row* as it is written."""
    return _encoder.encode(Body(FORMAT, KnownRow(*structs.astuple(row))))


def decode(body: bytes, id: str, age: float) -> NewRow:
    """The job *id* of *body*, which was written *age* seconds ago: what counts from then has that much less to go.

    Raises:
        BadBody: it is no such document, or one of a newer release.
    """
    try:
        found = _decoder.decode(body)
    except _UNREADABLE as error:
        raise BadBody(_newer(body, error) or f"the row cannot be read: {error}") from error
    row = found.row
    if found.format != FORMAT:
        raise BadBody(_newer(body))
    if row.id != id:  # the one would be stored, and the other looked for
        raise BadBody(f"the row cannot be read: its job_id is {id:.60}, and the id in its body {row.id:.60}")
    age = max(0.0, age)
    return structs.replace(
        row,
        delay=None if row.delay is None else max(0.0, row.delay - age),
        expires=None if row.expires is None else max(0.0, row.expires - age),
    )


def _newer(body: bytes, error: BaseException | None = None) -> str:
    """What to say of a row that a newer release wrote; "" for any other."""
    remedy = "upgrade dayjob where the relay runs, then `dayjob relay --from URL --retry ID`"
    try:
        format = _format.decode(body).format
    except _UNREADABLE:
        return ""
    if format != FORMAT:
        return f"the row has format {format}, this relay reads {FORMAT}: {remedy}"
    if "unknown field" in str(error):
        return f"a newer release wrote the row ({error}): {remedy}"
    return ""
