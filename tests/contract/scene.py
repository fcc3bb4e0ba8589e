"""A stage for hazards: a store, a clock that moves when told, and workers that do exactly what a test says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dayjob.clock import SECOND
from dayjob.states import Outcome, State
from dayjob.store.contract import Store
from dayjob.store.records import (
    Action,
    Beat,
    Claimed,
    Filter,
    Gone,
    JobRow,
    Lease,
    NewRow,
    Settlement,
    Tally,
    Turn,
    Want,
    WorkerInfo,
    Write,
)
from tests.contract.engines import EngineUnderTest
from tests.contract.ids import numbered

START = 1_000_000_000 * SECOND
"""Some day in 2001: an engine that looks at its own clock where `now=` was given is off by decades and is seen."""

EXPIRY = 20.0
BEAT = 5.0


class Puppet:
    """A worker on strings: it beats, claims and settles when the test says so, and at no other time.

    Attributes:
        id, info: its incarnation. number: the last claim number it used.
        batches: what it believes to hold, by claim number.
        term: the leader's term, as of its last beat.
    """

    def __init__(self, scene: Scene, name: str, store: Store, *, solo: bool = False, expiry: float = EXPIRY) -> None:
        self.scene, self.store, self.id = scene, store, f"worker-{name}"
        self.info = WorkerInfo(id=self.id, name=name, host="stage", pid=4711, solo=solo, expiry=expiry)
        self.number = 0
        self.batches: dict[int, list[Claimed]] = {}
        self.term: int | None = None

    def beat(self, held: Iterable[int] | None = None, tallies: Sequence[Tally] = ()) -> Beat:
        """Beat with the batches it believes to hold, or with *held*."""
        numbers = list(self.batches if held is None else held)
        beat = self.store.beat(self.info, numbers, tallies, now=self.scene.now)
        self.term = beat.term
        return beat

    def lead(self) -> int:
        """Beat, and insist on leading."""
        term = self.beat().term
        assert term is not None, f"{self.id} does not lead"
        return term

    def want(self, limit: int = 10, *queues: str, exclude: tuple[str, ...] = (), suspects: bool | None = None) -> Want:
        return Want(queues or None, limit, exclude, self.info.solo if suspects is None else suspects)

    def turn(
        self, settlements: Sequence[Settlement] = (), wants: Sequence[Want] = (), number: int | None = None
    ) -> Turn:
        """One turn; with wants it uses *number*, or the next."""
        if wants and number is None:
            number = self.number + 1
        turn = self.store.turn(self.id, number, settlements, wants, now=self.scene.now)
        if wants and number is not None:
            self.number = max(self.number, number)
            if turn.claimed:
                self.batches[number] = turn.claimed
            else:
                self.batches.pop(number, None)
        return turn

    def claim(
        self, limit: int = 10, *queues: str, exclude: tuple[str, ...] = (), suspects: bool | None = None
    ) -> list[Claimed]:
        """Claim up to *limit* jobs from *queues* (none named: all) under the next number."""
        return self.turn(wants=[self.want(limit, *queues, exclude=exclude, suspects=suspects)]).claimed

    def ids(self, limit: int = 10, *queues: str, **how: Any) -> list[str]:
        """Claim, and name what was claimed."""
        return [job.id for job in self.claim(limit, *queues, **how)]

    def take(self, id: str | None = None, *, suspects: bool | None = None) -> Claimed:
        """Claim one job, and insist that it is *id*."""
        jobs = self.claim(1, suspects=suspects)
        assert jobs, f"{self.id} found nothing to claim"
        assert id is None or jobs[0].id == id
        return jobs[0]

    def repeat(self, number: int, want: Want | None = None, settlements: Sequence[Settlement] = ()) -> list[Claimed]:
        """Repeat a claim whose reply is supposed to be lost."""
        return self.turn(settlements, [want or self.want()], number).claimed

    def settlement(self, job: Claimed, outcome: Outcome, **fields: Any) -> Settlement:
        """How *job* ended, started a second ago and ended now, unless *fields* say otherwise."""
        given: dict[str, Any] = {"started_at": self.scene.now - SECOND, "finished_at": self.scene.now, **fields}
        if outcome is Outcome.COMPLETED:
            given.setdefault("result", b"null")
        return Settlement(job.id, job.entry, outcome, **given)

    def settle(self, job: Claimed, outcome: Outcome = Outcome.COMPLETED, **fields: Any) -> Turn:
        """Settle one job; what the store says of it is the answer."""
        turn = self.turn([self.settlement(job, outcome, **fields)])
        for number, batch in list(self.batches.items()):
            left = [other for other in batch if (other.id, other.entry) != (job.id, job.entry)]
            if left:
                self.batches[number] = left
            else:
                del self.batches[number]
        return turn

    def settled(self, job: Claimed, outcome: Outcome = Outcome.COMPLETED, **fields: Any) -> bool:
        """Settle one job and say whether the store took it."""
        return (job.id, job.entry) not in self.settle(job, outcome, **fields).refused

    def fail(self, job: Claimed, delay: float = 10.0, error: bytes = b"boom") -> bool:
        return self.settled(job, Outcome.FAILED, delay=delay, error=error)

    def die(self, job: Claimed, **fields: Any) -> bool:
        """Settle *job* as dead."""
        return self.settled(job, Outcome.DEAD, **{"error": b"boom", "reason": "failed", **fields})

    def record(self, job: Claimed, *writes: Write) -> bool:
        return self.store.record(Lease(self.id, job.id, job.entry), writes, now=self.scene.now)

    def leave(self, death: str | None = None) -> Gone | None:
        return self.store.leave(self.id, death=death, now=self.scene.now)


class Scene:
    """A store at a virtual time, and the verbs in which the tests are written.

    Attributes:
        now: the stamp that every call is given.
        leader: a worker that leads and holds nothing (with *led*).
    """

    def __init__(self, engine: EngineUnderTest, *, led: bool = True) -> None:
        self.engine = engine
        self.store = engine.store()
        self.now = START
        self._made = 0
        self.leader = self.worker("leader", beat=led)

    def advance(self, seconds: float) -> int:
        """Let *seconds* pass in which nobody does anything."""
        self.now += round(seconds * SECOND)
        return self.now

    def stamp(self, seconds: float = 0.0) -> int:
        """The stamp *seconds* from now."""
        return self.now + round(seconds * SECOND)

    # -- jobs

    def id(self) -> str:
        """A new id, greater than all before, in the shape of a UUIDv7."""
        self._made += 1
        return numbered(self._made)

    def row(self, **fields: Any) -> NewRow:
        given: dict[str, Any] = {"task": "shop.charge", "queue": "default", "payload": b'{"n":1}', **fields}
        return NewRow(id=given.pop("id", None) or self.id(), **given)

    def job(self, **fields: Any) -> str:
        """Store one job; its id."""
        row = self.row(**fields)
        [answer] = self.store.enqueue([row], now=self.now)
        assert answer.outcome == "inserted"
        return row.id

    def jobs(self, count: int, **fields: Any) -> list[str]:
        """Store *count* alike jobs in one call; their ids in order."""
        rows = [self.row(**fields) for _ in range(count)]
        answers = self.store.enqueue(rows, now=self.now)
        assert [answer.outcome for answer in answers] == ["inserted"] * count
        return [row.id for row in rows]

    def aged(self, attempts: int = 0, crashes: int = 0, **fields: Any) -> str:
        """A waiting job that has *attempts* failures and *crashes* crashes behind it; any other job must not wait."""
        id, past = self.job(**fields), self.worker(f"past{self._made}", solo=True)
        for spent in range(attempts + crashes):
            job = past.take(id, suspects=spent > attempts)
            if spent < attempts:
                past.fail(job, delay=1.0)
                self.advance(1.0)
            else:
                past.settle(job, Outcome.CRASHED, reason="crashed")
        past.leave()
        return id

    def get(self, id: str) -> JobRow:
        """The job, which must exist."""
        row = self.store.get(id)
        assert row is not None, f"job {id} vanished"
        return row

    def state(self, id: str) -> State:
        return self.get(id).state

    def act(self, action: Action, *ids: str, limit: int = 1000, **filter: Any) -> list[str]:
        which = Filter(ids=ids or None, **filter)
        return self.store.act(which, action, limit=limit, now=self.now)

    # -- workers

    def worker(self, name: str = "ann", *, solo: bool = False, store: Store | None = None, beat: bool = True) -> Puppet:
        """A worker that has just beaten for the first time (unless *beat* is False)."""
        puppet = Puppet(self, name, store or self.store, solo=solo)
        if beat:
            puppet.beat()
        return puppet

    @property
    def term(self) -> int:
        """The leader's term."""
        term = self.leader.term
        assert term is not None
        return term

    def pass_time(self, seconds: float, *beating: Puppet) -> list[Gone]:
        """Let *seconds* pass in which the leader and *beating* beat every 5 s, and the leader sweeps; who was given up."""
        gone: list[Gone] = []
        end = self.stamp(seconds)
        while self.now < end:
            self.now = min(end, self.stamp(BEAT))
            for puppet in (self.leader, *beating):
                puppet.beat()
            gone += self.store.rescue(self.term, now=self.now) or []
        return gone

    def rescue(self) -> list[Gone]:
        """One sweep of the leader, whose term must be good."""
        gone = self.store.rescue(self.term, now=self.now)
        assert gone is not None
        return gone

    def crash(self, puppet: Puppet) -> list[Gone]:
        """*puppet* falls silent for good: 30 s later it has been given up."""
        gone = self.pass_time(30.0)
        assert puppet.id in [each.worker.id for each in gone]
        return gone
