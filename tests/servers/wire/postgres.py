"""PostgreSQL's protocol: where a message ends, which statement is executed, and when a transaction has ended.

The server says ReadyForQuery once for the opening and once for each Query and Sync; an operation is settled by the first
of these that finds no transaction open.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.servers.wire import Asked, Piece

SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102


class Frames:
    """Bytes in, whole messages out. An *untyped* message has no type before its length: so are those of the opening."""

    def __init__(self) -> None:
        self._data = bytearray()

    def add(self, chunk: bytes) -> None:
        self._data += chunk

    def holds(self, count: int) -> bool:
        return len(self._data) >= count

    def take(self, *, untyped: bool = False) -> bytes | None:
        """The next message, if it is there."""
        head = 4 if untyped else 5
        if not self.holds(head):
            return None
        end = head - 4 + int.from_bytes(self._data[head - 4 : head])
        return self.cut(end) if self.holds(end) else None

    def cut(self, count: int) -> bytes:
        taken = bytes(self._data[:count])
        del self._data[:count]
        return taken


class PostgresWire:
    """See `Conversation`."""

    def __init__(self) -> None:
        self._from_client, self._from_server = Frames(), Frames()
        self._opening = True
        self._offers = 0
        """Questions for encryption, which are answered by a single byte."""
        self._asked, self._answered = 1, 0
        self._failed = False
        self._prepared: dict[bytes, str] = {}

    def requests(self, chunk: bytes) -> Iterator[Asked]:
        self._from_client.add(chunk)
        while (message := self._from_client.take(untyped=self._opening)) is not None:
            if self._opening:
                self._open(message)
                continue
            kind = message[:1]
            text = self._executed(kind, message[5:])
            if text is not None:
                yield Asked(text, self._asked + 1)
            self._asked += kind in (b"S", b"Q")

    def _open(self, message: bytes) -> None:
        (code,) = struct.unpack("!i", message[4:8])
        if code in (SSL_REQUEST, GSS_REQUEST):
            self._offers += 1
        else:
            self._opening = code == CANCEL_REQUEST

    def _executed(self, kind: bytes, body: bytes) -> str | None:
        """The text of the statement that a message executes, if it executes one."""
        if kind == b"Q":
            return body[:-1].decode()
        if kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            self._prepared[name] = text.decode()
        elif kind == b"B":
            _, name, _ = body.split(b"\0", 2)
            return self._prepared.get(name)
        return None

    def replies(self, chunk: bytes) -> Iterator[Piece]:
        self._from_server.add(chunk)
        while self._offers and self._from_server.holds(1):
            self._offers -= 1
            yield Piece(self._from_server.cut(1), whole=True)
        while (message := self._from_server.take()) is not None:
            kind = message[:1]
            if kind == b"E" or (kind == b"C" and message[5:].startswith(b"ROLLBACK")):
                self._failed = True
            if kind != b"Z":
                yield Piece(message, whole=False)
                continue
            self._answered += 1
            if message[5:6] == b"I":  # idle: no transaction is open any more
                yield Piece(message, whole=True, settled=self._answered, failed=self._failed)
                self._failed = False
            else:
                yield Piece(message, whole=True)
