"""The store in plain Python: no batches, no indexes, no locks; as little cleverness as the contract allows.

Where the contract leaves an engine free (the numbers of entries and terms, whether an expired job is handed out or
skipped, how long a job cancelled by its worker's end is kept), the reference asks what the engine did and checks that
it was one of the allowed things. Times never tie: whoever drives it lets a few microseconds pass between calls.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from dayjob.clock import SECOND
from dayjob.states import EFFECTS, MAX_CRASHES, TERMINAL, Outcome, State
from dayjob.store.records import Bound, Cancel, Delete, Edit, Log, NewRow, Progress, Retry, Settlement, Want, Write

EXPIRY = 20 * SECOND
UNLISTED = 10 * SECOND
HOUR = 3600 * SECOND
WAITING = {State.SCHEDULED, State.AVAILABLE}


@dataclass
class Job:
    """One job. `version` stands for the entry: it changes whenever the engine must give a new one."""

    row: NewRow
    queue: str
    priority: int
    payload: bytes
    state: State
    created_at: int
    run_at: int
    expires_at: int | None
    version: int = 0
    place: int = 0
    attempt: int = 0
    crashes: int = 0
    round: int = 0
    parked: int = 0
    suspect: bool = False
    begun: bool = False
    cancelling: bool = False
    cancel_reason: str | None = None
    worker: str | None = None
    number: int = 0
    reason: str | None = None
    finished_at: int | None = None
    keep_until: int | None = None
    keep_known: bool = True
    reason_known: bool = True
    result: bytes | None = None
    checkpoint: bytes | None = None
    progress: Progress | None = None
    logs: list[Log] = field(default_factory=list)
    attempts: list[tuple[int, int, Outcome]] = field(default_factory=list)

    def expired(self, now: int) -> bool:
        """What has begun cannot expire any more."""
        return self.expires_at is not None and self.expires_at <= now and not self.begun

    @property
    def order(self) -> tuple[int, int]:
        return (-self.priority, self.place)


@dataclass
class Batch:
    """What was claimed under one number: (id, version), and when."""

    claimed_at: int
    jobs: list[tuple[str, int]]


@dataclass
class Worker:
    """One incarnation, as the store knows it."""

    id: str
    solo: bool
    expires: int = 0
    lost: bool = False
    batches: dict[int, Batch] = field(default_factory=dict)


@dataclass
class Reference:
    """The whole store. Methods are the contract's, with what the engine answered where the contract leaves it free."""

    jobs: dict[str, Job] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    live: int = 0
    beat_at: int = 0
    leader: str | None = None
    term: int = 0
    counter: int = 0

    # -- small steps

    def next(self) -> int:
        self.counter += 1
        return self.counter

    def make_available(self, job: Job, *, new_place: bool) -> None:
        job.state, job.version = State.AVAILABLE, self.next()
        if new_place:
            job.place = job.version

    def finish(self, job: Job, state: State, now: int, reason: str | None) -> None:
        job.state, job.reason, job.finished_at = state, reason, now
        job.suspect = job.cancelling = False
        job.worker = None

    def runs(self, job: Job | None, worker: str, version: int) -> bool:
        return job is not None and job.state is State.RUNNING and job.worker == worker and job.version == version

    # -- Jobs

    def enqueue(self, rows: Iterable[NewRow], now: int) -> list[str]:
        """The outcomes; every row that is not stored must be known to the caller as `existing`."""
        outcomes = []
        for row in rows:
            if row.id in self.jobs or row.id in self.gone:
                outcomes.append("existing")
                continue
            due = now + round((row.delay or 0) * SECOND)
            expires = None if row.expires is None else now + round(row.expires * SECOND)
            job = Job(row, row.queue, row.priority, row.payload, State.SCHEDULED, now, due, expires, self.next())
            if due <= now:
                self.make_available(job, new_place=True)
            self.jobs[row.id] = job
            outcomes.append("inserted")
        return outcomes

    def settle(self, worker: str, settlement: Settlement, version: int, now: int) -> State | None:
        """The state the job is in afterwards, or None when the settlement is refused."""
        job = self.jobs.get(settlement.id)
        if job is None or not self.runs(job, worker, version):
            return None
        self.end_claim(job, settlement, now)
        return job.state

    def end_claim(self, job: Job, how: Settlement, now: int) -> None:
        """One claim of *job* ends: the table of outcomes, a cancel that was asked for, the third crash."""
        effect = EFFECTS[how.outcome]
        if how.outcome is not Outcome.COMPLETED and (how.started_at or how.outcome is not Outcome.RELEASED):
            job.attempts.append((job.attempt + 1, job.round, how.outcome))
        cancelling, asked_reason = job.cancelling, job.cancel_reason
        job.attempt += effect.attempt
        job.crashes += effect.crashes
        job.parked = job.parked + 1 if how.outcome is Outcome.PARKED else 0
        stays_suspect = job.suspect and how.outcome in (Outcome.RELEASED, Outcome.PARKED)
        job.suspect = how.outcome in (Outcome.CRASHED, Outcome.LOST) or stays_suspect
        job.begun = job.begun or how.started_at > 0 or how.outcome in (Outcome.CRASHED, Outcome.LOST)
        job.cancelling, job.cancel_reason, job.worker = False, None, None
        state, reason = effect.state, how.reason
        if cancelling and state is not State.COMPLETED:
            state, reason = State.CANCELLED, asked_reason
            job.reason_known = how.outcome is not Outcome.CANCELLED
        elif how.outcome is Outcome.CRASHED and job.crashes >= MAX_CRASHES:
            state, reason = State.DEAD, "crashed"
        if state.terminal:
            self.finish(job, state, how.finished_at or now, None if state is State.COMPLETED else reason)
            job.keep_until = None if how.keep is None else now + round(how.keep * SECOND)
            job.keep_known = effect.state is state or how.keep is not None
            job.result = how.result if state is State.COMPLETED else None
            if how.keep == 0:
                self.forget(job, now)
        elif state is State.SCHEDULED:
            job.state, job.version, job.run_at = state, self.next(), now + round(how.delay * SECOND)
        else:
            self.make_available(job, new_place=False)

    def forget(self, job: Job, now: int) -> None:
        """The job goes; its id stays findable for an hour after it finished."""
        del self.jobs[job.row.id]
        self.gone[job.row.id] = (job.finished_at or now) + HOUR

    def stage(self, now: int) -> int:
        """What is due becomes available, in the order of its time."""
        due = [job for job in self.jobs.values() if job.state is State.SCHEDULED and job.run_at <= now]
        for job in sorted(due, key=lambda job: job.run_at):
            self.make_available(job, new_place=True)
        return len(due)

    def next_due(self) -> int | None:
        return min((job.run_at for job in self.jobs.values() if job.state is State.SCHEDULED), default=None)

    def may_claim(self, worker: str) -> bool:
        return worker in self.workers and not self.workers[worker].lost

    def claim(self, worker: str, number: int, wants: Iterable[Want], now: int, given: set[str]) -> list[str]:
        """The ids that the claim must return; *given* is what the engine returned (it may skip what has expired)."""
        taken: list[Job] = []
        for want in wants:
            fit = [
                job
                for job in self.jobs.values()
                if job.state is State.AVAILABLE
                and job not in taken
                and job.queue not in self.paused
                and (job.queue in want.queues if want.queues is not None else job.queue not in want.exclude)
                and job.suspect is want.suspects
                and (not job.expired(now) or job.row.id in given)
            ]
            taken += sorted(fit, key=lambda job: job.order)[: want.limit]
        for job in taken:
            job.state, job.worker, job.number = State.RUNNING, worker, number
        if taken:
            self.workers[worker].batches[number] = Batch(now, [(job.row.id, job.version) for job in taken])
        return [job.row.id for job in taken]

    def still_running(self, worker: str, number: int) -> list[str]:
        """What runs yet of an earlier claim."""
        batch = self.workers[worker].batches[number]
        return [id for id, version in batch.jobs if self.runs(self.jobs.get(id), worker, version)]

    def suspects_wait(self, wants: Iterable[Want]) -> bool:
        """Whether a suspect waits in a queue of *wants* that is not paused."""
        return any(
            job.state is State.AVAILABLE
            and job.suspect
            and job.queue not in self.paused
            and any(
                job.queue in want.queues if want.queues is not None else job.queue not in want.exclude for want in wants
            )
            for job in self.jobs.values()
        )

    def record(self, worker: str, id: str, version: int, writes: Iterable[Write]) -> bool:
        job = self.jobs.get(id)
        if job is None or not self.runs(job, worker, version):
            return False
        for write in writes:
            if isinstance(write, Log):
                job.logs.append(write)
            elif isinstance(write, Progress):
                job.progress = write
            else:
                job.checkpoint = write.value
        return True

    # -- acting

    def cancel(self, ids: Iterable[str], action: Cancel, now: int) -> set[str]:
        touched = set()
        for id in ids:
            job = self.jobs.get(id)
            if job is not None and job.state in WAITING:
                self.finish(job, State.CANCELLED, now, action.reason)
                job.keep_until = None if action.keep is None else now + round(action.keep * SECOND)
                touched.add(id)
            elif job is not None and job.state is State.RUNNING and not job.cancelling:
                job.cancelling, job.cancel_reason = True, action.reason
                touched.add(id)
        return touched

    def retry(self, id: str, now: int) -> set[str]:
        job = self.jobs.get(id)
        if job is None or job.state not in TERMINAL | {State.SCHEDULED}:
            return set()
        if job.state.terminal:
            job.round += 1
            job.attempt = job.crashes = job.parked = 0
            job.begun = False
            job.expires_at = job.finished_at = job.keep_until = job.result = None
            job.checkpoint, job.progress, job.reason = None, None, None
            job.keep_known = job.reason_known = True
        job.run_at = now
        self.make_available(job, new_place=True)
        return {id}

    def delete(self, ids: Iterable[str]) -> set[str]:
        touched = {id for id in ids if id in self.jobs and self.jobs[id].state is not State.RUNNING}
        for id in touched:
            del self.jobs[id]
        return touched

    def edit(self, id: str, action: Edit, now: int) -> set[str]:
        job = self.jobs.get(id)
        if job is None or job.state not in WAITING:
            return set()
        job.queue = job.queue if action.queue is None else action.queue
        job.priority = job.priority if action.priority is None else action.priority
        job.payload = job.payload if action.payload is None else action.payload
        if action.run_at is not None:
            job.run_at = max(action.run_at, now)
            job.state = State.SCHEDULED if job.run_at > now else State.AVAILABLE
        moved = (action.queue, action.priority, action.run_at) != (None, None, None)
        if job.state is State.AVAILABLE:
            self.make_available(job, new_place=moved)
        return {id}

    def act(self, ids: list[str], action: Cancel | Retry | Delete | Edit, now: int) -> set[str]:
        if isinstance(action, Cancel):
            return self.cancel(ids, action, now)
        if isinstance(action, Delete):
            return self.delete(ids)
        [id] = ids  # several at once have no order among themselves
        return self.retry(id, now) if isinstance(action, Retry) else self.edit(id, action, now)

    # -- Cluster

    def live_at(self, now: int) -> int:
        """Live time: a stretch without any beat counts up to half an expiry."""
        return self.live + min(max(0, now - self.beat_at), EXPIRY // 2)

    def stands(self, worker: str | None) -> bool:
        known = self.workers.get(worker or "")
        return known is not None and not known.lost and known.expires > self.live

    def beat(self, id: str, solo: bool, held: Iterable[int], claims: int | None, now: int) -> bool:
        """False: the worker was given up. Else its lease is renewed and what it does not list is released."""
        worker = self.workers.setdefault(id, Worker(id, solo))
        if worker.lost:
            return False
        self.live, self.beat_at = self.live_at(now), now
        worker.expires = self.live + EXPIRY
        if not solo and self.leader != id and not self.stands(self.leader):
            self.leader, self.term = id, 0  # the number is the engine's to say
        for number, batch in list(worker.batches.items()):
            unlisted = number not in held and (claims is None or number <= claims)
            if unlisted and batch.claimed_at < now - UNLISTED:
                self.end_batch(worker, number, Outcome.RELEASED, now)
        return True

    def end_batch(self, worker: Worker, number: int, outcome: Outcome, now: int) -> set[str]:
        taken = set()
        for id, version in worker.batches.pop(number).jobs:
            job = self.jobs.get(id)
            if job is not None and self.runs(job, worker.id, version):
                self.end_claim(job, Settlement(id, 0, outcome, 0, now), now)
                taken.add(id)
        return taken

    def give_up(self, id: str, now: int, *, orderly: bool) -> set[str]:
        """The worker is over; the ids that were taken from it."""
        worker = self.workers[id]
        alone = worker.solo and len(self.held_by(id)) == 1
        outcome = Outcome.RELEASED if orderly else Outcome.CRASHED if alone else Outcome.LOST
        taken = {id for number in list(worker.batches) for id in self.end_batch(worker, number, outcome, now)}
        worker.lost = True
        if self.leader == id:
            self.leader = None
        return taken

    def held_by(self, worker: str) -> set[str]:
        return {id for id, job in self.jobs.items() if job.state is State.RUNNING and job.worker == worker}

    def cancelled_of(self, worker: str) -> set[str]:
        return {id for id, job in self.jobs.items() if job.worker == worker and job.cancelling}

    # -- Upkeep

    def leads(self, term: int | None) -> bool:
        return self.leader is not None and term == self.term

    def expire(self, now: int) -> int:
        over = [job for job in self.jobs.values() if job.state in WAITING and job.expired(now)]
        for job in over:
            self.finish(job, State.CANCELLED, now, "expired")
            job.keep_known = False
        return len(over)

    def rescue(self, now: int) -> dict[str, set[str]]:
        live = self.live_at(now)
        over = [worker.id for worker in self.workers.values() if not worker.lost and worker.expires <= live]
        return {id: self.give_up(id, now, orderly=False) for id in over}

    def prune(self, bounds: Iterable[Bound], now: int, left: set[str]) -> int:
        """Drop what must go; *left* is what the engine kept, which decides between jobs that finished together."""
        before = len(self.jobs)
        for job in list(self.jobs.values()):
            if job.state.terminal and job.keep_until is not None and job.keep_until <= now:
                self.forget(job, now)
        for bound in bounds:
            for queue in {job.queue for job in self.jobs.values()}:
                if bound.queue in (None, queue):
                    self._prune_beyond(bound, queue, now, left)
        self.gone = {id: until for id, until in self.gone.items() if until > now}
        return before - len(self.jobs)

    def _prune_beyond(self, bound: Bound, queue: str, now: int, left: set[str]) -> None:
        group = [job for job in self.jobs.values() if job.state is bound.state and job.queue == queue]
        group.sort(key=lambda job: (job.finished_at or 0, job.row.id in left), reverse=True)
        for job in group[bound.count :]:
            self.forget(job, now)
