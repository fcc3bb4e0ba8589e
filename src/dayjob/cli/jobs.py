"""`dayjob jobs`: look at jobs and act on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dayjob.cli import output
from dayjob.cli.choice import Choice, act
from dayjob.cli.group import OrderedGroup
from dayjob.cli.options import AHEAD, as_json, filters, option, target, yes
from dayjob.cli.shape import JOB_COLUMNS, arguments, headline, hurdle_text, hurdles, job_document, progress_text
from dayjob.cli.target import opened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from dayjob.job import Job


@click.group(cls=OrderedGroup)
def jobs() -> None:
    """List, show, run, cancel, retry, edit, delete jobs."""


@jobs.command("list")
@filters()
@option("-n", "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@option("--after", metavar="ID", help="Go on after this job, the last of the page before.")
@as_json
@target
def list_(app_name: str | None, url: str | None, json: bool, limit: int, after: str | None, **given: Any) -> None:
    """List jobs, newest first."""
    choice = Choice.of(given)
    with opened(app_name, url) as app:
        found = app.jobs.find(**choice.words, limit=limit, after=after)
        if json:
            output.document([job_document(job) for job in found])
            return
        nothing = "no jobs match" if choice.words else "no jobs"
        output.table(JOB_COLUMNS, found, empty=nothing if found.after is None else "none so far")
        if found.after is not None:
            output.say(f"more: --after {found.after}")


@jobs.command()
@click.argument("id")
@as_json
@target
def show(app_name: str | None, url: str | None, json: bool, id: str) -> None:
    """Show all of one job: arguments, every attempt, error, logs."""
    with opened(app_name, url) as app:
        job = app.jobs.get(id)
        waits = hurdles(job.gating, app.limits.of(job)) if job.gating is not None else []
        if json:
            output.document({**job_document(job, whole=True), **gating_document(job, waits)})
        else:
            describe(job, waits)


@jobs.command()
@click.argument("id")
@option("--pdb", is_flag=True, help="Stop in the debugger where it fails.")
@option("--settle", is_flag=True, help="Keep how it ended: claim it first, settle it afterwards.")
@target
def run(app_name: str | None, url: str | None, id: str, pdb: bool, settle: bool) -> int:
    """Run one stored job here, in this process. Nothing is kept of it unless --settle."""
    from dayjob.cli.single import run_here

    return run_here(app_name, url, id, pdb=pdb, settle=settle)


@jobs.command()
@click.argument("ids", nargs=-1)
@filters()
@option("--all", "everything", is_flag=True, help="All jobs that wait or run.")
@option("--reason", metavar="TEXT", help="Kept with the job.")
@yes
@as_json
@target
def cancel(app_name: str | None, url: str | None, json: bool, yes: bool, reason: str | None, **given: Any) -> int:
    """Cancel jobs by id or by condition: waiting ones at once, running ones within a second."""
    choice = Choice.of(given, ("scheduled", "blocked", "available", "running"))
    return act(app_name, url, choice, "cancel", "cancelled", yes=yes, json=json, reason=reason)


@jobs.command()
@click.argument("ids", nargs=-1)
@filters()
@option("--all", "everything", is_flag=True, help="All dead jobs.")
@yes
@as_json
@target
def retry(app_name: str | None, url: str | None, json: bool, yes: bool, **given: Any) -> int:
    """Put finished jobs back, or let scheduled ones run now. Their history stays. Conditions without --state mean dead jobs."""
    choice = Choice.of(given, ("scheduled", "completed", "cancelled", "dead"), default=("dead",))
    return act(app_name, url, choice, "retry", "retried", yes=yes, json=json)


@jobs.command()
@click.argument("ids", nargs=-1)
@filters()
@option("--all", "everything", is_flag=True, help="All jobs that do not run.")
@yes
@as_json
@target
def delete(app_name: str | None, url: str | None, json: bool, yes: bool, **given: Any) -> int:
    """Delete jobs by id or by condition, with all that was recorded. Running ones are left alone."""
    choice = Choice.of(given, ("scheduled", "blocked", "available", "completed", "cancelled", "dead"))
    return act(app_name, url, choice, "delete", "deleted", yes=yes, json=json)


@jobs.command()
@click.argument("id")
@option("--run-at", metavar="TIME", help="When it is due: a time, a span as in 2h, or now.")
@option("--priority", type=int, help="-100 to 100, higher first.")
@option("-q", "--queue", metavar="NAME", help="Move it to this queue.")
@option("--args", "arguments", metavar="JSON", help="Other arguments: an object by parameter name.")
@as_json
@target
def edit(app_name: str | None, url: str | None, json: bool, id: str, arguments: str | None, **given: Any) -> int:
    """Change a job that waits."""
    changes = {name: value for name, value in given.items() if value is not None}
    if "run_at" in changes:
        changes["run_at"] = _due(changes["run_at"])
    if arguments is not None:
        changes["args"] = _object(arguments)
    if not changes:
        raise click.UsageError("nothing to change: give --run-at, --priority, --queue or --args")
    with opened(app_name, url) as app:
        job = app.jobs.get(id)
        if not job.edit(**changes):
            raise click.ClickException(f"job {id} is {job.refresh().state}; only a job that waits can be edited")
        job.refresh()
        if json:
            output.document(job_document(job))
        else:
            click.echo(f"edited {id}: {', '.join(changes)}")
    return 0


def _due(text: str) -> datetime | str:
    if text == "now":
        return text
    moment: datetime = AHEAD.convert(text, None, click.get_current_context())
    return moment


def _object(text: str) -> dict[str, Any]:
    import msgspec

    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise click.UsageError(f"--args must be a JSON object by parameter name: {error}") from None


def gating_document(job: Job[Any], waits: list[dict[str, Any]]) -> dict[str, Any]:
    """What a job has to wait for: its key, its lane, and each limit as it stands."""
    gating = job.gating
    unique = None if gating is None or gating.unique is None else gating.unique
    return {
        "unique": unique and {"key": unique.key, "until": unique.until, "ttl": unique.ttl},
        "lane": None if gating is None else gating.lane,
        "limits": waits,
    }


def describe(job: Job[Any], waits: Sequence[dict[str, Any]] = ()) -> None:
    """Print all of one job for a person. *waits*: the limits it has to pass, as they stand."""
    gating = job.gating
    attempts = f"{job.attempt} of {job.max_attempts}" if job.max_attempts is not None else str(job.attempt)
    output.facts(
        {
            "id": job.id,
            "task": job.task,
            "queue": job.queue,
            "state": job.state,
            "reason": job.reason,
            "priority": job.priority,
            "attempts": attempts,
            "crashes": job.crashes or None,
            "created": _when(job.created_at),
            "due": _when(job.run_at) if str(job.state) == "scheduled" else None,
            "started": _when(job.started_at),
            "finished": _when(job.finished_at),
            "worker": job.worker,
            "progress": progress_text(job) or None,
            "unique": gating and gating.unique and f"{gating.unique.key}  (until {gating.unique.until})",
            "lane": gating and gating.lane,
            ("waits for" if str(job.state) == "blocked" else "limits"): "\n".join(map(hurdle_text, waits)) or None,
            "tags": ", ".join(job.tags) or None,
            "meta": _lines(job.meta) if job.meta else None,
            "arguments": _lines(arguments(job)),
        }
    )
    for one in job.attempts:
        took = output.span((one.finished_at - one.started_at).total_seconds()) if one.started_at else "not started"
        words = f"{one.error_type}: {one.message}" if one.error_type else one.reason or ""
        click.echo()
        click.echo(
            f"attempt {one.number}  {output.paint(one.outcome, output.STYLES.get(one.outcome, 'yellow'))}  "
            f"{output.moment(one.finished_at)}  {took}  {words.splitlines()[0] if words else ''}".rstrip()
        )
    if job.error is not None:
        click.echo(f"\n{output.paint(headline(job.error), 'red')}")
        if job.error.traceback:
            click.echo(job.error.traceback.rstrip())
    for number, line in enumerate(job.logs()):
        click.echo(f"{'' if number else chr(10)}{output.moment(line.at)}  {line.level}  {line.message}")


def _when(at: datetime | None) -> str | None:
    return f"{output.moment(at)}  ({output.age(at)})" if at is not None else None


def _lines(value: Any) -> str:
    """Names and values, one a line: what a person can read of JSON."""
    import msgspec

    if not value:
        return "none" if value is not None else "not readable with this code"
    return "\n".join(f"{name} = {msgspec.json.encode(part, enc_hook=str).decode()}" for name, part in value.items())
