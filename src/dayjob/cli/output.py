"""What the command line prints: one JSON document, a table with colour on a terminal, or plain aligned text."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

STYLES = {
    "scheduled": "cyan",
    "blocked": "magenta",
    "available": "blue",
    "running": "yellow",
    "completed": "green",
    "cancelled": "bright_black",
    "dead": "red",
    "paused": "yellow",
    "active": "green",
    "open": "red",
    "probing": "yellow",
    "closed": "green",
    "ok": "green",
    "warning": "yellow",
}
"""Words that carry a colour wherever they stand alone in a cell."""


class Column(NamedTuple):
    """One column of a table: its title, how a row fills it, and where it leans.

    On a terminal that is too narrow wide columns are shortened first, then those with the largest `spare` left out.
    """

    title: str
    value: Callable[[Any], str]
    right: bool = False
    wide: bool = False
    spare: int = 0


def document(value: Any) -> None:
    """Print *value* as one JSON document; dates as ISO 8601 in UTC."""
    import msgspec

    data = msgspec.json.encode(value, enc_hook=_encode)
    if sys.stdout.isatty():
        data = msgspec.json.format(data, indent=2)
    click.echo(data.decode())


def _encode(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return str(value)


def on_terminal() -> bool:
    """True when a person looks at stdout."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def table(columns: Sequence[Column], rows: Iterable[Any], *, empty: str) -> None:
    """Print *rows* as a table, or the sentence *empty* when there are none."""
    lines = [[column.value(row) for column in columns] for row in rows]
    if not lines:
        click.echo(empty)
        return
    if on_terminal():
        try:
            from dayjob.cli.terminal import draw
        except ImportError:  # rich is an extra
            pass
        else:
            draw(columns, lines)
            return
    _plain(columns, lines)


def _plain(columns: Sequence[Column], lines: list[list[str]]) -> None:
    titles = [column.title.upper() for column in columns]
    widths = [max(len(line[i]) for line in [titles, *lines]) for i in range(len(columns))]
    for line in [titles, *lines]:
        cells = (
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        )
        click.echo("  ".join(cells).rstrip())


def facts(pairs: Mapping[str, Any], *, indent: str = "") -> None:
    """Print names and values, aligned; values that are None are left out."""
    shown = {name: text(value) for name, value in pairs.items() if value is not None}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        head, *rest = value.splitlines() or [""]
        click.echo(f"{indent}{paint(name.ljust(width), 'bright_black')}  {paint(head, STYLES.get(head))}")
        for line in rest:
            click.echo(f"{indent}{' ' * width}  {line}")


def paint(words: str, colour: str | None, *, bold: bool = False) -> str:
    """*words* in *colour* on a terminal, plain elsewhere."""
    if (colour is None and not bold) or not on_terminal() or os.environ.get("NO_COLOR"):
        return words
    return click.style(words, fg=colour, bold=bold)


def say(message: str) -> None:
    """Tell what was done, on stderr where it does not get into a pipe's data."""
    click.echo(message, err=True)


def text(value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.3g}"
    return str(value.value) if isinstance(value, Enum) else str(value)


def moment(at: datetime | None) -> str:
    """A point in time in the local zone."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at is not None else "-"


def age(at: datetime | None) -> str:
    """How long ago *at* was, or how far ahead."""
    if at is None:
        return "-"
    away = (datetime.now(UTC) - at).total_seconds()
    return f"{span(away)} ago" if away >= 0 else f"in {span(-away)}"


def span(seconds: float | None) -> str:
    """Seconds as a person says them: 12 ms, 3.4 s, 5 min, 2.5 h, 3 d."""
    if seconds is None:
        return "-"
    for limit, unit, name in ((1, 0.001, "ms"), (60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h")):
        if seconds < limit:
            value = seconds / unit
            return f"{value:.1f} {name}" if value < 10 and name != "ms" else f"{value:.0f} {name}"
    return f"{seconds / 86_400:.1f} d"


def number(value: float) -> str:
    """A count with thousands apart."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def ask(question: str, *, yes: bool) -> None:
    """Go on only with consent: `--yes`, or a person who says so. Without either nothing is done."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody is here to ask: add --yes.")
    if not click.confirm(question, err=True):
        raise click.Abort


def jobs(count: int) -> str:
    """`1 job`, `12 jobs`."""
    return f"{count:,} job{'' if count == 1 else 's'}"
