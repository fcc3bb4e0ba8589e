"""What a run left behind, arranged for its judges: the ledger's facts by job and by process, and every job of the store."""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import msgspec
from msgspec import Struct

from dayjob.clock import SECOND
from dayjob.config import Settings
from dayjob.states import Outcome, State
from dayjob.store.contract import Store
from dayjob.store.records import AttemptRow, Filter, JobRow
from tests.chaos.ledger import Fact, Plan

PAGE = 1000
UNFINISHED = tuple(state for state in State if not state.terminal)
FOREVER = float("inf")
SUICIDE = "a job kills its process"
KILLS = {"SIGKILL", "kill", "host lost"}
FATAL = {*KILLS, SUICIDE}
"""Faults after which a process is no more."""
NO_BEAT = "no beat before its lease ran out"
"""As the store says why it gave up a worker of which nobody saw the end."""
FROZEN = "SIGSTOP"
AWOKEN = 0.25
"""Seconds within which a process that goes on has written down what it was about to write when it was stopped."""
TOLD = "SIGTERM"
"""The fault of being told to end: it takes no time from anybody, and is the very thing that is measured."""


class Conditions(Struct, frozen=True, kw_only=True):
    """Under which a run took place, in seconds.

    Attributes:
        lease, beat, sweep, grace: as the workers were set.
        drain: all must be terminal so long after the last fault. slack: what a busy machine may add to a limit.
        offset: the store's clock less the ledger's. tolerance: by how much the two may disagree for a moment.
        crashes: when the store itself crashed; of the last *forgets_claims* seconds before it may have forgotten claims
            (then a job starts twice, P2), of the last *forgets* seconds anything.
        atomic: a start is noted in the very instant in which the worker looked at its lease, as in a simulation.
        prompt: median of the time from enqueue to start where nothing else goes on (0: not judged; a worker that is not
            woken looks around after its poll, so let that be ten times as much).
        replays: how many settlements under past leases the harness has sent at the least.
        steady: seconds of life after which a process must hold no more than before (0: none lives so long).
        audit: what the engine's own inspection of its data found wrong. audited: how many things it looked at.
    """

    lease: float
    beat: float
    sweep: float
    grace: float
    drain: float = 15.0
    slack: float = 2.0
    offset: float = 0.0
    tolerance: float = 0.0
    crashes: tuple[float, ...] = ()
    forgets_claims: float = 0.0
    forgets: float = 0.0
    atomic: bool = False
    prompt: float = 0.0
    replays: int = 20
    steady: float = 0.0
    audit: tuple[str, ...] = ()
    audited: int = 0

    @classmethod
    def of(cls, settings: Settings, **others: Any) -> Conditions:
        """Those of workers with these *settings*."""
        s = settings
        return cls(lease=s.lease, beat=s.beat, sweep=s.sweep, grace=s.grace, **others)


class Stretch(Struct, frozen=True):
    """A time in which something was wrong; *target* is the process it happened to, None: everybody. *own*: by a job's doing."""

    name: str
    begun: float
    over: float
    target: int | None
    own: bool = False


class Evidence:
    """Facts and jobs, looked up in the ways that the rules need.

    Attributes:
        jobs: every job of the store with its attempts. twice: ids that the store showed more than once.
        tried: id -> its plan. acknowledged, unknown: ids. ticks: id -> the schedule that makes it.
    """

    def __init__(
        self, facts: Sequence[Fact], jobs: dict[str, JobRow], twice: list[str], conditions: Conditions
    ) -> None:
        self.facts, self.jobs, self.twice, self.conditions = facts, jobs, twice, conditions
        self.of: defaultdict[str, list[Fact]] = defaultdict(list)
        for fact in facts:
            self.of[fact["fact"]].append(fact)
        self.tried = {fact["id"]: msgspec.convert(fact["plan"], Plan) for fact in self.of["enqueue.tried"]}
        self.tried_at = {fact["id"]: fact["at"] for fact in self.of["enqueue.tried"]}
        self.acknowledged = {
            fact["id"]
            for fact in self.of["enqueue.acknowledged"]
            if not self.near_a_crash(fact["at"], conditions.forgets)
        }
        self.ticks = {fact["id"]: str(fact["schedule"]) for fact in self.of["tick.tried"]}
        self.unknown = {fact["id"] for fact in self.of["enqueue.unknown"]} - self.acknowledged

    @cached_property
    def starts(self) -> dict[str, list[Fact]]:
        """By job, in the order of time."""
        return _by_id(self.of["start"])

    @cached_property
    def claims(self) -> dict[str, list[Fact]]:
        """By job, in the order of time; of those that wait for others."""
        return _by_id(self.of["claim"])

    @cached_property
    def lease_ends(self) -> dict[str, list[Fact]]:
        """By job, in the order of time."""
        return _by_id(self.of["lease.ended"])

    @cached_property
    def effects(self) -> Counter[str]:
        return Counter(fact["id"] for fact in self.of["effect"])

    @cached_property
    def accepted(self) -> dict[str, list[Fact]]:
        """Finishes that the store accepted and cannot have forgotten, by job."""
        forgets = self.conditions.forgets
        finishes = (*self.of["finish.accepted"], *self.of["finish.committed"])
        return _by_id(fact for fact in finishes if not self.near_a_crash(fact["at"], forgets))

    @cached_property
    def sent(self) -> dict[tuple[str, int], list[float]]:
        """When a finish under (id, entry) was sent, and sent again."""
        times: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
        for fact in self.of["finish.sent"]:
            times[fact["id"], fact["entry"]].append(fact["at"])
        return times

    @cached_property
    def solo(self) -> set[str]:
        """The workers that ran suspects alone."""
        return {fact["worker"] for fact in self.of["worker.up"] if fact["solo"]}

    @cached_property
    def up(self) -> dict[int, list[str]]:
        """The workers (incarnations) of each process."""
        found: defaultdict[int, list[str]] = defaultdict(list)
        for fact in self.of["worker.up"]:
            if fact["worker"] not in found[fact["pid"]]:  # it says so again when the store has forgotten it
                found[fact["pid"]].append(fact["worker"])
        return found

    @cached_property
    def up_since(self) -> dict[str, float]:
        """When each worker was up first: another process may have the number of one that is no more."""
        return {fact["worker"]: fact["at"] for fact in reversed(self.of["worker.up"])}

    @cached_property
    def killed_by_jobs(self) -> set[int]:
        """Processes in which a job ran that kills its process."""
        return {fact["pid"] for id, plan in self.tried.items() if plan.crashes for fact in self.starts.get(id, ())}

    @cached_property
    def process_of(self) -> dict[str, int]:
        """The process of each worker (incarnation)."""
        return {fact["worker"]: fact["pid"] for fact in self.of["worker.up"]}

    @cached_property
    def names(self) -> dict[str, str]:
        """What the store calls each worker (incarnation)."""
        return {fact["worker"]: fact["name"] for fact in self.of["worker.up"]}

    @cached_property
    def alone(self) -> set[str]:
        """The workers (incarnations) that ran suspects."""
        return {fact["worker"] for fact in self.of["worker.up"] if fact["solo"]}

    @cached_property
    def named(self) -> dict[str, int]:
        """The process of each worker by the name under which the store knows it, but of those that ran suspects: what
        happens to the process that started one happens to it, too."""
        alone = {fact["pid"] for fact in self.of["worker.up"] if fact["solo"]}
        return {fact["name"]: fact["pid"] for fact in self.of["worker.up"] if fact["pid"] not in alone}

    @cached_property
    def stretches(self) -> list[Stretch]:
        """All faults, and the deaths that jobs brought upon their own process, in the order of time."""
        killers = {id for id, plan in self.tried.items() if plan.crashes}
        deaths = [
            Stretch(SUICIDE, fact["at"], fact["at"], fact["pid"], own=True)
            for id in killers
            for fact in self.starts.get(id, ())
        ]
        return sorted([*self.faults, *deaths], key=lambda stretch: stretch.begun)

    @cached_property
    def faults(self) -> list[Stretch]:
        """What the ledger calls a fault, in the order of time."""
        return [
            Stretch(fact["name"], fact["at"], fact["until"], fact["target"], own=fact["pid"] == fact["target"])
            for fact in self.of["fault"]
        ]

    @cached_property
    def effect_times(self) -> list[float]:
        return sorted(fact["at"] for fact in self.of["effect"])

    def ended(self, id: str) -> list[AttemptRow]:
        """The recorded attempts of a job after which it may start again."""
        return [attempt for attempt in self.jobs[id].attempts if not _is_last(attempt.outcome)]

    def ledger_time(self, stamp: int) -> float:
        """A stamp of the store's clock by the ledger's."""
        return stamp / SECOND - self.conditions.offset

    def over(self, id: str) -> float:
        """When job *id* had ended at the latest; a worker's word for its end may reach the store later."""
        end = self.jobs[id].finished_at
        if end is None:
            return FOREVER
        told = max((fact["at"] for fact in self.lease_ends.get(id, ())), default=0.0)
        return max(told, self.ledger_time(end)) + self.conditions.tolerance

    def near_a_crash(self, at: float, before: float) -> bool:
        """True for a time of which a crash of the store may have taken the memory.

        A worker starts for up to a second and a half what it claimed ahead before the crash.
        """
        return before > 0 and any(crash - before < at < crash + 1.5 for crash in self.conditions.crashes)

    def disturbed(self, at: float, after: float, process: int | None = None) -> bool:
        """True when at *at* something was wrong with everybody or *process* (None: any), or had been up to *after* seconds before."""
        return any(
            stretch.begun <= at <= stretch.over + after
            for stretch in self.stretches
            if process is None or stretch.target in (None, process)
        )

    def held_up(self, start: Fact) -> bool:
        """True when its process was stopped between *start* and the note of it: by then the lease may have been lost."""
        return any(
            stretch.name == FROZEN
            and stretch.target == start["pid"]
            and stretch.begun < start["at"] <= stretch.over + AWOKEN
            for stretch in self.stretches
        )

    def cut_off(self, attempt: AttemptRow) -> bool:
        """True when *attempt* counts as a crash of a process that lives, or that others ended: it ran alone, and what was wrong
        kept its beats from the store for a lease."""
        if attempt.outcome is not Outcome.CRASHED or attempt.reason != NO_BEAT:
            return False
        c, at = self.conditions, self.ledger_time(attempt.finished_at)
        return self.disturbed(at, c.lease + c.sweep + c.slack, self.named.get(attempt.worker or ""))

    def dead(self, worker: str | None, at: float) -> bool:
        """True when the process of the worker of this name was no more at *at*."""
        return any(pid == self._pids.get(worker or "") and moment <= at for pid, moment in self._deaths)

    @cached_property
    def _pids(self) -> dict[str, int]:
        return {fact["name"]: fact["pid"] for fact in self.of["worker.up"]}

    @cached_property
    def _deaths(self) -> list[tuple[int | None, float]]:
        return [(stretch.target, stretch.begun) for stretch in self.stretches if stretch.name in FATAL]

    def away(self, begun: float, over: float, target: int | None = None) -> float:
        """Seconds between *begun* and *over* that faults of everybody, or of process *target*, took from those who had
        something to do; each also costs up to a lease until all have found back."""
        return sum(
            min(fault.over, over) - max(fault.begun, begun) + self.conditions.lease
            for fault in self.faults
            if fault.target in (None, target) and fault.name != TOLD and fault.begun <= over and fault.over >= begun
        )

    def leaderless(self, begun: float, over: float) -> float:
        """Seconds between *begun* and *over* that faults took from whoever leads, or would: each of the leader costs up to a
        lease until another leads, and where something is wrong with every worker there is, nobody does."""
        lease = self.conditions.lease
        lost, since = 0.0, begun
        for able, unable in self._able:
            if able >= over:
                break
            if able > since:
                lost += able - since + lease
            since = max(since, unable)
        lost += max(0.0, over - since)
        strokes = (one for one in self.stretches if one.target is not None and begun < one.begun <= over)
        return lost + sum(lease for one in strokes if one.target == self._leader(one.begun))

    def _leader(self, at: float) -> int | None:
        """The process that was granted the last term before *at*."""
        terms = [fact for fact in self.of["term.granted"] if fact["at"] <= at]
        return self.process_of.get(terms[-1]["worker"]) if terms else None

    @cached_property
    def _able(self) -> list[tuple[float, float]]:
        """The times in which a worker was up and nothing was wrong with it, of all workers, in the order of their begin."""
        ended = {fact["target"]: fact["at"] for fact in self.of["exit"]}
        ended |= {pid: at for pid, at in reversed(self._deaths) if pid is not None}
        times: list[tuple[float, float]] = []
        first = {fact["pid"]: fact["at"] for fact in reversed(self.of["worker.up"])}
        for pid, since in first.items():
            for stretch in self.stretches:
                if stretch.target == pid and stretch.over > since:
                    times.append((since, stretch.begun))
                    since = stretch.over
            times.append((since, ended.get(pid, FOREVER)))
        return sorted((since, until) for since, until in times if since < until)

    def effects_between(self, begun: float, over: float) -> int:
        return bisect.bisect_left(self.effect_times, over) - bisect.bisect_left(self.effect_times, begun)


def gather(facts: Sequence[Fact], store: Store, conditions: Conditions) -> Evidence:
    """Read every job of *store*, with its attempts, beside *facts*."""
    jobs: dict[str, JobRow] = {}
    twice: list[str] = []
    after: str | None = None
    while True:
        page = store.find(Filter(), limit=PAGE, after=after)
        for whole in store.export([row.id for row in page.jobs]):
            if whole.job.id in jobs:
                twice.append(whole.job.id)
            jobs[whole.job.id] = whole.job
        after = page.after
        if after is None:
            return Evidence(sorted(facts, key=lambda fact: fact["at"]), jobs, twice, conditions)


def _is_last(outcome: Outcome) -> bool:
    return outcome in (Outcome.DEAD, Outcome.CANCELLED)


def _by_id(facts: Iterable[Fact]) -> dict[str, list[Fact]]:
    found: defaultdict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        found[fact["id"]].append(fact)
    return found
