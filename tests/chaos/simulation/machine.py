"""The machine beneath the simulation: one clock, one heap of wake-ups, and strands that stand in for threads.

    heap of (time, tie-breaker) ──▶ next wake-up ──▶ its strand runs until it would block ──▶ back to the heap
                                        │
              its process is dead: dropped        its process is frozen: put off until it thaws

A strand is a greenlet: at any moment one of them runs, and it is left only where a thread would block (a sleep, a lock,
a queue, a call of the store). So the code of the worker runs as it is, every interleaving of its threads is possible,
and which one happens is decided by the seed alone.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from itertools import count
from queue import Empty
from typing import Any

from greenlet import getcurrent, greenlet

SECOND = 1_000_000
START = 1_900_000_000 * SECOND
"""The store's clock when the simulation begins: in the future, so that a real clock that is asked is seen."""


class Dead(BaseException):
    """Raised in a strand whose process is no more, to unwind it; nothing it does on the way reaches anybody."""


class Process:
    """A simulated operating-system process: its clocks, and whether it lives.

    Attributes:
        pid, role: for the ledger and the log. skew: its wall clock less the true time, in microseconds.
        frozen: no strand of it runs; what would wake one is put off until it thaws.
        cut_until: until then nothing it sends arrives, and nothing comes back.
        unseen: nobody is there to see it die. stopping: it was asked to end: what it dies of then is no crash. told: it was sent SIGTERM then. code: its exit code. on_exit: called by the machine once it is no more.
    """

    def __init__(self, machine: Machine, pid: int, role: str, rng: random.Random) -> None:
        self.machine, self.pid, self.role = machine, pid, role
        self._born, self._base = machine.now, rng.randrange(10**12)
        self._drift = rng.randint(-200, 200)  # parts per million
        self.skew = rng.choice((0, 0, rng.randint(-7200, 7200) * SECOND))
        self.cut_until = 0
        self.frozen = self.dead = self.unseen = self.stopping = False
        self._put_off: list[tuple[Any, int]] = []
        self.told: int | None = None
        self.code: int | None = None
        self.strands: dict[Strand, None] = {}
        self.on_exit: list[Callable[[], None]] = []

    def monotonic(self) -> int:
        alive = self.machine.now - self._born
        return self._base + alive + alive * self._drift // 1_000_000

    def lasting(self, seconds: float) -> int:
        """The true microseconds after which its own clock has gone on by *seconds*: who wakes too early looks again for nothing."""
        micros = max(1, int(seconds * SECOND))
        return micros - micros * self._drift // 1_000_000 + 2

    def start(self, run: Callable[[], object], name: str) -> Strand:
        strand = Strand(run, name=name, process=self)
        strand.start()
        return strand

    def put_off(self, what: Any, token: int) -> None:
        self._put_off.append((what, token))

    def thaw(self) -> None:
        """Go on, with everything at once that came due meanwhile."""
        self.frozen = False
        put_off, self._put_off = self._put_off, []
        for what, token in put_off:
            self.machine.again(what, token)

    def end(self, code: int) -> None:
        """It is over; whoever runs in it is unwound as soon as the present strand rests."""
        if self.dead:
            return
        self.dead, self.code = True, code
        self.machine.at(self.machine.now, None, self._bury)

    def _bury(self) -> None:
        for strand in list(self.strands):
            strand.unwind()
        for call in self.on_exit:
            call()


class Strand:
    """What a thread is to the worker: `threading.Thread`, as far as it uses one."""

    def __init__(
        self,
        target: Callable[..., object],
        args: tuple[Any, ...] = (),
        name: str = "",
        daemon: bool = True,
        process: Process | None = None,
    ) -> None:
        self.name, self.daemon = name, daemon
        self.process = process or Machine.present.process
        self._target, self._args = target, args
        self._greenlet = greenlet(self._main, Machine.present.hub)
        self.token = 0
        self.alive = False
        self.pending: BaseException | None = None
        self._joined = Waiters()

    ident = None

    def start(self) -> None:
        self.alive = True
        self.process.strands[self] = None
        machine = Machine.present
        machine.push(machine.now, self)

    def is_alive(self) -> bool:
        return self.alive

    def join(self, timeout: float | None = None) -> None:
        if self.alive:
            self._joined.wait(timeout)

    def _main(self) -> None:
        try:
            self._target(*self._args)
        except Dead:
            pass
        except BaseException as error:
            Machine.present.failures.append((self, error))
        finally:
            self.alive = False
            self.process.strands.pop(self, None)
            self._joined.wake()

    def resume(self) -> None:
        machine = Machine.present
        machine.strand, machine.process = self, self.process
        self._greenlet.switch()
        machine.strand = None

    def unwind(self) -> None:
        """Raise `Dead` where it stands. From the hub."""
        machine = Machine.present
        machine.strand, machine.process = self, self.process
        self._greenlet.throw(Dead)
        machine.strand = None

    def interrupt(self, error: BaseException) -> None:
        """Raise *error* where it rests."""
        self.pending = error
        Machine.present.push(Machine.present.now, self)


class Machine:
    """The clock and the heap. One at a time: `present`.

    Attributes:
        now: microseconds since the beginning. strand, process: what runs at this moment.
        failures: errors that no strand may end with.
    """

    present: Machine

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0
        self.hub = getcurrent()
        self._heap: list[tuple[int, float, int, Any, int]] = []
        self._seq = count()
        self._horizon = 0
        self.strand: Strand | None = None
        self.failures: list[tuple[Strand, BaseException]] = []
        self.process: Process = Process(self, 0, "harness", random.Random(seed))
        self.harness = self.process

    @property
    def stamp(self) -> int:
        """The store's clock."""
        return START + self.now

    def push(self, at: int, strand: Strand) -> None:
        heapq.heappush(self._heap, (at, self.rng.random(), next(self._seq), strand, strand.token))

    def at(self, at: int, process: Process | None, call: Callable[[], object]) -> None:
        """Call *call* at *at*, in the name of *process* (None: the world's, which neither dies nor freezes)."""
        heapq.heappush(self._heap, (at, self.rng.random(), next(self._seq), (process, call), 0))

    def again(self, what: Any, token: int) -> None:
        """Let *what* happen now that was put off."""
        heapq.heappush(self._heap, (self.now, self.rng.random(), next(self._seq), what, token))

    def run(self, until: int) -> None:
        """Let everything happen up to *until*. From the hub."""
        heap, self._horizon = self._heap, until
        while heap and heap[0][0] <= until:
            at, _, _, what, token = heapq.heappop(heap)
            self.now = max(self.now, at)
            if isinstance(what, Strand):
                if what.token != token or not what.alive or what.process.dead:
                    continue
                if what.process.frozen:
                    what.process.put_off(what, token)
                    continue
                what.resume()
            else:
                process, call = what
                if process is not None:
                    if process.dead:
                        continue
                    if process.frozen:
                        process.put_off(what, token)
                        continue
                self.process = process or self.harness
                call()
            if self.failures:
                strand, error = self.failures[0]
                raise RuntimeError(f"strand {strand.name} of process {strand.process.pid} failed") from error
        self.now = max(self.now, until)

    def park(self, until: int | None) -> None:
        """The present strand rests, until *until* or until it is woken."""
        strand = self.strand
        assert strand is not None, "only a strand may block"
        if strand.process.dead:
            raise Dead
        if until is not None and (not self._heap or self._heap[0][0] > until) and until <= self._horizon:
            self.now = max(self.now, until)  # nothing happens meanwhile
        else:
            strand.token += 1
            if until is not None:
                self.push(max(until, self.now), strand)
            self.hub.switch()
            if strand.process.dead:
                raise Dead
        strand.token += 1  # whatever would still wake it comes too late
        if strand.pending is not None:
            error, strand.pending = strand.pending, None
            raise error

    def sleep(self, seconds: float) -> None:
        self.park(self.now + self.process.lasting(seconds))


class Waiters:
    """Strands that wait for the same."""

    def __init__(self) -> None:
        self._strands: list[Strand] = []

    def wait(self, timeout: float | None) -> None:
        machine = Machine.present
        strand = machine.strand
        assert strand is not None, "only a strand may block"
        self._strands.append(strand)
        try:
            machine.park(None if timeout is None else machine.now + strand.process.lasting(timeout))
        finally:
            self._strands.remove(strand)

    def wake(self, most: int | None = None) -> None:
        machine = Machine.present
        for strand in self._strands[:most]:
            machine.push(machine.now, strand)


class Flag:
    """`threading.Event`."""

    def __init__(self) -> None:
        self._set = False
        self._waiters = Waiters()

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        self._waiters.wake()

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        if not self._set and (timeout is None or timeout > 0):
            self._waiters.wait(timeout)
        return self._set


class Queue:
    """`queue.SimpleQueue`."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._waiters = Waiters()

    def put(self, item: Any) -> None:
        self._items.append(item)
        self._waiters.wake(1)

    def get(self, timeout: float | None = None) -> Any:
        if not self._items and (timeout is None or timeout > 0):
            self._waiters.wait(timeout)
        if not self._items:
            raise Empty
        return self._items.popleft()


class Mutex:
    """`threading.Lock`; whoever finds it taken waits for its turn."""

    def __init__(self) -> None:
        self._taken = False
        self._waiters = Waiters()

    def __enter__(self) -> None:
        while self._taken:
            self._waiters.wait(None)
        self._taken = True

    def __exit__(self, *exc: object) -> None:
        self._taken = False
        self._waiters.wake(1)
