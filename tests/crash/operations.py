"""Every operation of the store that writes, each with the scene before it: what `test_points` lets a process die in.

An operation is a function that prepares a scene and returns the call. All it needs it has from the scene, whose store is
a fresh handle in whatever process the call is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import Struct

from dayjob.states import Outcome, State
from dayjob.store.exits import MOVED
from dayjob.store.records import (
    Bound,
    Cancel,
    Checkpoint,
    Claimed,
    Delete,
    Edit,
    JobRow,
    Lease,
    Log,
    Progress,
    Retry,
    Tally,
    Want,
    Whole,
)
from tests.contract.scene import Puppet, Scene
from tests.contract.theirs import complete_on, theirs

Call = Callable[[], object]
Prepare = Callable[[Scene], Call | tuple[Call, Call]]
"""Makes a scene; the call, and how it is repeated where that is not the same."""


class Operation(Struct, frozen=True):
    """One of them.

    Attributes:
        method: the store's.
        once: it is repeated only by one who knows that it did not happen: each time it happens anew.
        steps: by engine, the states in between: there it is several transactions, each whole, and repeating it goes on.
        cold: the first call of its process. bare: on a place that was never migrated. joins: in a caller's transaction.
    """

    name: str
    method: str
    prepare: Prepare
    once: bool = False
    steps: dict[str, int] = {}
    cold: bool = False
    bare: bool = False
    joins: bool = False


OPERATIONS: list[Operation] = []


P = TypeVar("P", bound=Prepare)


def operation(method: str, **flags: Any) -> Callable[[P], P]:
    """The decorated function prepares an operation of *method*, and its name says which."""

    def note(prepare: P) -> P:
        OPERATIONS.append(Operation(prepare.__name__, method, prepare, **flags))
        return prepare

    return note


def held(scene: Scene, count: int = 1, name: str = "ann", **fields: Any) -> tuple[Puppet, list[Claimed]]:
    """A worker with *count* jobs that it has claimed."""
    scene.jobs(count, **fields)
    ann = scene.worker(name)
    jobs = ann.claim(count)
    assert len(jobs) == count
    return ann, jobs


# -- enqueue ---------------------------------------------------------------------------------------------------------


def repeated(call: Callable[[bool], object]) -> tuple[Call, Call]:
    """*call* for the first time, and as it is repeated."""
    return lambda: call(False), lambda: call(True)


@operation("enqueue")
def enqueue_one(scene: Scene) -> tuple[Call, Call]:
    row = scene.row()
    return repeated(lambda repeat: scene.store.enqueue([row], repeat=repeat, now=scene.now))


@operation("enqueue", cold=True)
def enqueue_first(scene: Scene) -> tuple[Call, Call]:
    return enqueue_one(scene)


@operation("enqueue")
def enqueue_many(scene: Scene) -> tuple[Call, Call]:
    scene.jobs(2)
    rows = [scene.row(priority=n % 3, delay=60.0 if n % 5 == 0 else None, queue=f"q{n % 2}") for n in range(61)]
    return repeated(lambda repeat: scene.store.enqueue(rows, repeat=repeat, now=scene.now))


@operation("enqueue")
def enqueue_again_with_new_ones(scene: Scene) -> Call:
    ann, [job] = held(scene)
    ann.settle(job, keep=0.0)
    known = [job.id, *scene.jobs(2)]
    rows = [scene.row(), *(scene.row(id=id) for id in known), scene.row(expires=60.0)]
    return lambda: scene.store.enqueue(rows, repeat=True, now=scene.now)


# -- turn ------------------------------------------------------------------------------------------------------------

ENDS: dict[Outcome, dict[str, Any]] = {
    Outcome.COMPLETED: {"result": b'"done"', "keep": 60.0},
    Outcome.FAILED: {"error": b"boom", "delay": 5.0},
    Outcome.DEAD: {"error": b"boom", "reason": "failed"},
    Outcome.SNOOZED: {"delay": 5.0},
    Outcome.PARKED: {"delay": 5.0, "reason": "unknown task"},
    Outcome.RELEASED: {"started_at": 0},
    Outcome.CRASHED: {"reason": "crashed"},
    Outcome.CANCELLED: {"reason": "asked", "keep": 60.0},
}


def settling(outcome: Outcome) -> Callable[[Scene], Call]:
    """Two claims of one batch end so, one goes on."""

    def prepare(scene: Scene) -> Call:
        ann, jobs = held(scene, 3)
        ann.record(jobs[0], Checkpoint(b"half"), Log(scene.now, "info", "line"))
        ends = [ann.settlement(job, outcome, **ENDS.get(outcome, {"reason": "why"})) for job in jobs[:2]]
        return lambda: ann.turn(ends)

    return prepare


OPERATIONS.extend(Operation(f"settle_{outcome.value}", "turn", settling(outcome)) for outcome in Outcome)


@operation("turn")
def settle_one_kept_for_no_time(scene: Scene) -> Call:
    ann, [job] = held(scene)
    return lambda: ann.turn([ann.settlement(job, Outcome.COMPLETED, keep=0.0)])


@operation("turn")
def settle_the_third_crash(scene: Scene) -> Call:
    id, solo = scene.aged(crashes=2), scene.worker("solo", solo=True)
    job = solo.take(id, suspects=True)
    return lambda: solo.turn([solo.settlement(job, Outcome.CRASHED, reason="crashed")])


@operation("turn")
def stage_in_a_turn(scene: Scene) -> Call:
    scene.jobs(3, delay=5.0)
    ann = scene.worker()
    scene.advance(6.0)
    return lambda: ann.turn()


@operation("turn")
def claim(scene: Scene) -> Call:
    scene.jobs(3)
    ann = scene.worker()
    return lambda: ann.turn(wants=[ann.want(2)], number=1)


@operation("turn")
def claim_of_several_wants(scene: Scene) -> Call:
    for queue in ("a", "b", "c"):
        scene.jobs(2, queue=queue)
    scene.aged(crashes=1, queue="b", priority=9)
    ann = scene.worker()
    wants = [ann.want(1, "a"), ann.want(2, "b", "c", suspects=True), ann.want(3, exclude=("a",))]
    return lambda: ann.turn(wants=wants, number=1)


@operation("turn")
def claim_of_one_by_its_id(scene: Scene) -> Call:
    ids, ann = scene.jobs(3), scene.worker()
    return lambda: ann.turn(wants=[Want(None, 1, id=ids[1])], number=1)


@operation("turn", steps={"postgres-18": 1})  # settled and not yet claimed (see `postgres/turns.py`)
def settle_stage_and_claim(scene: Scene) -> Call:
    ann, jobs = held(scene, 5)
    scene.jobs(2, delay=1.0)
    scene.jobs(3)
    scene.act(Cancel(), jobs[4].id)
    scene.advance(2.0)
    kinds = (Outcome.COMPLETED, Outcome.FAILED, Outcome.DEAD, Outcome.RELEASED, Outcome.FAILED)
    ends = [ann.settlement(job, kind, **ENDS[kind]) for job, kind in zip(jobs, kinds, strict=True)]
    return lambda: ann.turn(ends, [ann.want(4)], number=2)


# -- what a running job writes ---------------------------------------------------------------------------------------


@operation("record", once=True)
def record(scene: Scene) -> Call:
    ann, [job] = held(scene)
    writes = [Progress(1, 2, "half"), Checkpoint(b"half"), *(Log(scene.now, "info", f"line {n}") for n in range(3))]
    return lambda: scene.store.record(Lease(ann.id, job.id, job.entry), writes, now=scene.now)


# -- act -------------------------------------------------------------------------------------------------------------


def of_all_kinds(scene: Scene) -> list[str]:
    """A job that waits, one that is scheduled, one that runs, a finished one and a dead one."""
    ann, jobs = held(scene, 3)
    ann.settle(jobs[0], keep=600.0)
    ann.record(jobs[1], Checkpoint(b"half"))
    ann.die(jobs[1])
    return [*(job.id for job in jobs), scene.job(), scene.job(delay=60.0)]


@operation("act")
def cancel(scene: Scene) -> Call:
    ids = of_all_kinds(scene)
    return lambda: scene.act(Cancel("asked", 60.0), *ids)


@operation("act")
def retry(scene: Scene) -> Call:
    ids = of_all_kinds(scene)
    return lambda: scene.act(Retry(), *ids)


@operation("act")
def delete(scene: Scene) -> Call:
    ids = of_all_kinds(scene)
    return lambda: scene.act(Delete(), *ids)


@operation("act", once=True)  # each edit of an available job gives it another entry
def edit(scene: Scene) -> Call:
    ids = of_all_kinds(scene)
    return lambda: scene.act(Edit(priority=5, queue="other", payload=b"new"), *ids)


@operation("act", once=True)
def promote(scene: Scene) -> Call:
    id = scene.job(delay=60.0)
    return lambda: scene.act(Edit(run_at=0), id)


# -- workers ---------------------------------------------------------------------------------------------------------


@operation("beat")
def first_beat(scene: Scene) -> Call:
    ann = scene.worker(beat=False)
    return lambda: ann.beat()


@operation("beat")
def beat(scene: Scene) -> Call:
    ann, _ = held(scene, 2)
    scene.advance(5.0)
    return lambda: ann.beat()


@operation("beat", once=True)
def beat_with_tallies(scene: Scene) -> Call:
    ann, _ = held(scene, 2)
    scene.advance(5.0)
    tallies = [Tally("default", "completed", 3, 0.5), Tally("other", "failed", 1)]
    return lambda: ann.beat(tallies=tallies)


@operation("beat")
def beat_that_does_not_know_a_batch(scene: Scene) -> Call:
    ann, _ = held(scene, 3)
    scene.advance(11.0)
    return lambda: ann.beat([])


@operation("beat")
def beat_that_takes_the_lead(scene: Scene) -> Call:
    ann = scene.worker()
    scene.leader.leave()
    scene.advance(1.0)
    return lambda: ann.beat()


@operation("leave")
def leave_in_order(scene: Scene) -> Call:
    ann, jobs = held(scene, 3)
    scene.act(Cancel(), jobs[0].id)
    return lambda: ann.leave()


@operation("leave")
def leave_by_death(scene: Scene) -> Call:
    ann, jobs = held(scene, 3)
    scene.act(Cancel(), jobs[0].id)
    return lambda: ann.leave("signal 9 (SIGKILL)")


@operation("leave")
def leave_of_the_leader(scene: Scene) -> Call:
    return lambda: scene.leader.leave()


@operation("pause")
def pause(scene: Scene) -> Call:
    scene.jobs(2)
    return lambda: scene.store.pause("default", True, now=scene.now)


@operation("pause")
def resume(scene: Scene) -> Call:
    scene.jobs(2)
    scene.store.pause("default", True, now=scene.now)
    return lambda: scene.store.pause("default", False, now=scene.now)


# -- upkeep ----------------------------------------------------------------------------------------------------------


@operation("stage")
def stage(scene: Scene) -> Call:
    scene.jobs(3, delay=5.0)
    scene.jobs(2, expires=3.0)
    scene.jobs(2, delay=600.0)
    scene.advance(6.0)
    scene.leader.beat()
    return lambda: scene.store.stage(scene.term, now=scene.now)


@operation("rescue")
def rescue(scene: Scene) -> Call:
    _, jobs = held(scene, 3)
    solo = scene.worker("solo", solo=True)
    scene.aged(crashes=2)
    solo.claim(1, suspects=True)
    scene.act(Cancel(), jobs[0].id)
    for _ in range(6):
        scene.advance(5.0)
        scene.leader.beat()
    return lambda: scene.store.rescue(scene.term, now=scene.now)


@operation("prune", steps={"postgres-18": 2})  # what expired; what is past its time; what is beyond a bound
def prune(scene: Scene) -> Call:
    ann, jobs = held(scene, 6)
    for job in jobs[:3]:
        ann.record(job, Log(scene.now, "info", "line"), Checkpoint(b"half"))
        ann.settle(job, keep=1.0)
    for job in jobs[3:]:
        ann.die(job)
    scene.store.write("setting", "short", b"1", ttl=1.0, now=scene.now)
    scene.advance(4.0)
    scene.leader.beat()
    return lambda: scene.store.prune(scene.term, [Bound(State.DEAD, 1)], now=scene.now)


@operation("sample")
def sample(scene: Scene) -> Call:
    scene.jobs(2)
    scene.jobs(2, queue="other", delay=5.0)
    return lambda: scene.store.sample(scene.term, now=scene.now)


# -- records, copies -------------------------------------------------------------------------------------------------


@operation("write")
def write_a_new_record(scene: Scene) -> Call:
    return lambda: scene.store.write("setting", "colour", b"red", expected=0, ttl=60.0, now=scene.now)


@operation("write")
def write_over_a_record(scene: Scene) -> Call:
    scene.store.write("setting", "colour", b"red", now=scene.now)
    return lambda: scene.store.write("setting", "colour", b"blue", expected=1, now=scene.now)


@operation("erase")
def erase(scene: Scene) -> Call:
    scene.store.write("setting", "colour", b"red", now=scene.now)
    return lambda: scene.store.erase("setting", "colour", expected=1)


@operation("adopt")
def adopt(scene: Scene) -> Call:
    ids = of_all_kinds(scene)[:3]
    scene.act(Cancel(MOVED), scene.job())
    moved = scene.act(Cancel(MOVED, None), scene.job())
    wholes = scene.store.export([ids[0], ids[1], *moved])
    for number, whole in enumerate(wholes[:2]):
        whole.job.id = scene.id()
        whole.logs.append(Log(scene.now, "info", f"line {number}"))
    wholes[2].job.state, wholes[2].job.reason, wholes[2].job.finished_at = State.AVAILABLE, None, None
    fresh = JobRow(scene.id(), 0, "shop.charge", "default", State.SCHEDULED, b"{}", run_at=scene.stamp(60.0))
    wholes.append(Whole(fresh, [Log(scene.now, "info", "here")], b"half"))
    return lambda: scene.store.adopt(wholes, now=scene.now)


# -- in a caller's transaction ---------------------------------------------------------------------------------------


@operation("enqueue_script", joins=True)
def enqueue_in_a_callers_transaction(scene: Scene) -> Call:
    with theirs(scene):
        pass  # makes the application's table
    rows = [scene.row(), scene.row(delay=60.0), scene.row(queue="other")]

    def call() -> None:
        with theirs(scene) as app:
            answers = app.enqueue(*rows, repeat=True)
            if answers[0].outcome == "inserted":  # how an application that repeats sees that it did
                app.note("ordered")
            app.commit()

    return call


@operation("completion_script", joins=True)
def complete_in_a_callers_transaction(scene: Scene) -> Call:
    ann, [job, _] = held(scene, 2)
    with theirs(scene):
        pass

    def call() -> None:
        with theirs(scene) as app:
            if app.complete(ann, job, [Log(scene.now, "info", "paid")], result=b'"paid"'):
                app.note("paid")
                app.commit()

    return call


@operation("begin", joins=True)
def complete_on_a_connection_of_the_stores_own(scene: Scene) -> Call:
    ann, [job, _] = held(scene, 2)
    with theirs(scene):
        pass

    def call() -> None:
        if scene.store.standing(Lease(ann.id, job.id, job.entry)) != "held":
            return
        transaction = scene.store.begin()
        transaction.connection.execute("INSERT INTO effect VALUES ('paid')")
        assert complete_on(transaction, scene, ann, job)
        transaction.commit()

    return call


# -- the schema ------------------------------------------------------------------------------------------------------


@operation("migrate", cold=True, bare=True, steps={"postgres-18": 1})
def migrate(scene: Scene) -> Call:
    return lambda: scene.store.migrate()


__all__ = ["OPERATIONS", "Call", "Operation"]
