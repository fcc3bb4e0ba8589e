"""Schedules: the jobs of a schedule are those that a calendar on the wall would have made, whoever led meanwhile."""

from __future__ import annotations

from collections import Counter

from msgspec import json

from dayjob.clock import SECOND
from dayjob.context import SCHEDULED_FOR
from dayjob.states import State
from tests.chaos.evidence import Evidence
from tests.chaos.verdict import Broken, Finding

TICKED = "each tick of a schedule made one job"


def ticked(of: Evidence) -> Finding:
    """Each tick made one job: none twice, none between two times, none left out while the schedule was wanted."""
    made: dict[str, Counter[int]] = {}
    for id, schedule in of.ticks.items():
        if id in of.jobs:
            at = json.decode(of.jobs[id].meta or "{}")[SCHEDULED_FOR]
            made.setdefault(schedule, Counter())[at] += 1
    looked = 0

    def broken() -> Broken:
        nonlocal looked
        for wanted in of.of["ticks.wanted"]:
            period, since, until = round(wanted["period"] * SECOND), wanted["since"], wanted["until"]
            times = made.pop(wanted["schedule"], Counter())
            due = range(-(-since // period) * period, until + 1, period)
            looked += len(due)
            yield from (f"{wanted['schedule']} made no job at {at / SECOND:.1f}" for at in due if not times[at])
            for at, count in sorted(times.items()):
                if count > 1:
                    yield f"{wanted['schedule']} made {count} jobs at {at / SECOND:.1f}"
                if at % period:
                    yield f"{wanted['schedule']} made a job at {at / SECOND:.1f}, between its times"
        for schedule in made:
            yield f"nobody wanted {schedule}"
        for id, schedule in of.ticks.items():
            if id in of.jobs and of.jobs[id].state is not State.COMPLETED:
                yield f"the job {id} of {schedule} is {of.jobs[id].state} at the end"

    lines = tuple(broken())
    return Finding(TICKED, looked, lines)
