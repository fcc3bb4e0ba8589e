"""How a worker and its child processes talk: typed frames over a socket pair. Data, never code.

A frame is four bytes of length (big endian) and a msgpack message. Whoever finds the other end closed knows that the
other process is gone.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from threading import Lock
from typing import Any, Protocol
from weakref import WeakSet

import msgspec
from msgspec import Struct

from dayjob.store.records import Claimed, Log, Settlement, Write

LARGEST = 1 << 30


class Message(Struct, tag=True):
    """The root of all frames."""


# parent to child


class Setup(Message):
    """The first frame: what the child is to be.

    Attributes:
        role: `worker`, `solo` or `pool`. target, path, main_file: where its app is (`locate.AppRef`).
        options: what `App.worker` takes, for worker and solo.
    """

    role: str
    target: str
    path: list[str]
    main_file: str | None
    options: dict[str, Any]


class Stop(Message):
    """End in order; *now*: without grace."""

    now: bool = False


class Work(Message):
    """Run this job. *stamp*: the store's time now, as the parent knows it. *worker*: the incarnation that holds it."""

    job: Claimed
    stamp: int
    worker: str


class Tell(Message):
    """The running job is to stop."""

    why: str


class Answer(Message):
    """To Save, Read and Completing. *ok* False with *error* empty: the lease is lost. *logs*: see Completing."""

    ok: bool
    value: bytes | None = None
    error: str = ""
    logs: list[Log] = []


# child to parent


class Ready(Message):
    """The child has found its app and entered the lifespan."""


class Hello(Message):
    """A worker child (or solo child) has a new incarnation."""

    worker: str


class Leaving(Message):
    """A worker child has stopped claiming. *why*; *again*: a new process should take its place at once."""

    why: str
    again: bool


class Ran(Message):
    """The goodbye of a worker or solo child, after which it says nothing: it ends in order, and has run so many jobs.

    An exit code says nothing about order: a job may end its process with any.
    """

    jobs: int


class Failed(Message):
    """The child cannot start: its app, or the lifespan, raised."""

    error: str


class Say(Message):
    """The job's progress or a log line."""

    writes: list[Write]


class Save(Message):
    """A checkpoint; answered."""

    value: bytes


class Read(Message):
    """Asks for the checkpoint; answered."""


class Completing(Message):
    """The job is about to complete in a transaction, by *settlement*; the answer has lines that are not written yet."""

    settlement: Settlement


class Ended(Message):
    """The job is over; without a settlement its lease is lost. *error*: type and text, for `on_dead`.

    After Completing the settlement is what holds if that came to nothing. *committed*: it surely did not. *late*: the
    encoded error that is to be reported then. *failing*, *pauses*: as of a `Run`.
    """

    settlement: Settlement | None
    error: str = ""
    committed: bool = False
    late: bytes | None = None
    failing: bool | None = None
    pauses: list[tuple[str, str, float]] | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(
    Setup
    | Stop
    | Work
    | Tell
    | Answer
    | Ready
    | Hello
    | Leaving
    | Ran
    | Failed
    | Say
    | Save
    | Read
    | Completing
    | Ended
).decode


class Channel:
    """One end. `send` from any thread; `receive` from one thread at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sending = Lock()
        self._buffer = bytearray()
        not_for_forks(self)

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """This end, and the socket for the other process."""
        ours, theirs = socket.socketpair()
        return cls(ours), theirs

    def send(self, message: Message) -> bool:
        """Send; False when the other end is gone."""
        body = _encode(message)
        try:
            with self._sending:
                self._socket.sendall(len(body).to_bytes(4, "big") + body)
        except OSError:
            return False
        return True

    def receive(self, timeout: float | None = None) -> Any:
        """The next message; None when the other end is gone.

        Raises:
            TimeoutError: nothing came for *timeout* seconds.
        """
        while True:
            if len(self._buffer) >= 4:
                size = int.from_bytes(self._buffer[:4], "big")
                if size > LARGEST:
                    raise ValueError(f"a frame of {size:,} bytes")
                if len(self._buffer) >= 4 + size:
                    body = bytes(self._buffer[4 : 4 + size])
                    del self._buffer[: 4 + size]
                    return _decode(body)
            if not self._more(timeout):
                return None

    def _more(self, timeout: float | None) -> bool:
        try:
            if timeout is not None:
                poll = select.poll()
                poll.register(self._socket, select.POLLIN)
                if not poll.poll(max(0.0, timeout) * 1000):
                    raise TimeoutError
            piece = self._socket.recv(1 << 16)
        except TimeoutError:
            raise
        except (OSError, ValueError):  # reset, or closed on our side meanwhile
            return False
        self._buffer += piece
        return bool(piece)

    def fileno(self) -> int:
        """For `poll`."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end: the other one learns it. Wakes a `receive` of this end."""
        with contextlib.suppress(OSError):  # the other end closed first
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def forget(self) -> None:
        """See `not_for_forks`: closed in this process only. The connection is the parent's, and goes on."""
        self._sending = Lock()  # somebody may have been sending at the fork
        self._socket.close()


class Forgetful(Protocol):
    """Holds descriptors whose closing tells another process that this one is gone."""

    def forget(self) -> None:
        """Close them; nothing else."""


_forgetful: WeakSet[Any] = WeakSet()


def not_for_forks(one: Forgetful) -> None:
    """A process that a job forks must not hold what *one* holds: it may outlive us, and nobody would see our end."""
    _forgetful.add(one)


def _forked() -> None:
    for one in list(_forgetful):
        one.forget()
    _forgetful.clear()


os.register_at_fork(after_in_child=_forked)
