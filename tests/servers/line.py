"""One client's connection and its counterpart to the server, and what they suffer from.

    client ──▶ Side(REQUESTS) ──▶ Line ──▶ server        Without faults a packet goes on in the same turn of the loop in
    client ◀── Line ◀── Side(REPLIES) ◀── server         which it came: streams and tasks take twice as long.

All of it lives in the thread of the proxy.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
import threading
from collections import deque
from contextlib import suppress
from enum import Enum, auto
from typing import Any

from tests.servers.wire import Asked, Conversation, Piece

AT_ONCE = struct.pack("ii", 1, 0)
"""How long to linger: what is closed so is reset."""
END = b""


class Way(Enum):
    """A direction."""

    REQUESTS, REPLIES = auto(), auto()


class Loss:
    """Replies that are to be lost.

    Attributes:
        wanted: how many. texts: of the operations whose replies were lost so far; each was carried out.
        done: set when all are.
    """

    def __init__(self, pattern: str, wanted: int) -> None:
        self.pattern, self.wanted = re.compile(pattern, re.DOTALL), wanted
        self.texts: list[str] = []
        self.done = threading.Event()

    def concerns(self, text: str) -> bool:
        return len(self.texts) < self.wanted and self.pattern.search(text) is not None

    def count(self, text: str) -> None:
        self.texts.append(text)
        if len(self.texts) >= self.wanted:
            self.done.set()


class Weather:
    """What all lines of a proxy suffer from.

    Attributes:
        late: packets are late by (so many seconds, so many at most, this share of them).
        dark_until: when (the loop's time) a way is passable again. losses: of replies.
        misread: why a dialect could not read what was said.
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.late = (0.0, 0.0, 0.0)
        self.dark_until = dict.fromkeys(Way, 0.0)
        self.losses: list[Loss] = []
        self.misread: list[Exception] = []

    def lateness(self) -> float:
        """Of the next packet."""
        low, high, share = self.late
        return self.chance.uniform(low, high) if share and self.chance.random() < share else 0.0

    def loss(self, text: str) -> Loss | None:
        """The loss that an operation of this text is to suffer."""
        return next((loss for loss in self.losses if loss.concerns(text)), None)


class Side(asyncio.Protocol):
    """A socket: what comes in here goes *way*, in its order, when it may."""

    def __init__(self, line: Line, weather: Weather, way: Way) -> None:
        self._line, self._weather, self._way = line, weather, way
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, bytes]] = deque()
        self.transport: Any = None
        self.gone: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._line.made(self)

    def data_received(self, data: bytes) -> None:
        self._arrived(data, self._weather.lateness())

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.gone.done():
            self.gone.set_result(None)
        if exc is None:
            self._arrived(END, 0.0)
        else:
            self._line.cut()

    def _arrived(self, data: bytes, late: float) -> None:
        now = self._loop.time()
        if not late and not self._waiting and self._weather.dark_until[self._way] <= now:
            self._line.carry(self._way, data)
            return
        self._waiting.append((now + late, data))
        if len(self._waiting) == 1:
            self._go_on()

    def _go_on(self) -> None:
        while self._waiting:
            left = max(self._waiting[0][0], self._weather.dark_until[self._way]) - self._loop.time()
            if left > 0:
                self._loop.call_later(left, self._go_on)
                return
            self._line.carry(self._way, self._waiting.popleft()[1])

    def pause_writing(self) -> None:
        self._line.other(self).transport.pause_reading()

    def resume_writing(self) -> None:
        self._line.other(self).transport.resume_reading()

    def close(self, *, broken: bool = False) -> None:
        """Say that it has ended, after what was said before; or that it is *broken*."""
        if self.transport is None:
            return
        if broken:
            self._waiting.clear()
            reset(self.transport)
        else:
            self.transport.close()


class Refusal(asyncio.Protocol):
    """A socket that is broken as soon as it is there."""

    def connection_made(self, transport: Any) -> None:
        reset(transport)


def reset(transport: Any) -> None:
    """End it so that the other side is told that the connection is broken."""
    with suppress(OSError):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    transport.abort()


class Line:
    """Carries what both sides say; `ended` is done when neither is there any more."""

    def __init__(self, weather: Weather, conversation: Conversation, target: int) -> None:
        self._weather, self._conversation, self._target = weather, conversation, target
        self.client, self._server = Side(self, weather, Way.REQUESTS), Side(self, weather, Way.REPLIES)
        self.ended = asyncio.gather(self.client.gone, self._server.gone, return_exceptions=True)
        self._connecting: asyncio.Task[None] | None = None
        self._broken = False
        self._doomed: list[Asked] = []
        self._held: list[bytes] = []

    def other(self, side: Side) -> Side:
        return self._server if side is self.client else self.client

    def made(self, side: Side) -> None:
        if self._broken:  # it was cut before this side was there
            side.close(broken=True)
            if side is self.client:
                self._server.gone.cancel()
        elif side is self.client:
            side.transport.pause_reading()
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(self._connected)
        else:
            self.client.transport.resume_reading()

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self._server, "127.0.0.1", self._target)
        except OSError:
            self.client.close(broken=True)

    def _connected(self, connecting: asyncio.Task[None]) -> None:
        if self._server.transport is None:  # in a callback: what is cancelled before its first step runs no `finally`
            self._server.gone.cancel()

    def cut(self) -> None:
        self._broken = True
        if self._connecting is not None:
            self._connecting.cancel()
        for side in (self.client, self._server):
            side.close(broken=True)

    def carry(self, way: Way, data: bytes) -> None:
        """Pass on *data*, or the end."""
        to = self._server if way is Way.REQUESTS else self.client
        if data is END:
            to.close()
            return
        try:
            if way is Way.REQUESTS:
                asked = self._conversation.requests(data)
                self._doomed += [one for one in asked if self._weather.loss(one.text)]
                to.transport.write(data)
            else:
                self._reply(data)
        except Exception as error:
            self._weather.misread.append(error)
            self.cut()

    def _reply(self, data: bytes) -> None:
        for piece in self._conversation.replies(data):
            self._held.append(piece.data)
            if not piece.whole:
                continue
            if self._doomed and self._loses(piece):
                self.cut()
                return
            self._pass()
        if not self._doomed:
            self._pass()

    def _pass(self) -> None:
        if self._held:
            self.client.transport.write(b"".join(self._held))
            self._held.clear()

    def _loses(self, piece: Piece) -> bool:
        """Whether what *piece* settles was to be lost, and is."""
        settled = [asked for asked in self._doomed if asked.number <= piece.settled]
        self._doomed = self._doomed[len(settled) :]
        for asked in settled:
            loss = self._weather.loss(asked.text)  # enough may be lost by now
            if loss is not None and not piece.failed:
                loss.count(asked.text)
                return True
        return False
