"""One at a time: who may run a job, who may write for it, from whom it is taken, and who keeps time."""

from __future__ import annotations

import bisect
from collections import Counter

from dayjob.states import Outcome, State
from tests.chaos.evidence import FATAL, FOREVER, Evidence
from tests.chaos.ledger import Fact
from tests.chaos.verdict import Broken, Finding

EXPLAINED = "starts are explained by recorded ends before them"
SPARED = "an outage of the store costs no lease"
UNDISTURBED = "leases are lost to faults only"
ALONE = "only crashes of those who run alone count"
OUTAGES = {"outage", "blackhole", "refused", "locked", "writer stopped", "store killed", "backend killed"}
"""Faults during which the store answers nobody, and after which it answers everybody at once."""


def explained(of: Evidence) -> Finding:
    """Before a start each earlier one has its recorded end, of a claim of the same worker; entries rise; who lost its lease starts none."""
    c = of.conditions
    gone = {fact["of"]: float(fact["at"]) for fact in of.of["worker.gone"]}

    def broken() -> Broken:
        for id, starts in of.starts.items():
            if id not in of.jobs:
                continue
            sure = [one for one in starts if not (of.near_a_crash(one["at"], c.forgets_claims) or of.held_up(one))]
            entries = [start["entry"] for start in sure]
            if entries != sorted(set(entries)):
                yield f"{id} started under entries {entries}: one twice, or falling"
            ends = [(of.ledger_time(attempt.finished_at), attempt.worker) for attempt in of.ended(id)]
            begun = Counter[str]()
            for number, start in enumerate(sure):
                before = Counter(name for end, name in ends if name is not None and end <= start["at"] + c.tolerance)
                if lacking := begun - before:
                    yield f"start {number + 1} of {id} ({start['worker']}) before {lacking.total()} of those before it had ended"
                died = (
                    id in of.tried and of.tried[id].crashes and start["worker"] in of.alone
                )  # by this job, maybe while its parent was told to stop
                if start["worker"] in of.names and not died:  # else it died before it could say who it is
                    begun[of.names[start["worker"]]] += 1
                if c.atomic and start["at"] > gone.get(start["worker"], FOREVER):
                    yield f"{id} was started by {start['worker']}, which had been given up"

    starts = sum(len(starts) for starts in of.starts.values())
    again = f"{starts - len(of.starts)} a second time"
    return Finding(EXPLAINED, starts, tuple(broken()), again)


def undisturbed(of: Evidence) -> Finding:
    """Nothing is taken from a worker while nothing is wrong with it. How late it is taken from a dead one, another rule says."""
    c = of.conditions
    after = c.lease + c.sweep + c.slack
    kept = excused = 0

    def broken() -> Broken:
        nonlocal kept, excused
        for id, job in of.jobs.items():
            kept += job.state is State.COMPLETED
            for attempt in job.attempts:
                if attempt.outcome not in (Outcome.LOST, Outcome.CRASHED):
                    kept += attempt.worker is not None
                    continue
                at = of.ledger_time(attempt.finished_at)
                if of.disturbed(at, after, of.named.get(attempt.worker or "")) or of.dead(attempt.worker, at):
                    excused += 1
                else:
                    yield f"{id} was {attempt.outcome} of {attempt.worker} {at:.1f}, when nothing was wrong"

    lines = tuple(broken())
    return Finding(UNDISTURBED, kept + len(lines), lines, f"{excused} were")


def spared(of: Evidence) -> Finding:
    """Time in which nobody could beat counts against nobody: an outage takes no leases from those to whom nothing else happens."""
    c = of.conditions
    after = c.lease + c.sweep + c.slack
    outages = [fault for fault in of.faults if fault.name in OUTAGES]
    left = {fact["target"]: fact["at"] for fact in of.of["exit"]}

    def harmed(pid: int | None, at: float) -> bool:
        """True when something else happened to it, or when it was no more, and could not say so while the store was away."""
        mine = (one for one in of.stretches if one.target == pid and one.begun <= at)
        return left.get(pid, FOREVER) <= at or any(one.name in FATAL or at <= one.over + after for one in mine)

    def broken() -> Broken:
        for outage in outages:
            up = {fact["worker"] for fact in of.of["beat"] if outage.begun - c.lease <= fact["at"] < outage.begun}
            gone = {
                fact["of"]
                for fact in of.of["worker.gone"]
                if outage.begun <= fact["at"] <= outage.over + after
                and fact["death"] is None
                and not harmed(of.process_of.get(fact["of"]), fact["at"])
            }
            gone &= up
            if len(gone) > 1 and 2 * len(gone) >= len(up):  # one may have had bad luck with its last beat before it
                yield f"{len(gone)} of {len(up)} workers were given up after {outage.over - outage.begun:.1f} s of outage"

    return Finding(SPARED, len(outages), tuple(broken()))


def alone(of: Evidence) -> Finding:
    """Only a crash in a process of its own counts, and a neighbour of poison is never counted for it."""
    counted = 0

    def broken() -> Broken:
        nonlocal counted
        for id, job in of.jobs.items():
            crashed = [attempt for attempt in job.attempts if attempt.outcome is Outcome.CRASHED]
            counted += len(crashed)
            in_solo = sum(start["worker"] in of.solo for start in of.starts.get(id, ()))
            if len(crashed) > in_solo:
                yield f"{id} counts {len(crashed)} crashes and started alone {in_solo} times"

    lines = tuple(broken())
    return Finding(ALONE, counted, lines)


def together(of: Evidence) -> Finding:
    """Who runs suspects runs one at a time: no crash counts for two."""
    crashed = Counter(
        (attempt.worker, attempt.finished_at)
        for job in of.jobs.values()
        for attempt in job.attempts
        if attempt.outcome is Outcome.CRASHED
    )
    lines = tuple(f"a crash of {worker} counts for {jobs} jobs" for (worker, _), jobs in crashed.items() if jobs > 1)
    return Finding("a crash counts for one job at most", crashed.total(), lines)


def stale(of: Evidence) -> Finding:
    """A write under an entry is refused once the job has started under a later one, or was taken from its worker.

    One that is repeated may have been carried out when it was sent first, unless the job was taken after that.
    """
    taken = {(fact["id"], fact["of"]): float(fact["at"]) for fact in of.of["job.stalled"]}
    refused = 0

    def taken_at(fact: Fact) -> float:
        return taken.get((fact["id"], fact["worker"]), FOREVER)

    def lost_at(fact: Fact) -> float:
        """When the lease behind *fact* was surely gone."""
        later = [float(start["at"]) for start in of.starts.get(fact["id"], ()) if start["entry"] > fact["entry"]]
        return min(*later, FOREVER, taken_at(fact))

    def sent(fact: Fact) -> list[float]:
        if "sent" in fact:
            return [float(fact["sent"])]
        return [at for at in of.sent.get((fact["id"], fact["entry"]), ()) if at <= fact["at"]] or [float(fact["at"])]

    def broken() -> Broken:
        nonlocal refused
        for word in ("finish", "write"):
            for fact in of.of[f"{word}.accepted"]:
                if min(sent(fact)) > lost_at(fact) or max(sent(fact)) > taken_at(fact):
                    yield f"a stale {word} of {fact['id']} under entry {fact['entry']} by {fact['worker']} was accepted"
            refused += sum(fact["at"] > lost_at(fact) for fact in of.of[f"{word}.refused"])

    lines = tuple(broken())
    return Finding("stale writes of workers are refused", refused, lines)


def replayed(of: Evidence) -> Finding:
    accepted, refused = of.of["replay.accepted"], len(of.of["replay.refused"])
    broken = [f"{fact['outcome']} of {fact['id']} under past entry {fact['entry']} was accepted" for fact in accepted]
    if refused + len(accepted) < of.conditions.replays:
        broken.append(f"only {refused + len(accepted)} were sent, {of.conditions.replays} are needed to prove anything")
    return Finding("settlements under past leases are refused", refused + len(accepted), tuple(broken))


def reigns(of: Evidence) -> Finding:
    """A term is one worker's, and nothing is done under it any more when the next has begun."""
    granted: dict[int, Fact] = {}
    lines: list[str] = []
    for fact in of.of["term.granted"]:
        if of.near_a_crash(fact["at"], of.conditions.forgets):
            continue
        first = granted.setdefault(fact["term"], fact)
        if first["worker"] != fact["worker"]:
            lines.append(f"term {fact['term']} was {first['worker']}'s and {fact['worker']}'s")
    terms = sorted(granted)
    acts = of.of["upkeep.accepted"]
    for fact in acts:
        place = bisect.bisect_right(terms, fact["term"])
        if place < len(terms) and fact["sent"] > granted[terms[place]]["at"]:
            lines.append(f"{fact['what']} of term {fact['term']} was accepted in term {terms[place]}")
    return Finding("only who leads keeps time", len(acts), tuple(lines))
