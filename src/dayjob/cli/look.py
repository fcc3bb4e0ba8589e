"""`dayjob workers`, `stats` and `events`: who works, how much, and what happens."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from dayjob.cli import output
from dayjob.cli.options import as_json, target
from dayjob.cli.shape import QUEUE_COLUMNS, WORKER_COLUMNS
from dayjob.cli.target import opened

if TYPE_CHECKING:
    from dayjob import App

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
    """Everything in numbers: jobs by state, rates of the last minute, queues, workers."""
    with opened(app_name, url) as app:
        document = _stats(app)
    if json:
        output.document(document)
        return
    states = document["jobs"]
    click.echo("  ".join(f"{output.paint(name, output.STYLES[name])} {output.number(states[name])}" for name in STATES))
    rates = (
        ", ".join(f"{name} {value:,.1f}/s" for name, value in sorted(document["rates"].items())) or "nothing happened"
    )
    click.echo(f"last minute: {rates}")
    people = document["workers"]
    click.echo(f"workers: {people['alive']} alive, {people['running']} of {people['slots']} slots in use")
    if document["queues"]:
        click.echo()
        output.table(QUEUE_COLUMNS, document["queues"], empty="")


def _stats(app: App) -> dict[str, Any]:
    queues, people = app.queues.stats(), app.workers()
    counts: Counter[str] = Counter(dict.fromkeys(STATES, 0))
    rates: Counter[str] = Counter()
    for queue in queues:
        counts.update(queue.counts)
        rates.update(queue.rates)  # type: ignore[arg-type]  # Counter adds floats as well
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
    }
