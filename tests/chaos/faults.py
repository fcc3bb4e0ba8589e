"""What can happen in a run, and the order in which it does.

A fault is a class with a name and a `happen`; `TABLES` says how many of each an engine suffers in an act of chaos, and
`order` draws their times from a seed. To add one: the class, and a line in the tables.
"""

from __future__ import annotations

import random
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from msgspec import to_builtins

from dayjob.store.records import Filter
from tests.chaos import app as chaos
from tests.chaos.crew import FAKETIME, Crew, Member
from tests.chaos.evidence import UNFINISHED
from tests.chaos.ledger import Plan
from tests.chaos.places import Place
from tests.chaos.places.postgres import Postgres
from tests.chaos.places.sqlite import Sqlite
from tests.chaos.places.valkey import Valkey
from tests.chaos.producer import Sender
from tests.chaos.restore import Backup
from tests.servers.wire.operations import OPERATIONS

AWAY = 1.5 * chaos.LEASE
DEAF = 30.0
"""Seconds after which a worker that was told to end will not do so any more."""
REPLIES = 10
APART = 0.5
"""Seconds between two outages at the least."""


class Suffered:
    """Whether a fault came to pass: what did not is no excuse, and is not counted."""

    happened = True


class Scene:
    """Where faults happen.

    Args:
        say: prints a line.
    Attributes:
        backup: the last that was taken.
    """

    backup: Backup | None = None

    def __init__(self, place: Any, crew: Crew, say: Callable[[str], None]) -> None:
        self.place, self.crew, self.say = place, crew, say
        self._sender = Sender()
        self._harm: list[str] = []

    @contextmanager
    def suffering(self, name: str, victim: Member | None, what: str = "") -> Iterator[Suffered]:
        """The fault happens inside: said when it begins, noted when it is over, unless it did not come to pass."""
        begun, suffered = time.monotonic(), Suffered()
        self.say(f"{name:<16} {victim or ''} {what}")
        try:
            yield suffered
        finally:
            target = None if victim is None else victim.pid
            if suffered.happened:
                chaos.ledger.note("fault", name=name, target=target, at=begun, until=time.monotonic())

    def enqueue(self, task: Any, *arguments: Any, plan: Plan = Plan()) -> None:
        """A job of the harness's own."""

        def make(call: int) -> list[Any]:
            meta = {"call": call, "plan": to_builtins(plan)}
            return [task.using(queue=chaos.DEADLY if plan.crashes else "default", meta=meta).job(*arguments)]

        stored = self._sender.send(make, lambda jobs: [job.enqueue() for job in jobs])
        self._harm += [job.id for job in stored]

    def harmless(self) -> bool:
        """True when none of these jobs can do harm any more."""
        which = Filter(ids=tuple(self._harm), states=UNFINISHED)
        if not self._harm or not chaos.app.store.count(which):
            self._harm = []
        return not self._harm


class Fault(ABC):
    """Something that goes wrong.

    Attributes:
        name: as the ledger and the report have it. lasts: about so many seconds. alone: the store is away, or a process
            takes its leave, and nothing else of this kind happens at the same time. early: its consequences take long.
        everybody: it happens to the store or the line, not to a process.
    """

    name: ClassVar[str]
    everybody: ClassVar[bool] = False
    lasts: ClassVar[float] = 0.0
    alone: ClassVar[bool] = False
    early: ClassVar[bool] = False

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice

    @classmethod
    def possible(cls, place: Any) -> bool:
        """False where this machine cannot let it happen at *place*."""
        return True

    @abstractmethod
    def happen(self, scene: Scene) -> None:
        """Let it happen, and return when it is over."""


# -- to a process


class Kill(Fault):
    """A worker is gone from one moment to the next."""

    name = "SIGKILL"

    def happen(self, scene: Scene) -> None:
        with scene.crew.one(self.dice, to_end=True) as worker, scene.suffering(self.name, worker):
            scene.crew.kill(worker)


class KillProducer(Fault):
    """…and a producer."""

    name = "SIGKILL producer"

    def happen(self, scene: Scene) -> None:
        with scene.crew.one(self.dice, "producer") as producer, scene.suffering(self.name, producer):
            scene.crew.kill(producer)


class Stop(Fault):
    """A worker stands still for longer than its lease, does not know it, and goes on."""

    name = "SIGSTOP"
    lasts = AWAY

    def happen(self, scene: Scene) -> None:
        with scene.crew.one(self.dice) as worker, scene.suffering(self.name, worker, f"for {AWAY:g} s"):
            worker.send(signal.SIGSTOP)
            time.sleep(AWAY)  # the fault itself
            worker.send(signal.SIGCONT)


class Tell(Fault):
    """A worker is told to end."""

    name = "SIGTERM"
    lasts = 2.0
    alone = True

    def happen(self, scene: Scene) -> None:
        with scene.crew.one(self.dice, to_end=True) as worker, scene.suffering(self.name, worker):
            scene.crew.tell(worker)
            given_up = time.monotonic() + DEAF
            while worker.process.poll() is None:
                if time.monotonic() > given_up:
                    worker.send(signal.SIGKILL)  # the checker finds the late exit
                time.sleep(0.02)


class ClockBack(Fault):
    """A worker's wall clock jumps, and stays wrong for a while."""

    name = "clock -1 h"
    lasts = 4.0
    seconds: ClassVar[int] = -3600

    def happen(self, scene: Scene) -> None:
        with scene.crew.one(self.dice, clocked=True) as worker, scene.suffering(self.name, worker):
            worker.jump(self.seconds)
            time.sleep(self.lasts)
            worker.jump(0)


class ClockAhead(ClockBack):
    """The other way."""

    name = "clock +3 h"
    seconds = 3 * 3600


# -- by a job


class Poison(Fault):
    """A job kills its process, however often it is tried."""

    name = "self-kill"
    early = True

    def happen(self, scene: Scene) -> None:
        death = self.dice.choice(sorted(chaos.DEATHS))
        scene.say(f"{self.name:<16} a job that ends its process by {death}")
        scene.enqueue(chaos.poison, death, plan=Plan("dead", attempts=0, crashes=3, reason="crashed"))


class Hog(Fault):
    """A job keeps the GIL for up to half a lease."""

    name = "hog"
    early = True
    lasts = chaos.LEASE

    def happen(self, scene: Scene) -> None:
        seconds = round(self.dice.uniform(0.3, 0.5) * chaos.LEASE, 2)
        scene.say(f"{self.name:<16} a job that keeps the GIL for {seconds:g} s")
        scene.enqueue(chaos.hog, seconds)


class Burn(Fault):
    """A job is busy in Python code."""

    name = "burn"
    early = True
    lasts = 1.5 * chaos.LEASE

    def happen(self, scene: Scene) -> None:
        scene.say(f"{self.name:<16} a job that computes for a lease")
        scene.enqueue(chaos.burn, chaos.LEASE)


# -- to a file


class WriterKilled(Fault):
    """A stranger dies inside his write transaction."""

    name = "writer killed"
    everybody = True
    alone = True

    def happen(self, scene: Scene) -> None:
        with scene.suffering(self.name, None), scene.place.stranger() as stranger:
            time.sleep(0.3)  # the fault itself
            stranger.kill()


class WriterStopped(Fault):
    """A stranger stands still while he holds the write lock."""

    name = "writer stopped"
    everybody = True
    lasts = 1.5
    alone = True

    def happen(self, scene: Scene) -> None:
        with scene.suffering(self.name, None, "for 1 s"), scene.place.stranger() as stranger:
            stranger.send_signal(signal.SIGSTOP)
            time.sleep(1.0)  # the fault itself


class Locked(Fault):
    """Somebody else holds the write lock for longer than a lease."""

    name = "locked"
    everybody = True
    lasts = AWAY
    alone = True

    def happen(self, scene: Scene) -> None:
        with scene.suffering(self.name, None, f"for {AWAY:g} s"), scene.place.locked():
            time.sleep(AWAY)  # the fault itself


# -- to a server and the line to it


class StoreKilled(Fault):
    """The server crashes, and is started again."""

    name = "store killed"
    everybody = True
    lasts = 2.0
    alone = True

    def happen(self, scene: Scene) -> None:
        with scene.suffering(self.name, None):
            scene.place.crash()


class BackendKilled(Fault):
    """The process of one connection is killed, whereupon PostgreSQL ends all others and recovers."""

    name = "backend killed"
    everybody = True
    lasts = 1.0
    alone = True

    def happen(self, scene: Scene) -> None:
        with scene.suffering(self.name, None):
            scene.place.kill_a_backend()


class Reset(Fault):
    """Every connection breaks."""

    name = "reset"
    everybody = True

    def happen(self, scene: Scene) -> None:
        with scene.suffering(self.name, None):
            scene.place.proxy.cut()


class Refused(Fault):
    """Every connection breaks, and for a second no new one is made."""

    name = "refused"
    everybody = True
    lasts = 1.0
    alone = True

    def happen(self, scene: Scene) -> None:
        proxy = scene.place.proxy
        with scene.suffering(self.name, None, "for 1 s"):
            proxy.refusing = True
            proxy.cut()
            time.sleep(1.0)  # the fault itself
            proxy.refusing = False


class Blackhole(Fault):
    """Nothing arrives, and nobody is told; then all of it does."""

    name = "blackhole"
    everybody = True
    lasts = 5.0
    alone = True

    def happen(self, scene: Scene) -> None:
        with scene.suffering(self.name, None, "for 5 s"):
            scene.place.proxy.blackhole(self.lasts)
            time.sleep(self.lasts)  # the fault itself


class Late(Fault):
    """What is said arrives late, now more, now less."""

    name = "late"
    everybody = True
    lasts = 3.7

    def happen(self, scene: Scene) -> None:
        with scene.suffering(self.name, None, f"by 10 to 500 ms, for {self.lasts:g} s"):
            scene.place.proxy.delay(0.01, 0.5)
            time.sleep(self.lasts)  # the fault itself
            scene.place.proxy.delay(0.0)


class RepliesLost(Fault):
    """Ten of these are carried out, and whoever asked is never told."""

    everybody = True
    lasts = 3.0
    operation: ClassVar[str]

    def happen(self, scene: Scene) -> None:
        with scene.suffering(self.name, None):
            loss = scene.place.proxy.lose_replies(OPERATIONS[self.operation][scene.place.dialect], REPLIES)
            if not loss.done.wait(30.0):
                raise AssertionError(f"of {REPLIES} replies to {self.operation} only {len(loss.texts)} were lost")


class EnqueuesLost(RepliesLost):
    name, operation = "replies lost: enqueue", "enqueue"


class ClaimsLost(RepliesLost):
    name, operation = "replies lost: claim", "claim"


class SettlesLost(RepliesLost):
    name, operation = "replies lost: settle", "settle"


# -- how much of what

Table = Mapping[type[Fault], int]

EVERYWHERE: Table = {
    Kill: 8,
    KillProducer: 1,
    Stop: 6,
    Tell: 3,
    Poison: 2,
    Hog: 4,
    Burn: 1,
    **({ClockBack: 1, ClockAhead: 1} if FAKETIME is not None else {}),
}
SERVED: Table = {
    **EVERYWHERE,
    StoreKilled: 2,
    Blackhole: 2,
    Refused: 1,
    Reset: 4,
    Late: 2,
    EnqueuesLost: 1,
    ClaimsLost: 1,
    SettlesLost: 1,
}
TABLES: dict[type[Place], Table] = {
    Sqlite: {**EVERYWHERE, WriterKilled: 2, WriterStopped: 2, Locked: 1},
    Postgres: {**SERVED, BackendKilled: 1},
    Valkey: SERVED,
}
"""What an engine suffers in an act of chaos; see `order`."""

ACT = 37.0
"""Seconds of faults for which the tables are made."""


def order(table: Table, seconds: float, seed: int) -> list[tuple[float, Fault]]:
    """The faults of *table* and when each begins, within *seconds*; more or fewer of each when that is not an act's length.

    The same seed gives the same. They overlap as it comes, but for those that need room of their own. The last is one of
    everybody, so that the calm after it shows how the jobs flow again.
    """
    dice = random.Random(seed)
    counts = {kind: max(1, round(count * seconds / ACT)) for kind, count in table.items()}
    apart = [kind for kind, count in counts.items() if kind.alone for _ in range(count)]
    dice.shuffle(apart)
    apart.append(apart.pop(max(place for place, kind in enumerate(apart) if kind.everybody)))
    room = max(0.0, seconds - sum(kind.lasts + APART for kind in apart))
    gaps = [*sorted(dice.uniform(0.0, room) for _ in apart[1:]), room]
    drawn: list[tuple[float, Fault]] = []
    gone = 0.0
    for gap, kind in zip(gaps, apart, strict=True):
        drawn.append((gone + gap, _made(kind, dice)))
        gone += kind.lasts + APART
    last = drawn[-1][0]
    for kind in (kind for kind in counts if not kind.alone):
        latest = max(0.0, (last * 0.5 if kind.early else last) - kind.lasts - APART)
        drawn += [(dice.uniform(0.0, latest), _made(kind, dice)) for _ in range(counts[kind])]
    return sorted(drawn, key=lambda each: each[0])


def _made(kind: type[Fault], dice: random.Random) -> Fault:
    return kind(random.Random(dice.random()))
