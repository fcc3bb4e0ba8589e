"""The store as one simulated process sees it: the real one, at the end of a bad line.

    call ──request──▶ executed ──reply──▶ returned
             │ lost, late     │ lost
             ▼                ▼
       StoreUnavailable after a while (and what was late is executed all the same)

The process may die or freeze on either leg. What it has sent is executed even so.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dayjob.clock import SECOND
from dayjob.errors import StoreUnavailable
from dayjob.store.records import Cancel, Enqueued, Filter, Settlement, Tick, Turn
from tests.chaos.simulation.machine import Process, Waiters

if TYPE_CHECKING:
    from tests.chaos.simulation.world import World

NEAR = 5_000
"""Microseconds: a request that takes longer is on the wire by itself, whatever becomes of who sent it."""
TERMED = ("stage", "rescue", "prune", "sample", "admit")
"""Calls that carry a term."""
TIMELESS = ("find",)
"""Calls that need no clock."""


class Ear:
    """`contract.Listener`."""

    def __init__(self, line: Line, topics: Sequence[str]) -> None:
        self._line, self.topics = line, topics
        self._heard: list[tuple[str, bytes]] = []
        self._woken = False
        self._waiters = Waiters()

    def wait(self, timeout: float) -> list[tuple[str, bytes]]:
        if not self._heard and not self._woken:
            self._waiters.wait(timeout)
        heard, self._heard, self._woken = self._heard, [], False
        return heard

    def hear(self, topic: str, data: bytes) -> None:
        self._heard.append((topic, data))
        self._waiters.wake()

    def wake(self) -> None:
        self._woken = True
        self._waiters.wake()

    def close(self) -> None:
        self._line.world.ears.pop(self, None)


class Line:
    """A store for one process."""

    def __init__(self, world: World, process: Process) -> None:
        self.world, self.process, self._store = world, process, world.store
        self.machine = world.machine
        self._due: dict[str, int] = {}
        self._led = ("", 0)

    def __getattr__(self, name: str) -> Any:
        if name in TIMED:
            return lambda *args, **kw: self._call(name, *args, **kw)
        return getattr(self._store, name)

    def now(self) -> int:
        return self.machine.stamp

    # -- signals ---------------------------------------------------------------------------------------------------

    def listen(self, topics: Sequence[str]) -> Ear:
        ear = Ear(self, topics)
        self.world.ears[ear] = self.process
        return ear

    def listening(self, topic: str, *, within: float = 0.05) -> bool:
        return topic not in ("done", "event")

    def notify(self, topic: str, data: bytes = b"") -> None:
        """Chance comes from what is said and not from the seed's stream: senders tell several queues in no fixed order."""
        machine = self.machine
        if self.process.cut_until > machine.now:
            return
        for ear, process in list(self.world.ears.items()):
            if topic in ear.topics and process.cut_until <= machine.now:
                lot = zlib.crc32(b"%d %d %s %s" % (machine.now, process.pid, topic.encode(), data))
                if lot % 100 >= self.world.weather.deafness:
                    machine.at(machine.now + 200 + lot % 999, process, lambda ear=ear: ear.hear(topic, data))  # type: ignore[misc]

    # -- calls -----------------------------------------------------------------------------------------------------

    def turn(
        self, worker: str, claim_no: int | None = None, settlements: Sequence[Settlement] = (), wants: Any = ()
    ) -> Turn:
        note = self.world.note
        settlements = list(settlements)
        for one in settlements:
            note("finish.sent", id=one.id, entry=one.entry, worker=worker, outcome=str(one.outcome))
        turn: Turn = self._call("turn", worker, claim_no, settlements, wants)
        if settlements:
            refused = set(turn.refused)
            for one in settlements:
                fact = "finish.refused" if (one.id, one.entry) in refused else "finish.accepted"
                note(fact, id=one.id, entry=one.entry, worker=worker, outcome=str(one.outcome))
        return turn

    def record(self, lease: Any, writes: Any) -> bool:
        sent = self.machine.now / SECOND
        held: bool = self._call("record", lease, writes)
        fact = "write.accepted" if held else "write.refused"
        self.world.note(fact, id=lease.id, entry=lease.entry, worker=lease.worker, sent=sent)
        return held

    def beat(self, worker: Any, held: Any, tallies: Any = (), *, claims: int | None = None) -> Any:
        note, sent = self.world.note, self.machine.now
        if worker.id in self._due:
            note("beat", worker=worker.id, late=max(0.0, (sent - self._due[worker.id]) / SECOND))
        try:
            beat = self._call("beat", worker, held, tallies, claims=claims)
        finally:  # an answer that is long in coming makes no beat late: it is counted from there
            self._due[worker.id] = self.machine.now + int(self.world.settings.beat * SECOND)
        if beat.term is not None and (worker.id, beat.term) != self._led:
            self._led = (worker.id, beat.term)
            note("term.granted", term=beat.term, worker=worker.id)
        return beat

    def tick(self, ticks: Sequence[Tick]) -> list[list[Enqueued] | None]:
        for tick in ticks:
            for row in tick.jobs:
                self.world.ticking(tick.key, row)
        answers: list[list[Enqueued] | None] = self._call("tick", ticks)
        for tick, answer in zip(ticks, answers, strict=True):
            for row in tick.jobs if answer is not None else ():
                self.world.note("enqueue.acknowledged", id=row.id)
        return answers

    def cancel(self, id: str) -> None:
        for each in self._call("act", Filter(ids=(id,)), Cancel(keep=None)):
            self.world.note("cancel.accepted", id=each)
        self.notify("control")

    def _call(self, name: str, *args: Any, **kw: Any) -> Any:
        machine, weather = self.machine, self.world.weather
        self.world.calls += 1
        fate = weather.fate(self.process, name)
        if fate.lost is not None:
            if fate.late is not None:
                machine.at(machine.now + fate.late, None, lambda: self._execute(name, args, kw, late=True))
            machine.sleep(fate.lost)
            raise StoreUnavailable("no answer")
        if fate.request <= NEAR:
            machine.park(machine.now + fate.request)
            answer = self._execute(name, args, kw)
        else:
            answer = self._far(fate.request, name, args, kw)
        if fate.reply_lost is not None:
            machine.sleep(fate.reply_lost)
            self.world.count("reply lost")
            raise StoreUnavailable("the reply was lost")
        machine.park(machine.now + fate.reply)
        return answer

    def _far(self, request: int, name: str, args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
        """Send it and wait; what is on the wire arrives even if its sender dies or freezes meanwhile."""
        answers: list[Any] = []
        waiters = Waiters()

        def arrive() -> None:
            answers.append(self._execute(name, args, kw))
            waiters.wake()

        self.machine.at(self.machine.now + request, None, arrive)
        while not answers:
            waiters.wait(None)
        return answers[0]

    def _execute(self, name: str, args: tuple[Any, ...], kw: dict[str, Any], *, late: bool = False) -> Any:
        """Let the store do it, now; *late*: whoever asked has given it up."""
        world = self.world
        if name not in TIMELESS:
            kw = {**kw, "now": self.machine.stamp}
        answer = getattr(self._store, name)(*args, **kw)
        if name in TERMED and answer is not None:
            world.led(args[0], self.process)
            if name != "admit" or answer[0]:  # each second is too much to tell
                sent = self.machine.now / SECOND
                world.note("upkeep.accepted", term=args[0], what=name, sent=sent, **({"late": True} if late else {}))
        if name == "turn":
            world.ended(one.id for one in args[2] if (one.id, one.entry) not in answer.refused)
            world.claimed(args[0], answer)
        elif name == "beat" and not answer.lost:
            world.beaten[args[0].id] = self.machine.now + int(args[0].expiry * SECOND)
        elif name == "rescue":
            world.rescued([gone.worker.id for gone in answer or ()])
            world.ended(job.id for gone in answer or () for job in gone.jobs)
        elif name == "leave" and answer is not None:
            world.ended(job.id for job in answer.jobs)
        elif name == "tick":
            world.ticked(tick for tick, jobs in zip(args[0], answer, strict=True) if jobs is not None)
        elif name == "write" and answer == 1:
            world.written(*args[:3])
        return answer


TIMED = (
    *("enqueue", "act", "beat", "leave", "pause", "stage", "rescue", "prune", "sample", "admit"),
    *("read", "write", "list", "find"),
)
_Call = Callable[..., Any]
