"""The jobs of a schedule in a clean run, and the ways in which they could be wrong."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from msgspec import json

from dayjob.clock import SECOND
from dayjob.context import SCHEDULED_FOR
from dayjob.services.agenda import NAME_KEY
from dayjob.states import State
from tests.chaos.rules.clocks import TICKED

if TYPE_CHECKING:
    from tests.chaos.clean import Run


def clocks(run: Run, pid: int) -> None:
    """Seven ticks, a second apart."""
    run.note("ticks.wanted", 19.0, 0, schedule="tock", period=1.0, since=round(11.5 * SECOND), until=18 * SECOND)
    for number, at in enumerate(range(12, 19)):
        id = f"tock-{number}"
        run.note("tick.tried", at, pid, id=id, schedule="tock")
        run.start(id, at + 0.05, 6000 + number)
        run.finish(id, at + 0.06, 6000 + number)
        run.keep(id, at + 0.08, meta=_meta(at))


def _meta(at: float) -> str:
    return json.encode({NAME_KEY: "tock", SCHEDULED_FOR: round(at * SECOND)}).decode()


def _tick_twice(run: Run) -> None:
    run.jobs["tock-7"] = copy.copy(run.jobs["tock-3"])
    run.note("tick.tried", 15.0, 1, id="tock-7", schedule="tock")


def _tick_not_at_all(run: Run) -> None:
    del run.jobs["tock-2"]


def _tick_between(run: Run) -> None:
    run.jobs["tock-7"] = copy.copy(run.jobs["tock-3"])
    run.jobs["tock-7"].meta = _meta(15.5)
    run.note("tick.tried", 15.5, 1, id="tock-7", schedule="tock")


def _tick_unasked(run: Run) -> None:
    run.jobs["other-0"] = copy.copy(run.jobs["tock-3"])
    run.note("tick.tried", 15.0, 1, id="other-0", schedule="other")


def _tick_and_do_nothing(run: Run) -> None:
    run.jobs["tock-2"].state = State.DEAD


SPOILT = [
    (_tick_twice, TICKED),
    (_tick_not_at_all, TICKED),
    (_tick_between, TICKED),
    (_tick_unasked, TICKED),
    (_tick_and_do_nothing, TICKED),
]
