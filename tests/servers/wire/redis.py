"""The protocol of Redis and Valkey, RESP2 and RESP3: where a value ends, which script runs, and which reply belongs to it.

The text of an operation is the name of dayjob's script, and for a turn what it does ("turn claim settle"); of any other
command it is its words. One request has one reply, in their order. What is pushed is none; nor is what SUBSCRIBE and its
kin bring about, which has one for each channel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files

from dayjob.store.redis.scripts import script
from tests.servers.wire import Asked, Piece

BLOBS, AGGREGATES, PAIRS, ATTRIBUTES, PUSH = b"$=!", b"*~>%|", b"%|", b"|", b">"
ERRORS = b"-!"
WORDS = 11
"""Of a request so many words are looked at: a turn's settlements are told by the last of them."""
SHOWN = 60
"""Bytes of a word that its text has at most."""
LISTENING = frozenset({b"SUBSCRIBE", b"UNSUBSCRIBE", b"PSUBSCRIBE", b"PUNSUBSCRIBE", b"SSUBSCRIBE", b"SUNSUBSCRIBE"})
HEARD = frozenset({*(verb.lower() for verb in LISTENING), b"message", b"pmessage", b"smessage"})


class Values:
    """Bytes in, whole values out; a line that is no value, an inline command, is one, too."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._at, self._missing = 0, 1
        """How far the value at the front was looked at, and how many parts it still wants."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        data = self._data
        data += chunk
        while (end := data.find(b"\r\n", self._at)) >= 0:
            kind, after = data[self._at], end + 2
            if kind in BLOBS:
                size = int(data[self._at + 1 : end])
                after += size + 2 if size >= 0 else 0
                if after > len(data):
                    return
            elif kind in AGGREGATES:
                parts = max(0, int(data[self._at + 1 : end]))
                self._missing += 2 * parts if kind in PAIRS else parts
            self._missing -= kind not in ATTRIBUTES
            self._at = after
            if not self._missing:
                yield bytes(data[:after])
                del data[:after]
                self._at, self._missing = 0, 1


class RedisWire:
    """See `Conversation`."""

    def __init__(self) -> None:
        self._from_client, self._from_server = Values(), Values()
        self._asked = self._answered = 0
        self._listens = False

    def requests(self, chunk: bytes) -> Iterator[Asked]:
        for value in self._from_client.feed(chunk):
            words = _words(value)
            if not words:
                continue
            if words[0].upper() in LISTENING:
                self._listens = True
                continue
            self._asked += 1
            yield Asked(_text(words), self._asked)

    def replies(self, chunk: bytes) -> Iterator[Piece]:
        for value in self._from_server.feed(chunk):
            if value[0] in PUSH or (self._listens and HEARD.intersection(_words(value, 1))):
                yield Piece(value, whole=True)
                continue
            self._answered += 1
            yield Piece(value, whole=True, settled=self._answered, failed=value[0] in ERRORS)


def _words(value: bytes, most: int = WORDS) -> list[bytes]:
    """The first words of a request, or of an array of such."""
    if not value.startswith(b"*"):
        return value.split()[:most]
    at = value.index(b"\r\n") + 2
    words = []
    while at < len(value) and len(words) < most and value[at] in BLOBS:
        begin = value.index(b"\r\n", at) + 2
        end = begin + int(value[at + 1 : begin - 2])
        words.append(value[begin:end])
        at = end + 2
    return words


def _text(words: Sequence[bytes]) -> str:
    verb = words[0].upper()
    if verb in (b"EVALSHA", b"EVAL") and len(words) > 3:
        sha = words[1].decode() if verb == b"EVALSHA" else hashlib.sha1(words[1]).hexdigest()
        name = _scripts(words[3]).get(sha)
        if name == "turn":
            _, _, wants, completions, others = words[6:11]
            return f"turn{' claim' if wants else ''}{' settle' if completions or others else ''}"
        if name is not None:
            return name
    return " ".join(word[:SHOWN].decode("utf-8", "replace") for word in (verb, *words[1:]))


@cache
def _scripts(key: bytes) -> dict[str, str]:
    """SHA-1 to name, of the scripts whose key is *key*: its prefix is in their texts."""
    prefix = key.decode("utf-8", "replace").removesuffix("meta")
    names = [file.name.removesuffix(".lua") for file in files("dayjob.store.redis").joinpath("lua").iterdir()]
    return {script(name, prefix).sha: name for name in names if name != "shared"}
