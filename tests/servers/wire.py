"""As much of PostgreSQL's protocol as a proxy needs: where a message ends, and which statement is being executed."""

from __future__ import annotations

import struct
from collections.abc import Iterator

SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102


def startup(head: bytes) -> tuple[int, int]:
    """From the first eight bytes of a connection: how many bytes follow, and the code."""
    length, code = struct.unpack("!ii", head)
    return length - 8, code


class Frames:
    """Bytes in, whole messages out: (type, the message with its head)."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[tuple[bytes, bytes]]:
        data, begin = self._rest + chunk, 0
        while len(data) - begin >= 5:
            end = begin + 1 + int.from_bytes(data[begin + 1 : begin + 5])
            if end > len(data):
                break
            yield data[begin : begin + 1], data[begin:end]
            begin = end
        self._rest = data[begin:]


class Statements:
    """The statements of one connection: remembers what was prepared under which name."""

    def __init__(self) -> None:
        self._prepared: dict[bytes, str] = {}

    def executed(self, kind: bytes, message: bytes) -> str | None:
        """The text of the statement that this message of a client executes, if it executes one."""
        body = message[5:]
        if kind == b"Q":
            return body[:-1].decode()
        if kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            self._prepared[name] = text.decode()
        elif kind == b"B":
            _, name, _ = body.split(b"\0", 2)
            return self._prepared.get(name)
        return None
