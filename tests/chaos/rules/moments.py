"""What comes in time: starts, rescues, ends, beats, and the flow of jobs after an outage."""

from __future__ import annotations

import bisect

from tests.chaos.evidence import KILLS, TOLD, Evidence, Stretch
from tests.chaos.ledger import Fact
from tests.chaos.rules.leases import SPARED, UNDISTURBED
from tests.chaos.rules.limits import RATED
from tests.chaos.verdict import Broken, Finding, quantile

FLOW = "the jobs flow again within 5 s"
RESCUED = "jobs of killed processes are taken from them soon"
LEFT = "a process that is told to stop ends in order"
DRAINED = "all is done soon after the last fault"
BEATING = "beats are sent in time"
TIMED = {FLOW, RESCUED, LEFT, DRAINED, BEATING, RATED, UNDISTURBED, SPARED}
"""Rules that hold seconds against limits: on a machine without an idle moment they say more about it than about dayjob."""
BASELINE = 2.5
"""Seconds of calm before the first fault in which the throughput is measured."""
HEALED = 5.0
"""So long after a fault of everybody the jobs flow again…"""
SHARE = 0.8
"""…at this share of what they did before."""
QUIET = 0.1
"""A job that comes so long after the one before finds workers that sleep."""


def early(of: Evidence) -> Finding:
    delayed = {id: plan.delay for id, plan in of.tried.items() if plan.delay and id in of.starts}
    margin = of.conditions.tolerance
    broken = tuple(
        f"{id} started {of.starts[id][0]['at'] - of.tried_at[id]:.3f} s after its enqueue, {delay:g} were asked"
        for id, delay in delayed.items()
        if of.starts[id][0]["at"] < of.tried_at[id] + delay - margin
    )
    return Finding("delayed jobs do not start early", len(delayed), broken)


def prompt(of: Evidence) -> Finding:
    """Where nothing else goes on, a job starts at once: whoever sleeps is woken, and does not find it by looking around."""
    c = of.conditions
    tried = sorted(of.tried_at.values())
    waited: list[float] = []
    for id in of.acknowledged & of.starts.keys():
        at = of.tried_at[id]
        place = bisect.bisect_left(tried, at)
        since = at - tried[place - 1] if place else QUIET
        if since >= QUIET and not of.tried[id].delay and not of.disturbed(at, c.lease + c.sweep + c.slack):
            waited.append(of.starts[id][0]["at"] - at)
    p50 = quantile(waited, 0.5)
    broken = [f"p50 was {p50 * 1000:.0f} ms, {c.prompt * 1000:.0f} are allowed"] if c.prompt and p50 > c.prompt else []
    if c.prompt and not waited:
        broken.append("no job came when nothing else went on")
    return Finding(
        "who sleeps is woken by a job", len(waited), tuple(broken), f"p50 {p50 * 1000:.1f} ms" if waited else ""
    )


def rescued(of: Evidence) -> Finding:
    """The jobs of a killed process are taken from it soon; while the store is away, or nobody leads, nobody can."""
    c = of.conditions
    limit = c.lease + c.sweep + c.slack
    gone = {fact["of"]: fact["at"] for fact in of.of["worker.gone"] if fact["jobs"]}
    took: list[float] = []

    def broken() -> Broken:
        for kill in (fault for fault in of.faults if fault.name in KILLS and fault.target is not None):
            for worker in of.up.get(kill.target or 0, ()):
                if worker not in gone or gone[worker] < kill.begun or of.up_since[worker] > kill.begun:
                    continue
                time = gone[worker] - kill.begun
                away = of.away(kill.begun, gone[worker]) + of.leaderless(kill.begun, gone[worker])
                if not away:
                    took.append(time)
                if time > limit + away:
                    yield f"the jobs of {worker} were taken {time:.1f} s after its end, {limit + away:.1f} are allowed"

    lines = tuple(broken())
    figures = f"{quantile(took, 0.5):.1f} s, at most {max(took):.1f} s" if took else ""
    return Finding(RESCUED, len(took), lines, figures)


def left(of: Evidence) -> Finding:
    """A process that is told to stop ends within its grace, and leaves nothing for others to rescue."""
    c = of.conditions
    exits = {fact["target"]: fact for fact in of.of["exit"]}
    gone = {fact["of"]: fact for fact in of.of["worker.gone"] if fact["jobs"]}
    took: list[float] = []

    def harmed(pid: int, at: float) -> bool:
        """True when something else was wrong with it, for which its lease may have run out."""
        others = (fault for fault in of.faults if fault.name != TOLD and fault.target in (None, pid))
        return any(fault.begun <= at <= fault.over + c.lease + c.sweep + c.slack for fault in others)

    def broken() -> Broken:
        for told in of.of["told"]:
            pid, exit = told["target"], exits.get(told["target"])
            if exit is None:
                yield f"process {pid} was told to stop and did not"
                continue
            took.append(exit["at"] - told["at"])
            away = of.away(told["at"], exit["at"], pid)
            if took[-1] > c.grace + c.slack + away:
                yield f"process {pid} took {took[-1]:.1f} s to stop"
            if exit["code"] != 0:
                if pid not in of.killed_by_jobs:
                    yield f"process {pid} was told to stop and ended with {exit['code']}"
                continue
            for worker in of.up.get(pid, ()):
                if worker in gone and gone[worker]["at"] >= told["at"] and not harmed(pid, gone[worker]["at"]):
                    yield f"{worker} was told to stop and left {gone[worker]['jobs']} jobs to be rescued"

    lines = tuple(broken())
    figures = f"{quantile(took, 0.5):.1f} s, at most {max(took):.1f} s" if took else ""
    return Finding(LEFT, len(took), lines, figures)


def drained(of: Evidence) -> Finding:
    """What jobs do to themselves is no excuse: they are among those who have to be done."""
    if not of.faults:
        return Finding(DRAINED, 0, ())
    last = max((fault.over for fault in of.faults if not fault.own), default=0.0)
    tried = max(of.tried_at.values(), default=0.0)
    ends = [of.ledger_time(job.finished_at) for job in of.jobs.values() if job.finished_at is not None]
    took = max(0.0, max(ends, default=0.0) - max(last, tried))
    late = took > of.conditions.drain
    broken = (
        (f"the last job ended {took:.1f} s after the last fault, {of.conditions.drain:g} are allowed",) if late else ()
    )
    return Finding(DRAINED, len(ends), broken, f"{took:.1f} s")


def flowing(of: Evidence) -> Finding:
    """After a fault of everybody that calm follows, some second within five sees 0.8 of the throughput before."""
    times, faults = of.effect_times, of.faults
    everybodys = [fault for fault in faults if fault.target is None]
    if not times or not everybodys:
        return Finding(FLOW, 0, ())
    begun = faults[0].begun
    before = of.effects_between(begun - BASELINE, begun) / BASELINE
    producing = max(of.tried_at.values())
    took: list[float] = []

    def broken() -> Broken:
        for fault in everybodys:
            end = fault.over + HEALED + 1.0
            if end > producing or any(
                fault.over < other.begun < end or other.begun <= fault.over < other.over for other in faults
            ):
                continue
            moment = fault.over
            while of.effects_between(moment, moment + 1.0) < SHARE * before and moment <= fault.over + HEALED:
                moment += 0.05
            took.append(moment - fault.over)
            if took[-1] > HEALED:
                yield f"{before:.0f} jobs/s before all, not {SHARE:g} of it within {HEALED:g} s of {fault.name}"

    lines = tuple(broken())
    figures = f"{before:.0f} jobs/s, back after {quantile(took, 0.5):.2f} s, at most {max(took):.2f}" if took else ""
    return Finding(FLOW, len(took), lines, figures)


def beating(of: Evidence) -> Finding:
    """The beat is sent in time, whatever the jobs do: p99 of its lateness is at most half an interval."""
    c = of.conditions
    unwell: dict[int | None, list[Stretch]] = {}
    for fault in of.faults:
        unwell.setdefault(fault.target, []).append(fault)

    def excused(fact: Fact) -> bool:
        return any(
            fault.begun <= fact["at"] and fault.over + 2 * c.beat + fact["late"] >= fact["at"]
            for target in (None, fact["pid"])
            for fault in unwell.get(target, ())
        )

    late = [fact["late"] for fact in of.of["beat"] if not excused(fact)]
    p99 = quantile(late, 0.99)
    broken = (f"p99 of the beats was {p99:.2f} s late, {c.beat / 2:g} are allowed",) if p99 > c.beat / 2 else ()
    return Finding(BEATING, len(late), broken, f"p50 {quantile(late, 0.5) * 1000:.0f} ms, p99 {p99 * 1000:.0f}")
