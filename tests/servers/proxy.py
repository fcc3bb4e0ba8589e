"""A bad line to a server: replies get lost, connections break, nothing arrives, everything is late.

with Proxy(server.port, PostgresWire) as proxy:
    url = server.url(database, port=proxy.port)
    lost = proxy.lose_replies(ENQUEUE["postgres"], 10)

What it knows of the protocol is in `tests.servers.wire`.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from typing import Any

from tests.servers.line import Line, Loss, Refusal, Way, Weather
from tests.servers.wire import Conversation

__all__ = ["Loss", "Proxy", "Way"]

PATIENCE = 30.0
"""Seconds after which the thread of a proxy is not waited for."""


class Proxy:
    """Stands between clients and the server on *target*, on a port of its own, in a thread of its own.

    Args:
        dialect: `PostgresWire` or `RedisWire`. chance: decides which packets are late, and which connections are cut.
    Attributes:
        port: where it listens. refusing: whether new connections are refused. connections: how many were ever made.
    """

    def __init__(
        self, target: int, dialect: Callable[[], Conversation], *, chance: random.Random | None = None
    ) -> None:
        self._target, self._dialect = target, dialect
        self._weather = Weather(chance or random.Random())
        self._lines: dict[asyncio.Future[Any], Line] = {}
        self.refusing = False
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._thread.start()
        self._server = self._call(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Cut everything, and end.

        Raises:
            Exception: a dialect could not read what was said, and its connection broke for that.
        """
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        for error in self._weather.misread:
            raise error

    # -- faults

    def lose_replies(self, what: str, count: int = 1) -> Loss:
        """The next *count* operations whose text is like *what* are carried out, but their clients never learn.

        The reply is swallowed, in PostgreSQL that which ends the transaction, and the connection is cut. An operation
        that failed is not counted.
        """
        loss = Loss(what, count)
        self._weather.losses.append(loss)
        return loss

    def cut(self, most: int | None = None) -> int:
        """Break every connection, on both sides, or *most* of them that chance takes; how many."""
        broken: int = self._call(self._cut(most))
        return broken

    def blackhole(self, seconds: float, *ways: Way) -> None:
        """For so long nothing arrives on either side, or nothing on its *ways*, and nobody is told; then all of it does."""
        self._call(self._blackhole(seconds, ways or tuple(Way)))

    def delay(self, low: float, high: float | None = None, *, share: float = 1.0) -> None:
        """From now on this share of the packets is late by *low* to *high* seconds; none is for 0."""
        self._weather.late = (low, low if high is None else high, share if low or high else 0.0)

    # -- inside its thread

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    async def _listen(self) -> asyncio.Server:
        return await self._loop.create_server(self._accept, "127.0.0.1", 0)

    def _accept(self) -> asyncio.Protocol:
        self.connections += 1
        if self.refusing:
            return Refusal()
        line = Line(self._weather, self._dialect(), self._target)
        self._lines[line.ended] = line
        line.ended.add_done_callback(self._lines.pop)
        return line.client

    async def _cut(self, most: int | None = None) -> int:
        lines = list(self._lines.values())
        if most is not None:
            lines = self._weather.chance.sample(lines, min(most, len(lines)))
        for line in lines:
            line.cut()
        return len(lines)

    async def _blackhole(self, seconds: float, ways: tuple[Way, ...]) -> None:
        dark = self._weather.dark_until
        for way in ways:
            dark[way] = max(dark[way], self._loop.time() + seconds)

    async def _end(self) -> None:
        self._server.close()
        self.refusing = True
        lines = list(self._lines)
        await self._cut()
        await asyncio.gather(*lines, return_exceptions=True)
