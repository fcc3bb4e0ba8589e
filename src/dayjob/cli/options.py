"""Options that many commands share, each also read from `DAYJOB_<NAME>`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)?")


class Option(click.Option):
    """An option that is also read from the environment: `--max-jobs` from DAYJOB_MAX_JOBS."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        longest = max((part for part in self.opts if part.startswith("--")), key=len)
        self.envvar = "DAYJOB_" + longest.removeprefix("--").replace("-", "_").upper()


def option(*names: str, **settings: Any) -> Decorator:
    """`click.option` with the environment behind it."""
    return click.option(*names, cls=Option, **settings)


class Span(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.4
    """Seconds: `90`, `1.5s`, `10m`, `2h`, `7d`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        found = _SPAN.fullmatch(value.strip())
        if found is None:
            self.fail(f"{value!r} is no duration; write 90, 1.5s, 10m, 2h or 7d", param, ctx)
        return float(found[1]) * _UNITS[found[2] or "s"]


class Limit(Span):
    """A span, or `none` for no limit: infinity here."""

    name = "duration|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        return float("inf") if value == "none" else super().convert(value, param, ctx)


class Moment(click.ParamType):  # type: ignore[type-arg]  # the same
    """A point in time: an ISO date and time (without a zone: local time), or how long ago or ahead, as in `2h`."""

    name = "time"

    def __init__(self, *, ahead: bool) -> None:
        self._sign = 1 if ahead else -1

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        text = value.strip()
        if span := _SPAN.fullmatch(text.removeprefix("+").removeprefix("-")):
            away = timedelta(seconds=float(span[1]) * _UNITS[span[2] or "s"])
            return datetime.now(UTC) + self._sign * away
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{value!r} is no time; write 2026-05-01T12:00:00Z, or a span as in 2h or 7d", param, ctx)
        return moment.astimezone()


SPAN, LIMIT, AGO, AHEAD = Span(), Limit(), Moment(ahead=False), Moment(ahead=True)


def target(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--app` and `--url`: where the jobs are."""
    command = option("--url", metavar="URL", help="The store; wins over the app's own.")(command)
    return option("-A", "--app", "app_name", metavar="MODULE:APP", help="The app.")(command)


as_json = option("--json", "json", is_flag=True, help="One JSON document instead of a table.")
yes = option("-y", "--yes", is_flag=True, help="Do not ask.")


def filters(*, state: bool = True) -> Decorator:
    """The conditions that choose jobs; all that are given must hold."""
    given = [
        option("-q", "--queue", metavar="NAME", help="Of this queue."),
        option("-t", "--task", metavar="NAME", help="Of this task."),
        option("--tag", metavar="TAG", help="With this tag."),
        option("--since", type=AGO, help="Created since (2h, 7d, 2026-05-01)."),
        option("--text", metavar="TEXT", help="With this text in id, task, tags or meta."),
    ]
    if state:
        choices = click.Choice(["scheduled", "blocked", "available", "running", "completed", "cancelled", "dead"])
        given.insert(0, option("-s", "--state", multiple=True, type=choices, help="In this state; may be repeated."))

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for add in reversed(given):
            command = add(command)
        return command

    return decorate
