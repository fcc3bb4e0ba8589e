"""A bad line to a PostgreSQL server: replies get lost, connections break, nothing arrives, everything is late.

with Proxy(server.port) as proxy:
    url = server.url(database, port=proxy.port)
    lost = proxy.lose_replies("INSERT INTO .*job", 10)
"""

from __future__ import annotations

import asyncio
import re
import threading
from contextlib import suppress
from typing import Any

from tests.servers.wire import CANCEL_REQUEST, GSS_REQUEST, SSL_REQUEST, Frames, Statements, startup

CHUNK = 1 << 16


class Loss:
    """Replies that are to be lost.

    Attributes:
        wanted: how many. texts: of the statements whose replies were lost so far; each was committed.
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


class Proxy:
    """Stands between clients and the server on *target*, on a port of its own, in a thread of its own.

    Attributes:
        port: where it listens. delay: seconds by which each packet is late.
        refusing: whether new connections are refused. connections: how many were ever made through it.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.delay = 0.0
        self.refusing = False
        self.connections = 0
        self._losses: list[Loss] = []
        self._lines: dict[_Line, asyncio.Task[Any] | None] = {}
        self._loop = asyncio.new_event_loop()
        self._clear = asyncio.Event()
        self._clear.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Cut everything, and end."""
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- faults

    def lose_replies(self, pattern: str, count: int = 1) -> Loss:
        """The next *count* transactions with a statement like *pattern* are committed, but their clients never learn.

        The reply is swallowed when the server has ended the transaction, and the connection is cut.
        """
        loss = Loss(pattern, count)
        self._losses.append(loss)
        return loss

    def cut(self) -> int:
        """Break every connection, on both sides; how many there were."""
        there_were: int = self._call(self._cut())
        return there_were

    def blackhole(self, seconds: float) -> None:
        """For so long nothing arrives on either side, and nobody is told; then all of it does."""
        self._call(self._blackhole(seconds))

    # -- inside its thread

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _cut(self) -> int:
        lines = list(self._lines)
        for line in lines:
            line.cut()
        return len(lines)

    async def _blackhole(self, seconds: float) -> None:
        self._clear.clear()
        self._loop.call_later(seconds, self._clear.set)

    async def _end(self) -> None:
        self._server.close()
        self._clear.set()
        self.refusing = True
        carried = [task for task in self._lines.values() if task is not None]
        await self._cut()
        await asyncio.gather(*carried, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refusing:
            writer.transport.abort()
            return
        line = _Line(self, reader, writer)
        self._lines[line] = asyncio.current_task()
        try:
            await line.carry(self._target)
        finally:
            del self._lines[line]

    async def passable(self) -> None:
        """Wait until a packet may go on."""
        if self.delay:
            await asyncio.sleep(self.delay)
        await self._clear.wait()

    def loss(self, text: str) -> Loss | None:
        """The loss that a statement of this text is to suffer."""
        return next((loss for loss in self._losses if loss.concerns(text)), None)


class _Line:
    """One client's connection and its counterpart to the server."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = (reader, writer)
        self._writers = [writer]
        self._statements = Statements()
        self._doomed: tuple[Loss, str, int] | None = None
        self._asked, self._answered = 1, 0
        """Requests that the server answers by saying that it is ready, the opening among them; and such answers."""

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def carry(self, target: int) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            server = await asyncio.open_connection("127.0.0.1", target)
            self._writers.append(server[1])
            if await self._greet(*self._client, *server):
                ways = [
                    asyncio.ensure_future(self._requests(self._client[0], server[1])),
                    asyncio.ensure_future(self._replies(server[0], self._client[1])),
                ]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        self.cut()

    async def _greet(
        self,
        client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> bool:
        """Pass on the opening, whose messages have no type. False: there is nothing more to carry."""
        while True:
            head = await client.readexactly(8)
            length, code = startup(head)
            await self._proxy.passable()
            to_server.write(head + await client.readexactly(length))
            if code == CANCEL_REQUEST:
                await server.read()
                return False
            if code not in (SSL_REQUEST, GSS_REQUEST):
                return True
            to_client.write(await server.readexactly(1))

    async def _requests(self, client: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        frames = Frames()
        while chunk := await client.read(CHUNK):
            await self._proxy.passable()
            for kind, message in frames.feed(chunk):
                text = self._statements.executed(kind, message)
                loss = self._proxy.loss(text) if text is not None and self._doomed is None else None
                if text is not None and loss is not None:
                    self._doomed = (loss, text, self._asked + 1)
                self._asked += kind in (b"S", b"Q")
            to_server.write(chunk)
            await to_server.drain()

    async def _replies(self, server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        frames = Frames()
        held: list[bytes] = []
        failed = False
        while chunk := await server.read(CHUNK):
            await self._proxy.passable()
            for kind, message in frames.feed(chunk):
                held.append(message)
                failed = failed or kind == b"E"
                if kind != b"Z":
                    continue
                self._answered += 1
                if message[5:6] == b"I":  # idle: no transaction is open any more
                    if self._doomed is not None and self._answered >= self._doomed[2]:
                        if not failed:
                            self._doomed[0].count(self._doomed[1])
                            return
                        self._doomed = None
                    failed = False
                to_client.write(b"".join(held))
                held.clear()
            if self._doomed is None:
                to_client.write(b"".join(held))
                held.clear()
            await to_client.drain()
