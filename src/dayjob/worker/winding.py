"""How a worker ends: an absolute deadline, then cancel, then release. Steps of the pump, one by one.

    DRAIN  nothing is claimed; what is ready goes back; running jobs go on ──all ended──────────────▶ over
      │ deadline (a second signal moves it to now)                                                    ▲
    CANCEL running jobs are told to stop ──all ended, or patience over──▶ RELEASE the rest goes back ─┘

A job that hangs in this process cannot be stopped, and may run elsewhere only when the process is gone. Its lease is
kept and renewed until nothing else is left to do; then `last_act` lets go of it, and the process ends in that instant.
"""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING

from dayjob.clock import SECOND
from dayjob.errors import BadRow, JobTimeout, SchemaMismatch, StoreError
from dayjob.states import Outcome
from dayjob.worker import outcomes
from dayjob.worker.announce import announce
from dayjob.worker.run import SHUTDOWN, TIMEOUT, Run, monotonic

if TYPE_CHECKING:
    from dayjob.store.records import Settlement
    from dayjob.worker.pump import Pump

LOOK = 100_000
LAST_WORDS = 5 * SECOND
"""A store that does not answer is not waited for any longer than this, after all else is done."""
PATIENCE = 3 * SECOND
HURRY = 1_500_000
"""So long jobs have to end after a second signal; one that heeds it ends at once, but for a machine that is busy."""
BACKSTOP = 30.0
"""Seconds after which a worker that should have ended is not waited for: its pump is in trouble."""


class Phase(Enum):
    """Where the end has got to."""

    DRAIN = 0
    CANCEL = 1
    RELEASE = 2


class Winding:
    """The end of one worker.

    Args:
        grace_until: monotonic microseconds until which running jobs may go on. Whoever owns the worker may shorten it.
        mortal: the process ends with the worker, so that what hangs in it may be given back.
    Attributes:
        hung: jobs that still run, and are given back by `last_act`: the process must end right after it.
        next_at: when to look again.
    """

    def __init__(self, grace_until: int, *, mortal: bool) -> None:
        self.grace_until = grace_until
        self.phase = Phase.DRAIN
        self.hung: list[Run] = []
        self._ends: dict[Run, Settlement] = {}
        self.next_at = 0
        self._mortal = mortal
        self._hurried: int | None = None
        self._told = self._deadline = 0

    def patience(self) -> float:
        """Seconds in which all phases are over unless something is broken."""
        return max(0, (self._hurried or self.grace_until) - monotonic()) / SECOND + BACKSTOP

    def hurry(self, now: int) -> None:
        """A second signal: no more grace, and less patience. Jobs have that much also if they were told to stop before."""
        self._hurried = self._hurried or now

    def advance(self, pump: Pump, now: int) -> None:
        """Take the steps that are due."""
        pump.release_ready(now, SHUTDOWN)
        running = _running(pump)
        hung = _hung(pump, running)
        hurried = self._hurried
        grace = hurried is None and now < self.grace_until
        if self.phase is Phase.DRAIN and pump.claims.held_jobs() and (hung or not grace):
            self.phase = Phase.CANCEL
            self._told = now
            self._deadline = now + PATIENCE
            for run in running:
                if not run.abandoned:
                    pump.executor.interrupt(run, SHUTDOWN)
            running = _running(pump)
        if self.phase is Phase.CANCEL and hurried is not None:
            self._deadline = min(self._deadline, max(hurried, self._told) + HURRY)
        if self.phase is Phase.CANCEL and (now >= self._deadline or not running or _hung(pump, running)):
            self.phase = Phase.RELEASE
            self._deadline = now + LAST_WORDS
            if self._mortal:
                for run in running:
                    self._give_back(pump, run, now)
        until = self.grace_until if self.phase is Phase.DRAIN else self._deadline
        self.next_at = min(now + LOOK, until) if running else now + LOOK

    def over(self, pump: Pump) -> bool:
        """True when nothing is left to do."""
        if pump.unsent:
            return False
        if self.phase is Phase.RELEASE:  # what has ended just now is on its way to the pump
            return monotonic() >= self._deadline or not any(
                run.settlement is not None for batch in list(pump.batches.values()) for run in list(batch.runs.values())
            )
        return not pump.claims.held_jobs()

    def too_late(self, now: int) -> bool:
        """True when a store that does not answer is given up."""
        return self.phase is Phase.RELEASE and now >= self._deadline

    def _give_back(self, pump: Pump, run: Run, now: int) -> None:
        executor = pump.executor
        stamp = now + executor.offset
        started = run.started + executor.offset
        if run.abandoned and run.stopping == TIMEOUT and run.plan.timeout is not None:
            settlement = outcomes.settle_error(
                run, JobTimeout(run.plan.timeout), started, stamp, executor.rng, executor.settings.max_error
            )
        else:
            settlement = outcomes.settle_released(run.job, stamp, SHUTDOWN, started)
        if run.plan.kind == "process" and executor.processes is not None:
            executor.processes.kill(run)
            executor.end(run, settlement)
        else:
            self.hung.append(run)
            if settlement is not None and settlement.outcome is not Outcome.DEAD:
                self._ends[run] = settlement
            else:  # it runs nowhere again: its hook is called while there is time
                executor.end(run, settlement)
        pump.collect(now)

    def last_act(self, pump: Pump) -> None:
        """Settle what hung, but for what is to be released: that `leave` does, the very last thing to be done.

        What failed is not due for a second. What has ended after all ends as it did. What the store cannot be told, it
        finds out by the lease.
        """
        runs: list[Run] = []
        settlements: list[Settlement] = []
        for run, settlement in self._ends.items():
            if run.settlement is not None:
                runs.append(run)
                settlements.append(run.settlement)
            elif settlement.outcome is Outcome.FAILED and not run.over:
                settlement.delay = max(settlement.delay, 1.0)
                runs.append(run)
                settlements.append(settlement)
        give_up = monotonic() + LAST_WORDS
        while runs:
            try:
                pump.settle(runs, settlements)
                break
            except StoreError as error:
                if isinstance(error, (BadRow, SchemaMismatch)) or monotonic() > give_up:
                    break
                time.sleep(0.1)
        for run, settlement in self._ends.items():
            if settlement.outcome is Outcome.RELEASED and run.settlement is None and not run.over:
                pump.tallies.add(run.job.queue, Outcome.RELEASED)
                announce(pump.bus, run, settlement, None)
        self._ends.clear()


def _hung(pump: Pump, running: list[Run]) -> bool:
    """True when none of *running* will end: what hangs, and with a job that hangs on the loop all others there."""
    blocker = pump.executor.loop.current
    blocked = blocker is not None and blocker.abandoned
    return bool(running) and all(run.abandoned or (blocked and run.plan.kind == "async") for run in running)


def _running(pump: Pump) -> list[Run]:
    return [
        run
        for batch in list(pump.batches.values())
        for run in list(batch.runs.values())
        if run.started and run.settlement is None and not run.over
    ]
