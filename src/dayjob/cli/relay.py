"""`dayjob relay`: carry jobs from an outbox to their store, and look after the outbox."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from dayjob.cli import output
from dayjob.cli.options import SPAN, as_json, option, target, yes
from dayjob.cli.shape import FAILED_COLUMNS
from dayjob.cli.target import load_app, opened

if TYPE_CHECKING:
    from dayjob import App
    from dayjob.outbox.desk import Desk
    from dayjob.outbox.relay import OutboxRelay

SHOWN, SHOWN_JSON = 100, 10_000
"""Rows that were set aside, as many as are listed."""

_CARE = ("migrate", "sql", "failed", "retry", "discard")


@click.command()
@option("--from", "source", required=True, metavar="URL", help="The application's database, where the outbox is.")
@option("--batch", type=click.IntRange(1, 1000), default=500, show_default=True, help="Jobs in one go.")
@option(
    "--poll", type=SPAN, metavar="DURATION", help="Look so often while nothing waits. [default: 0.5s; a file: 50ms]"
)
@option(
    "--lease", type=SPAN, default=10.0, metavar="DURATION", help="Stand in for a relay silent so long. [default: 10s]"
)
@option("--burst", is_flag=True, help="Stop when nothing waits; exit status 1 when it cannot be delivered.")
@option("--migrate", is_flag=True, help="Make the outbox's tables, and stop.")
@option("--sql", is_flag=True, help="Print the SQL that makes them, and run nothing.")
@option("--failed", is_flag=True, help="List the rows that were set aside.")
@option("--retry", metavar="ID|all", multiple=True, help="Let rows that were set aside wait again; may be repeated.")
@option("--discard", metavar="ID|all", multiple=True, help="Delete rows that were set aside; may be repeated.")
@yes
@as_json
@target
def relay(app_name: str | None, url: str | None, source: str, json: bool, yes: bool, **given: Any) -> int:
    """Carry jobs from an outbox to their store, until told to stop.

    --from is the application's database (PostgreSQL, SQLite; MySQL and MariaDB with SQLAlchemy installed), --url or --app the
    store of the queue. Several may run at once: one works, the others stand by.
    """
    chosen = [name for name in _CARE if given[name]]
    if len(chosen) > 1:
        raise click.UsageError(f"--{chosen[0]} and --{chosen[1]}: one at a time")
    if chosen:
        return _care(chosen[0], app_name, source, given, yes=yes, json=json)
    if not 0.3 <= given["lease"] <= 3600:
        raise click.UsageError("--lease must be between 0.3 seconds and an hour")
    with opened(app_name, url) as app, closing(_relay(app, source, given)) as one:
        return _burst(one) if given["burst"] else _run(app, one)


# -- delivering ----------------------------------------------------------------------------------------------------


def _relay(app: App, source: str, given: dict[str, Any]) -> OutboxRelay:
    from dayjob.ids import new_id
    from dayjob.outbox.desk import Desk
    from dayjob.outbox.relay import OutboxRelay
    from dayjob.outbox.source import Source
    from dayjob.outbox.tables import table_of

    database = Source(source)
    poll = given["poll"] if given["poll"] is not None else 0.05 if database.local else 0.5
    holder = f"{socket.gethostname()[:100]}:{os.getpid()}:{new_id()[-12:]}"
    desk = Desk(database, table_of(app.namespace), holder, given["lease"])
    return OutboxRelay(desk, app.store, app.bus, batch=given["batch"], poll=max(0.005, poll), lease=given["lease"])


def _burst(one: OutboxRelay) -> int:
    _heed(one)
    while not (one.idle or one.stopping):
        one.tick()
    if one.stopping and not one.idle:
        raise click.ClickException(f"told to stop after {output.jobs(one.delivered)}: more may wait")
    if not one.leads:
        raise click.ClickException(
            "another relay has the outbox, or died less than its --lease ago: nothing was done here"
        )
    output.say(f"delivered {output.jobs(one.delivered)}, set aside {one.refused:,}")
    return 0


def _run(app: App, one: OutboxRelay) -> int:
    from dayjob.outbox.source import SourceUnavailable
    from dayjob.telemetry.logs import follow

    follow(app.bus, os.environ)
    try:
        one.desk.check()  # what no patience cures is told at once
    except SourceUnavailable as error:
        output.say(f"cannot reach the application's database yet: {error}")
    fatal: list[BaseException] = []
    one.on_fatal(fatal.append)
    _heed(one)
    output.say(f"relaying from {one.desk.name} to {app.store.url}; Ctrl-C ends it")
    one.start()
    while not one.join(0.5):  # signals are heard when this thread wakes, to whatever thread the kernel gave them
        pass
    if fatal:
        raise click.ClickException(str(fatal[0]))
    return 0


def _heed(one: OutboxRelay) -> None:
    """Stop *one* in order when told to; told again, die at once, which does no harm either."""

    def told(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        one.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)


# -- looking after -------------------------------------------------------------------------------------------------


def _care(what: str, app_name: str | None, source: str, given: dict[str, Any], *, yes: bool, json: bool) -> int:
    from dayjob.outbox.desk import Desk
    from dayjob.outbox.source import Source
    from dayjob.outbox.tables import schema_sql, table_of

    database = Source(source)
    namespace = "dayjob"
    if app_name is not None or os.environ.get("DAYJOB_APP"):
        namespace = load_app(app_name).namespace
    desk = Desk(database, table_of(namespace))
    if what == "sql":
        click.echo(schema_sql(database.system, desk.table), nl=False)
        return 0
    with closing(database):
        if what == "migrate":
            desk.make()
            desk.check()
            output.say(f"{desk.table} is in {database.name}")
            return 0
        desk.check()
        if what == "failed":
            return _list(desk, json=json)
        return _act(desk, what, given[what], yes=yes)


def _list(desk: Desk, *, json: bool) -> int:
    limit = SHOWN_JSON if json else SHOWN
    rows = desk.failed(limit)
    if json:
        output.document(rows)
    else:
        output.table(FAILED_COLUMNS, rows, empty="no row was set aside")
    if len(rows) == limit and (more := desk.standing().failed - limit) > 0:
        output.say(f"and {more:,} more" + ("" if json else f"; --json lists up to {SHOWN_JSON:,}"))
    return 0


def _act(desk: Desk, what: str, words: tuple[str, ...], *, yes: bool) -> int:
    if "all" in words and len(words) > 1:
        raise click.UsageError(f"--{what} all, or --{what} with ids; not both")
    ids = None if words == ("all",) else set(words)
    if what == "discard":
        count = desk.standing().failed if ids is None else len(ids)
        output.ask(f"discard {output.jobs(count)} for good?", yes=yes)
    done = (desk.retry if what == "retry" else desk.discard)(ids)
    output.say(f"{'retried' if what == 'retry' else 'discarded'} {output.jobs(done)}")
    if ids is not None and done < len(ids):
        raise click.ClickException(f"{len(ids) - done:,} of the ids are not set aside in {desk.source.name}")
    return 0
