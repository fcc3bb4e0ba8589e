"""`dayjob workers`, `stats` and `events`: who works, how much, and what happens."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from dayjob.cli import output
from dayjob.cli.options import SPAN, as_json, option, target
from dayjob.cli.shape import BREAKER_COLUMNS, LIMIT_COLUMNS, OUTBOX_COLUMNS, QUEUE_COLUMNS, WORKER_COLUMNS
from dayjob.cli.target import opened
from dayjob.outbox.report import read as outboxes

if TYPE_CHECKING:
    from dayjob import App
    from dayjob.events import Event

STATES = ("scheduled", "blocked", "available", "running", "completed", "cancelled", "dead")


@click.command()
@as_json
@target
def workers(app_name: str | None, url: str | None, json: bool) -> None:
    """The workers that are alive, as their last beat told."""
    with opened(app_name, url) as app:
        rows = app.workers()
    if json:
        output.document(rows)
    else:
        output.table(WORKER_COLUMNS, rows, empty="no workers: start one with `dayjob worker`")


@click.command()
@as_json
@target
def stats(app_name: str | None, url: str | None, json: bool) -> None:
    """Everything in numbers: jobs by state, rates of the last minute, queues, workers, limits, breakers, outboxes."""
    with opened(app_name, url) as app:
        document = _stats(app)
    if json:
        output.document(document)
        return
    states = document["jobs"]
    click.echo("  ".join(f"{output.paint(name, output.STYLES[name])} {output.number(states[name])}" for name in STATES))
    rates = {name: value for name, value in sorted(document["rates"].items()) if ":" not in name and value}
    happened = ", ".join(f"{name} {value:,.2g}/s" for name, value in rates.items()) or "nothing happened"
    click.echo(f"last minute: {happened}")
    people = document["workers"]
    click.echo(f"workers: {people['alive']} alive, {people['running']} of {people['slots']} slots in use")
    if document["queues"]:
        click.echo()
        output.table(QUEUE_COLUMNS, document["queues"], empty="")
    if document["limits"]:
        click.echo()
        output.table(LIMIT_COLUMNS, document["limits"], empty="")
    if document["breakers"]:
        click.echo()
        output.table(BREAKER_COLUMNS, document["breakers"], empty="")
    if document["outboxes"]:
        click.echo()
        output.table(OUTBOX_COLUMNS, document["outboxes"], empty="")


def _stats(app: App) -> dict[str, Any]:
    queues, people = app.queues.stats(), app.workers()
    counts: Counter[str] = Counter(dict.fromkeys(STATES, 0))
    rates: Counter[str] = Counter()
    for queue in queues:
        counts.update(queue.counts)
        rates.update(queue.rates)
    oldest = [queue.oldest for queue in queues if queue.oldest is not None]
    return {
        "jobs": dict(counts),
        "rates": dict(rates),
        "oldest": max(oldest, default=None),
        "workers": {
            "alive": len(people),
            "slots": sum(one.concurrency for one in people),
            "running": sum(one.running for one in people),
        },
        "queues": queues,
        "limits": app.limits.list(),
        "breakers": app.breakers.list(),
        "outboxes": outboxes(app.store),
    }


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@option("--for", "seconds", type=SPAN, metavar="DURATION", help="Stop after so long. [default: go on]")
@option("--json", "json", is_flag=True, help="One JSON object a line.")
@target
def events(app_name: str | None, url: str | None, json: bool, seconds: float | None, names: tuple[str, ...]) -> None:
    """Follow what happens in all processes, from now on, until Ctrl-C.

    NAME is an event (job.dead) or a kind of events (job, worker, store); none: all.
    """
    import time

    from dayjob.events import encode

    until = None if seconds is None else time.monotonic() + seconds
    with opened(app_name, url) as app, app.events(*names) as stream:
        if not json:
            output.say("listening; Ctrl-C ends it")
        while until is None or time.monotonic() < until:
            for event in stream.take(1.0 if until is None else max(0.0, min(1.0, until - time.monotonic()))):
                click.echo(encode(event) if json else _line(event))


def _line(event: Event) -> str:
    """An event as a person reads it: when, what, to which job, and the rest but the long texts; cut to the terminal."""
    import shutil

    import msgspec

    from dayjob.clock import from_stamp

    fields = msgspec.structs.asdict(event)
    at = from_stamp(fields.pop("at")).astimezone().strftime("%H:%M:%S.%f")[:-3]
    whom = [str(fields.pop(name)) for name in ("id", "task", "queue") if fields.get(name)]
    rest = [
        f"{name} {output.span(value) if name in _SPANS else output.text(value)}"
        for name, value in fields.items()
        if name not in _LONG and value not in (None, "")
    ]
    words = "  ".join([*whom, *rest])
    if output.on_terminal():
        words = words[: max(40, shutil.get_terminal_size().columns - len(at) - 19)]
    colour = next((colour for word, colour in _COLOURS.items() if word in event.name), None)
    return f"{output.paint(at, 'bright_black')}  {output.paint(event.name.ljust(15), colour)}  {words}"


_LONG = ("traceback", "stack")
_SPANS = ("waited", "duration", "delay", "retry_in", "outage", "grace", "restart_in")
_COLOURS = {
    "dead": "red",
    "failed": "red",
    "lost": "red",
    "died": "red",
    "stalled": "yellow",
    "blocked": "yellow",
    "unavailable": "red",
    "completed": "green",
    "retried": "yellow",
}
