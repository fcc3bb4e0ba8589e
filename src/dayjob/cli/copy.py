"""`dayjob copy`: move to another store."""

from __future__ import annotations

import contextlib
import signal
import time
from typing import TYPE_CHECKING

import click
import msgspec

from dayjob.cli import output
from dayjob.cli.options import as_json, option
from dayjob.states import State

if TYPE_CHECKING:
    from dayjob.copier import Count, Report

EVERY = 2.0
"""Seconds between two lines that say how far it is."""


@click.command()
@option("--from", "source", metavar="URL", required=True, help="The store that has the jobs.")
@option(
    "--to",
    "target",
    metavar="URL",
    required=True,
    help="The store that is to have them; its schema is made if missing.",
)
@option(
    "--live", is_flag=True, help="Workers and producers go on; follow them until no worker is left in the old store."
)
@option("--dry-run", is_flag=True, help="Only count.")
@as_json
def copy(source: str, target: str, live: bool, dry_run: bool, json: bool) -> int:
    """Move jobs, pauses, records and history from one store to another. Killed or stopped, it goes on when called again.

    Waiting jobs are moved: in the old store they are cancelled with a reason that says where they went. Finished jobs
    are copied.
    """
    from dayjob import App
    from dayjob.copier import Copier

    with contextlib.closing(App(source)) as old, contextlib.closing(App(target)) as new:
        copier = Copier(old.bare_store, new.bare_store, live=live, told=_Teller())
        stopped = False
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            if live and not dry_run:
                output.say(f"dayjob: following {copier.report.source} until no worker is left there; Ctrl-C stops")
            report = copier.plan() if dry_run else copier.run()
        except KeyboardInterrupt:
            report, stopped = copier.stopped(), True
        finally:
            signal.signal(signal.SIGTERM, before)
    if json:
        output.document({**msgspec.structs.asdict(report), "whole": report.whole and not stopped})
    else:
        _show(report, stopped)
    return 1 if stopped or not (dry_run or report.whole) else 0


class _Teller:
    """Says now and then, on stderr, how far the copy is."""

    def __init__(self) -> None:
        self._next = time.monotonic() + EVERY

    def __call__(self, report: Report) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            jobs = sum(report.counts[state].copied for state in State if state in report.counts)
            output.say(f"dayjob: {output.jobs(jobs)} copied so far")


def _show(report: Report, stopped: bool) -> None:
    rows = [(name, count) for name, count in report.counts.items() if count.found]
    output.table(COLUMNS, rows, empty="nothing has arrived yet" if stopped else "there is nothing to copy")
    for problem in report.problems:
        output.say(f"dayjob: {problem.what}: {problem.why}")
    if report.dry_run:
        click.echo(f"nothing was written; without --dry-run this goes from {report.source} to {report.target}")
        return
    figures = ((report.waiting, "waiting"), (report.running, "running"), (report.on_way, "on their way"))
    left = [f"{output.jobs(n)} {word}" for n, word in figures if n]
    if report.whole and not stopped:
        click.echo(f"everything is in {report.target}")
    else:
        what = ", ".join(left) or "no job"
        click.echo(
            f"{'stopped; ' if stopped else ''}left in {report.source}: {what}. Run the same command again to go on."
        )


def _figure(field: str) -> output.Column:
    def value(row: tuple[str, Count]) -> str:
        return f"{getattr(row[1], field):,}"

    return output.Column(field, value, right=True)


COLUMNS = [
    output.Column("what", lambda row: row[0]),
    *map(_figure, ("found", "copied", "there", "over", "left", "refused")),
]
