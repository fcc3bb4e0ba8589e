"""`dayjob queues`: what waits where, and the taps."""

from __future__ import annotations

import click

from dayjob.cli import output
from dayjob.cli.group import OrderedGroup
from dayjob.cli.options import SPAN, as_json, option, target, yes
from dayjob.cli.shape import QUEUE_COLUMNS
from dayjob.cli.target import opened

WAITING = ["scheduled", "blocked", "available"]


@click.group(cls=OrderedGroup)
def queues() -> None:
    """List, pause, resume, drain, purge queues."""


@queues.command("list")
@as_json
@target
def list_(app_name: str | None, url: str | None, json: bool) -> None:
    """List queues: what waits, runs and finished in each, and how long the oldest waits."""
    with opened(app_name, url) as app:
        rows = app.queues.stats()
    if json:
        output.document(rows)
    else:
        output.table(QUEUE_COLUMNS, rows, empty="no queues: nothing was enqueued yet")


@queues.command()
@click.argument("names", nargs=-1, required=True)
@as_json
@target
def pause(app_name: str | None, url: str | None, json: bool, names: tuple[str, ...]) -> None:
    """Stop taking jobs from queues. What runs goes on; enqueues are stored and wait."""
    _tap(app_name, url, names, json, paused=True)


@queues.command()
@click.argument("names", nargs=-1, required=True)
@as_json
@target
def resume(app_name: str | None, url: str | None, json: bool, names: tuple[str, ...]) -> None:
    """Take jobs from queues again."""
    _tap(app_name, url, names, json, paused=False)


def _tap(app_name: str | None, url: str | None, names: tuple[str, ...], json: bool, *, paused: bool) -> None:
    word = "paused" if paused else "resumed"
    with opened(app_name, url) as app:
        changed = {name: bool((app.queues.pause if paused else app.queues.resume)(name)) for name in names}
    if json:
        output.document([{"queue": name, "paused": paused, "changed": changed[name]} for name in names])
        return
    for name in names:
        click.echo(f"{word} {name}" if changed[name] else f"{name} was {'paused' if paused else 'active'} already")


@queues.command()
@click.argument("name")
@option("--timeout", type=SPAN, help="Give up after so long. [default: wait for ever]")
@as_json
@target
def drain(app_name: str | None, url: str | None, json: bool, name: str, timeout: float | None) -> int:
    """Wait until a queue holds no unfinished job. Workers must run."""
    with opened(app_name, url) as app:
        left = app.queues.drain(name, timeout)
    if json:
        output.document({"queue": name, "left": left})
    elif left:
        output.say(f"dayjob: {output.jobs(left)} left in {name} after {output.span(timeout)}")
    else:
        click.echo(f"{name} is drained")
    return 1 if left else 0


@queues.command()
@click.argument("name")
@yes
@as_json
@target
def purge(app_name: str | None, url: str | None, json: bool, yes: bool, name: str) -> None:
    """Delete all jobs that wait in a queue. Running, finished and dead ones stay."""
    with opened(app_name, url) as app:
        count = app.jobs.count(queue=name, state=WAITING)
        if count:
            output.ask(f"delete {output.jobs(count)} that wait in {name}?", yes=yes)
        gone = app.queues.purge(name) if count else 0
    if json:
        output.document({"queue": name, "purged": gone})
    else:
        click.echo(f"purged {output.jobs(gone)} from {name}")
