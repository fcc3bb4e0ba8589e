"""`dayjob breakers`: what is held back because something it depends on is failing."""

from __future__ import annotations

import click

from dayjob.cli import output
from dayjob.cli.group import OrderedGroup
from dayjob.cli.options import as_json, target
from dayjob.cli.shape import BREAKER_COLUMNS
from dayjob.cli.target import opened


@click.group(cls=OrderedGroup)
def breakers() -> None:
    """List, open, close breakers."""


@breakers.command("list")
@as_json
@target
def list_(app_name: str | None, url: str | None, json: bool) -> None:
    """List breakers that are open or have seen failures lately."""
    with opened(app_name, url) as app:
        rows = app.breakers.list()
    if json:
        output.document(rows)
    else:
        output.table(BREAKER_COLUMNS, rows, empty="all breakers are closed")


@breakers.command("open")
@click.argument("key")
@as_json
@target
def open_(app_name: str | None, url: str | None, json: bool, key: str) -> None:
    """Hold back all jobs behind a breaker until it is closed by hand. What runs goes on."""
    with opened(app_name, url) as app:
        app.breakers.open(key)
    _say(key, "open", json)


@breakers.command("close")
@click.argument("key")
@as_json
@target
def close(app_name: str | None, url: str | None, json: bool, key: str) -> None:
    """Let jobs through a breaker again, and forget its failures."""
    with opened(app_name, url) as app:
        app.breakers.close(key)
    _say(key, "closed", json)


def _say(key: str, state: str, json: bool) -> None:
    if json:
        output.document({"key": key, "state": state})
    else:
        click.echo(f"{key} is {state}")
