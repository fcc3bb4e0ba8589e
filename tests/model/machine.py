"""A state machine that holds every engine against the reference: the same operations, the same answers, the same rows.

Each step advances the virtual clock a little, does one operation on both, compares the answers, and then compares
every row of the store. What Hypothesis finds, it shrinks to the shortest story.
"""

from __future__ import annotations

import itertools
from collections.abc import Set
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from dayjob.clock import SECOND
from dayjob.states import EFFECTS, TERMINAL, Outcome, State
from dayjob.store.records import (
    Bound,
    Cancel,
    Checkpoint,
    Claimed,
    Delete,
    Edit,
    Filter,
    JobRow,
    Lease,
    Log,
    NewRow,
    Progress,
    Retry,
    Settlement,
    Want,
    WorkerInfo,
)
from tests.contract.engines import EngineUnderTest
from tests.contract.ids import numbered
from tests.contract.scene import START
from tests.model.reference import WAITING, Job, Reference

QUEUES = ("a", "b")
queue_names = st.sampled_from(QUEUES)
keeps = st.sampled_from([None, 0.0, 60.0, 2000.0])
shapes: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    queue=queue_names,
    priority=st.integers(-1, 1),
    delay=st.sampled_from([None, None, None, 3.0, 60.0]),
    expires=st.sampled_from([None, None, None, None, 40.0]),
)
queue_choices = st.sampled_from([None, None, None, None, None, ("a",), ("b", "a"), ("b", "none")])
asked_for = st.tuples(queue_choices, st.integers(1, 4), st.sampled_from([(), (), (), ("a",)]))
outcomes = st.sampled_from([*Outcome, Outcome.COMPLETED, Outcome.FAILED, Outcome.RELEASED])
writes = st.sampled_from([Progress(1, 9), Progress(2.5, None, "half"), Checkpoint(b"\0one"), Checkpoint(b"two")])
LATER = 1
"""A `run_at` that stands for half a minute from now."""
actions = st.sampled_from(
    [
        Cancel("asked", 60.0),
        Cancel(None, None),
        Retry(),
        Retry(),
        Delete(),
        Edit(priority=1),
        Edit(queue="b", payload=b"new"),
        Edit(run_at=0),
        Edit(run_at=LATER),
    ]
)
FITS: dict[Any, Set[State]] = {
    Cancel: WAITING | {State.RUNNING},
    Retry: TERMINAL | {State.SCHEDULED},
    Delete: TERMINAL | WAITING,
    Edit: WAITING,
}
"""The states that an action is likely tried on; now and then it is tried on any."""
bounds = st.lists(
    st.builds(Bound, st.sampled_from(sorted(TERMINAL)), st.integers(0, 2), st.sampled_from([None, "a"])), max_size=2
)


class Hand:
    """A worker of the story: what it believes to hold, long after the store may think otherwise.

    Attributes:
        claims: (what the engine handed out, the reference's version of it), live and stale.
    """

    def __init__(self, name: str, solo: bool) -> None:
        self.id = name
        self.info = WorkerInfo(id=name, name=f"name of {name}", host="h", pid=1, solo=solo)
        self.number = 0
        self.term: int | None = None


class EngineMachine(RuleBasedStateMachine):
    """One story on one engine."""

    engine_type: ClassVar[type[EngineUnderTest]]
    folder: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.engine = self.engine_type(self.folder)
        self.store = self.engine.store()
        self.other = self.engine.open()
        self.model = Reference()
        self.now = START
        self.made = itertools.count(1)
        self.hands: list[Hand] = []
        self.claims: list[tuple[Hand, Claimed, int]] = []
        self.entries: dict[int, tuple[str, int]] = {}
        self.highest_term = 0

    def teardown(self) -> None:
        for id, job in self.model.jobs.items():
            self.same_history(id, job)
        self.engine.close()

    # -- choosing

    def hand(self, data: st.DataObject) -> Hand:
        return data.draw(st.sampled_from(self.hands))

    def some_ids(self, data: st.DataObject, most: int, states: Set[State]) -> list[str]:
        known = sorted(id for id, job in self.model.jobs.items() if job.state in states)
        return data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=most, unique=True)) if known else []

    def some_claim(self, data: st.DataObject, live: bool) -> tuple[Hand, Claimed, int]:
        """One of the claims ever made; with *live* one that still holds, if there is any."""
        claims = [each for each in self.claims if self.model.runs(self.model.jobs.get(each[1].id), each[0].id, each[2])]
        claims = claims if live and claims else self.claims
        return claims[-1 - data.draw(st.integers(0, min(len(claims), 12) - 1))]

    # -- workers

    @initialize(solo=st.booleans(), batch=st.lists(shapes, min_size=2, max_size=4))
    def begin(self, solo: bool, batch: list[dict[str, Any]]) -> None:
        for each in (False, True, solo):
            self.hire(each)
        self.store_new(batch)
        self.turn(self.hands[0], [], [Want(None, 2)])

    def hire(self, solo: bool) -> None:
        hand = Hand(f"w{next(self.made)}", solo)
        self.hands.append(hand)
        self.do_beat(hand, [])

    def listed(self, hand: Hand) -> list[int]:
        """The batches that a worker holds and lists."""
        known = self.model.workers.get(hand.id)
        return sorted(known.batches) if known else []

    @rule(seconds=st.sampled_from([0.5, 4.0, 11.0, 30.0, 1200.0]))
    def silence(self, seconds: float) -> None:
        """Nobody beats: an outage."""
        self.now += round(seconds * SECOND)

    @rule(seconds=st.sampled_from([5.0, 5.0, 19.0, 60.0]), data=st.data(), all_but_one=st.booleans())
    def time_passes(self, seconds: float, data: st.DataObject, all_but_one: bool) -> None:
        """Everyone beats every five seconds, or all but one, who may be dead."""
        silent = self.hand(data) if all_but_one else None
        end = self.now + round(seconds * SECOND)
        while self.now < end:
            self.now = min(end, self.now + 5 * SECOND)
            for hand in self.hands:
                if hand is not silent:
                    self.do_beat(hand, self.listed(hand))
                    self.now += 10

    @rule(data=st.data(), older=st.sampled_from([None, 0, 1]))
    def beat_after_a_lost_reply(self, data: st.DataObject, older: int | None) -> None:
        """A beat that does not know of some batches: their replies never came, or came after its list was made."""
        hand = self.hand(data)
        numbers = self.listed(hand)
        held = data.draw(st.lists(st.sampled_from(numbers), unique=True)) if numbers else []
        self.do_beat(hand, held, None if older is None else hand.number - older)

    def do_beat(self, hand: Hand, numbers: list[int], claims: int | None = None) -> None:
        leader = self.model.leader
        alive = self.model.beat(hand.id, hand.info.solo, numbers, claims, self.now)
        beat = self.store.beat(hand.info, numbers, claims=claims, now=self.now)

        assert (beat.now, beat.lost) == (self.now, not alive)
        hand.term = beat.term
        if not alive:
            assert (beat.term, beat.cancelled, beat.paused) == (None, (), frozenset())
            return
        assert {id for id, _ in beat.cancelled} == self.model.cancelled_of(hand.id)
        assert beat.paused == self.model.paused
        assert (beat.term is not None) == (self.model.leader == hand.id)
        if beat.term is not None:
            assert beat.term == self.highest_term if leader == hand.id else beat.term > self.highest_term
            self.model.term = self.highest_term = beat.term

    @rule(data=st.data(), death=st.sampled_from([None, "signal 9 (SIGKILL)"]), solo=st.integers(0, 2))
    def leave(self, data: st.DataObject, death: str | None, solo: int) -> None:
        """One goes, or is seen to die; another comes. What it held stays in the story as stale claims."""
        hand = self.hand(data)
        gone = self.store.leave(hand.id, death=death, now=self.now)
        if self.model.workers[hand.id].lost:
            assert gone is None or gone.jobs == []
        else:
            assert gone is not None
            assert gone.worker == hand.info
            taken = self.model.give_up(hand.id, self.now, orderly=death is None)
            assert {job.id for job in gone.jobs} == taken
            self.same_states(gone.jobs)
        self.hands.remove(hand)
        self.hire(solo == 0)

    def same_states(self, told: list[Any]) -> None:
        for job in told:
            stored = self.model.jobs[job.id]
            assert (job.state, job.crashes) == (stored.state, stored.crashes)

    @rule(queue=queue_names, paused=st.sampled_from([True, False, False]))
    def pause(self, queue: str, paused: bool) -> None:
        assert self.store.pause(queue, paused, now=self.now) == ((queue in self.model.paused) != paused)
        (self.model.paused.add if paused else self.model.paused.discard)(queue)

    # -- jobs

    def few_wait(self) -> bool:
        """Few jobs make deep stories: the same job fails, is cancelled, dies, runs again."""
        return sum(job.state in WAITING for job in self.model.jobs.values()) < 4

    @precondition(few_wait)
    @rule(batch=st.lists(shapes, min_size=1, max_size=3))
    def enqueue(self, batch: list[dict[str, Any]]) -> None:
        self.store_new(batch)

    def store_new(self, batch: list[dict[str, Any]]) -> None:
        rows = []
        for n, shape in enumerate(batch):
            if shape["delay"]:
                shape = {**shape, "delay": shape["delay"] + n / SECOND}  # no two times tie
            rows.append(NewRow(numbered(next(self.made)), "shop.charge", payload=b"old", **shape))
        answers = [answer.outcome for answer in self.store.enqueue(rows, now=self.now)]

        assert answers == self.model.enqueue(rows, self.now) == ["inserted"] * len(rows)

    @rule(data=st.data())
    def enqueue_again(self, data: st.DataObject) -> None:
        """The reply was lost, maybe long ago: live, finished and pruned jobs are existing, the new one is not."""
        known = sorted(self.model.jobs) + [id for id, until in self.model.gone.items() if until > self.now]
        if not known:
            return
        ids = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
        rows = [NewRow(id, "other.task", "a", b"other") for id in ids]
        rows.insert(1, NewRow(numbered(next(self.made)), "shop.charge", "a", b"old"))
        answers = [answer.outcome for answer in self.store.enqueue(rows, repeat=True, now=self.now)]

        assert answers == self.model.enqueue(rows, self.now)
        assert answers.count("inserted") == 1

    def claimer(self, data: st.DataObject) -> Hand:
        """A worker that finds something: a solo one only while suspects wait."""
        suspects = any(job.suspect and job.state is State.AVAILABLE for job in self.model.jobs.values())
        fit = [hand for hand in self.hands if suspects or not hand.info.solo]
        return data.draw(st.sampled_from(fit or self.hands))

    def want(self, hand: Hand, asked: tuple[Any, int, Any], suspects: bool | None = None) -> Want:
        queues, limit, exclude = asked
        return Want(queues, limit, exclude, hand.info.solo if suspects is None else suspects)

    @rule(data=st.data(), asked=st.lists(asked_for, min_size=1, max_size=2), foreign=st.integers(0, 9))
    def claim(self, data: st.DataObject, asked: list[Any], foreign: int) -> None:
        """A claim; now and then of the jobs that are for the other kind of worker."""
        hand = self.claimer(data)
        self.turn(hand, [], [self.want(hand, each, hand.info.solo != (foreign == 9)) for each in asked])

    @rule(data=st.data(), asked=asked_for)
    def claim_again(self, data: st.DataObject, asked: Any) -> None:
        """The reply was lost: a number that stands for a batch returns what runs of it, and nothing else."""
        hand = self.hand(data)
        if (numbers := self.listed(hand)) and not self.model.workers[hand.id].lost:
            self.turn(hand, [], [self.want(hand, asked)], data.draw(st.sampled_from(numbers)))

    @precondition(lambda self: self.claims)
    @rule(
        data=st.data(),
        outcome=outcomes,
        delay=st.sampled_from([0.0, 3.0, 60.0]),
        keep=keeps,
        live=st.integers(0, 3),
        by_other=st.booleans(),
    )
    def settle(
        self, data: st.DataObject, outcome: Outcome, delay: float, keep: float | None, live: int, by_other: bool
    ) -> None:
        """One claim, held or long lost, is settled by its worker; now and then another one tries first."""
        hand, job, version = self.some_claim(data, live > 0)
        if job.suspect and live > 1:
            outcome = Outcome.CRASHED  # poison tends to stay poison
        settlement = self.settlement(job, outcome, delay, keep)
        stranger = self.hand(data)
        if by_other and stranger is not hand:
            self.turn(stranger, [(settlement, version)], [])
        self.turn(hand, [(settlement, version)], [])

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), ends=st.lists(outcomes, min_size=1, max_size=4), asked=asked_for)
    def settle_and_claim(self, data: st.DataObject, ends: list[Outcome], asked: Any) -> None:
        """What a pump does: several outcomes out, a claim in, one round trip."""
        hand, _, _ = self.some_claim(data, live=True)
        mine = [(job, version) for owner, job, version in self.claims if owner is hand]
        mine.sort(key=lambda each: self.model.runs(self.model.jobs.get(each[0].id), hand.id, each[1]))
        ends = ends[: len(self.model.held_by(hand.id)) + 1]  # at most one comes too late
        batch = [
            (self.settlement(job, end, 5.0 + n / SECOND, 60.0, n), version)
            for n, ((job, version), end) in enumerate(zip(mine[-len(ends) :], ends, strict=False))
        ]
        self.turn(hand, batch, [self.want(hand, asked)])

    def settlement(self, job: Claimed, outcome: Outcome, delay: float, keep: float | None, n: int = 0) -> Settlement:
        good = outcome is Outcome.COMPLETED
        return Settlement(
            job.id, job.entry, outcome, self.now - SECOND, self.now + n, delay, b"fine" if good else None,
            None if good else b"boom", "why", keep,
        )  # fmt: skip

    def turn(
        self, hand: Hand, settlements: list[tuple[Settlement, int]], asked: list[Want], number: int | None = None
    ) -> None:
        """One turn on both, every part of the reply compared."""
        if asked and number is None:
            number = hand.number = hand.number + 1
        model = self.model
        turn = self.store.turn(hand.id, number, [s for s, _ in settlements], asked, now=self.now)

        refused, otherwise = [], []
        for settlement, version in settlements:
            state = model.settle(hand.id, settlement, version, self.now)
            if state is None:
                refused.append((settlement.id, settlement.entry))
            elif state is not _usual(settlement.outcome):
                otherwise.append((settlement.id, settlement.entry, state))
        staged = model.stage(self.now)
        given = [job.id for job in turn.claimed]
        expected: list[str] = []
        if asked and number is not None and model.may_claim(hand.id):
            if number in model.workers[hand.id].batches:
                expected = model.still_running(hand.id, number)
            else:
                expected = model.claim(hand.id, number, asked, self.now, set(given))
        assert sorted(turn.refused) == sorted(refused)
        assert sorted(turn.settled) == sorted(otherwise)
        assert (turn.now, turn.next_due) == (self.now, model.next_due())
        assert given == expected
        assert turn.suspects == model.suspects_wait(asked) or staged
        for claimed in turn.claimed:
            self.claims.append((hand, claimed, self.same_claim(claimed)))

    def same_claim(self, claimed: Claimed) -> int:
        """The claim tells of the job what the reference knows; the version it holds."""
        job = self.model.jobs[claimed.id]
        assert (claimed.queue, claimed.priority, claimed.payload) == (job.queue, job.priority, job.payload)
        assert (claimed.attempt, claimed.crashes, claimed.round) == (job.attempt, job.crashes, job.round)
        assert (claimed.parked, claimed.suspect) == (job.parked, job.suspect)
        assert claimed.recorded == (job.checkpoint is not None)
        assert (claimed.created_at, claimed.run_at) == (job.created_at, job.run_at)
        assert claimed.expires_at == job.expires_at or job.begun
        return job.version

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), what=st.lists(writes, min_size=1, max_size=2), line=st.booleans(), live=st.integers(0, 2))
    def record(self, data: st.DataObject, what: list[Any], line: bool, live: int) -> None:
        hand, job, version = self.some_claim(data, live > 0)
        given = [*what, Log(self.now, "info", f"line {self.now}")] if line else what
        for who in dict.fromkeys([hand.id, self.hand(data).id]):
            accepted = self.store.record(Lease(who, job.id, job.entry), given, now=self.now)
            assert accepted == self.model.record(who, job.id, version, given)

    # -- acting and upkeep

    @rule(data=st.data(), action=actions, fitting=st.integers(0, 3))
    def act(self, data: st.DataObject, action: Any, fitting: int) -> None:
        several = isinstance(action, (Cancel, Delete))
        ids = self.some_ids(data, 3 if several else 1, FITS[type(action)] if fitting else set(State))
        if not ids:
            return
        if isinstance(action, Edit) and action.run_at == LATER:
            action = Edit(run_at=self.now + 30 * SECOND)
        touched = self.other.act(Filter(ids=tuple(ids)), action, now=self.now)

        assert len(touched) == len(set(touched))
        assert set(touched) == self.model.act(ids, action, self.now)

    @rule(data=st.data(), what=st.sampled_from(["stage", "rescue", "rescue", "prune"]), limits=bounds)
    def upkeep(self, data: st.DataObject, what: str, limits: list[Bound]) -> None:
        """The leader's work, by whoever believes to lead: a term of long ago changes nothing."""
        believed = [hand.term for hand in self.hands if hand.term is not None]
        term = data.draw(st.sampled_from([*believed, self.highest_term, self.highest_term - 1]))
        answer: Any
        if what == "stage":
            answer = self.store.stage(term, now=self.now)
        elif what == "rescue":
            answer = self.store.rescue(term, now=self.now)
        else:
            answer = self.store.prune(term, limits, now=self.now)
        if not self.model.leads(term):
            assert answer is None
        elif what == "stage":
            touched = self.model.expire(self.now) + self.model.stage(self.now)
            assert answer == (touched, self.model.next_due())
        elif what == "rescue":
            taken = {gone.worker.id: {job.id for job in gone.jobs} for gone in answer}
            assert taken == self.model.rescue(self.now)
            for gone in answer:
                self.same_states(gone.jobs)
        else:
            left = {job.id for job in self.store.find(Filter(), limit=1000).jobs}
            assert answer == self.model.prune(limits, self.now, left)

    # -- comparing

    @invariant()
    def every_row_is_the_same(self) -> None:
        rows = {row.id: row for row in self.other.find(Filter(), limit=1000).jobs}

        assert set(rows) == set(self.model.jobs)
        for id, row in rows.items():
            self.same_row(row, self.model.jobs[id])
        self.now += 10  # the next operation is a little later, so that nothing ties

    def same_row(self, row: JobRow, job: Job) -> None:
        assert row.state is job.state
        assert (row.queue, row.priority, row.payload) == (job.queue, job.priority, job.payload)
        assert (row.attempt, row.crashes, row.round) == (job.attempt, job.crashes, job.round)
        assert (row.created_at, row.run_at) == (job.created_at, job.run_at)
        assert row.expires_at == job.expires_at or job.begun
        assert (row.suspect, row.cancelling) == (job.suspect, job.cancelling)
        assert row.progress == job.progress
        if job.state.terminal:
            if not job.keep_known:
                job.keep_until, job.keep_known = row.keep_until, True
            assert (row.finished_at, row.keep_until, row.result) == (job.finished_at, job.keep_until, job.result)
            assert row.reason == job.reason or not job.reason_known
        else:
            assert (row.finished_at, row.keep_until, row.result) == (None, None, None)
            # An entry belongs to one job, and to one stretch of it between two changes of hands.
            assert self.entries.setdefault(row.entry, (row.id, job.version)) == (row.id, job.version)
        if job.state is State.RUNNING:
            assert row.worker == f"name of {job.worker}"

    def same_history(self, id: str, job: Job) -> None:
        row = self.store.get(id)
        assert row is not None
        assert [(a.number, a.round, a.outcome) for a in row.attempts] == job.attempts
        assert self.store.logs(id) == job.logs
        if job.state not in TERMINAL:
            assert self.store.recorded(id) == job.checkpoint

    @rule()
    def look(self) -> None:
        """The summaries agree with the rows."""
        jobs = self.model.jobs.values()
        queues = {queue.name: queue for queue in self.store.queues(now=self.now)}
        for name in QUEUES:
            mine = [job for job in jobs if job.queue == name]
            row = queues.get(name)
            assert (row is not None) or not mine
            counts = {state: n for state, n in (row.counts if row else {}).items() if n}
            assert counts == {state.value: n for state in State if (n := sum(job.state is state for job in mine))}
        for state in State:
            assert self.store.count(Filter(states=(state,))) == sum(job.state is state for job in jobs)
        held = {row.info.id: row.held for row in self.store.workers(now=self.now)}
        alive = [worker.id for worker in self.model.workers.values() if not worker.lost]
        assert held == {id: sum(job.worker == id for job in jobs) for id in alive}


def _usual(outcome: Outcome) -> State:
    return EFFECTS[outcome].state
