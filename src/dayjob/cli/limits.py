"""`dayjob limits`: how full the limits are, and other numbers for them while everything runs."""

from __future__ import annotations

import click

from dayjob.cli import output
from dayjob.cli.group import OrderedGroup
from dayjob.cli.options import SPAN, as_json, option, target
from dayjob.cli.shape import LIMIT_COLUMNS
from dayjob.cli.target import opened

KIND = click.Choice(["concurrency", "rate"])
MOST = 1_000
"""Limits that are listed."""


@click.group(cls=OrderedGroup)
def limits() -> None:
    """List limits, and change their numbers."""


@limits.command("list")
@as_json
@target
def list_(app_name: str | None, url: str | None, json: bool) -> None:
    """List what is taken or waited for: concurrency, rates, strict lanes, breakers."""
    with opened(app_name, url) as app:
        rows = app.limits.list()
    if json:
        output.document(rows)
    else:
        output.table(LIMIT_COLUMNS, rows, empty="no limit is taken or waited for")
        if len(rows) >= MOST:
            output.say(
                f"dayjob: these are the first {MOST:,}, by kind and key; `dayjob jobs show ID` tells of a job's own"
            )


@limits.command("set")
@click.argument("kind", type=KIND)
@click.argument("key")
@click.argument("limit", type=int)
@option("--per", type=SPAN, help="Of a rate: in so many seconds. [default: 1]")
@as_json
@target
def set_(app_name: str | None, url: str | None, json: bool, kind: str, key: str, limit: int, per: float | None) -> None:
    """Let LIMIT pass the limit KEY from now on, whatever code says."""
    with opened(app_name, url) as app:
        app.limits.set(kind, key, limit, per)  # type: ignore[arg-type]  # one of the two, by the choice above
    if json:
        output.document({"kind": kind, "key": key, "limit": limit, "per": (per or 1.0) if kind == "rate" else None})
    else:
        click.echo(f"{kind} {key}: {limit:,}" + (f" in {output.span(per or 1.0)}" if kind == "rate" else " at once"))


@limits.command()
@click.argument("kind", type=KIND)
@click.argument("key")
@as_json
@target
def clear(app_name: str | None, url: str | None, json: bool, kind: str, key: str) -> None:
    """Let what code says hold again."""
    with opened(app_name, url) as app:
        app.limits.reset(kind, key)  # type: ignore[arg-type]  # one of the two, by the choice above
    if json:
        output.document({"kind": kind, "key": key, "limit": None, "per": None})
    else:
        click.echo(f"{kind} {key}: as code says")
