"""Wake-ups between processes that share a file: one datagram socket per listener, in a folder beside it.

A listener's socket is named after its topics ("wc-4711-1": work and control), so who has something to say lists the
folder and sends to the names that want it. Nobody listening costs one `stat`. A socket whose owner died refuses the
datagram and is removed. All of this is advisory: whoever waits also looks by himself.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from dayjob.errors import StoreUnavailable

_LETTERS = {"work": "w", "control": "c", "done": "d", "event": "e"}
_TOPICS = {letter: topic for topic, letter in _LETTERS.items()}
_LONGEST = 60_000
_SETTLED = 1.0
"""Seconds after which a folder's unchanged mtime is trusted: file systems stamp it no finer than some milliseconds."""

_numbers = itertools.count(1)


class Ear:
    """A `Listener` on one datagram socket."""

    def __init__(self, receiver: socket.socket, waker: socket.socket, path: str | None = None) -> None:
        self._receiver, self._waker, self._path = receiver, waker, path
        receiver.setblocking(False)
        waker.setblocking(False)
        self._poll = select.poll()
        self._poll.register(receiver, select.POLLIN)

    def wait(self, timeout: float) -> list[tuple[str, bytes]]:
        """See `contract.Listener.wait`."""
        if not self._poll.poll(max(0.0, timeout) * 1000):
            return []
        heard: list[tuple[str, bytes]] = []
        with contextlib.suppress(BlockingIOError, OSError):  # drained, or closed while we waited
            while len(heard) < 1000:
                datagram = self._receiver.recv(65_536)
                if datagram:
                    topic = _TOPICS.get(chr(datagram[0]))
                    if topic is not None:
                        heard.append((topic, datagram[1:]))
        return heard

    def wake(self) -> None:
        """See `contract.Listener.wake`."""
        self.hear(b"")

    def hear(self, datagram: bytes) -> None:
        """Deliver *datagram*; one that finds the buffer full is lost, and the listener is awake anyway."""
        with contextlib.suppress(OSError):
            self._waker.send(datagram)

    def close(self) -> None:
        """See `contract.Listener.close`."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        self.hear(b"")
        self._receiver.close()
        self._waker.close()


class LocalSignals:
    """Signals inside one process, for a store that no other process can see."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ears: list[tuple[str, Ear]] = []

    def notify(self, topic: str, data: bytes = b"") -> None:
        """See `contract.Signals.notify`."""
        letter = _LETTERS[topic]
        with self._lock:
            ears = [ear for letters, ear in self._ears if letter in letters]
        for ear in ears:
            ear.hear(letter.encode() + data)

    def listening(self, topic: str, *, within: float = 0.05) -> bool:
        """See `contract.Signals.listening`."""
        return any(_LETTERS[topic] in letters for letters, _ in self._ears)

    def close(self) -> None:
        """Nothing is held open."""

    def listen(self, topics: Sequence[str]) -> Ear:
        """See `contract.Signals.listen`."""
        receiver, waker = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ear = Ear(receiver, waker)
        close = ear.close
        entry = ("".join(_LETTERS[topic] for topic in topics), ear)

        def forget_and_close() -> None:
            with self._lock:
                if entry in self._ears:
                    self._ears.remove(entry)
            close()

        ear.close = forget_and_close  # type: ignore[method-assign]  # the hub must forget it first
        with self._lock:
            self._ears.append(entry)
        return ear


class FileSignals:
    """Signals between all processes that have the file *database* open."""

    def __init__(self, database: Path) -> None:
        self._folder = f"{database}-wake"
        self._sender: socket.socket | None = None
        self._sender_pid = 0
        self._names: list[str] = []
        self._mtime = 0

    def _listeners(self) -> list[str]:
        try:
            mtime = os.stat(self._folder).st_mtime_ns
            if mtime != self._mtime or time.time_ns() - mtime < _SETTLED * 1e9:
                self._names = os.listdir(self._folder)
                self._mtime = mtime
        except OSError:
            self._names, self._mtime = [], 0
        return self._names

    def listening(self, topic: str, *, within: float = 0.05) -> bool:
        """See `contract.Signals.listening`."""
        letter = _LETTERS[topic]
        return any(letter in name.partition("-")[0] for name in self._listeners())

    def notify(self, topic: str, data: bytes = b"") -> None:
        """See `contract.Signals.notify`."""
        letter = _LETTERS[topic]
        for name in self._listeners():
            if letter in name.partition("-")[0]:
                self._send(name, letter.encode() + data[:_LONGEST])

    def _send(self, name: str, datagram: bytes) -> None:
        if self._sender is None or self._sender_pid != os.getpid():
            self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._sender.setblocking(False)
            self._sender_pid = os.getpid()
        path = os.path.join(self._folder, name)
        try:
            with _short(path) as address:
                self._sender.sendto(datagram, address)
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                os.unlink(path)  # its owner died
        except OSError:
            pass  # gone in between, or its buffer is full and it is awake anyway: signals are advisory

    def close(self) -> None:
        """Let go of the sending socket; the next signal opens a new one."""
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.close()

    def __del__(self) -> None:
        self.close()

    def listen(self, topics: Sequence[str]) -> Ear:
        """See `contract.Signals.listen`."""
        letters = "".join(_LETTERS[topic] for topic in topics)
        path = os.path.join(self._folder, f"{letters}-{os.getpid()}-{next(_numbers)}")
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        waker = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # left by a process that had our number before
            with _short(path) as address:
                receiver.bind(address)
                waker.connect(address)
        except OSError as error:
            receiver.close()
            waker.close()
            raise StoreUnavailable(f"cannot listen for wake-ups in {self._folder}: {error}") from error
        return Ear(receiver, waker, path)


@contextlib.contextmanager
def _short(path: str) -> Iterator[str]:
    """*path* as a socket address; one longer than the 107 bytes that fit goes through its folder's descriptor."""
    if len(os.fsencode(path)) <= 100:
        yield path
        return
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)
