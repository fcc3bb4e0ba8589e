"""Payloads, results and errors as bytes: JSON by type hints, and never anything but data."""

from dayjob.codec.envelope import Failure
from dayjob.codec.failure import decode_failure, encode_failure
from dayjob.codec.hints import Private
from dayjob.codec.signature import Signature
from dayjob.codec.untyped import decode_untyped, encode_meta, encode_plain, encode_untyped

__all__ = [
    "Failure",
    "Private",
    "Signature",
    "decode_failure",
    "decode_untyped",
    "encode_failure",
    "encode_meta",
    "encode_plain",
    "encode_untyped",
]
