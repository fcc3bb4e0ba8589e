"""Tells what became of ended runs: counts, events, and whoever waits for a result. After the store knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dayjob.events import Bus, JobCompleted
from dayjob.states import Outcome, State
from dayjob.store.records import Settlement, Turn
from dayjob.worker.announce import announce
from dayjob.worker.run import Run
from dayjob.worker.tallies import Tallies

if TYPE_CHECKING:
    from dayjob.store.contract import Signals
    from dayjob.worker.executor import Executor


class Teller:
    """The pump's mouth.

    Args:
        on_dead: called with each run that died and was accepted.
        on_control: called when the next beat may tell why an end was refused. on_pause: called with limits that a job wants paused.
    """

    def __init__(
        self,
        store: Signals,
        executor: Executor,
        bus: Bus,
        tallies: Tallies,
        *,
        on_dead: Callable[[Run], None] | None,
        on_control: Callable[[int], None] | None,
        on_pause: Callable[[list[tuple[str, str, float]]], None],
    ) -> None:
        self._store, self._executor, self._bus, self._tallies = store, executor, bus, tallies
        self._on_dead, self._on_control, self._on_pause = on_dead, on_control, on_pause

    def tell(
        self,
        runs: Sequence[Run],
        settlements: Sequence[Settlement],
        turn: Turn | None = None,
        *,
        repeated: bool = False,
    ) -> None:
        """*runs* have ended by *settlements*, and *turn* was the store's answer.

        Args:
            turn: None: it has accepted all before. repeated: an earlier answer was lost.
        """
        refused = set(turn.refused) if turn is not None and turn.refused else ()
        moved = {} if turn is None else {(id, entry): state for id, entry, state in turn.settled}
        tells = self._bus.wants(JobCompleted.name)
        waited_for = self._store.listening("done")
        completed: dict[str, list[int]] = {}
        ended: list[str] = []
        for run, settlement in zip(runs, settlements, strict=True):
            job = run.job
            if refused and (job.id, job.entry) in refused:
                self._refused(run, repeated)
            elif settlement.outcome is not Outcome.COMPLETED:
                self._ended_otherwise(run, settlement, moved.get((job.id, job.entry)), ended)
            else:
                count = completed.get(job.queue)
                if count is None:
                    count = completed[job.queue] = [0, 0]
                count[0] += 1
                count[1] += settlement.finished_at - settlement.started_at
                if waited_for:
                    ended.append(job.id)
                if tells:
                    announce(self._bus, run, settlement, None)
        for queue, (number, busy) in completed.items():
            self._tallies.add(queue, Outcome.COMPLETED, number, busy)
        if ended and waited_for:
            self._store.notify("done", ",".join(ended).encode())

    def _ended_otherwise(self, run: Run, settlement: Settlement, moved: State | None, ended: list[str]) -> None:
        busy = settlement.finished_at - settlement.started_at if settlement.started_at else 0
        self._tallies.add(run.job.queue, settlement.outcome, 1, busy)
        announce(self._bus, run, settlement, moved)
        if run.pauses:
            self._on_pause(run.pauses)
        dead = moved is State.DEAD or (moved is None and settlement.outcome is Outcome.DEAD)
        if dead or moved is State.CANCELLED or settlement.outcome is Outcome.CANCELLED:
            ended.append(run.job.id)
        if dead and self._on_dead is not None:
            self._on_dead(run)

    def _refused(self, run: Run, repeated: bool) -> None:
        """The settlement came too late; or, after a lost reply, it was applied the first time."""
        self._tallies.add(run.job.queue, "refused")
        if not repeated:
            self._executor.refused(run, "settle")
            if self._on_control is not None:
                self._on_control(-1)  # the next beat tells whether all is lost
