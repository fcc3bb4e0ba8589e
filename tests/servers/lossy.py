"""A line that loses replies: what was asked is done, and whoever asked never learns.

with Lossy(server.port) as line:
    line.lose(1)   # the next reply: the connection breaks instead
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

CHUNK = 1 << 16


class Lossy:
    """Stands between clients and the server on *target*, on a port of its own; two threads for each connection.

    Attributes:
        port: where it listens. lost: how many replies were lost.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.lost = 0
        self._to_lose = 0
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, name="lossy")]
        self._threads[0].start()

    def __enter__(self) -> Lossy:
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def lose(self, count: int) -> None:
        """Lose the next *count* replies."""
        with self._lock:
            self._to_lose = count

    def cut(self) -> None:
        """Break every connection."""
        with self._lock:
            sockets, self._sockets = list(self._sockets), set()
        for each in sockets:
            _end(each)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            with self._lock:
                self._sockets |= {client, server}
            for source, sink, replies in ((client, server, False), (server, client, True)):
                thread = threading.Thread(target=self._carry, args=(source, sink, replies), name="lossy")
                self._threads.append(thread)
                thread.start()

    def _carry(self, source: socket.socket, sink: socket.socket, replies: bool) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                if replies and self._loses():
                    break
                sink.sendall(data)
        _end(source)
        _end(sink)

    def _loses(self) -> bool:
        with self._lock:
            if not self._to_lose:
                return False
            self._to_lose -= 1
            self.lost += 1
            return True


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
