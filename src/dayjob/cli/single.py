"""`dayjob jobs run`: one stored job, here, in this process, where a debugger can see it.

Nothing is claimed and nothing is kept: the job in the store stays as it is, whatever happens here, and what it records
goes to the screen. With `--settle` it is claimed first (`hold`), what it records is stored, and so is how it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import dayjob
from dayjob.cli import output
from dayjob.cli.hold import CLAIM, Hold
from dayjob.cli.target import load_app
from dayjob.context import RUNNING
from dayjob.directives import CancelJob, Snooze
from dayjob.errors import LeaseLost, NotCommitted, PayloadError
from dayjob.states import Outcome, State
from dayjob.store.records import Checkpoint, Claimed, Log, Progress, Settlement
from dayjob.worker import outcomes
from dayjob.worker.hooks import attempt_async, attempt_sync
from dayjob.worker.run import LOST, Batch, Completion, Run, Slots, monotonic

if TYPE_CHECKING:
    from dayjob import App
    from dayjob.registry import Plan
    from dayjob.store.records import JobRow, Write

_OURS = Path(dayjob.__file__).parent


def run_here(app_name: str | None, url: str | None, id: str, *, pdb: bool, settle: bool) -> int:
    """Run job *id*; returns the exit status: 1 when it failed."""
    with load_app(app_name, url) as app:
        row = app.jobs.load(id)
        plan = app.registry.plan(row.task, row.queue, row.options)
        plan.decode(row.payload)  # before anything is claimed: a payload that does not fit is wrong usage here
        fate = "claimed, and settled afterwards" if settle else "the stored job stays as it is"
        with Hold(app, row) if settle else contextlib.nullcontext() as hold, asyncio.Runner() as runner:
            output.say(f"running {row.task} ({id}, {row.state}) here; {fate}")
            with _lifespan(app, runner) as state:
                return Bench(app, row, plan, state, hold).run(runner, debug=pdb)


@contextlib.contextmanager
def _lifespan(app: App, runner: asyncio.Runner) -> Iterator[Any]:
    """What the app's lifespan yields; an async one lives on the loop that async tasks run on."""
    manager = app.hooks.lifespan() if app.hooks.lifespan is not None else contextlib.nullcontext()
    if hasattr(manager, "__enter__"):
        with manager as state:
            yield state
    else:
        state = runner.run(manager.__aenter__())
        try:
            yield state
        finally:
            runner.run(manager.__aexit__(None, None, None))


class Bench:
    """The place where the job runs (`run.Home`): shows what it records, and stores it while the job is held."""

    def __init__(self, app: App, row: JobRow, plan: Plan, state: Any, hold: Hold | None) -> None:
        self.app, self.state, self._plan, self._hold = app, state, plan, hold
        self.settings, self.store = app.settings, app.store
        self._checkpoint = app.store.recorded(row.id)
        self._began = app.store.now() - monotonic()
        job = hold.job if hold is not None else _as_claimed(row, recorded=self._checkpoint is not None)
        batch = Batch(CLAIM, hold.worker if hold is not None else "", monotonic())
        self._run = Run(job, plan, batch, Slots(None, 1), self)
        if hold is not None:
            hold.run = self._run

    def run(self, runner: asyncio.Runner, *, debug: bool) -> int:
        """Run it, show how it ends, settle it if it is held; returns the exit status."""
        started = self.stamp()
        try:
            value = self._call(runner)
            if self._run.completion is not None:
                if not self._has_completed():
                    raise NotCommitted(self._run.job.id)
                return 0
            result = self._plan.encode_result(value, self.app.settings.max_result)
        except (Exception, LeaseLost) as error:  # noqa: BLE001  # whatever the task raises is what one came to see
            if self._run.completion is not None and self._has_completed():
                _show(error, debug=debug)
                return 0
            settlement = self._failed(error, started)
            wanted = isinstance(error, (Snooze, CancelJob))
            if wanted:
                output.say(f"the task raised {type(error).__name__}: {error}")
            else:
                _show(error, debug=debug)
            self._settle(settlement, error, runner)
            return 0 if wanted else 1
        click.echo(result.decode())
        job, keep = self._run.job, self._plan.keep[State.COMPLETED]
        good = Settlement(job.id, job.entry, Outcome.COMPLETED, started, self.stamp(), result=result, keep=keep)
        return 0 if self._settle(good, None, runner) else 1

    def _has_completed(self) -> bool:
        """True when the transaction in which the task completed its job was committed; waits while it is open."""
        lease = self._run.lease
        while (standing := self.store.standing(lease)) == "open":
            time.sleep(0.1)
        if standing == "completed":
            output.say("settled: completed, in the task's transaction")
        return standing == "completed"

    def _call(self, runner: asyncio.Runner) -> Any:
        """Run the task inside its arounds, as a worker would, but in this thread."""
        token = RUNNING.set(self._run)
        try:
            plan, context, arounds = self._plan, self._run.context(), self.app.hooks.arounds
            args = plan.decode(self._run.job.payload)

            def function() -> Any:
                if plan.batching is not None:
                    return plan.task.alone(context, *args)
                return plan.fn(context, *args) if plan.takes_context else plan.fn(*args)

            if plan.kind == "async":
                return runner.run(attempt_async(arounds, context, function))
            return attempt_sync(arounds, context, function)
        finally:
            RUNNING.reset(token)

    def _failed(self, error: BaseException, started: int) -> Settlement | None:
        limit = self.app.settings.max_error
        if isinstance(error, PayloadError):
            return outcomes.settle_unserialisable(self._run, error, started, self.stamp(), limit)
        return outcomes.settle_error(self._run, error, started, self.stamp(), random.Random(), limit)

    def _settle(self, settlement: Settlement | None, error: BaseException | None, runner: asyncio.Runner) -> bool:
        """Store how it ended; True also when there is nothing to store."""
        if self._hold is None:
            return True
        if settlement is None or not self._hold.settle(settlement):
            output.say("too late: the lease was lost, and how it ended here counts for nothing")
            return False
        output.say(f"settled: {settlement.outcome}")
        hook = self._plan.task.dead_hook
        if settlement.outcome is Outcome.DEAD and hook is not None and error is not None:
            answer = hook(self.app.jobs.get(settlement.id), error)
            if inspect.isawaitable(answer):
                runner.run(_awaited(answer))
        return True

    def completing(self, run: Run, completion: Completion) -> Completion | None:
        run.completion = None if self._hold is None else completion
        return run.completion

    # -- what the run asks -----------------------------------------------------------------------------------------

    def note(self, run: Run) -> None:
        writes = run.take_writes()
        if writes and not self.record(run, writes):
            run.stopping = LOST

    def record(self, run: Run, writes: list[Write]) -> bool:
        for write in writes:
            output.say(_said(write))
            if isinstance(write, Checkpoint):
                self._checkpoint = write.value
        return self._hold is None or self.app.store.record(run.lease, writes)

    def undisturbed(self, run: Run) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()  # nobody is there to interrupt it but who sits before it

    def recorded(self, run: Run) -> bytes | None:
        return self._checkpoint

    def stamp(self) -> int:
        return self._began + monotonic()


def _said(write: Write) -> str:
    if isinstance(write, Log):
        return f"{write.level}: {write.message}"
    if isinstance(write, Progress):
        total = f" of {write.total:g}" if write.total is not None else ""
        return f"progress {write.done:g}{total} {write.note}".rstrip()
    return f"checkpoint: {write.value.decode(errors='replace')}"


def _as_claimed(row: JobRow, *, recorded: bool) -> Claimed:
    """A stored job as a claim would have brought it."""
    same = {name: getattr(row, name) for name in Claimed.__struct_fields__ if hasattr(row, name)}
    return Claimed(**same, parked=0, recorded=recorded)


async def _awaited(value: Any) -> Any:
    return await value


def _show(error: BaseException, *, debug: bool) -> None:
    """The traceback from where the task's own code begins; with *debug* stop where it was raised."""
    inside = error.__traceback__
    while inside is not None and Path(inside.tb_frame.f_code.co_filename).is_relative_to(_OURS):
        inside = inside.tb_next
    traceback.print_exception(type(error), error, inside or error.__traceback__)
    if debug:
        import pdb  # noqa: T100  # this is the one place that is meant to

        pdb.post_mortem(error.__traceback__)
