"""Nothing is lost, nothing is invented, every job ends once and as it was meant to."""

from __future__ import annotations

from collections import Counter
from itertools import groupby, pairwise

from dayjob.clock import SECOND
from dayjob.states import EFFECTS, Outcome, State
from tests.chaos.evidence import FOREVER, Evidence
from tests.chaos.verdict import Broken, Finding

PLANNED = "jobs end as they were meant to"
LAST = {Outcome.COMPLETED.value, Outcome.DEAD.value, Outcome.CANCELLED.value}


def lost(of: Evidence) -> Finding:
    """What was acknowledged is there; and whatever is there has ended, also what nobody was told of."""
    due = of.acknowledged | of.jobs.keys()

    def broken() -> Broken:
        for id in sorted(due):
            job = of.jobs.get(id)
            if job is None:
                yield f"{id} was acknowledged and is not in the store"
            elif not job.state.terminal:
                yield f"{id} is {job.state} at the end, attempts: {[str(each.outcome) for each in job.attempts]}"

    return Finding("acknowledged jobs reach a terminal state", len(due), tuple(broken()))


def invented(of: Evidence) -> Finding:
    unasked = [f"nobody enqueued {id}" for id in sorted(of.jobs.keys() - of.tried.keys() - of.ticks.keys())]
    twice = [f"{id} is in the store twice" for id in of.twice]
    unknown = f"{len(of.unknown)} of unknown outcome" if of.unknown else ""
    return Finding("jobs in the store were enqueued, each is there once", len(of.jobs), (*unasked, *twice), unknown)


def planned(of: Evidence) -> Finding:
    """State, reason, attempts, crashes and snoozes of every job are those that it was enqueued to have.

    Harmless jobs may count crashes of processes in which they ran alone, and which were cut off from the store.
    """

    def broken() -> Broken:
        for id, job in sorted(of.jobs.items()):
            plan = of.tried.get(id)
            if plan is None or not job.state.terminal:
                continue
            if plan.cancelled and job.state is State.CANCELLED:
                continue
            snoozes = sum(attempt.outcome is Outcome.SNOOZED for attempt in job.attempts)
            crashes = job.crashes if plan.crashes else job.crashes - sum(map(of.cut_off, job.attempts))
            is_so = (str(job.state), job.attempt, crashes, snoozes)
            wanted = (plan.end, plan.attempts, plan.crashes, plan.snoozes)
            if is_so != wanted or plan.reason not in (None, job.reason):
                told = [(str(one.outcome), one.reason) for one in job.attempts]
                yield f"{id} ({job.task}) ended as {is_so} ({job.reason}), planned was {wanted} ({plan.reason}): {told}"

    return Finding(PLANNED, len(of.jobs), tuple(broken()))


def worked(of: Evidence) -> Finding:
    completed = [id for id, job in of.jobs.items() if job.state is State.COMPLETED]
    broken = tuple(f"{id} completed without its effect" for id in completed if not of.effects[id])
    again = sum(count - 1 for count in of.effects.values())
    return Finding("completed jobs did their work", len(completed), broken, f"{again} effects a second time")


def ends_once(of: Evidence) -> Finding:
    def broken() -> Broken:
        for id, finishes in of.accepted.items():
            entries = Counter(fact["entry"] for fact in finishes)
            for entry, count in entries.items():
                if count > 1:
                    yield f"{count} finishes of {id} were accepted under entry {entry}"
            last = [fact for fact in finishes if fact.get("outcome", Outcome.COMPLETED.value) in LAST]
            if len(last) > 1:
                yield f"{id} ended {len(last)} times: {[fact.get('outcome', 'completed') for fact in last]}"
            elif last and max(entries) > last[0]["entry"]:
                yield f"{id} went on after its end"

    return Finding("one accepted terminal transition per job", len(of.accepted), tuple(broken()))


def legal(of: Evidence) -> Finding:
    """Recorded attempts are numbered and ordered as the table of outcomes says, and nothing follows a last one."""

    def broken() -> Broken:
        for id, job in of.jobs.items():
            for before, attempt in pairwise(job.attempts):
                if before.finished_at > attempt.finished_at + of.conditions.tolerance * SECOND:
                    yield f"{id}: attempts out of order"
            spent = crashes = 0
            for round, attempts in groupby(job.attempts, key=lambda attempt: attempt.round):
                spent = crashes = 0
                ended: Outcome | None = None
                for attempt in attempts:
                    if ended is not None:
                        yield f"{id}: {attempt.outcome} after {ended} in round {round}"
                    if attempt.number != spent + 1:
                        yield f"{id}: {attempt.outcome} is attempt {attempt.number} after {spent} that were spent"
                    spent += EFFECTS[attempt.outcome].attempt
                    crashes += EFFECTS[attempt.outcome].crashes
                    ended = attempt.outcome if attempt.outcome in (Outcome.DEAD, Outcome.CANCELLED) else None
            if not job.attempts or job.attempts[-1].round != job.round:
                spent = crashes = 0
            spent += job.state is State.COMPLETED
            if (job.attempt, job.crashes) != (spent, crashes):
                yield f"{id} counts {job.attempt} attempts and {job.crashes} crashes, recorded are {spent} and {crashes}"

    return Finding("attempts and crashes follow the table", len(of.jobs), tuple(broken()))


def obeyed(of: Evidence) -> Finding:
    """What is cancelled does not start any more, and does not work on: a worker hears of it with its next beat at the latest."""
    c = of.conditions
    asked: dict[str, float] = {}
    for fact in of.of["cancel.accepted"]:
        asked.setdefault(fact["id"], fact["at"])

    excused: set[str] = set()

    def broken() -> Broken:
        for word in ("start", "effect"):
            for fact in of.of[word]:
                late = fact["at"] - asked.get(fact["id"], FOREVER)
                if late <= c.beat + c.slack:
                    continue
                if of.disturbed(fact["at"], c.lease + c.sweep + c.slack, fact["pid"]):
                    excused.add(fact["id"])
                else:
                    yield f"the {word} of {fact['id']} came {late:.1f} s after it was cancelled"

    lines = tuple(broken())
    return Finding("cancels are obeyed", len(asked.keys() - excused), lines)
