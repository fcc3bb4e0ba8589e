"""Keys, gates and the limits of queues in plain Python: every blocked job is looked at each time, most urgent first.

Where the contract leaves an engine free (which job is shed, what the sweep takes back, whether a job of a paused queue is
admitted), the reference is told what the engine did and checks that it was allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from dayjob.clock import SECOND
from dayjob.states import TERMINAL, State
from dayjob.store.gating import UNCLAIMED, Gate, Gating, QueueLimits, Report, Unique
from dayjob.store.records import Edit, NewRow, Want

WAITING = {State.SCHEDULED, State.BLOCKED, State.AVAILABLE}
GateId = tuple[str, str]


def gate_id(gate: Gate) -> GateId:
    return (gate.kind, gate.key)


@dataclass(eq=False)
class Job:
    """One job. `tokens`: since when it has one of each gate. `held`: its queue was closed when it came. `place`: 0 before it
    stood anywhere. `came`: how many things had happened when it was stored."""

    row: NewRow
    queue: str
    priority: int
    payload: bytes
    gating: Gating
    created_at: int
    run_at: int
    state: State = State.SCHEDULED
    place: int = 0
    held: bool = False
    suspect: bool = False
    tokens: dict[GateId, int] = field(default_factory=dict)
    admitted_at: int = 0
    version: int = 0
    came: int = 0

    @property
    def order(self) -> tuple[int, int]:
        return (-self.priority, self.place)

    @property
    def strict(self) -> list[GateId]:
        return [gate_id(gate) for gate in self.gating.gates if gate.kind == "order"]

    def before(self, other: Job) -> bool:
        """It is older than *other*, whether one asks when they came or where they stand."""
        return max(self.came, self.place) < min(other.came, other.place or other.came)


@dataclass
class Breaker:
    state: Literal["closed", "open", "probing"] = "closed"
    until: int | None = None
    since: int = 0
    failures: list[int] = field(default_factory=list)


@dataclass
class Reference:
    """The whole store, as far as jobs wait for anything in it."""

    jobs: dict[str, Job] = field(default_factory=dict)
    keys: dict[str, tuple[str, Unique, int | None]] = field(default_factory=dict)
    newest: dict[GateId, Gate] = field(default_factory=dict)
    said: dict[GateId, tuple[int, float]] = field(default_factory=dict)
    stamps: dict[GateId, list[int]] = field(default_factory=dict)
    calls: dict[str, tuple[tuple[Gate, ...], int]] = field(default_factory=dict)
    delays: dict[GateId, int] = field(default_factory=dict)
    breakers: dict[str, Breaker] = field(default_factory=dict)
    queues: dict[str, QueueLimits] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    counter: int = 0

    def next(self) -> int:
        self.counter += 1
        return self.counter

    def waiting(self, queue: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.queue == queue and job.state in WAITING]

    def limits(self, queue: str) -> QueueLimits:
        return self.queues.get(queue, QueueLimits())

    # -- keys

    def holder(self, unique: Unique, now: int) -> Job | None:
        """The job that holds the key; of one that is gone (`expired`), nothing is told."""
        id, _, ends = self.keys.get(unique.hash, ("", unique, 0))
        return self.jobs.get(id) if ends is None or ends > now else None

    def held(self, unique: Unique, now: int) -> bool:
        _, _, ends = self.keys.get(unique.hash, ("", unique, 0))
        return ends is None or ends > now

    def take_key(self, id: str, unique: Unique, now: int) -> None:
        ends = None if unique.ttl is None else now + round(unique.ttl * SECOND)
        self.keys[unique.hash] = (id, unique, ends)

    def free_key(self, job: Job, *, started: bool = False) -> None:
        unique = job.gating.unique
        if unique is None or self.keys.get(unique.hash, ("",))[0] != job.row.id:
            return
        if unique.until == ("started" if started else "done") or (unique.until == "started" and not started):
            del self.keys[unique.hash]

    # -- in

    def full(self, queue: str) -> bool:
        limits = self.limits(queue)
        depth = limits.max_depth
        return depth is not None and limits.when_full != "drop_oldest" and len(self.waiting(queue)) >= depth

    def insert(self, row: NewRow, now: int) -> None:
        gating = row.gating or Gating()
        if gating.unique is not None:
            self.take_key(row.id, gating.unique, now)
        due = now + round((row.delay or 0) * SECOND)
        version = self.next()
        job = Job(row, row.queue, row.priority, row.payload, gating, now, due, version=version, came=version)
        job.held = self.limits(row.queue).closed == "hold"
        self.jobs[row.id] = job
        self.newest.update((gate_id(gate), gate) for gate in gating.gates)
        if due <= now:
            self.arrive(job)

    def may_go(self, queue: str) -> list[Job]:
        """The jobs of which one makes room for a newcomer: the oldest of the least urgent."""
        limits, waiting = self.limits(queue), self.waiting(queue)
        if limits.max_depth is None or limits.when_full != "drop_oldest" or len(waiting) < limits.max_depth:
            return []
        least = [job for job in waiting if job.priority == min(job.priority for job in waiting)]
        return [job for job in least if not any(other.before(job) for other in least)]

    def arrive(self, job: Job, *, new_place: bool = True) -> None:
        """It could run now, if nothing were in the way. In a strict lane it stands where it stood."""
        job.version = self.next()
        if new_place and not (job.strict and job.place):
            job.place = job.version
        self.lose(job, keep_order=True)
        job.state = State.BLOCKED if job.gating.gates or job.held else State.AVAILABLE

    def conflict(self, holder: Job, row: NewRow, now: int) -> str:
        """What becomes of *row*, whose key *holder* has."""
        unique = row.gating.unique if row.gating else None
        assert unique is not None
        if unique.on_conflict == "raise":
            return "refused"
        if unique.on_conflict in ("existing", "merge") or holder.state not in WAITING:
            return "existing"
        if unique.on_conflict == "replace":
            assert row.gating is not None
            holder.payload, holder.priority = row.payload, row.priority
            self.regate(holder, row.gating)
        holder.run_at = now + round((row.delay or 0) * SECOND)
        self.reschedule(holder, now)
        return "replaced" if unique.on_conflict == "replace" else "extended"

    def regate(self, job: Job, given: Gating) -> None:
        """It has lane, weight and gates of *given* from now on; where it stands is for the caller to say."""
        before = job.strict
        job.gating = Gating(job.gating.unique, given.lane, given.weight, given.gates)
        self.newest.update((gate_id(gate), gate) for gate in given.gates)
        if job.strict != before:
            job.place = 0

    def edit(self, job: Job, change: Edit, now: int) -> None:
        moved = change.run_at is not None or change.priority is not None or change.queue is not None
        if change.gating is not None and change.gating.gates != job.gating.gates:
            self.regate(job, change.gating)
            moved = True
        if not moved and change.payload is None:
            return
        job.held = job.held and change.queue in (None, job.queue)
        job.queue = job.queue if change.queue is None else change.queue
        job.priority = job.priority if change.priority is None else change.priority
        job.payload = job.payload if change.payload is None else change.payload
        if change.run_at is not None:
            job.run_at = max(change.run_at, now)
            self.reschedule(job, now)
        elif job.state is State.SCHEDULED:
            self.lose(job, keep_order=True)
        else:
            self.arrive(job, new_place=moved)

    def reschedule(self, job: Job, now: int) -> None:
        if job.run_at > now:
            job.state, job.version = State.SCHEDULED, self.next()
            self.lose(job, keep_order=True)
        else:
            self.arrive(job)

    # -- out

    def lose(self, job: Job, *, keep_order: bool) -> None:
        """Its tokens are free, but for its turn in a strict lane that it does not leave."""
        job.tokens = {id: at for id, at in job.tokens.items() if keep_order and id in job.strict}

    def end(self, job: Job, state: State) -> None:
        """It is terminal."""
        job.state, job.suspect = state, False
        self.lose(job, keep_order=False)
        self.free_key(job)

    def delete(self, job: Job) -> None:
        if job.state not in TERMINAL:
            self.end(job, State.CANCELLED)
        del self.jobs[job.row.id]

    # -- gates

    def limit(self, id: GateId) -> tuple[int, float]:
        gate = self.newest[id]
        return self.said.get(id, (gate.limit, gate.per))

    def taken(self, id: GateId, now: int) -> int:
        """Tokens that are not free."""
        since = self.breakers.get(id[1], Breaker()).since if id[0] == "breaker" else 0
        jobs = sum(job.tokens.get(id, -1) >= since for job in self.jobs.values())
        calls = sum(ends > now and id in map(gate_id, gates) for gates, ends in self.calls.values())
        if id[0] != "rate":
            return jobs + calls
        per = round(self.limit(id)[1] * SECOND)
        return jobs + sum(stamp + per > now for stamp in self.stamps.get(id, []))

    def breaker(self, key: str, now: int) -> Breaker:
        breaker = self.breakers.setdefault(key, Breaker())
        if breaker.state == "open" and breaker.until is not None and breaker.until <= now:
            breaker.state, breaker.since = "probing", breaker.until
        return breaker

    def open(self, id: GateId, now: int) -> bool:
        """Whether one more may pass."""
        if self.delays.get(id, 0) > now:
            return False
        if id[0] == "breaker":
            state = self.breaker(id[1], now).state
            return state == "closed" or (state == "probing" and self.taken(id, now) == 0)
        return self.taken(id, now) < (1 if id[0] == "order" else self.limit(id)[0])

    def opens_at(self, id: GateId, now: int) -> int | None:
        """When time alone opens it (now, if it is open), None if nothing says so."""
        if self.open(id, now):
            return now
        if id[0] == "breaker":
            return self.breaker(id[1], now).until if self.breaker(id[1], now).state == "open" else None
        times = [self.delays.get(id, 0)]
        if id[0] == "rate":
            per = round(self.limit(id)[1] * SECOND)
            times += [stamp + per for stamp in self.stamps.get(id, []) if stamp + per > now]
        return next((at for at in sorted(times) if at > now and self.open(id, at)), None)

    def passes(self, job: Job, now: int) -> bool:
        """All its gates have a token for it, and nobody stands before it in its strict lane."""
        for id in (gate_id(gate) for gate in job.gating.gates):
            if id not in job.tokens and not self.open(id, now):
                return False
        return not any(
            lane in other.strict and lane not in job.tokens and other.place < job.place
            for lane in job.strict
            for other in self.blocked()
        )

    def blocked(self) -> list[Job]:
        jobs = [job for job in self.jobs.values() if job.state is State.BLOCKED and not job.held]
        return sorted(jobs, key=lambda job: job.order)

    def admit(self, now: int, seen: Mapping[str, State]) -> list[str]:
        """Let in who can be, most urgent first. *seen* decides of jobs in paused queues, and whether the first of a strict
        lane, whose turn was interrupted, goes before others by its old place or by its new one."""
        held = [job for job in self.jobs.values() if job.held and self.limits(job.queue).closed != "hold"]
        for job in sorted(held, key=lambda job: job.order):
            job.held = False
            if job.state is State.BLOCKED:
                self.arrive(job, new_place=False)
        admitted = []
        turns = [job for job in self.blocked() if job.tokens]
        first = [job for job in turns if seen[job.row.id] is not State.BLOCKED]
        others = [job for job in self.blocked() if job not in turns]
        for job in dict.fromkeys([*first, *others, *turns]):
            if job.queue in self.paused and seen[job.row.id] is State.BLOCKED:
                continue
            if self.passes(job, now):
                job.state, job.version, job.admitted_at = State.AVAILABLE, self.next(), now
                job.tokens = {gate_id(gate): job.tokens.get(gate_id(gate), now) for gate in job.gating.gates}
                admitted.append(job.row.id)
        return admitted

    def may_be_taken_back(self, job: Job, now: int) -> bool:
        """Its queue is paused; or another waits at a gate of its that is more urgent, or since long enough."""
        if job.queue in self.paused:
            return True
        mine = set(map(gate_id, job.gating.gates))
        others = [other for other in self.blocked() if mine & set(map(gate_id, other.gating.gates))]
        unclaimed = now - job.admitted_at >= UNCLAIMED * SECOND
        return any(unclaimed or other.priority > job.priority for other in others)

    def take_back(self, job: Job) -> None:
        job.state, job.version = State.BLOCKED, self.next()
        self.lose(job, keep_order=True)

    def next_by_time(self, now: int) -> int | None:
        """The first moment at which a scheduled job is due or time alone lets a blocked one in."""
        times = [job.run_at for job in self.jobs.values() if job.state is State.SCHEDULED]
        for job in self.blocked():
            if job.queue in self.paused or any(
                lane in other.strict and other.place < job.place for lane in job.strict for other in self.blocked()
            ):
                continue
            opens = [self.opens_at(id, now) for gate in job.gating.gates if (id := gate_id(gate)) not in job.tokens]
            if all(at is not None for at in opens) and (later := [at for at in opens if at is not None and at > now]):
                times.append(max(later))
        return min(times, default=None)

    # -- claiming

    def claim(self, wants: Iterable[Want], now: int) -> list[str]:
        taken: list[Job] = []
        running = [job for job in self.jobs.values() if job.state is State.RUNNING]
        for want in wants:
            left = want.limit
            fit = [job for job in self.jobs.values() if job.state is State.AVAILABLE and self.wanted(job, want)]
            for job in sorted(fit, key=lambda job: job.order):
                cap = self.limits(job.queue).concurrency
                if not left or (cap is not None and sum(each.queue == job.queue for each in running) >= cap):
                    continue
                job.state, left = State.RUNNING, left - 1
                running.append(job)
                taken.append(job)
                self.start(job, now)
        return [job.row.id for job in taken]

    def wanted(self, job: Job, want: Want) -> bool:
        named = want.queues is None or job.queue in want.queues
        return named and job.queue not in self.paused and job.suspect is want.suspects

    def start(self, job: Job, now: int) -> None:
        for id in [id for id in job.tokens if id[0] == "rate"]:
            del job.tokens[id]
            self.stamps.setdefault(id, []).append(now)
        self.free_key(job, started=True)

    # -- calls and breakers

    def take(self, gates: tuple[Gate, ...], holder: str, ttl: float, now: int) -> bool:
        for gate in gates:
            self.newest.setdefault(gate_id(gate), gate)
        if holder in self.calls and self.calls[holder][1] > now:
            return True
        if not all(self.open(gate_id(gate), now) for gate in gates):
            return False
        self.calls[holder] = (tuple(gate for gate in gates if gate.kind != "rate"), now + round(ttl * SECOND))
        for gate in gates:
            if gate.kind == "rate":
                self.stamps.setdefault(gate_id(gate), []).append(now)
        return True

    def report(self, report: Report, now: int) -> None:
        breaker = self.breaker(report.key, now)
        if breaker.state == "open":
            return
        if not report.failed:
            if breaker.state == "probing":
                self.breakers[report.key] = Breaker()
            return
        breaker.failures = [at for at in breaker.failures if at > now - round(report.within * SECOND)] + [now]
        if breaker.state == "probing" or len(breaker.failures) >= report.failures:
            breaker.state, breaker.until = "open", now + round(report.cooldown * SECOND)
            self.park(report.key)

    def park(self, key: str) -> None:
        for job in self.jobs.values():
            if job.state is State.AVAILABLE and ("breaker", key) in job.tokens:
                self.take_back(job)
