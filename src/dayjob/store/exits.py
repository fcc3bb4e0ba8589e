"""How a claim ends, for all engines: which way a job goes, and what it is like when it goes back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dayjob.clock import SECOND
from dayjob.states import EFFECTS, MAX_CRASHES, Outcome, State
from dayjob.store.records import Settlement

KEEP_CANCELLED = 86_400.0
"""Seconds that a cancelled job is kept when nobody says otherwise."""
REMEMBERED = 3600 * SECOND
"""For so long a finished job's id stays findable, whatever its retention (P9)."""
MOVED = "moved to "
"""How the reason of a job begins that was cancelled because it went to another store; that store's URL follows."""
UNLISTED = 10 * SECOND
"""A batch claimed longer ago that its worker's beat does not list was never received, and is released."""


class Held(NamedTuple):
    """A running job, as much of it as its exit needs."""

    entry: int
    id: str
    task: str
    queue: str
    attempt: int
    crashes: int
    round: int
    parked: int
    suspect: int
    cancelling: int
    reason: str | None


class Exit(NamedTuple):
    """How one held job leaves its claim."""

    job: Held
    settlement: Settlement
    state: State
    reason: str | None


class Return(NamedTuple):
    """What a job is like when it goes back to wait. `run_at` None: as it was. `begun`: it cannot expire any more."""

    attempt: int
    crashes: int
    suspect: bool
    parked: int
    run_at: int | None
    reason: str | None
    begun: bool


def was_moved(reason: str | None) -> bool:
    """Whether *reason*, of a cancelled job, says that it went to another store: then only its memory is here."""
    return reason is not None and reason.startswith(MOVED) and "://" in reason


def exit_of(job: Held, settlement: Settlement) -> Exit:
    """Where *settlement* sends *job*: the table of `states.EFFECTS`, a cancel that was asked for, the third crash."""
    outcome = settlement.outcome
    if settlement.reason and "\0" in settlement.reason:
        settlement.reason = settlement.reason.replace("\0", "\u2400")  # no engine's text holds a NUL
    if job.cancelling:
        settlement.keep = KEEP_CANCELLED if settlement.keep is None else settlement.keep
        reason = job.reason if settlement.reason is None or outcome is not Outcome.CANCELLED else settlement.reason
        return Exit(job, settlement, State.CANCELLED, reason)
    if outcome is Outcome.CRASHED and job.crashes + 1 >= MAX_CRASHES:
        return Exit(job, settlement, State.DEAD, "crashed")
    return Exit(job, settlement, EFFECTS[outcome].state, settlement.reason)


def given_up(held: int, *, orderly: bool, solo: bool) -> Outcome:
    """How the claims of a worker end that is gone, and holds so many jobs. A crash counts for who ran alone: where a claim that
    came late gave a solo worker a second job, nobody knows which of them ran."""
    if orderly:
        return Outcome.RELEASED
    return Outcome.CRASHED if solo and held == 1 else Outcome.LOST


def lost(job: Held, now: int, outcome: Outcome, how: str | None) -> Exit:
    """The exit of a job whose worker is gone."""
    return exit_of(job, Settlement(job.id, job.entry, outcome, 0, now, reason=how))


def begun(exits: Iterable[Exit]) -> list[Exit]:
    """Those of which an attempt is kept: what was claimed ahead and handed back unstarted is none, and a busy worker
    hands back all the time."""
    return [out for out in exits if out.settlement.started_at or out.settlement.outcome is not Outcome.RELEASED]


def finished(exits: Iterable[Exit]) -> dict[tuple[State, str | None, Outcome], list[Settlement]]:
    """The settlements of those that end for good, grouped by all that they have in common."""
    groups: dict[tuple[State, str | None, Outcome], list[Settlement]] = {}
    for out in exits:
        if out.state.terminal:
            groups.setdefault((out.state, out.reason, out.settlement.outcome), []).append(out.settlement)
    return groups


def returned(out: Exit, now: int) -> Return:
    """How the job of *out*, which is not terminal, waits again."""
    job, settlement, effect = out.job, out.settlement, EFFECTS[out.settlement.outcome]
    crashed = settlement.outcome in (Outcome.CRASHED, Outcome.LOST)
    parked = settlement.outcome is Outcome.PARKED
    return Return(
        job.attempt + effect.attempt,
        job.crashes + effect.crashes,
        crashed or (bool(job.suspect) and (parked or settlement.outcome is Outcome.RELEASED)),
        job.parked + 1 if parked else 0,
        now + int(settlement.delay * SECOND) if out.state is State.SCHEDULED else None,
        out.reason if parked else None,
        crashed or settlement.started_at > 0,
    )


def first_of_each(settlements: Sequence[Settlement], refused: list[tuple[str, int]]) -> list[Settlement]:
    """*settlements* without those that name an entry a second time: they come too late."""
    first: dict[int, Settlement] = {}
    refused.extend((one.id, one.entry) for one in settlements if first.setdefault(one.entry, one) is not one)
    return list(first.values())
