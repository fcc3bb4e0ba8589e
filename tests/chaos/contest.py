"""Settlements under past leases while the job runs again, in other hands: the moment in which only the fence stands between.

A claims ─▶ A is seen to die ─▶ B claims the same jobs ─▶ A settles them, in every way ─▶ refused, and B still runs them
"""

from __future__ import annotations

from collections.abc import Iterator

from dayjob.ids import new_id
from dayjob.states import Outcome
from dayjob.store.contract import Store
from dayjob.store.records import Checkpoint, Claimed, Filter, Lease, NewRow, Settlement, Want, WorkerInfo
from tests.chaos.verdict import Finding

JOBS = 20
QUEUE = "contested"
CONTESTED = "past leases write nothing while the job runs again"
WAYS = (Outcome.COMPLETED, Outcome.FAILED, Outcome.RELEASED, Outcome.DEAD, Outcome.SNOOZED)


def contest(store: Store) -> Finding:
    """Let it come to that on *store*, on which nothing else runs any more, and look what became of the jobs."""
    rows = [NewRow(new_id(), "tests.chaos.contest", QUEUE, b"{}") for _ in range(JOBS)]
    store.enqueue(rows)
    first, past = _claim(store, "first")
    store.leave(first.id, death="signal 9 (SIGKILL)")
    second, present = _claim(store, "second")
    return Finding(CONTESTED, 2 * JOBS, tuple(_broken(store, first, past, second, present)))


def _claim(store: Store, name: str) -> tuple[WorkerInfo, list[Claimed]]:
    worker = WorkerInfo(new_id(), name, "harness", 0)
    store.beat(worker, ())
    claimed = store.turn(worker.id, 1, (), [Want((QUEUE,), JOBS), Want((QUEUE,), JOBS, suspects=True)]).claimed
    assert len(claimed) == JOBS, f"{name} claimed {len(claimed)} of {JOBS} contested jobs"
    return worker, claimed


def _broken(
    store: Store, first: WorkerInfo, past: list[Claimed], second: WorkerInfo, present: list[Claimed]
) -> Iterator[str]:
    now = {job.id: job.entry for job in present}
    for number, job in enumerate(past):
        before = store.get(job.id)
        for worker in (first, second):  # the one who is gone, and one who lives but names the past entry
            outcome = WAYS[number % len(WAYS)]
            turn = store.turn(worker.id, settlements=[Settlement(job.id, job.entry, outcome, 1, 2, result=b'"stale"')])
            if turn.refused != [(job.id, job.entry)] or store.get(job.id) != before:
                yield f"{outcome} of {job.id} by {worker.name} under entry {job.entry} was accepted while {now[job.id]} ran"
            if store.record(Lease(worker.id, job.id, job.entry), [Checkpoint(b"stale")]):
                yield f"a checkpoint of {job.id} by {worker.name} under entry {job.entry} was accepted"
    done = [Settlement(job.id, job.entry, Outcome.COMPLETED, 1, 2) for job in present]
    if refused := store.turn(second.id, settlements=done).refused:
        yield f"{len(refused)} settlements of those who hold the jobs were refused"
    store.leave(second.id)
    left = store.count(Filter(queue=QUEUE)) - JOBS
    if left:
        yield f"{left} jobs are there that nobody enqueued"
