"""`dayjob queues`: what waits where, the taps, and what holds for a queue as a whole."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from dayjob.cli import output
from dayjob.cli.group import OrderedGroup
from dayjob.cli.options import SPAN, as_json, option, target, yes
from dayjob.cli.shape import QUEUE_COLUMNS, limits_text
from dayjob.cli.target import opened

if TYPE_CHECKING:
    from dayjob.queues import Newcomers

WAITING = ["scheduled", "blocked", "available"]


@click.group(cls=OrderedGroup)
def queues() -> None:
    """List, pause, resume, drain, limit, purge queues."""


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
    """Stop taking jobs from queues. What runs goes on; new jobs are stored and wait."""
    _tap(app_name, url, names, json, paused=True)


@queues.command()
@click.argument("names", nargs=-1, required=True)
@as_json
@target
def resume(app_name: str | None, url: str | None, json: bool, names: tuple[str, ...]) -> None:
    """Take jobs from queues again, and let them take new ones."""
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


class Number(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.4
    """A whole number, or `none`."""

    name = "number|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "none" or isinstance(value, int):
            return None if value == "none" else value
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is no whole number, and not `none`", param, ctx)


class Rate(click.ParamType):  # type: ignore[type-arg]  # the same
    """So many in a time: `10/1s`, `600/1m`, `5/s`, or `none`."""

    name = "rate|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from dayjob.gating import RateLimit

        if value == "none" or isinstance(value, RateLimit):
            return None if value == "none" else value
        found = re.fullmatch(r"(\d{1,18})(?:/(.+))?", value.strip())
        if found is None:
            self.fail(f"{value!r} is no rate; write 10/1s, 600/1m or none", param, ctx)
        per = found[2] or "1s"
        return RateLimit(int(found[1]), per=SPAN.convert(per if per[0].isdigit() else f"1{per}", param, ctx))


@queues.command()
@click.argument("name")
# Not from the environment: DAYJOB_CONCURRENCY is a worker's, and what shows limits must not set them.
@click.option("--max-depth", type=Number(), help="Waiting jobs it takes.")
@click.option("--when-full", type=click.Choice(["raise", "wait", "drop_oldest"]), help="What becomes of those beyond.")
@click.option("--rate", type=Rate(), help="Jobs started in a time, in all workers: 10/1s.")
@click.option("--concurrency", type=Number(), help="Jobs that run at once, in all workers.")
@click.option("--clear", is_flag=True, help="Forget what was said at run time: what code declares holds again.")
@as_json
@target
def limit(app_name: str | None, url: str | None, json: bool, name: str, clear: bool, **given: Any) -> None:
    """Change what holds for a whole queue, for everybody, within a second; `none` takes a limit away. Without options: show it.

    It wins over what code declares (`app.queue(...)`), until --clear.
    """
    context, source = click.get_current_context(), click.core.ParameterSource
    said = {
        "rate_limit" if word == "rate" else word: value
        for word, value in given.items()
        if context.get_parameter_source(word) not in (source.DEFAULT, None)
    }
    if said and clear:
        raise click.UsageError("--clear forgets all limits; it takes no others beside it")
    with opened(app_name, url) as app:
        if clear:
            app.queues.unlimit(name)
        elif said:
            app.queues.limit(name, **said)
        row = next((row for row in app.queues.stats() if row.name == name), None)
    if json:
        limits, origin = (None, None) if row is None else (row.limits, row.limits_from)
        output.document({"queue": name, "limits": limits, "limits_from": origin})
    else:
        click.echo(f"{name}: {limits_text(row)}")


@queues.command()
@click.argument("name")
@option("--timeout", type=SPAN, help="Give up after so long. [default: wait for ever]")
@option(
    "--new",
    type=click.Choice(["accept", "refuse", "hold"]),
    default="accept",
    help="New jobs meanwhile, and until it is resumed: accept, refuse, or hold them back. [default: accept]",
)
@as_json
@target
def drain(app_name: str | None, url: str | None, json: bool, name: str, timeout: float | None, new: Newcomers) -> int:
    """Wait until a queue has finished what is in it, as before a breaking deploy. Workers must run."""
    with opened(app_name, url) as app:
        left = app.queues.drain(name, timeout, new=new)
    if json:
        output.document({"queue": name, "left": left, "new": new})
    elif left:
        output.say(f"dayjob: {output.jobs(left)} left in {name} after {output.span(timeout)}")
    else:
        click.echo(f"{name} is drained")
        if new != "accept":
            verb = "refuses" if new == "refuse" else "holds back"
            click.echo(f"it {verb} new jobs until: dayjob queues resume {name}")
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
