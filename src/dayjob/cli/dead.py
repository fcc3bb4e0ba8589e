"""`dayjob dead`: the dead-letter queue. Nothing leaves it by itself."""

from __future__ import annotations

from typing import Any

import click

from dayjob.cli import output
from dayjob.cli.choice import Choice, act
from dayjob.cli.group import OrderedGroup
from dayjob.cli.jobs import describe
from dayjob.cli.options import as_json, filters, option, target, yes
from dayjob.cli.shape import DEAD_COLUMNS, job_document
from dayjob.cli.target import opened

DEAD = ("dead",)


@click.group(cls=OrderedGroup)
def dead() -> None:
    """The dead-letter queue: list, show, retry, discard."""


@dead.command("list")
@filters(state=False)
@option("-n", "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@option("--after", metavar="ID", help="Go on after this job, the last of the page before.")
@as_json
@target
def list_(app_name: str | None, url: str | None, json: bool, limit: int, after: str | None, **given: Any) -> None:
    """List dead jobs, newest first."""
    words = Choice.of(given).words
    with opened(app_name, url) as app:
        found = app.jobs.find(**words, state="dead", limit=limit, after=after)
        if json:
            output.document([job_document(job) for job in found])
            return
        output.table(DEAD_COLUMNS, found, empty="no dead jobs" + (" match" if words else ""))
        if found.after is not None:
            output.say(f"more: --after {found.after}")


@dead.command()
@click.argument("id")
@as_json
@target
def show(app_name: str | None, url: str | None, json: bool, id: str) -> None:
    """Show one dead job: error, traceback, every attempt."""
    with opened(app_name, url) as app:
        job = app.jobs.get(id)
        if str(job.state) != "dead":
            raise click.ClickException(f"job {id} is {job.state}, not dead; `dayjob jobs show` shows it")
        if json:
            output.document(job_document(job, whole=True))
        else:
            describe(job)


@dead.command()
@click.argument("ids", nargs=-1)
@filters(state=False)
@option("--all", "everything", is_flag=True, help="All dead jobs.")
@yes
@as_json
@target
def retry(app_name: str | None, url: str | None, json: bool, yes: bool, **given: Any) -> int:
    """Put dead jobs back, by id or by condition. Their history stays."""
    choice = _dead_ones(app_name, url, Choice.of(given, DEAD))
    return act(app_name, url, choice, "retry", "retried", yes=yes, json=json)


@dead.command()
@click.argument("ids", nargs=-1)
@filters(state=False)
@option("--all", "everything", is_flag=True, help="All dead jobs.")
@yes
@as_json
@target
def discard(app_name: str | None, url: str | None, json: bool, yes: bool, **given: Any) -> int:
    """Delete dead jobs for good, by id or by condition."""
    choice = _dead_ones(app_name, url, Choice.of(given, DEAD))
    return act(app_name, url, choice, "delete", "discarded", yes=yes, json=json)


def _dead_ones(app_name: str | None, url: str | None, choice: Choice) -> Choice:
    """Refuse ids of jobs that are not dead: `dead discard` must never delete a job that still waits."""
    if choice.ids:
        with opened(app_name, url) as app:
            for id in choice.ids:
                state = str(app.jobs.get(id).state)
                if state != "dead":
                    raise click.ClickException(f"job {id} is {state}, not dead; nothing was done")
    return choice
