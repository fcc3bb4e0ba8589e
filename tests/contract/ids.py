"""Ids for tests: UUID text, as every engine may expect it."""

from __future__ import annotations

import uuid


def named(word: str) -> str:
    """The id that stands for *word*."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, word))


def numbered(number: int) -> str:
    """The id that stands for *number*, in the shape of a UUIDv7; they sort as the numbers do."""
    return f"01890000-0000-7000-8000-{number:012x}"
