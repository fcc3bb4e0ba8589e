"""`dayjob schedules`: what runs again and again, and changing it while it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dayjob.cli import output
from dayjob.cli.group import OrderedGroup
from dayjob.cli.options import AHEAD, SPAN, as_json, option, target, yes
from dayjob.cli.output import Column
from dayjob.cli.shape import job_document
from dayjob.cli.target import opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from dayjob import App, NewJob, Schedule
    from dayjob.schedule import When

RUNS = 5
"""The next runs that are shown."""

COLUMNS = (
    Column("name", lambda row: row.name),
    Column("when", lambda row: row.words, wide=True),
    Column("next run", lambda row: output.age(row.next_run)),
    Column("last run", lambda row: output.age(row.last_run), spare=1),
    Column("task", lambda row: row.task, spare=3),
    Column("origin", lambda row: f"{row.origin}, edited" if row.edited else row.origin, spare=2),
    Column("is", lambda row: row.state),
)


@click.group(cls=OrderedGroup)
def schedules() -> None:
    """List, show, set, pause, resume, trigger, reset, delete schedules."""


@schedules.command("list")
@as_json
@target
def list_(app_name: str | None, url: str | None, json: bool) -> None:
    """List schedules: when they run, in words, their next and their last run, who made them, how they stand."""
    with opened(app_name, url) as app:
        rows = app.schedules.list()
    if json:
        output.document([document(row) for row in rows])
        return
    output.table(
        COLUMNS, rows, empty="no schedules: workers store what code declares, and `dayjob schedules set` makes one"
    )
    for row in rows:
        if row.state == "orphaned":
            output.say(
                f"dayjob: {row.name} rests: no worker's code declares it any more ({row.where}); delete it, or set it to keep it"
            )


@schedules.command()
@click.argument("name")
@as_json
@target
def show(app_name: str | None, url: str | None, json: bool, name: str) -> None:
    """Show a schedule, and its next five runs."""
    with opened(app_name, url) as app:
        row = app.schedules.get(name)
    _show(row, json)


@schedules.command("set")
@click.argument("name")
@click.argument("task", required=False)
@option("--cron", metavar="EXPR", help="By calendar, as in '0 6 * * MON-FRI'.")
@option("--tz", metavar="ZONE", help="The zone whose clock counts for --cron. [default: UTC]")
@option("--every", type=SPAN, help="By interval, as in 5m.")
@option("--args", "arguments", metavar="JSON", help="The arguments of its jobs: an object by parameter name.")
@option("-q", "--queue", metavar="NAME", help="Another queue than the task's own.")
@option("--overlap", type=click.Choice(["skip", "queue", "allow"]), help="When the job before has not ended.")
@option("--catch-up", type=click.Choice(["none", "latest", "all"]), help="What is made up for when nobody was there.")
@option("--jitter", type=SPAN, help="Jobs start later by so much at most.")
@option("--start", type=AHEAD, metavar="TIME", help="No tick before.")
@option("--end", type=AHEAD, metavar="TIME", help="No tick after.")
@as_json
@target
def set_(app_name: str | None, url: str | None, json: bool, **given: Any) -> None:
    """Make a schedule of TASK, or change what is given of one. A change wins over code, until `reset`."""
    name, task, arguments, queue = (given.pop(key) for key in ("name", "task", "arguments", "queue"))
    when = _when(given.pop("cron"), given.pop("tz"), given.pop("every"), given["start"])
    if task is None and (arguments is not None or queue is not None):
        raise click.UsageError("--args and --queue are about a job: name its TASK, too")
    policies = {key: value for key, value in given.items() if value is not None}
    with opened(app_name, url, code=True) as app:
        job = None if task is None else _job(app, task, arguments, queue)
        row = app.schedules.set(name, job, when, **policies)
    _show(row, json)


@schedules.command()
@click.argument("names", nargs=-1, required=True)
@as_json
@target
def pause(app_name: str | None, url: str | None, json: bool, names: tuple[str, ...]) -> None:
    """Let schedules rest. What they made goes on; their ticks are not made up for."""
    _tap(app_name, url, names, json, paused=True)


@schedules.command()
@click.argument("names", nargs=-1, required=True)
@as_json
@target
def resume(app_name: str | None, url: str | None, json: bool, names: tuple[str, ...]) -> None:
    """Let schedules tick again, from now on."""
    _tap(app_name, url, names, json, paused=False)


@schedules.command()
@click.argument("name")
@as_json
@target
def trigger(app_name: str | None, url: str | None, json: bool, name: str) -> None:
    """Make a job of a schedule now, and print its id. The next tick comes as ever."""
    with opened(app_name, url) as app:
        job = app.schedules.trigger(name)
        if json:
            output.document(job_document(job))
        else:
            click.echo(job.id)


@schedules.command()
@click.argument("name")
@as_json
@target
def reset(app_name: str | None, url: str | None, json: bool, name: str) -> None:
    """Forget what was said at run time: what code declares holds again."""
    with opened(app_name, url) as app:
        row = app.schedules.reset(name)
    _show(row, json)


@schedules.command()
@click.argument("names", nargs=-1, required=True)
@yes
@as_json
@target
def delete(app_name: str | None, url: str | None, json: bool, yes: bool, names: tuple[str, ...]) -> None:
    """Delete schedules; their jobs stay. One that living code declares is to be removed there."""
    with opened(app_name, url) as app:
        found = [_known(app, name) for name in names]
        output.ask(f"delete {len(found)} schedule{'' if len(found) == 1 else 's'} ({', '.join(found)})?", yes=yes)
        gone = {name: app.schedules.delete(name) for name in found}
    if json:
        output.document([{"name": name, "deleted": deleted} for name, deleted in gone.items()])
        return
    for name in gone:
        click.echo(f"deleted {name}")


def document(row: Schedule) -> dict[str, Any]:
    """A schedule by the names that `Schedule` has, with its times as data."""
    import msgspec

    from dayjob.schedule import Cron

    found = msgspec.structs.asdict(row)
    when: When = found.pop("when")
    cron = when if isinstance(when, Cron) else None
    found |= {
        "cron": cron and cron.expr,
        "tz": cron and cron.tz,
        "every": None if isinstance(when, Cron) else when.seconds,
    }
    return found | {"next_runs": row.next_runs(RUNS)}


def _show(row: Schedule, json: bool) -> None:
    if json:
        output.document(document(row))
        return
    policies = f"overlap {row.overlap}, catch-up {row.catch_up}"
    output.facts(
        {
            "name": row.name,
            "when": row.words,
            "is": row.state,
            "task": row.task,
            "queue": row.queue,
            "origin": (f"code ({row.where})" if row.origin == "code" else "run time")
            + (", edited" if row.edited else ""),
            "policies": policies + (f", jitter {output.span(row.jitter)}" if row.jitter else ""),
            "start": row.start,
            "end": row.end,
            "last run": row.last_run,
            "last job": row.last_job,
            "lost": _lost(row) or None,
            "next runs": "\n".join(f"{output.moment(at)}  ({output.age(at)})" for at in row.next_runs(RUNS)) or "none",
        }
    )


def _known(app: App, name: str) -> str:
    """*name*, if there is a schedule of it; one whose record cannot be read here may be deleted, too."""
    from dayjob.errors import ConfigError, StoreError, StoreUnavailable

    try:
        app.schedules.get(name)
    except StoreUnavailable:
        raise
    except (StoreError, ConfigError):
        pass
    return name


def _lost(row: Schedule) -> str:
    """The ticks that made no job, by why."""
    counts = {"skipped": row.skipped, "missed": row.missed, "refused": row.refused}
    return ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)


def _tap(app_name: str | None, url: str | None, names: tuple[str, ...], json: bool, *, paused: bool) -> None:
    word = "paused" if paused else "resumed"
    with opened(app_name, url) as app:
        tap: Callable[[str], bool] = app.schedules.pause if paused else app.schedules.resume
        for name in names:
            app.schedules.get(name)  # all or none: a typing error must not leave half of it done
        changed = {name: tap(name) for name in names}
    if json:
        output.document([{"name": name, "paused": paused, "changed": changed[name]} for name in names])
        return
    for name in names:
        click.echo(f"{word} {name}" if changed[name] else f"{name} was {'paused' if paused else 'active'} already")


def _when(cron: str | None, tz: str | None, every: float | None, start: datetime | None) -> When | None:
    from dayjob.schedule import Cron, Every

    if cron is not None and every is not None:
        raise click.UsageError("--cron and --every exclude each other")
    if tz is not None and cron is None:
        raise click.UsageError("--tz goes with --cron")
    if cron is not None:
        return Cron(cron, tz or "UTC")
    return None if every is None else Every(every, start)


def _job(app: App, task: str, arguments: str | None, queue: str | None) -> NewJob[Any]:
    import msgspec

    try:
        values = msgspec.json.decode(arguments or "{}")
    except msgspec.DecodeError as error:
        raise click.UsageError(f"--args is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise click.UsageError(f"--args must be a JSON object by parameter name, not {type(values).__name__}")
    if app.registry.names():
        app.registry.get(task)  # a typing error must not become jobs that no worker knows
    return app.schedules.call(task, values, queue=queue)
