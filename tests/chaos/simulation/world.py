"""A cluster's life from a seed: hours with faults, then calm until all is done, then the judgement."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct, structs

from dayjob.clock import SECOND
from dayjob.errors import StoreUnavailable
from dayjob.events import (
    Bus,
    Event,
    JobStalled,
    LeaderElected,
    LeaseLost,
    ScheduleFailed,
    ServiceFailed,
    WorkerGone,
)
from dayjob.services.agenda import KIND, entry_of
from dayjob.states import Outcome
from dayjob.store import open_store
from dayjob.store.contract import Store
from dayjob.store.records import Filter, NewRow, Record, Settlement, Tick, Turn
from dayjob.worker.launch import EXIT_AGAIN
from dayjob.worker.run import Run
from tests.chaos.checker import judge
from tests.chaos.evidence import UNFINISHED, Conditions
from tests.chaos.ledger import Fact
from tests.chaos.rules.clocks import TICKED
from tests.chaos.rules.leases import ALONE
from tests.chaos.rules.limits import RATED
from tests.chaos.rules.moments import FLOW, RESCUED
from tests.chaos.simulation import timetable, work
from tests.chaos.simulation.cluster import Member, Producer, Seat
from tests.chaos.simulation.excuses import Excuses
from tests.chaos.simulation.floor import Floor
from tests.chaos.simulation.limited import KINDS
from tests.chaos.simulation.line import Ear
from tests.chaos.simulation.machine import START, Machine, Process
from tests.chaos.simulation.stage import staged
from tests.chaos.simulation.weather import HOUR, Weather
from tests.chaos.verdict import Finding, Verdict
from tests.contract.ids import numbered

DRAIN = 900.0
"""Seconds after the last fault within which everything is done: the longest jobs take minutes, retries wait, too."""
REPLAYS = 40
ELSEWHERE = (
    TICKED,  # told more exactly here, by `rules.ticks`
    FLOW,  # a job now and then is no throughput
    RATED,  # a job is claimed a moment before it starts, and how long that is says nothing here
    RESCUED,  # when nobody can lead for minutes, who is to rescue is a story of its own (seeds 11 and 15)
    ALONE,  # a claim that never started counts, too, and is judged by `Excuses.uncalled_for`
)
"""Rules that have nothing to say here."""
KILLED = (-9, -11)
"""How a process ends by the weather's doing, or by its own job's: that it was told to end before is no matter then."""


class World:
    """One run.

    Attributes:
        facts: the ledger. specs: by job id. broken: what was seen to be wrong on the way.
        beaten: until when the lease of each worker lasts at the least, by its last beat that the store took.
        rushes: of all enqueues so many are of jobs that wait for others, of these *kinds*. drawn: which schedules
        there are, if any, in *timetable*.
    """

    def __init__(self, store: Store, seed: int, *, verbose: bool = False) -> None:
        self.store, self.seed, self._verbose = store, seed, verbose
        self.machine = machine = Machine(seed)
        Machine.present = machine
        Floor.world = self  # type: ignore[misc]
        self.rng = random.Random(f"{seed} cluster")
        self.weather = Weather(self, random.Random(f"{seed} weather"))
        self.facts: list[Fact] = []
        self.broken: list[str] = []
        self.specs: dict[str, work.Spec] = {}
        self.ears: dict[Ear, Process] = {}
        self.members: list[Process] = []
        self.producers: list[Process] = []
        self.workers: dict[Process, Member] = {}
        self.parents: dict[Process, Process] = {}
        self.counts: Counter[str] = Counter()
        self._terms: dict[int, int] = {}
        self.beaten: dict[str, int] = {}
        self.calls = 0
        self.ending = self.producing_over = False
        self.settings = structs.replace(work.SETTINGS, poll=self.rng.choice((5.0, 10.0)))
        self.childless = self.rng.random() < 0.2
        self.queues = ("default", "mail")
        self.workers_wanted = (2, 4)
        self.pause = self.rng.choice((30.0, 60.0))
        self.draw = work.draw
        self.rushes, self.kinds = 0.3, KINDS
        self.drawn: timetable.Drawn | None = timetable.drawn
        self.timetable: timetable.Timetable | None = None
        self._leases: set[tuple[str, int]] = set()
        self.drain = DRAIN
        self.prompt = 0.0

    # -- what happens ------------------------------------------------------------------------------------------------

    def live(self, hours: float) -> None:
        """Everybody who acts begins here; what the leader does are the worker's own duties, whichever there are."""
        if self.drawn is not None:
            planned = self.drawn(random.Random(f"{self.seed} timetable"))
            self.timetable = timetable.Timetable(planned, START + int(hours * HOUR * SECOND))
            for name in self.timetable.write(self.store, self.machine.stamp):
                self.note("schedule.declared", **self.timetable.told(name, self.machine.stamp))
        supervisor = self.process("supervisor")
        for _ in range(self.rng.randint(*self.workers_wanted)):
            supervisor.start(Seat(self, supervisor).life, "seat")
        for _ in range(2):
            process = self.process("producer")
            self.producers.append(process)
            process.start(Producer(self, process).life, "producer")
        self.weather.forecast(hours)
        self.machine.run(int(hours * HOUR * SECOND))

    def heal(self) -> None:
        """No more faults and no more jobs; all is done; everybody leaves."""
        self.weather.clear()
        for queue in self.queues:
            self.store.pause(queue, False, now=self.machine.stamp)
        self.note("fault", name="healed", target=None, until=self.machine.now / SECOND)
        self.producing_over = True
        end = self.machine.now + int((self.drain + 60) * SECOND)
        while self.machine.now < end:
            self.machine.run(self.machine.now + 5 * SECOND)
            producing = any(process.strands for process in self.producers)
            if self.timetable is not None and not self.timetable.over(self.store, self.machine.stamp):
                continue
            if not producing and not self.store.count(Filter(states=UNFINISHED)):
                break
        self.ending = True
        for process in self.members:
            if not process.dead and process.told is None and process.role == "worker":
                self.tell(process)
        self.machine.run(self.machine.now + 120 * SECOND)
        for process in self.alive():
            if process.told is not None:  # and it has not ended
                self.note("told", at=process.told / SECOND, target=process.pid)

    def tell(self, process: Process) -> None:
        """SIGTERM."""
        worker = self.workers.get(process)
        if worker is not None:
            process.told, process.stopping = self.machine.now, True
            self.count("SIGTERM")
            worker.stop(why="SIGTERM")

    def crash(self, process: Process, why: str) -> None:
        self.count("crash")
        process.end(-11)

    # -- who there is --------------------------------------------------------------------------------------------------

    def process(self, role: str) -> Process:
        process = Process(
            self.machine, 1000 + len(self.members) + len(self.parents) + 10 * self._next(), role, self.rng
        )
        process.unseen = False
        if role in ("worker", "solo"):
            self.members.append(process)
        process.on_exit.append(lambda: self._exited(process))
        return process

    _pids = 0

    def _next(self) -> int:
        self._pids += 1
        return self._pids

    def _exited(self, process: Process) -> None:
        for ear in [ear for ear, owner in self.ears.items() if owner is process]:
            del self.ears[ear]
        if process in self.members:
            self.members.remove(process)
        self.workers.pop(process, None)
        if process.told is not None and process.code not in KILLED:
            self.note("told", at=process.told / SECOND, target=process.pid)
            self.note("exit", target=process.pid, code=0 if process.code == EXIT_AGAIN else process.code)

    def alive(self) -> Iterable[Process]:
        return [process for process in self.members if not process.dead]

    def children(self, process: Process) -> list[Process]:
        return [child for child, parent in self.parents.items() if parent is process and not child.dead]

    def busy(self, process: Process) -> bool:
        """Whether jobs run in it."""
        worker = self.workers.get(process)
        return worker is not None and bool(worker.running)

    def bus(self, process: Process) -> Bus:
        bus = Bus()
        for event in (WorkerGone, JobStalled, ServiceFailed, ScheduleFailed, LeaderElected, LeaseLost):
            bus.subscribe(event.name, self._hear)
        return bus

    def _hear(self, event: Event) -> None:
        if isinstance(event, WorkerGone):
            self.note("worker.gone", of=event.worker, jobs=event.jobs, death=event.death)
            self.count("rescue")
        elif isinstance(event, JobStalled):
            self.note("job.stalled", id=event.id, of=event.worker)
        elif isinstance(event, ServiceFailed):
            self.broken.append(f"{event.service} failed: {event.error}\n{event.traceback}")
        elif isinstance(event, ScheduleFailed):
            self.broken.append(f"{event.schedule} failed: {event.error}")
        elif isinstance(event, LeaderElected):
            self.count("election")
        else:
            self.count("refusal")

    # -- the ledger --------------------------------------------------------------------------------------------------

    def note(self, fact: str, **fields: Any) -> None:
        found = {"fact": fact, "pid": self.machine.process.pid, "at": self.machine.now / SECOND, **fields}
        self.facts.append(found)
        if self._verbose:
            rest = " ".join(f"{name}={value}" for name, value in fields.items())
            print(f"{found['at']:12.6f} {found['pid']:6} {fact:22} {rest}")

    def count(self, what: str) -> None:
        self.counts[what] += 1

    def led(self, term: int, process: Process) -> None:
        """Who leads did something in *term*."""
        if self._terms.setdefault(term, process.pid) != process.pid:
            self.broken.append(f"{process.pid} and {self._terms[term]} both led in term {term}")

    def rescued(self, workers: list[str]) -> None:
        """*workers* were given up: the store had heard of none of them for an expiry."""
        for worker in workers:
            left = self.beaten.get(worker, 0) - self.machine.now
            if left > 0:
                self.broken.append(f"{worker} was given up, and its lease went on for {left / SECOND:.1f} s")

    # -- jobs --------------------------------------------------------------------------------------------------------

    def new_id(self) -> str:
        self._ids += 1
        return numbered(self._ids)

    _ids = 0

    def enqueued(self, id: str, spec: work.Spec) -> None:
        self.specs[id] = spec
        self.note("enqueue.tried", id=id, task=spec.task, plan=msgspec.to_builtins(spec.plan))

    def started(self, run: Run) -> None:
        job = run.job
        worker = run.batch.worker
        self.note("start", id=job.id, entry=job.entry, worker=worker, attempt=job.attempt, crashes=job.crashes)

    def act(self, run: Run) -> None:
        work.act(self, run)

    def snoozed(self, id: str) -> int:
        row = self.store.get(id)
        return 0 if row is None else work.snoozes([attempt.outcome for attempt in row.attempts])

    def checkpoint(self, run: Run) -> None:
        with suppress(StoreUnavailable):  # the work can be done again
            run.save_checkpoint(b"half")

    # -- what waits for others, and what ticks ------------------------------------------------------------------------

    def claimed(self, worker: str, turn: Turn) -> None:
        """The store let *worker* have jobs; when it says so again, as its reply was lost, that is no new lease."""
        for job in turn.claimed:
            if self._watched(job.id) and (job.id, job.entry) not in self._leases:
                self._leases.add((job.id, job.entry))
                self.note("claim", id=job.id, entry=job.entry, worker=worker, stamp=turn.now)

    def ended(self, ids: Iterable[str]) -> None:
        """The store ended the leases of these jobs."""
        for id in ids:
            if self._watched(id):
                self.note("lease.ended", id=id)

    def _watched(self, id: str) -> bool:
        return id in self.specs and self.specs[id].watched  # what nobody enqueued is for the checker to tell

    def ticking(self, schedule: str, row: NewRow) -> None:
        """Somebody is about to make the job of a tick."""
        assert self.timetable is not None
        self.enqueued(row.id, self.timetable.spec(schedule, row))

    def ticked(self, ticks: Iterable[Tick]) -> None:
        """The store took *ticks*."""
        for tick in ticks:
            cursor = entry_of(Record(KIND, tick.key, tick.value, tick.expected + 1)).cursor
            self.note("tick", schedule=tick.key, cursor=cursor)
            self.count("tick")

    def written(self, kind: str, key: str, value: bytes) -> None:
        """The store has a new record."""
        if kind == KIND and self.timetable is not None:
            since = entry_of(Record(kind, key, value, 1)).cursor
            self.note("schedule.declared", **self.timetable.told(key, since))

    # -- the end -----------------------------------------------------------------------------------------------------

    def replay(self) -> None:
        """Settle again under leases of the past."""
        again = Counter(fact["id"] for fact in self.facts if fact["fact"] == "start")
        past = sorted((f for f in self.facts if f["fact"] == "start"), key=lambda fact: -again[fact["id"]])
        for number, fact in enumerate(past[:REPLAYS]):
            outcome = (Outcome.COMPLETED, Outcome.FAILED, Outcome.RELEASED, Outcome.DEAD)[number % 4]
            one = Settlement(fact["id"], fact["entry"], outcome, 1, 2, result=b'"stale"')
            before = self.store.get(one.id)
            turn = self.store.turn(fact["worker"], settlements=[one], now=self.machine.stamp)
            refused = turn.refused == [(one.id, one.entry)] and self.store.get(one.id) == before
            word = "replay.refused" if refused else "replay.accepted"
            self.note(word, id=one.id, entry=one.entry, worker=fact["worker"], outcome=str(outcome))

    def leaks(self) -> Iterator[str]:
        """Tokens that nobody can hold any more."""
        for row in self.store.gates(now=self.machine.stamp):
            if row.gate.kind != "rate" and row.taken:
                yield f"{row.taken} tokens of {row.gate.key} are taken when all is done"

    def judged(self) -> Verdict:
        excuses = Excuses(self.facts, self.store, self.specs)
        excuses.write()
        self.counts["excused"] = excuses.given
        conditions = Conditions.of(
            self.settings, drain=self.drain, slack=5.0, offset=START / SECOND,
            tolerance=0.5, atomic=True, prompt=self.prompt, replays=min(20, len(self.specs)), audit=tuple(self.leaks()),
            audited=len(self.specs),
        )  # fmt: skip
        verdict = judge(self.facts, self.store, conditions)
        findings = [finding for finding in verdict.findings if finding.rule not in ELSEWHERE]
        return Verdict((*findings, Finding(ALONE, len(self.specs), tuple(excuses.uncalled_for()))))


class Summary(Struct, frozen=True):
    """What came of a run, in a line."""

    seed: int
    hours: float
    jobs: int
    calls: int
    counts: dict[str, int]
    violations: list[str]
    took: float

    def __str__(self) -> str:
        counts = ", ".join(f"{number} {what}" for what, number in self.counts.items())
        line = (
            f"seed {self.seed}: {self.hours:g} h, {self.jobs:,} jobs, {self.calls:,} calls; {counts}; {self.took:.1f} s"
        )
        return "\n".join([line, *(f"    !! {violation}" for violation in self.violations)])


class Life(Struct, frozen=True):
    """A run, with all that is known of it."""

    summary: Summary
    facts: list[Fact]
    verdict: Verdict

    @property
    def ledger(self) -> bytes:
        """Byte for byte the same for the same seed."""
        return "\n".join(json.dumps(fact) for fact in self.facts).encode()


def simulate(seed: int, hours: float, *, store: Store | None = None, verbose: bool = False) -> Life:
    """Live through *hours* from *seed*, on *store* (migrated and empty; none: one in memory)."""
    began = time.perf_counter()
    if store is None:
        store = open_store("sqlite:///:memory:")
        store.migrate()
    world = World(store, seed, verbose=verbose)
    with staged():
        world.live(hours)
        world.heal()
    world.replay()
    verdict = world.judged()
    violations = [*world.broken, *verdict.violations]
    counts = dict(sorted(world.counts.items()))
    took = time.perf_counter() - began
    return Life(Summary(seed, hours, len(world.specs), world.calls, counts, violations, took), world.facts, verdict)
