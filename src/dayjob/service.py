"""Start, stop and back-off, written once.

A service is a thread that calls `tick()` again and again; `tick` does what is due and says in how many seconds it
wants to be called again. Tests call `tick()` directly and never start a thread.

          start()            stop()
    idle ─────────▶ running ─────────▶ stopping ──▶ idle        kick(): tick now instead of later
                      │  ▲
       tick raises    ▼  │  tick succeeds
                    backing off            a fatal error (a schema that is not ours) ends it: on_fatal
"""

from __future__ import annotations

import random
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from threading import Event, Thread, current_thread

from dayjob.errors import BadRow, NotSupported, SchemaMismatch, StoreError
from dayjob.events import Bus, ServiceFailed, StoreAvailable
from dayjob.events import StoreUnavailable as StoreUnavailableEvent


class Service(ABC):
    """A control thread.

    Args:
        name: shown in events and as the thread's name.
        bus: hears of failures.
        on_fatal: called with an error that repeating cannot cure; the service ends.
        rng: spreads the repetitions.
    """

    longest_backoff = 5.0

    def __init__(
        self,
        name: str,
        bus: Bus,
        *,
        on_fatal: Callable[[BaseException], None] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.name = name
        self.bus = bus
        self._on_fatal = on_fatal
        self._rng = rng or random.Random()
        self._stopping = False
        self._kicked = Event()
        self._thread: Thread | None = None
        self._failures = 0
        self._down_since: float | None = None

    @abstractmethod
    def tick(self) -> float:
        """Do what is due; return the seconds until there may be more."""

    def wait(self, delay: float) -> None:
        """Sleep between two ticks, until *delay* is over or someone kicks."""
        self._kicked.wait(delay)
        self._kicked.clear()

    def kick(self) -> None:
        """Tick now. From any thread; repeated kicks before the tick count once."""
        self._kicked.set()

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        """True once `stop` was called."""
        return self._stopping

    def start(self) -> None:
        """Begin to tick, at once. Starting what runs is an error of ours."""
        if self.running:
            raise RuntimeError(f"service {self.name} runs already")
        self._stopping = False
        self._thread = Thread(target=self._run, name=f"dayjob-{self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask for the end, after the tick under way. Idempotent, from any thread; `join` waits for it."""
        self._stopping = True
        self.kick()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end; True when it has come (or nothing was started)."""
        thread = self._thread
        if thread is None or thread is current_thread():
            return True
        thread.join(timeout)
        return not thread.is_alive()

    def on_fatal(self, call: Callable[[BaseException], None]) -> None:
        """Call *call* with an error that repeating cannot cure."""
        self._on_fatal = call

    def _run(self) -> None:
        while not self._stopping:
            delay = self.attempt()
            if delay is None:
                return
            if not self._stopping:
                self.wait(delay)

    def attempt(self) -> float | None:
        """One tick with its failures turned into a back-off; None when the service must end."""
        try:
            delay = self.tick()
        except SchemaMismatch as error:
            self._stopping = True
            self._report(error, 0.0)
            if self._on_fatal is not None:
                self._on_fatal(error)
            return None
        except Exception as error:  # noqa: BLE001  # a control thread survives whatever a tick meets
            if isinstance(error, StoreError) and not isinstance(error, (BadRow, NotSupported)):
                return self._unavailable(error)  # also read-only, full, damaged: it may be mended
            delay = self._backoff()
            self._report(error, delay)
            return delay
        if self._failures:
            self._recovered()
        return delay

    def _backoff(self) -> float:
        self._failures += 1
        delay: float = min(self.longest_backoff, 0.05 * 2 ** min(self._failures, 16))
        return delay * (0.75 + self._rng.random() / 2)

    def _unavailable(self, error: StoreError) -> float:
        delay = self._backoff()
        if self._down_since is None:  # told once per outage
            self._down_since = time.monotonic()
            self.bus.emit(StoreUnavailableEvent(service=self.name, error=str(error), retry_in=delay))
        return delay

    def _recovered(self) -> None:
        self._failures = 0
        if self._down_since is not None:
            outage, self._down_since = time.monotonic() - self._down_since, None
            self.bus.emit(StoreAvailable(service=self.name, outage=outage))

    def _report(self, error: BaseException, delay: float) -> None:
        clear = isinstance(error, SchemaMismatch)  # it says what to do, and where it was met does not matter
        text = "" if clear else "".join(traceback.format_exception(error))
        self.bus.emit(ServiceFailed(service=self.name, error=f"{type(error).__name__}: {error}", traceback=text))
