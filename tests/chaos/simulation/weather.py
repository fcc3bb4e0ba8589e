"""What goes wrong, and when: drawn from the seed, hour by hour. Some hours are calm, some wild."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from tests.chaos.simulation.machine import SECOND, Process

if TYPE_CHECKING:
    from tests.chaos.simulation.world import World

HOUR = 3600.0
MOODS = {"calm": 0, "fair": 10, "rough": 30, "wild": 90}
"""Faults an hour."""
REPEATABLE = ("turn", "beat", "stage", "rescue", "prune", "record", "leave", "admit", "tick", "write")
"""A request that was given up may still arrive. Not an enqueue: the contract lets who sends new ids vouch that they are."""


class Fate(Struct):
    """What becomes of one call: microseconds under way; or seconds until it is given up, and when it arrives all the same."""

    request: int = 300
    reply: int = 200
    lost: float | None = None
    late: int | None = None
    reply_lost: float | None = None


class Weather:
    """The faults of one world.

    Attributes:
        deafness: of a hundred signals so many are lost.
    """

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self._rng = world, rng
        self.deafness = 0
        self._down = self._lossy = self._slow = self._deaf = 0
        self._loss = 0.0
        self.over = False

    def forecast(self, hours: float) -> None:
        """Decide when something happens; what, is decided then."""
        hour = 0.0
        while hour < hours:
            faults = MOODS[self._rng.choice(list(MOODS))]
            for _ in range(faults):
                at = (hour + self._rng.random()) * HOUR
                if at < hours * HOUR:
                    self.world.machine.at(int(at * SECOND), None, self._strike)
            hour += 1

    def clear(self) -> None:
        """No more of it: everything heals."""
        self.over = True
        self._down = self._lossy = self._slow = self._deaf = self.deafness = 0
        for process in self.world.alive():
            process.cut_until = 0
            if process.frozen:
                process.thaw()

    # -- calls -----------------------------------------------------------------------------------------------------

    def fate(self, process: Process, name: str) -> Fate:
        rng, now = self._rng, self.world.machine.now
        fate = Fate(100 + int(rng.random() * 400))
        if process.cut_until > now:
            fate.lost = rng.uniform(0.5, 5.0)
        elif self._down > now:
            fate.lost = 0.01 if rng.random() < 0.7 else rng.uniform(0.5, 5.0)
        elif self._lossy > now and rng.random() < self._loss:
            if rng.random() < 0.6:
                fate.reply_lost = rng.uniform(0.01, 3.0)
            else:
                fate.lost = rng.uniform(0.05, 3.0)
                if name in REPEATABLE and rng.random() < 0.5:
                    fate.late = int(rng.expovariate(0.2) * SECOND)
        if self._slow > now:
            fate.request, fate.reply = (int(rng.expovariate(2.0) * SECOND) for _ in range(2))
        return fate

    # -- faults ----------------------------------------------------------------------------------------------------

    def _strike(self) -> None:
        if self.over:
            return
        strokes: list[tuple[Callable[[], None], float]] = [
            (self._kill, 4), (self._lose_host, 1), (self._freeze, 5), (self._stop, 2), (self._outage, 1.5),
            (self._cut, 2), (self._lose, 3), (self._slow_down, 2), (self._jump, 1), (self._deafen, 1), (self._pause, 1),
        ]  # fmt: skip
        self._rng.choices([stroke for stroke, _ in strokes], [weight for _, weight in strokes])[0]()

    def _fault(self, name: str, seconds: float = 0.0, process: Process | None = None) -> int:
        """Note it; returns its end."""
        self.world.count(name)
        now = self.world.machine.now
        until = now + int(seconds * SECOND)
        pid = None if process is None else process.pid
        self.world.note("fault", name=name, target=pid, until=until / SECOND)
        return until

    def _victim(self) -> Process | None:
        """A process, rather one that has something to lose."""
        there = [process for process in self.world.members if not (process.dead or process.stopping)]
        busy = [process for process in there if self.world.busy(process)]
        if busy and self._rng.random() < 0.7:
            there = busy
        return self._rng.choice(there) if there else None

    def _kill(self) -> None:
        process = self._victim()
        if process is not None:
            self._fault("kill", 0.0, process)
            process.end(-9)

    def _lose_host(self) -> None:
        """The worker with the process that it started, and whoever would have seen it die."""
        process = self._victim()
        if process is not None:
            process.unseen = True
            for each in (process, *self.world.children(process)):
                self._fault("host lost", 0.0, each)
                each.end(-9)

    def _freeze(self) -> None:
        process = self._victim()
        if process is not None and not process.frozen:
            rng = self._rng
            seconds = rng.choice(
                (rng.uniform(1, 15), rng.uniform(15, 40), rng.uniform(25, 120), rng.uniform(120, 4000))
            )
            until = self._fault("freeze", seconds, process)
            process.frozen = True
            self.world.machine.at(until, None, lambda: process.thaw() if process.frozen else None)

    def _stop(self) -> None:
        process = self._victim()
        if process is not None and not process.frozen and process.role == "worker":
            self.world.tell(process)

    def _outage(self) -> None:
        self._down = self._fault("outage", self._rng.choice((1.0, 10.0, 30.0, 120.0)) * self._rng.random())

    def _cut(self) -> None:
        process = self._victim()
        if process is not None:
            process.cut_until = self._fault("cut", self._rng.choice((5.0, 60.0)) * self._rng.random(), process)

    def _lose(self) -> None:
        self._loss = self._rng.choice((0.02, 0.1, 0.3))
        self._lossy = self._fault("lossy", self._rng.uniform(5, 60))

    def _slow_down(self) -> None:
        self._slow = self._fault("slow", self._rng.uniform(2, 30))

    def _jump(self) -> None:
        process = self._victim()
        if process is not None:
            process.skew += self._rng.choice((-1, 3)) * 3600 * SECOND
            self._fault("clock", 0.0, process)

    def _deafen(self) -> None:
        self.deafness = self._rng.choice((30, 100))
        until = self._deaf = self._fault("deaf", self._rng.uniform(5, 120))
        self.world.machine.at(until, None, self._hear_again)

    def _hear_again(self) -> None:
        if self._deaf <= self.world.machine.now:
            self.deafness = 0

    def _pause(self) -> None:
        machine, queue = self.world.machine, self._rng.choice(self.world.queues)
        until = self._fault("pause", self._rng.uniform(2, 60))
        self.world.store.pause(queue, True, now=machine.stamp)
        machine.at(until, None, lambda: self.world.store.pause(queue, False, now=machine.stamp))
