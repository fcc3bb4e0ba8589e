"""`dayjob enqueue`: store one job."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import click

from dayjob.cli import output
from dayjob.cli.options import AHEAD, LIMIT, SPAN, as_json, option, target
from dayjob.cli.shape import job_document
from dayjob.cli.target import opened

if TYPE_CHECKING:
    from datetime import datetime


@click.command()
@click.argument("task")
@option(
    "--args", "arguments", metavar="JSON", default="{}", help="The arguments: an object by parameter name; - is stdin."
)
@option("-q", "--queue", metavar="NAME", help="Another queue than the task's own.")
@option("--delay", type=SPAN, help="Not before so long from now.")
@option("--run-at", type=AHEAD, metavar="TIME", help="Not before this time.")
@option("--priority", type=int, help="-100 to 100, higher first.")
@option("--max-attempts", type=int, help="Attempts in all.")
@option("--timeout", type=LIMIT, help="Time limit of an attempt; none for no limit.")
@option("--expires", type=SPAN, help="Cancel it when it has not started by then.")
@option("--tag", "tags", multiple=True, help="A tag; may be repeated.")
@option("--unique", metavar="KEY", help="One job of the task with this key at a time.")
@option("--id", help="An id of your own (a UUID): repeating the command stores the job once.")
@option("--wait", type=SPAN, help="Wait so long for its result, and print it.")
@as_json
@target
def enqueue(app_name: str | None, url: str | None, json: bool, **given: Any) -> int:
    """Store one job of TASK and print its id.

    With the app's code at hand the arguments are checked against the task; with a store alone they are stored as they are.
    """
    import msgspec

    task, wait = given.pop("task"), given.pop("wait")
    arguments = given.pop("arguments")
    try:
        values = msgspec.json.decode(sys.stdin.buffer.read() if arguments == "-" else arguments)
    except msgspec.DecodeError as error:
        raise click.UsageError(f"--args is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise click.UsageError(f"--args must be a JSON object by parameter name, not {type(values).__name__}")
    with opened(app_name, url, code=True) as app:
        if app.registry.names():
            app.registry.get(task)  # a typing error must not become a job that no worker knows
        job = app.enqueue(task, values, **_options(given))
        if wait is None:
            if json:
                output.document(job_document(job))
            else:
                click.echo(job.id)
                if job.outcome not in (None, "inserted"):
                    click.echo(f"{job.outcome}: its key was held, this is the job that has it", err=True)
            return 0
        result = job.result(timeout=wait)
        output.document({"id": job.id, "result": result} if json else result)
    return 0


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """Only what was given, in the words of the facade."""
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None and value != ()}
    if "tags" in options:
        options["tags"] = list(options["tags"])
    if "max_attempts" in options:
        options["retry"] = options.pop("max_attempts")
    if options.get("timeout") == math.inf:
        options["timeout"] = None
    run_at: datetime | None = options.get("run_at")
    if run_at is not None and "delay" in options:
        raise click.UsageError("--delay and --run-at exclude each other")
    return options
