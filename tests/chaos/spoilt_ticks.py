"""Two schedules in a clean run, which tick every ten seconds, and the ways in which each rule about them could be broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import json

from dayjob.clock import SECOND
from dayjob.context import SCHEDULED_FOR
from dayjob.services.agenda import NAME_KEY
from tests.chaos.ledger import Plan
from tests.chaos.rules.ticks import BESIDE, IN_TIME, ONCE

if TYPE_CHECKING:
    from tests.chaos.clean import Run

SINCE, EVERY, UNTIL = 40, 10, 80
ENTRY = 6000


def ticking(run: Run, worker: str, pid: int) -> None:
    """Each tick is dealt with a tenth of a second after its time, and a job takes three seconds."""
    for number, (name, overlap) in enumerate((("skipping", "skip"), ("queueing", "queue"))):
        times = {"cron": None, "tz": None, "every": EVERY, "since": SINCE * SECOND, "until": UNTIL * SECOND}
        run.note("schedule.declared", SINCE, pid, schedule=name, overlap=overlap, catch_up="none", **times)
        for at in range(SINCE + EVERY, UNTIL + EVERY, EVERY):
            _tick(run, name, at, ENTRY + at + 100 * number, pid)
    for at in range(SINCE, UNTIL + EVERY, 5):
        run.note("upkeep.accepted", at, pid, term=3, what="rescue", sent=at)


def _tick(run: Run, name: str, at: int, entry: int, pid: int) -> None:
    id = f"{name}-{at}"
    run.note("tick", at + 0.1, pid, schedule=name, cursor=at * SECOND)
    run.enqueue(id, at + 0.1, Plan())
    run.start(id, at + 0.2, entry)
    run.finish(id, at + 3.0, entry)
    meta = json.encode({NAME_KEY: name, SCHEDULED_FOR: at * SECOND}).decode()
    run.keep(id, at + 3.0, meta=meta, created_at=round((at + 0.1) * SECOND))


def _call(run: Run, name: str, at: int) -> dict[str, object]:
    (call,) = run.facts_of("tick", schedule=name, cursor=at * SECOND)
    return call


def _forget(run: Run, name: str, at: int) -> None:
    del run.jobs[f"{name}-{at}"]
    run.facts = [fact for fact in run.facts if fact.get("id") != f"{name}-{at}"]


def _double(run: Run) -> None:
    job = run.jobs["queueing-60"]
    run.keep("doubled", 64.0, meta=job.meta, created_at=job.created_at)


def _tick_at_another_time(run: Run) -> None:
    run.jobs["queueing-60"].meta = json.encode({NAME_KEY: "queueing", SCHEDULED_FOR: 61 * SECOND}).decode()


def _leave_out(run: Run) -> None:
    _forget(run, "queueing", 60)


def _skip_when_nothing_was_there(run: Run) -> None:
    _forget(run, "skipping", 60)


def _stop_ticking(run: Run) -> None:
    _forget(run, "queueing", 80)
    run.facts.remove(_call(run, "queueing", 80))


def _make_up_for_nothing(run: Run) -> None:
    """All were late, and it was said that all are made up for."""
    run.facts_of("schedule.declared", schedule="queueing")[0]["catch_up"] = "all"
    leave_out_what_came_too_late(run)


def leave_out_what_came_too_late(run: Run) -> None:
    """No fault of anybody."""
    for at in (50, 60, 70):
        _forget(run, "queueing", at)
        run.facts.remove(_call(run, "queueing", at))
    _forget(run, "queueing", 80)
    _call(run, "queueing", 80)["at"] = 141.0
    run.facts = [fact for fact in run.facts if fact["fact"] != "upkeep.accepted" or fact["at"] < SINCE]


def make_the_latest_for_all(run: Run) -> None:
    """As was said; that some of them were not late by much does not matter."""
    run.facts_of("schedule.declared", schedule="queueing")[0]["catch_up"] = "latest"
    for at in (50, 60, 70):
        _forget(run, "queueing", at)
        run.facts.remove(_call(run, "queueing", at))
    _call(run, "queueing", 80)["at"] = 115.0
    run.facts = [fact for fact in run.facts if fact["fact"] != "upkeep.accepted" or fact["at"] < SINCE]


def _make_the_first_for_all(run: Run) -> None:
    make_the_latest_for_all(run)
    _forget(run, "queueing", 80)


def skip_beside_what_has_not_ended(run: Run) -> None:
    """As it is meant to."""
    run.jobs["skipping-50"].finished_at = 62 * SECOND
    _forget(run, "skipping", 60)


def _tick_late(run: Run) -> None:
    call = _call(run, "queueing", 60)
    call["at"] = 75.0
    run.facts_of("tick", schedule="queueing", cursor=70 * SECOND)[0]["at"] = 75.0


def _run_beside(run: Run) -> None:
    run.jobs["queueing-50"].finished_at = 61 * SECOND


def _make_beside(run: Run) -> None:
    run.jobs["skipping-50"].finished_at = 61 * SECOND


SPOILT = [
    (_double, ONCE),
    (_tick_at_another_time, ONCE),
    (_leave_out, ONCE),
    (_skip_when_nothing_was_there, ONCE),
    (_stop_ticking, ONCE),
    (_make_up_for_nothing, ONCE),
    (_make_the_first_for_all, ONCE),
    (_tick_late, IN_TIME),
    (_run_beside, BESIDE),
    (_make_beside, BESIDE),
]
ALLOWED = [leave_out_what_came_too_late, make_the_latest_for_all, skip_beside_what_has_not_ended]
