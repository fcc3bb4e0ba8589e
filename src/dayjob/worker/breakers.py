"""What jobs tell of what they depend on: how calls behind a breaker went, and limits that a downstream wants paused.

Told before the settlements of the same jobs: a probe that failed must have shut its breaker before its token is free. While a
breaker is closed a success changes nothing and is not told, so that a task with a breaker costs no more than one without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec.json import decode as from_json

from dayjob.directives import Directive, RetryAfter
from dayjob.errors import ConfigError, PayloadError
from dayjob.gating import RateLimit, key_of
from dayjob.states import Outcome
from dayjob.store.gating import Report
from dayjob.telemetry.breakers import tell
from dayjob.worker.run import monotonic

if TYPE_CHECKING:
    from dayjob.events import Bus
    from dayjob.gating import Breaker, Concurrency
    from dayjob.registry import Plan, Registry
    from dayjob.store.contract import Store
    from dayjob.store.records import Claimed, Settlement
    from dayjob.worker.run import Run

LOOK = 5_000_000
"""Microseconds after which what is known of breakers is old, even if nothing was heard."""


def judge(run: Run, error: BaseException, recorded: BaseException, now: int) -> None:
    """Note on *run* what its *error* tells of others: called once, where it was raised.

    Args:
        recorded: what stands for it. now: the stamp from which a pause counts.
    """
    breaker = run.plan.breaker
    if breaker is not None:
        run.failing = not isinstance(recorded, Directive) and breaker.counts(recorded)
    if isinstance(error, RetryAfter) and error.pause:
        try:
            run.pauses = [_pause(run, one, error.delay(now)) for one in error.pause]
        except (ConfigError, PayloadError) as wrong:
            recorded.add_note(f"dayjob: pause= was not carried out: {wrong}")


def _pause(run: Run, one: RateLimit | Concurrency, seconds: float) -> tuple[str, str, float]:
    kind = "rate" if isinstance(one, RateLimit) else "concurrency"
    return kind, _key(one, run.job, run.plan), seconds


def _key(one: RateLimit | Concurrency | Breaker, job: Claimed, plan: Plan) -> str:
    """The key that the enqueue gave to the gate of *one*, made once more."""
    task = plan.task
    args: dict[str, Any] = {}
    meta: dict[str, Any] = {}
    if one.key is not None and "{" in one.key:
        args = task.signature.arguments(job.payload)
        meta = from_json(job.meta) if job.meta else {}
    return key_of(one, task.name, args, meta)


class Breakers:
    """Tells the store. Used by the pump's thread alone.

    Args:
        registry: knows whether any task here has a breaker.
    Attributes:
        pauses: limits to be paused that the store does not know of yet.
    """

    def __init__(self, store: Store, registry: Registry, bus: Bus) -> None:
        self._store, self._registry, self._bus = store, registry, bus
        self._troubled: frozenset[str] = frozenset()
        self._look_at = 0
        self.pauses: list[tuple[str, str, float]] = []
        self._completed: list[Run] = []

    def changed(self) -> None:
        """Something was changed somewhere; perhaps a breaker."""
        self._look_at = 0

    def completed(self, runs: Sequence[Run]) -> None:
        """*runs* have completed in transactions of their own and are never settled: it is told by the next `tell`."""
        if self._registry.guarded:
            self._completed += [run for run in runs if run.plan.breaker is not None]

    def tell(self, runs: Sequence[Run], settlements: Sequence[Settlement]) -> None:
        """Tell what *runs*, about to be settled, have to tell.

        Raises:
            StoreError: call it again with the same; what was told already counts twice then, which opens a breaker early at worst.
        """
        if not self._registry.guarded:
            return
        told = [self._report(run, done=True) for run in self._completed]
        for run, settlement in zip(runs, settlements, strict=True):
            told.append(self._report(run, done=settlement.outcome is Outcome.COMPLETED))
        reports = [report for report in told if report is not None]
        if reports:
            tell(self._bus, self._store.report(reports))
            self._look_at = 0
        self._completed.clear()

    def pause(self) -> None:
        """Carry out the `pauses` that were asked for.

        Raises:
            StoreError: call it again; what was carried out is done.
        """
        while self.pauses:
            kind, key, seconds = self.pauses[-1]
            self._store.delay_gate(kind, key, seconds)  # type: ignore[arg-type]  # a kind, from `_pause`
            self.pauses.pop()

    def _report(self, run: Run, *, done: bool) -> Report | None:
        failing = False if done else run.failing
        if failing is None or run.plan.breaker is None:
            return None
        breaker = run.plan.breaker
        try:
            key = _key(breaker, run.job, run.plan)
        except (ConfigError, PayloadError, ValueError):
            return None  # it was stored by other code, under a key that nobody can tell here
        if not failing and not self._in_trouble(key):
            return None
        return Report(key, failing, breaker.failures, float(breaker.within), float(breaker.cooldown))  # type: ignore[arg-type]

    def _in_trouble(self, key: str) -> bool:
        """True when the breaker is not closed, as far as one knows."""
        now = monotonic()
        if now >= self._look_at:
            self._troubled = frozenset(row.key for row in self._store.breakers() if row.state != "closed")
            self._look_at = now + LOOK
        return key in self._troubled
