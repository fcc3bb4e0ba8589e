"""The jobs that everybody is given: a no-op with a payload of about 120 bytes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import TypedDict

BATCH = 500
TASK = "bench.noop"
QUEUE = "default"


class Arguments(TypedDict):
    """What a job of the benchmark is called with."""

    order_id: int
    email: str
    note: str


def arguments(number: int) -> Arguments:
    """The arguments of job *number*; as JSON about 120 bytes."""
    return {
        "order_id": 1_000_000 + number,
        "email": "someone@example.org",
        "note": "please deliver to the back door, and do not ring the bell twice",
    }


def payload(number: int) -> bytes:
    """The same as JSON, for those who store bytes."""
    return json.dumps(arguments(number), separators=(",", ":")).encode()


def ids(number: int) -> Iterator[str]:
    """Ids of the shape that dayjob makes (UUIDv7 text), rising, made as cheaply as can be."""
    millisecond = time.time_ns() // 1_000_000
    for at in range(number):
        when, tail = f"{millisecond + at // 64:012x}", os.urandom(8).hex()
        yield f"{when[:8]}-{when[8:]}-7{at % 4096:03x}-8{tail[1:4]}-{tail[4:]}"


def batches(number: int, size: int = BATCH) -> Iterator[range]:
    """*number* as ranges of at most *size*."""
    for start in range(0, number, size):
        yield range(start, min(start + size, number))
