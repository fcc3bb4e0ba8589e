"""A state machine for keys, gates, the limits of queues and breakers: every engine against `gates_reference`.

It is beside `machine` and not in it, because what is compared differs: here jobs live and die quickly, and after every
step each state, each token and each payload must be what the reference says.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from dayjob.clock import SECOND
from dayjob.errors import JobExists, QueueClosed, QueueFull
from dayjob.states import EFFECTS, Outcome, State
from dayjob.store.gating import Gating, QueueLimits, Report, Unique
from dayjob.store.records import (
    FITS,
    Action,
    Cancel,
    Claimed,
    Delete,
    Edit,
    Enqueued,
    Filter,
    NewRow,
    Retry,
    Settlement,
    Want,
    WorkerInfo,
)
from tests.contract.engines import EngineUnderTest
from tests.contract.gates.words import breaker, concurrency, key_of, order, rate
from tests.contract.ids import numbered
from tests.contract.scene import START
from tests.model.gates_reference import Breaker, GateId, Job, Reference, gate_id

A, B, R, LINE, K = concurrency("a"), concurrency("b", 2), rate(2, 10.0, "r"), order("o"), breaker("k")
OTHER, C1, C2 = order("p"), concurrency("c", 1), concurrency("c", 2)


def uniques(*keys: str) -> st.SearchStrategy[Unique]:
    return st.builds(
        key_of,
        st.sampled_from(keys),
        until=st.sampled_from(["done", "done", "started", "expired"]),
        ttl=st.sampled_from([30.0, 100.0]),
        on_conflict=st.sampled_from(["existing", "raise", "replace", "replace", "extend", "merge"]),
    )


gates = st.sampled_from([(), (A,), (A,), (C1,), (C2,), (B,), (R,), (A, B), (B, A), (A, R), (B, R, K), (K,), (A, B, R)])
anywhere: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    queue=st.sampled_from(["q", "r"]),
    priority=st.integers(-1, 1),
    delay=st.sampled_from([None, None, None, 3.0]),
    gating=st.builds(Gating, unique=st.one_of(st.none(), st.none(), uniques("x", "y")), gates=gates),
)
lines = st.sampled_from([(LINE,), (LINE,), (LINE, A), (R, LINE), (OTHER,), (A, OTHER)])
strict: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    queue=st.just("s"),  # neither paused nor closed: what that means for a strict lane, nobody says
    priority=st.integers(-1, 1),
    delay=st.sampled_from([None, None, None, 3.0]),
    gating=st.builds(
        Gating, unique=st.one_of(st.none(), st.none(), uniques("z")), gates=st.one_of(lines, lines, lines, gates)
    ),
)
shapes: st.SearchStrategy[dict[str, Any]] = st.one_of(anywhere, anywhere, strict)
queue_limits = st.sampled_from(
    [
        None, None, QueueLimits(concurrency=1), QueueLimits(concurrency=2), QueueLimits(max_depth=2),
        QueueLimits(max_depth=2, when_full="drop_oldest"), QueueLimits(closed="hold"), QueueLimits(closed="refuse"),
    ]
)  # fmt: skip
outcomes = st.sampled_from([Outcome.COMPLETED, *Outcome])
LATER = 1 << 60
"""Instead of a time that is some seconds ahead."""
gatings = st.builds(Gating, unique=st.one_of(st.none(), uniques("w")), gates=st.one_of(gates, lines))
one_change: st.SearchStrategy[Edit] = st.one_of(
    st.sampled_from([Edit(priority=1), Edit(queue="r"), Edit(queue="t"), Edit(run_at=0), Edit(run_at=LATER)]),
    st.sampled_from([Edit(), Edit(payload=b"new"), Edit(priority=-1), Edit(run_at=LATER)]),
    st.builds(Edit, gating=gatings),
)
changes: st.SearchStrategy[Edit] = st.builds(
    Edit,
    priority=st.sampled_from([None, None, -1, 1]),
    queue=st.sampled_from([None, None, "r", "t"]),
    payload=st.sampled_from([None, None, b"new"]),
    run_at=st.sampled_from([None, None, 0, LATER]),
    gating=gatings,
)
actions: st.SearchStrategy[Action] = st.one_of(
    st.sampled_from([Cancel(), Delete(), Retry()]), one_change, one_change, changes
)


class GatesMachine(RuleBasedStateMachine):
    """One story on one engine."""

    engine_type: ClassVar[type[EngineUnderTest]]
    folder: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.engine = self.engine_type(self.folder)
        self.store = self.engine.store()
        self.model = Reference()
        self.now = START
        self.made = itertools.count(1)
        self.numbers = itertools.count(1)
        self.worker = WorkerInfo(id="w", name="w", host="h", pid=1)
        self.claims: dict[str, Claimed] = {}
        self.term = 0

    def teardown(self) -> None:
        self.engine.close()

    def seen(self) -> dict[str, State]:
        return {row.id: row.state for row in self.store.find(Filter(), limit=1000).jobs}

    def places(self) -> dict[str, int]:
        return {row.id: row.place for row in self.store.find(Filter(), limit=1000).jobs}

    # -- in

    @initialize(batch=st.lists(shapes, min_size=2, max_size=5))
    def begin(self, batch: list[dict[str, Any]]) -> None:
        self.time_passes(1.0)
        self.enqueue(batch)

    @precondition(lambda self: len(self.model.blocked()) < 8)
    @rule(batch=st.lists(shapes, min_size=1, max_size=4))
    def enqueue(self, batch: list[dict[str, Any]]) -> None:
        rows = [NewRow(numbered(n := next(self.made)), "t", payload=b"%d" % n, **shape) for shape in batch]
        for n, row in enumerate(rows):
            row.delay = row.delay and row.delay + n / SECOND  # no two times tie
        answers = self.store.enqueue(rows, now=self.now)

        for row, answer in zip(rows, answers, strict=True):
            self.same_answer(row, answer)

    def same_answer(self, row: NewRow, answer: Enqueued) -> None:
        """A row that is refused for two reasons may be told either."""
        model, unique = self.model, row.gating.unique if row.gating else None
        refusals = [QueueClosed] * (model.limits(row.queue).closed == "refuse") + [QueueFull] * model.full(row.queue)
        if unique is not None and model.held(unique, self.now):
            if not (refusals and isinstance(answer.error, (QueueFull, QueueClosed))):
                self.same_conflict(row, answer)
        elif refusals:
            assert answer.outcome == "refused"
            assert type(answer.error) in refusals
        else:
            assert (answer.outcome, answer.error) == ("inserted", None)
            self.same_shed(row.queue)
            model.insert(row, self.now)

    def same_conflict(self, row: NewRow, answer: Enqueued) -> None:
        assert row.gating is not None
        assert row.gating.unique is not None
        holder = self.model.holder(row.gating.unique, self.now)
        assert answer.id == self.model.keys[row.gating.unique.hash][0]
        if holder is not None:
            assert answer.outcome == self.model.conflict(holder, row, self.now)
        else:
            assert answer.outcome == ("refused" if row.gating.unique.on_conflict == "raise" else "existing")
        assert isinstance(answer.error, JobExists) == (answer.outcome == "refused")

    def same_shed(self, queue: str) -> None:
        """Somebody makes room for one more. Of those that may, the engine says who; it may be one that goes for a later row."""
        may_go = self.model.may_go(queue)
        if may_go:
            rows = [self.store.get(job.row.id) for job in may_go]
            gone = [job for job, row in zip(may_go, rows, strict=True) if row is not None and row.reason == "shed"]
            assert gone, f"none of {[job.row.id for job in may_go]} made room"
            self.model.end(min(gone, key=lambda job: job.came), State.DEAD)

    # -- workers

    @rule(seconds=st.sampled_from([0.5, 3.0, 5.5, 11.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        end = self.now + round(seconds * SECOND)
        while self.now < end:
            self.now = min(end, self.now + 5 * SECOND)
            beat = self.store.beat(self.worker, list(range(1, 10_000)), now=self.now)
            assert beat.term is not None
            self.term = beat.term

    @rule(
        queues=st.sampled_from([None, None, None, ("q",), ("s", "r")]), limit=st.integers(1, 4), odd=st.integers(0, 4)
    )
    def claim(self, queues: tuple[str, ...] | None, limit: int, odd: int) -> None:
        self.turn([], [Want(queues, limit, suspects=odd == 4)])

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), ends=st.lists(outcomes, min_size=1, max_size=3), limit=st.integers(0, 4))
    def settle_and_claim(self, data: st.DataObject, ends: list[Outcome], limit: int) -> None:
        ids = data.draw(st.lists(st.sampled_from(sorted(self.claims)), min_size=1, max_size=len(ends), unique=True))
        batch = [
            Settlement(job.id, job.entry, end, self.now - SECOND, self.now + n, 3.0 + n / SECOND, keep=None)
            for n, (job, end) in enumerate(zip([self.claims.pop(id) for id in ids], ends, strict=False))
        ]
        self.turn(batch, [Want(None if limit else ("none",), limit or 1)])

    def turn(self, settlements: list[Settlement], wants: list[Want]) -> None:
        """One turn on both. What an engine admits of paused queues is its own affair."""
        turn = self.store.turn("w", next(self.numbers), settlements, wants, now=self.now)
        for settlement in settlements:
            self.settle(self.model.jobs[settlement.id], settlement)
        self.stage()
        self.model.admit(self.now, self.seen())
        due = self.model.next_by_time(self.now)

        assert turn.refused == []
        assert [job.id for job in turn.claimed] == self.model.claim(wants, self.now)
        self.claims.update({job.id: job for job in turn.claimed})
        if due is not None:
            assert turn.next_due is not None
            assert turn.next_due <= due, "all would sleep past an opening"

    def settle(self, job: Job, how: Settlement) -> None:
        model, state = self.model, EFFECTS[how.outcome].state
        stays_suspect = job.suspect and how.outcome in (Outcome.RELEASED, Outcome.PARKED)
        job.suspect = how.outcome in (Outcome.CRASHED, Outcome.LOST) or stays_suspect
        row = self.store.get(job.row.id)
        if row is not None and row.reason == "crashed" and row.state is State.DEAD:
            state = State.DEAD
        if state.terminal:
            model.end(job, state)
        elif state is State.SCHEDULED:
            job.run_at = self.now + round(how.delay * SECOND)
            model.reschedule(job, self.now)
        else:
            model.arrive(job, new_place=False)

    def stage(self) -> None:
        due = [job for job in self.model.jobs.values() if job.state is State.SCHEDULED and job.run_at <= self.now]
        for job in sorted(due, key=lambda job: job.run_at):
            self.model.arrive(job)

    @rule()
    def sweep(self) -> None:
        """The leader's; what it takes back, and whether that stands in a new place then, is the engine's affair, if there was
        a reason. Then nobody who could pass waits."""
        model, before, stood = self.model, {id: job.state for id, job in self.model.jobs.items()}, self.places()
        assert self.store.admit(self.term, now=self.now) is not None
        seen, stands = self.seen(), self.places()
        back = [job for id, job in model.jobs.items() if before[id] is State.AVAILABLE and seen[id] is State.BLOCKED]
        assert all(model.may_be_taken_back(job, self.now) for job in back)
        for job in back:
            model.take_back(job)
        for id in sorted(stands, key=stands.__getitem__):
            if before[id] is State.AVAILABLE and model.jobs[id].gating.gates and stands[id] > stood[id]:
                model.jobs[id].place = model.next()
        if not back:
            model.admit(self.now, seen)
            return
        new = [job for job in model.blocked() if seen[job.row.id] is not State.BLOCKED]
        for job in sorted(new, key=lambda job: job.place):
            assert model.passes(job, self.now)
            job.state, job.version, job.admitted_at = State.AVAILABLE, model.next(), self.now
            job.tokens = {gate_id(gate): job.tokens.get(gate_id(gate), self.now) for gate in job.gating.gates}
        left = [job for job in model.blocked() if job.queue not in model.paused and model.passes(job, self.now)]
        assert [job.row.id for job in left] == []

    # -- by hand

    @rule(data=st.data(), action=actions)
    def act(self, data: st.DataObject, action: Action) -> None:
        live, finished = FITS[type(action)]
        if isinstance(action, Edit) and action.run_at == LATER:  # 5 microseconds, so that no two times tie
            action = structs.replace(action, run_at=self.now + 5 * SECOND + 5)
        fit = sorted(
            id for id, job in self.model.jobs.items() if job.state in live + finished and self.plain(job, action)
        )
        if not fit:
            return
        id = data.draw(st.sampled_from(fit))
        touched = self.store.act(Filter(ids=(id,)), action, now=self.now)

        assert touched == ([id] if self.acted(self.model.jobs[id], action) else [])

    def plain(self, job: Job, action: Action) -> bool:
        """Whether it is said what becomes of it: not of a running job's cancel (that is `machine`'s), nor of a strict lane
        in a queue that may be paused or closed, nor whose key it is that outlived the job."""
        if isinstance(action, Edit):
            gates = job.gating.gates if action.gating is None else action.gating.gates
            return (action.queue or job.queue) in ("s", "t") or not any(gate.kind == "order" for gate in gates)
        outlives = job.gating.unique is not None and job.gating.unique.until == "expired"
        return job.state is not State.RUNNING and not (isinstance(action, Retry) and (outlives or job.held))

    def acted(self, job: Job, action: Action) -> bool:
        model, unique = self.model, job.gating.unique
        if isinstance(action, Cancel):
            model.end(job, State.CANCELLED)
        elif isinstance(action, Delete):
            model.delete(job)
        elif isinstance(action, Edit):
            model.edit(job, action, self.now)
        else:
            if job.state.terminal:
                if unique is not None:
                    if model.held(unique, self.now):
                        return False
                    model.take_key(job.row.id, unique, self.now)
                job.place = 0
            job.run_at = self.now
            model.arrive(job)
        return True

    @rule(queue=st.sampled_from(["q", "r"]), paused=st.booleans())
    def pause(self, queue: str, paused: bool) -> None:
        self.store.pause(queue, paused, now=self.now)
        (self.model.paused.add if paused else self.model.paused.discard)(queue)

    @rule(queue=st.sampled_from(["q", "r"]), limits=queue_limits)
    def limit_queue(self, queue: str, limits: QueueLimits | None) -> None:
        """And a turn that claims nothing: what was held is there then."""
        self.store.limit_queue(queue, limits, now=self.now)
        if limits is None:
            self.model.queues.pop(queue, None)
        else:
            self.model.queues[queue] = limits
        self.turn([], [Want(("none",), 1)])

    @rule(gate=st.sampled_from([A, B, R]), limit=st.sampled_from([None, None, 1, 2, 4]))
    def set_limit(self, gate: Any, limit: int | None) -> None:
        self.store.set_limit(gate.kind, gate.key, limit, gate.per, now=self.now)
        if limit is None:
            self.model.said.pop(gate_id(gate), None)
        else:
            self.model.said[gate_id(gate)] = (limit, gate.per)
        self.same_taken_back(gate_id(gate))

    def same_taken_back(self, id: GateId) -> None:
        """Those that passed and do not run yet the engine may take back: that they may pass now is for the next turn to say."""
        seen = self.seen()
        for job in self.model.jobs.values():
            if job.state is State.AVAILABLE and seen[job.row.id] is State.BLOCKED:
                assert id in job.tokens
                self.model.take_back(job)

    @rule(gate=st.sampled_from([A, R]), seconds=st.sampled_from([1.0, 4.0, 20.0]))
    def delay_gate(self, gate: Any, seconds: float) -> None:
        self.store.delay_gate(gate.kind, gate.key, seconds, now=self.now)
        ends = self.now + round(seconds * SECOND)
        self.model.delays[gate_id(gate)] = max(ends, self.model.delays.get(gate_id(gate), 0))
        self.same_taken_back(gate_id(gate))

    @rule(wanted=st.sampled_from([(A,), (B,), (R,), (B, A), (R, B)]), ttl=st.sampled_from([4.0, 60.0]))
    def take(self, wanted: tuple[Any, ...], ttl: float) -> None:
        holder = f"call{next(self.made)}"
        got = self.model.take(wanted, holder, ttl, self.now)
        for _ in range(2):
            answer = self.store.take(wanted, holder, ttl, now=self.now)
            assert (answer is None) == got
            assert answer is None or answer >= 0.001

    @precondition(lambda self: self.model.calls)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        holder = data.draw(st.sampled_from(sorted(self.model.calls)))
        taken, ends = self.model.calls.pop(holder)
        had = self.store.give(holder, now=self.now)
        if taken:
            assert had == (ends > self.now)
        assert self.store.give(holder, now=self.now) is False

    @rule(failed=st.lists(st.booleans(), min_size=1, max_size=3))
    def report(self, failed: list[bool]) -> None:
        reports = [Report("k", each, 2, 60.0, 5.0) for each in failed]
        self.store.report(reports, now=self.now)
        for each in reports:
            self.model.report(each, self.now)

    @rule(state=st.sampled_from(["open", "closed", "closed"]))
    def set_breaker(self, state: Any) -> None:
        self.store.set_breaker("k", state, now=self.now)
        self.model.breakers["k"] = Breaker(state)
        if state == "open":
            self.model.park("k")

    # -- comparing

    @invariant()
    def every_job_is_the_same(self) -> None:
        rows = {row.id: row for row in self.store.find(Filter(), limit=1000).jobs}

        here, there = (
            {id: row.state for id, row in rows.items()},
            {id: job.state for id, job in self.model.jobs.items()},
        )
        assert here.keys() == there.keys()
        differ = {id[-2:]: (here[id].value, there[id].value) for id in here if here[id] is not there[id]}
        assert differ == {}, f"(engine, reference): {differ}"
        for id, row in rows.items():
            job = self.model.jobs[id]
            here_now = (row.queue, row.priority, row.payload, row.run_at, row.gating or Gating())
            assert here_now == (job.queue, job.priority, job.payload, job.run_at, job.gating)
        self.now += 10  # the next operation is a little later, so that nothing ties

    @invariant()
    def every_token_is_the_same(self) -> None:
        model, rows = self.model, {gate_id(row.gate): row for row in self.store.gates(now=self.now)}
        for id in map(gate_id, (A, B, C1, R, LINE, OTHER)):
            if id in model.newest:
                taken = rows[id].taken if id in rows else 0
                assert taken == model.taken(id, self.now), (
                    f"{taken} tokens of {id} are taken, not {model.taken(id, self.now)}"
                )
        blocked = sum(job.state is State.BLOCKED for job in model.jobs.values())
        for row in rows.values():
            assert 0 < row.taken + row.waiting <= row.taken + blocked, f"{row} of {blocked} that are blocked"

    @invariant()
    def every_breaker_is_the_same(self) -> None:
        known = self.model.breaker("k", self.now).state
        assert [row.state for row in self.store.breakers(now=self.now) if row.state != "closed"] == [known] * (
            known != "closed"
        )
