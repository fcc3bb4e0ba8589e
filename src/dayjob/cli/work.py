"""`dayjob worker` and `dayjob dev`: run jobs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from dayjob.cli.options import SPAN, option
from dayjob.cli.target import load_app
from dayjob.errors import NotSupported

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dayjob import App
    from dayjob.worker.launch import Child


def parse_queues(given: Sequence[str], concurrency: int) -> dict[str, int] | list[str] | None:
    """`-q mail:5 -q reports` as the facade wants it: None for all queues, names, or slots by name.

    Queues without a number share `-c`; where some have one, the others get `-c` (or the app's number) each.
    """
    if not given:
        return None
    names: dict[str, int | None] = {}
    for text in given:
        name, colon, slots = text.rpartition(":")
        if not colon:
            name, slots = text, ""
        if colon and not (slots.isdecimal() and int(slots) > 0):
            raise click.UsageError(f"-q {text}: write NAME or NAME:CONCURRENCY, as in mail:5")
        if name in names:
            raise click.UsageError(f"-q {name} is given twice")
        names[name] = int(slots) if slots else None
    if all(slots is None for slots in names.values()):
        return list(names)
    return {name: slots if slots is not None else concurrency for name, slots in names.items()}


_QUEUES = option("-q", "--queue", "queues", multiple=True, metavar="NAME[:N]", help="Only this queue, N jobs at once.")
_CONCURRENCY = option(
    "-c",
    "--concurrency",
    type=click.IntRange(1, 100_000),
    help="Jobs at once in a process, for queues without a number.",
)
_GRACE = option("--grace", type=SPAN, help="How long running jobs may go on after a stop. [default: 25 s]")


@click.command()
@click.argument("app", required=False, metavar="[MODULE:APP]", envvar="DAYJOB_APP")
@_QUEUES
@_CONCURRENCY
@option("-p", "--processes", type=click.IntRange(1, 1000), default=1, show_default=True, help="Worker processes.")
@option("--burst", is_flag=True, help="Stop when nothing is left to do.")
@_GRACE
@option("--reload", is_flag=True, help="Start again when code changes.")
@option("--max-jobs", type=click.IntRange(1), help="Replace a process after so many jobs.")
@option("--max-memory", type=click.IntRange(1), metavar="MB", help="Replace a process that grew to so much memory.")
@option("--http", type=int, metavar="PORT", help="Not part of this release.")
@option("--url", metavar="URL", help="The store; wins over the app's own.")
def worker(app: str | None, url: str | None, http: int | None, **given: Any) -> int:
    """Run jobs until told to stop.

    SIGTERM or SIGINT (Ctrl-C) stops taking jobs and lets the running ones finish within --grace; a second signal stops at
    once. What did not finish goes back to its queue, unspent.
    """
    if http is not None:
        raise NotSupported("--http")
    return _run(app, url, **given)


@click.command()
@click.argument("app", required=False, metavar="[MODULE:APP]", envvar="DAYJOB_APP")
@_QUEUES
@_CONCURRENCY
@option("--url", metavar="URL", help="The store; wins over the app's own.")
def dev(app: str | None, url: str | None, queues: tuple[str, ...], concurrency: int | None) -> int:
    """For development: bring the store up to date, then run a worker that starts again when code changes."""
    loaded = load_app(app, url)
    for name in loaded.migrate():
        click.echo(f"migrated: {name}", err=True)
    loaded.close()
    return _run(
        app,
        url,
        queues=queues,
        concurrency=concurrency,
        processes=1,
        burst=False,
        grace=2.0,
        reload=True,
        max_jobs=None,
        max_memory=None,
    )


def _run(app_name: str | None, url: str | None, **given: Any) -> int:
    """One worker in this process, or several below a supervisor."""
    processes, burst, reload = given.pop("processes"), given.pop("burst"), given.pop("reload")
    if burst and (processes > 1 or reload):
        raise click.UsageError("--burst works in one process: leave out -p and --reload")
    parse_queues(given["queues"], 1)  # wrong usage is told before the app is imported
    app = load_app(app_name, url)
    options = {**given, "queues": parse_queues(given["queues"], given["concurrency"] or app.settings.concurrency)}
    if processes == 1 and not reload:
        return _alone(app, options, burst=burst)
    if not app.store.processes:
        raise click.UsageError(
            f"{app.store.url} can be seen by one process only: leave out -p and --reload, or use a file"
        )
    app.close()
    return _supervised(app, options, processes, reload=reload)


def _alone(app: App, options: dict[str, Any], *, burst: bool) -> int:
    from dayjob.telemetry.logs import follow

    follow(app.bus, os.environ)
    worker = app.worker(**options)
    if burst:
        worker.run_until_idle()
        return 0
    worker.replace = lambda: _leave(again=worker.again)
    worker.run()
    if worker.again:
        app.close()
        _leave(again=True)
    return 0


def _leave(*, again: bool) -> NoReturn:
    """End this process image, whatever threads still hang in it.

    Args:
        again: the worker asked for a fresh process (a job that hangs, its number of jobs, its memory), and nobody above
            us would start one: become it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if again:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  # ourselves
    os._exit(0)


def _supervised(app: App, options: dict[str, Any], processes: int, *, reload: bool) -> int:
    from dayjob.telemetry.logs import follow
    from dayjob.worker.reload import Reloader
    from dayjob.worker.supervisor import Supervisor

    follow(app.bus, os.environ)
    grace = options["grace"]
    supervisor = Supervisor(
        _launcher(app),
        lambda: app.store,
        app.bus,
        processes=processes,
        options=options,
        grace=app.settings.grace if grace is None else grace,
        changed=Reloader(Path.cwd()) if reload else None,
    )
    status = supervisor.run()
    if supervisor.unstartable:
        raise click.ClickException(f"no worker process could start: {supervisor.unstartable}")
    return status


def _launcher(app: App) -> Callable[[str, dict[str, Any]], Child]:
    """Starts child processes that import the app again."""
    from dayjob.locate import ref_of
    from dayjob.worker.launch import Child

    ref = ref_of(app)
    if ref is None:
        raise click.ClickException("the app is no variable of a module: other processes cannot find it")
    return lambda role, options: Child(role, ref, {**options, "url": app.url})
