"""A job as it lies in an outbox: one JSON document, written by a producer and read by a relay, maybe of another release."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct, structs

from dayjob.store.records import NewRow

FORMAT: Final = 1


class BadBody(ValueError):
    """A row that this relay cannot read."""


class Body(Struct, omit_defaults=True):
    """Attributes: format: of this document. row: the job. Times of `row` count from the row's own `created_at`."""

    format: int
    row: NewRow


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Body)


def encode(row: NewRow) -> bytes:
    """*row* as it is written."""
    return _encoder.encode(Body(FORMAT, row))


def decode(body: bytes, age: float) -> NewRow:
    """The job of *body*, which was written *age* seconds ago: what counts from then has that much less to go.

    Raises:
        BadBody: it is no such document, or one of a newer release.
    """
    try:
        found = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadBody(f"the row cannot be read: {error}") from error
    if found.format != FORMAT:
        raise BadBody(f"the row has format {found.format}, this relay reads {FORMAT}: upgrade dayjob where it runs")
    row = found.row
    age = max(0.0, age)
    return structs.replace(
        row,
        delay=None if row.delay is None else max(0.0, row.delay - age),
        expires=None if row.expires is None else max(0.0, row.expires - age),
    )
