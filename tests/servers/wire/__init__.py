"""What a bad line has to know of a protocol, so that it can lose the reply of one operation and nothing else.

            requests(chunk)                 which operations begin, and the number of the request that ends them
    client ───────────────▶ server
    client ◀─────────────── server
            replies(chunk)                  which bytes belong together, and how far the server has carried out what was asked

`postgres` and `redis` are such dialects; `operations` says how those of dayjob look in either.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol


class Asked(NamedTuple):
    """An operation that a client asked for: its text, and the number of the request with whose answer it is settled."""

    text: str
    number: int


class Piece(NamedTuple):
    """Bytes of the server.

    Attributes:
        whole: nothing that belongs to them is still to come. settled: so many requests are answered, and no transaction
            is open; 0 where that is not so. failed: the last of them came to nothing.
    """

    data: bytes
    whole: bool
    settled: int = 0
    failed: bool = False


class Conversation(Protocol):
    """One connection. A dialect is what makes a new one."""

    def requests(self, chunk: bytes) -> Iterator[Asked]: ...

    def replies(self, chunk: bytes) -> Iterator[Piece]: ...
