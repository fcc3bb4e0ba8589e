"""`dayjob jobs run`: one stored job, here, in this process, where a debugger can see it.

Nothing is claimed and nothing is kept: the job in the store stays as it is, whatever happens here. What the job
records goes to the screen. With `--settle` the job is claimed by a worker of this process that runs it and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import dayjob
from dayjob.cli import output
from dayjob.cli.target import load_app
from dayjob.context import RUNNING, JobContext
from dayjob.errors import NotSupported
from dayjob.store.records import Claimed
from dayjob.worker.hooks import attempt_async, attempt_sync

if TYPE_CHECKING:
    from dayjob import App
    from dayjob.registry import Plan
    from dayjob.store.records import JobRow


_OURS = Path(dayjob.__file__).parent


def run_here(app_name: str | None, url: str | None, id: str, *, pdb: bool, settle: bool) -> int:
    """Run job *id*; returns the exit status: 1 when it raised."""
    if settle:
        raise NotSupported("--settle", "this store cannot claim one given job yet")
    with load_app(app_name, url) as app:
        job = app.jobs.get(id)
        row = app.jobs.load(id)
        plan = app.registry.plan(row.task, row.queue, row.options)
        args = plan.decode(row.payload)
        output.say(f"running {row.task} ({id}, {job.state}) here; the stored job stays as it is")
        failure: Exception | None = None
        with asyncio.Runner() as runner, _lifespan(app, runner) as state:
            try:
                value = Bench(app, row, plan, state).call(args, runner)
            except Exception as error:  # noqa: BLE001  # whatever the task raises is what one came to see
                failure = error
                _show(error, debug=pdb)
        if failure is None:
            click.echo(plan.encode_result(value, app.settings.max_result).decode())
    return 0 if failure is None else 1


def _show(error: Exception, *, debug: bool) -> None:
    """The traceback from where the task's own code begins; with *debug* stop where it was raised."""
    inside = error.__traceback__
    while inside is not None and Path(inside.tb_frame.f_code.co_filename).is_relative_to(_OURS):
        inside = inside.tb_next
    traceback.print_exception(type(error), error, inside or error.__traceback__)
    if debug:
        import pdb  # noqa: T100  # this is the one place that is meant to

        pdb.post_mortem(error.__traceback__)


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
    """The host of a job's context (`context.ContextHost`) that shows what a worker would store."""

    stopping = None

    def __init__(self, app: App, row: JobRow, plan: Plan, state: Any) -> None:
        self.app, self.state, self._plan = app, state, plan
        self.max_attempts = plan.retry.max_attempts if row.max_attempts is None else row.max_attempts
        self._checkpoint = app.store.recorded(row.id)
        self._context: JobContext[Any] | None = None
        self.job = Claimed(
            row.entry,
            row.id,
            row.task,
            row.queue,
            row.priority,
            row.attempt,
            row.crashes,
            row.round,
            0,
            row.max_attempts,
            row.created_at,
            row.run_at,
            row.expires_at,
            row.tags,
            row.meta,
            row.options,
            self._checkpoint is not None,
            row.suspect,
            row.payload,
        )

    def call(self, args: tuple[Any, ...], runner: asyncio.Runner) -> Any:
        """Run the task with its arounds, as a worker would, but in this thread."""
        token = RUNNING.set(self)
        try:
            context, arounds = self.context(), self.app.hooks.arounds

            def function() -> Any:
                return self._plan.fn(context, *args) if self._plan.takes_context else self._plan.fn(*args)

            if self._plan.kind == "async":
                return runner.run(attempt_async(arounds, context, function))
            return attempt_sync(arounds, context, function)
        finally:
            RUNNING.reset(token)

    # -- what the context asks -----------------------------------------------------------------------------------

    def context(self) -> JobContext[Any]:
        if self._context is None:
            self._context = JobContext(self)
        return self._context

    def progress(self, done: float, total: float | None, note: str) -> None:
        output.say(f"progress {done:g}{f' of {total:g}' if total is not None else ''} {note}".rstrip())

    def log(self, level: str, message: str) -> None:
        output.say(f"{level}: {message}")

    def save_checkpoint(self, value: bytes) -> None:
        self._checkpoint = value
        output.say(f"checkpoint: {value.decode(errors='replace')}")

    def read_checkpoint(self) -> bytes | None:
        return self._checkpoint
