"""A short clean run, made up, for the checker to look at; `spoilt_*.py` and `test_checker.py` spoil it."""

from __future__ import annotations

from typing import Any

import msgspec

from dayjob.clock import SECOND
from dayjob.states import Outcome, State
from dayjob.store.records import AttemptRow, JobRow
from tests.chaos.checker import RULES
from tests.chaos.evidence import Conditions, Evidence
from tests.chaos.ledger import Fact, Plan
from tests.chaos.spoilt_clocks import clocks
from tests.chaos.spoilt_limits import limited
from tests.chaos.spoilt_ticks import ticking
from tests.chaos.verdict import Verdict

CONDITIONS = Conditions(
    lease=2.0, beat=0.5, sweep=0.5, grace=5.0, prompt=0.1, atomic=True, replays=2, steady=600.0, audited=10
)
STEADY, KILLED, TOLD, SOLO, OTHER, DOOMED = 1, 2, 3, 4, 5, 6


class Run:
    """A short clean run: twenty jobs in calm, one killed worker, one told to stop, one poison, one retried job.

    Attributes:
        facts, jobs: what it left behind; tests spoil them.
    """

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.jobs: dict[str, JobRow] = {}
        for pid, worker in (
            (STEADY, "steady"),
            (KILLED, "killed"),
            (TOLD, "told"),
            (OTHER, "other"),
            (DOOMED, "doomed"),
        ):
            self.note("worker.up", 0.0, pid, worker=worker, name=worker, solo=False)
        self.note("worker.up", 6.0, SOLO, worker="solo", name="solo", solo=True)
        for number in range(200):
            self.ordinary(f"calm-{number:03}", number * 0.11, number + 1)
        self.fault("SIGKILL", 5.0, 5.0, KILLED)
        self.taken_from_the_killed()
        self.poison()
        self.flaky()
        limited(self, "steady", STEADY)
        clocks(self, STEADY)
        ticking(self, "steady", STEADY)
        self.note("told", 8.0, 0, target=TOLD)
        self.note("exit", 9.0, 0, target=TOLD, code=0)
        self.fault("outage", 10.0, 11.0, None)
        self.leaders()
        self.note("cancel.accepted", 21.0, 9, id="calm-195")
        for number in range(2):
            again = {"id": "calm-000", "entry": 1, "worker": "steady", "outcome": "failed"}
            self.note("replay.refused", 21.0 + number, 0, **again)
        for number in range(200):
            self.note("beat", number * 0.1, STEADY, worker="steady", late=0.001)
        for number in range(40):
            self.note("beat", number * 0.5, OTHER, worker="other", late=0.001)
        for number in range(100):
            self.note("sample", number * 10.0, 0, target=STEADY, descriptors=20, memory=50 << 20)

    def note(self, fact: str, at: float, pid: int, **fields: Any) -> None:
        self.facts.append({"fact": fact, "pid": pid, "at": at, **fields})

    def fault(self, name: str, at: float, until: float, target: int | None) -> None:
        self.note("fault", at, 0, name=name, until=until, target=target)

    def enqueue(self, id: str, at: float, plan: Plan) -> None:
        self.note("enqueue.tried", at, 9, id=id, task="nap", plan=msgspec.to_builtins(plan))
        self.note("enqueue.acknowledged", at + 0.01, 9, id=id)

    def start(self, id: str, at: float, entry: int, worker: str = "steady", pid: int = STEADY) -> None:
        self.note("start", at, pid, id=id, entry=entry, worker=worker, attempt=0, crashes=0)

    def finish(self, id: str, at: float, entry: int, outcome: str = "completed", worker: str = "steady") -> None:
        lease = {"id": id, "entry": entry, "worker": worker, "outcome": outcome}
        if outcome == "completed":
            self.note("effect", at, STEADY, **lease)
        self.note("finish.sent", at + 0.01, STEADY, **lease)
        self.note("finish.accepted", at + 0.02, STEADY, **lease)

    def keep(self, id: str, at: float, *attempts: AttemptRow, state: State = State.COMPLETED, **fields: Any) -> None:
        done = {"attempt": 1, "entry": 0, "task": "nap", "queue": "default", "payload": b"{}", **fields}
        self.jobs[id] = JobRow(id=id, state=state, finished_at=round(at * SECOND), attempts=list(attempts), **done)

    def ordinary(self, id: str, at: float, entry: int) -> None:
        self.enqueue(id, at, Plan())
        self.start(id, at + 0.05, entry)
        self.finish(id, at + 0.06, entry)
        self.keep(id, at + 0.08)

    def taken_from_the_killed(self) -> None:
        self.enqueue("taken", 4.9, Plan())
        self.start("taken", 4.95, 1000, "killed", KILLED)
        self.note("worker.gone", 7.2, STEADY, of="killed", jobs=1, death=None)
        self.note("job.stalled", 7.2, STEADY, id="taken", of="killed")
        self.start("taken", 7.4, 1001, "solo", SOLO)
        self.finish("taken", 7.5, 1001, worker="solo")
        self.keep("taken", 7.6, attempt_row(1, Outcome.LOST, 7.2, "killed"))

    def poison(self) -> None:
        self.enqueue("poison", 5.5, Plan(end="dead", attempts=0, crashes=3, reason="crashed"))
        self.start("poison", 5.6, 2000, "doomed", DOOMED)
        for number, at in enumerate((6.5, 7.0, 7.5)):
            self.start("poison", at - 0.2, 2001 + number, "solo", SOLO)
        crashes = [attempt_row(1, Outcome.CRASHED, at, "solo") for at in (6.5, 7.0, 7.5)]
        dead: dict[str, Any] = {"attempt": 0, "crashes": 3, "reason": "crashed"}
        self.keep("poison", 7.5, attempt_row(1, Outcome.LOST, 6.0, "doomed"), *crashes, state=State.DEAD, **dead)

    def flaky(self) -> None:
        self.enqueue("flaky", 15.0, Plan(attempts=2, delay=0.5))
        self.start("flaky", 15.6, 3000)
        self.finish("flaky", 15.7, 3000, "failed")
        self.start("flaky", 16.0, 3001)
        self.finish("flaky", 16.1, 3001)
        self.keep("flaky", 16.2, attempt_row(1, Outcome.FAILED, 15.75), attempt=2)

    def leaders(self) -> None:
        for term, (at, worker) in enumerate(((0.1, "killed"), (7.1, "told"), (9.1, "steady")), 1):
            self.note("term.granted", at, 0, term=term, worker=worker)
            self.note("upkeep.accepted", at + 0.1, 0, term=term, what="rescue", sent=at + 0.05)

    def judged(self) -> Verdict:
        self.facts.sort(key=lambda fact: fact["at"])
        evidence = Evidence(self.facts, self.jobs, [], CONDITIONS)
        return Verdict(tuple(rule(evidence) for rule in RULES))

    def facts_of(self, fact: str, **fields: Any) -> list[Fact]:
        return [one for one in self.facts if one["fact"] == fact and fields.items() <= one.items()]


def attempt_row(
    number: int, outcome: Outcome, at: float, worker: str = "steady", reason: str | None = None
) -> AttemptRow:
    return AttemptRow(number, 0, outcome, None, round(at * SECOND), worker, reason=reason)
