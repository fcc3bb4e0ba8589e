"""Short bad weather for the simulation: minutes in which little else happens than what a certain kind of bug needs.

Storm ─▶ World with its own weather and jobs ─▶ minutes of it, then calm ─▶ checker
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from msgspec import Struct, structs

from dayjob.store.contract import Store
from tests.chaos.simulation import work
from tests.chaos.simulation.limited import KINDS, Kind
from tests.chaos.simulation.machine import SECOND, Process
from tests.chaos.simulation.stage import staged
from tests.chaos.simulation.timetable import Drawn, crowded
from tests.chaos.simulation.weather import Fate, Weather
from tests.chaos.simulation.world import World
from tests.chaos.verdict import Verdict

NEVER = 10**15


class Storm(Struct, frozen=True, kw_only=True):
    """What goes wrong, and how often.

    Attributes:
        workers: how many there are, from and to. every: seconds between two strokes, by the name of a method of `Gale`. loss: how many of all calls get no answer.
        late: seconds, in the mean, after which some of them arrive all the same.
        tasks: the jobs there are, each as often as it is named. longest: seconds that their work takes at most. slower: so many times as long.
        pause: seconds between two enqueues of a producer. regretted: half are delayed, and cancelled while they wait.
        drain: seconds within which all is done when it is over. prompt: as in `Conditions`.
        rushes: this share of all enqueues is of jobs that wait for others, of these *kinds*. drawn: which schedules there are, if any.
    """

    name: str
    minutes: float = 3.0
    workers: tuple[int, int] = (2, 4)
    every: Mapping[str, float] = {}
    loss: float = 0.0
    late: float = 5.0
    tasks: tuple[str, ...] = (*["steady"] * 6, "flaky", "snoozer", "writer", "doomed", "final")
    longest: float = 5.0
    slower: float = 1.0
    pause: float = 1.5
    regretted: bool = False
    drain: float = 240.0
    prompt: float = 0.0
    rushes: float = 0.0
    kinds: tuple[Kind, ...] = KINDS
    drawn: Drawn | None = None

    def shorter(self, share: float) -> Storm:
        """The same for a *share* of its time."""
        return structs.replace(self, minutes=self.minutes * share)

    def draw(self, rng: random.Random) -> work.Spec:
        """A job."""
        task = rng.choice(self.tasks)
        while True:
            spec = work.draw(rng)
            if spec.task == task and spec.seconds <= self.longest and spec.plan.delay <= self.longest:
                break
        if self.regretted and rng.random() < 0.5:
            plan = structs.replace(spec.plan, delay=rng.uniform(20.0, 40.0), cancelled=True)
            return structs.replace(spec, plan=plan, cancel_after=rng.uniform(0.0, 5.0))
        return structs.replace(spec, seconds=spec.seconds * self.slower)


class Gale(Weather):
    """The weather of a storm."""

    def __init__(self, world: World, storm: Storm, rng: random.Random) -> None:
        super().__init__(world, rng)
        self._storm = storm

    def forecast(self, hours: float) -> None:
        storm, machine = self._storm, self.world.machine
        if storm.loss:
            self._loss, self._lossy = storm.loss, NEVER
            self._fault("lossy", hours * 3600.0)
        for name, seconds in storm.every.items():
            at = self._rng.expovariate(1 / seconds)
            while at < hours * 3600.0:
                machine.at(int(at * SECOND), None, getattr(self, name))
                at += self._rng.expovariate(1 / seconds)

    def fate(self, process: Process, name: str) -> Fate:
        fate = super().fate(process, name)
        if fate.late is not None:
            fate.late = int(self._rng.expovariate(1 / self._storm.late) * SECOND)
        return fate

    def kill(self) -> None:
        self._kill()

    def freeze(self) -> None:
        """For longer than a lease."""
        process = self._victim()
        if process is not None and not process.frozen:
            until = self._fault("freeze", self._rng.uniform(26.0, 50.0), process)
            process.frozen = True
            self.world.machine.at(until, None, lambda: process.thaw() if process.frozen else None)

    def stop(self) -> None:
        process = self._victim()
        if process is not None and not process.frozen and process.role == "worker":
            self.world.tell(process)

    def part(self) -> None:
        """SIGTERM; what the worker does not clear away, nobody does for it."""
        process = self._victim()
        if process is not None and not process.frozen and process.role == "worker":
            process.unseen = True
            self.world.tell(process)

    def outage(self) -> None:
        self._down = self._fault("outage", self._rng.uniform(60.0, 90.0))


CALM = Storm(name="calm", pause=3.0, prompt=0.1)
SHORT = Storm(name="short", minutes=1.0, pause=3.0, drain=20.0)
PATIENT = Storm(name="patient", longest=200.0, pause=4.0)
REGRET = Storm(name="regret", minutes=2.0, tasks=("steady",), pause=3.0, regretted=True)
LOSSY = Storm(name="lossy", loss=0.2)
LOSSY_DEATHS = Storm(name="lossy deaths", loss=0.25, every={"kill": 10.0}, pause=2.0)
LATE_DEATHS = Storm(name="late deaths", loss=0.15, late=40.0, every={"kill": 12.0}, pause=5.0)
FREEZES = Storm(
    name="freezes", workers=(4, 4), every={"freeze": 3.0}, tasks=("steady",), longest=0.02, pause=0.03, loss=0.02
)
"""Only of short jobs some are claimed before there is a place for them."""
SLOW_FREEZES = Storm(
    name="slow freezes",
    minutes=5.0,
    workers=(5, 5),
    every={"freeze": 8.0},
    tasks=("steady", "writer"),
    slower=6.0,
    pause=7.0,
    drain=400.0,
)
POISON = Storm(
    name="poison", minutes=2.0, every={"kill": 20.0}, tasks=(*["steady"] * 30, *["flaky"] * 4, "poison"), drain=300.0
)
SHUTDOWNS = Storm(name="shutdowns", every={"stop": 10.0}, longest=60.0)
PARTINGS = Storm(name="partings", every={"part": 10.0}, slower=3.0)
OUTAGES = Storm(name="outages", minutes=5.0, every={"outage": 150.0}, pause=5.0)
RUSHES = Storm(name="rushes", every={"kill": 30.0}, longest=2.0, pause=2.0, rushes=0.9)
TICKS = Storm(name="ticks", minutes=10.0, pause=20.0, drawn=crowded)
TWO_LEADERS = structs.replace(TICKS, name="two leaders", every={"freeze": 8.0}, workers=(3, 4), drain=1500.0)
LOSSY_TICKS = structs.replace(TICKS, name="lossy ticks", loss=0.3)


class Trial(Struct, frozen=True):
    """What came of a storm: the *verdict*, and the *seconds* that were lived through."""

    seconds: float
    jobs: int
    calls: int
    verdict: Verdict


def weather(store: Store, storm: Storm, seed: int) -> Trial:
    """Live through *storm* on *store* (migrated and empty)."""
    world = World(store, seed)
    world.weather = Gale(world, storm, random.Random(f"{seed} storm"))
    world.workers_wanted, world.pause, world.childless = storm.workers, storm.pause, False
    world.draw, world.drain, world.prompt = storm.draw, storm.drain, storm.prompt
    world.rushes, world.kinds, world.drawn = storm.rushes, storm.kinds, storm.drawn
    with staged():
        world.live(storm.minutes / 60.0)
        world.heal()
    world.replay()
    return Trial(world.machine.now / SECOND, len(world.specs), world.calls, world.judged())
