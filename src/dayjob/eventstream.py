"""`app.events()`: what happens in all processes, as it happens.

Workers pass their events on only while someone listens, so a stream begins with what happens after it was opened.
Events may be lost when the listener falls behind: a stream shows, it does not account.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from dayjob.errors import ConfigError
from dayjob.events import EVENTS, Event

if TYPE_CHECKING:
    from dayjob.store.contract import Listener, Store

_WAIT = 1.0


class EventStream:
    """An endless iterator of events, for `for` and for `async for`. Close it, or use it in a `with`.

    Args:
        store: gives the store to listen to.
        names: only events of these names (`job.dead`), or of a whole kind (`job`, `worker`); none: all.
    """

    def __init__(self, store: Callable[[], Store], names: tuple[str, ...] = ()) -> None:
        kinds = {name.partition(".")[0] for name in EVENTS}
        for name in names:
            if name not in EVENTS and name not in kinds:
                raise ConfigError(f"no event is named {name!r:.80}; there are {', '.join(sorted(EVENTS))}")
        self._names = frozenset(names)
        self._closed = False
        # Opened here and not at the first `next`: what happens in between is not lost.
        self._listener: Listener = store().listen(["event"])

    def take(self, timeout: float) -> list[Event]:
        """The events of the next moment; waits up to *timeout* seconds for the first."""
        decoded = (self._decoded(data) for _, data in self._listener.wait(timeout))
        return [event for event in decoded if event is not None]

    def close(self) -> None:
        """End the stream; who iterates over it sees its end. Idempotent, from any thread."""
        if not self._closed:
            self._closed = True
            self._listener.wake()

    def __iter__(self) -> Iterator[Event]:
        try:
            while not self._closed:
                yield from self.take(_WAIT)
        finally:
            self._end()

    async def __aiter__(self) -> AsyncIterator[Event]:
        import asyncio

        # A thread of its own: a stream may last for hours, and the few threads of `offload` are for short calls.
        loop, ready, waiting = asyncio.get_running_loop(), asyncio.Event(), deque[Event](maxlen=10_000)

        def listen() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody looks any more
                while not self._closed:
                    if taken := self.take(_WAIT):
                        waiting.extend(taken)
                        loop.call_soon_threadsafe(ready.set)
                loop.call_soon_threadsafe(ready.set)

        thread = Thread(target=listen, name="dayjob-events", daemon=True)
        thread.start()
        try:
            while not self._closed or waiting:
                await ready.wait()
                ready.clear()
                while waiting:
                    yield waiting.popleft()
        finally:
            self.close()
            thread.join(_WAIT)
            self._end()

    def _end(self) -> None:
        self._closed = True
        self._listener.close()

    def _decoded(self, data: bytes) -> Event | None:
        """The event in *data*; None when it was not asked for, is of a kind that only a newer release knows, or no event:
        some stores let others send, too."""
        try:
            fields = msgspec.json.decode(data, type=dict[str, Any])
            name = str(fields.pop("event"))
            if self._names and not {name, name.partition(".")[0]} & self._names:
                return None
            return msgspec.convert(fields, EVENTS[name])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError):
            return None

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
        self._end()
