"""`dayjob migrate` and `dayjob doctor`: the store's schema, and its health."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from dayjob.cli import output
from dayjob.cli.options import as_json, option, target
from dayjob.cli.target import located
from dayjob.errors import DayjobError, SchemaMismatch
from dayjob.outbox.report import read as outboxes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dayjob import App
    from dayjob.queues import WorkerStats
    from dayjob.store.contract import MigrationPart


@click.command()
@option("--check", is_flag=True, help="Only look; exit status 1 when something is due.")
@option("--sql", is_flag=True, help="Print the SQL, and run nothing.")
@option("--pre", is_flag=True, help="Only what this release adds: before its first worker starts.")
@option("--post", is_flag=True, help="Only what the previous release leaves: when its last worker has gone.")
@option(
    "--roles", is_flag=True, help="Create the group roles owner, worker, producer and viewer instead, or mend them."
)
@as_json
@target
def migrate(
    app_name: str | None, url: str | None, json: bool, check: bool, sql: bool, pre: bool, post: bool, roles: bool
) -> int:
    """Bring the store's schema up to date, or its roles."""
    if roles and (check or pre or post):
        raise click.UsageError("--roles goes with --sql alone: roles have no parts, and making them twice does no harm")
    part: MigrationPart | None = "roles" if roles else None if pre == post else "pre" if pre else "post"
    with contextlib.closing(located(app_name, url)) as app:
        if sql:
            click.echo(app.bare_store.migration_sql(part=part), nl=False)
            return 0
        due = app.migrate(dry_run=True, part=part)
        applied = [] if check else app.migrate(part=part)
    if json:
        output.document({"due": due if check else [], "applied": applied})
    elif check:
        click.echo("\n".join(f"due: {name}" for name in due) or "the schema is up to date")
    elif roles:
        click.echo("\n".join(f"role: {name}" for name in applied))
        click.echo(f"\nto let a login role in: GRANT {applied[1]} TO its_name;")
    else:
        click.echo("\n".join(f"applied: {name}" for name in applied) or "the schema is up to date")
    return 1 if check and due else 0


class Finding(Struct, frozen=True):
    """One thing the doctor looked at: `ok`, `note` (worth knowing) or `problem`."""

    level: str
    about: str
    text: str


@click.command()
@as_json
@target
def doctor(app_name: str | None, url: str | None, json: bool) -> int:
    """Look for what is wrong, and say how to mend it. Exit status 1 when there is a problem."""
    findings = [_versions()]
    try:
        with contextlib.closing(located(app_name, url)) as app:
            findings += _store(app)
            if findings[-1].about != "schema" or findings[-1].level == "ok":
                findings += _work(app)
    except click.ClickException as error:
        findings.append(Finding("problem", "app", error.format_message()))
    except DayjobError as error:
        findings.append(Finding("problem", "store", str(error)))
    problems = sum(one.level == "problem" for one in findings)
    if json:
        output.document({"healthy": not problems, "findings": findings})
    else:
        for one in findings:
            mark, colour = {"ok": ("ok", "green"), "note": ("--", "yellow"), "problem": ("!!", "red")}[one.level]
            click.echo(f"{output.paint(mark, colour)}  {one.about:<9} {one.text}")
        click.echo(f"\n{problems} problem{'' if problems == 1 else 's'}" if problems else "\nall is well")
    return 1 if problems else 0


def _versions() -> Finding:
    from importlib.metadata import version

    have = [f"dayjob {version('dayjob')}", f"Python {sys.version.split()[0]}", f"msgspec {version('msgspec')}"]
    for extra in ("rich", "psutil", "psycopg", "redis"):
        with contextlib.suppress(ModuleNotFoundError):
            have.append(f"{extra} {version(extra)}")
    return Finding("ok", "versions", ", ".join(have))


def _store(app: App) -> list[Finding]:
    """What the store says of itself; the last finding is about the schema."""
    health = app.check()
    found = [Finding("ok", "store", f"{health.engine}, {app.bare_store.url}")]
    found += [Finding("ok", "store", f"{name}: {value}") for name, value in health.facts.items()]
    found += [Finding("problem", "store", warning) for warning in health.warnings]
    if health.schema == health.wanted:
        return [*found, Finding("ok", "schema", f"version {health.schema}")]
    return [*found, Finding("problem", "schema", str(SchemaMismatch(health.schema, health.wanted)))]


def _work(app: App) -> list[Finding]:
    """What the jobs, queues and workers tell."""
    people, queues = app.workers(), app.queues.stats()
    found = [_staff(people, sum(queue.counts["available"] for queue in queues))]
    for queue in queues:
        if queue.paused:
            waiting = output.jobs(queue.counts["available"])
            remedy = f"dayjob queues resume {queue.name}"
            found.append(Finding("note", "queues", f"{queue.name} is paused, {waiting} wait in it: {remedy}"))
        elif people and queue.counts["available"] and not any(_serves(one.queues, queue.name) for one in people):
            found.append(Finding("problem", "queues", f"no worker takes from {queue.name}: add -q {queue.name} to one"))
    found += [*_outboxes(app), *_schedules(app)]
    if dead := sum(queue.counts["dead"] for queue in queues):
        found.append(Finding("note", "dead", f"{output.jobs(dead)} in the dead-letter queue: dayjob dead list"))
    return found


def _schedules(app: App) -> list[Finding]:
    """How the schedules stand; what does not tick is said one by one."""
    found, ticking = [], 0
    for one in app.schedules.list():
        if one.state == "orphaned":
            remedy = f"dayjob schedules delete {one.name}, or set it to keep it"
            found.append(
                Finding("problem", "schedules", f"{one.name} rests, as no worker's code declares it any more: {remedy}")
            )
        elif one.state == "paused":
            found.append(Finding("note", "schedules", f"{one.name} is paused: dayjob schedules resume {one.name}"))
        else:
            ticking += one.state == "active"
    return [Finding("ok", "schedules", f"{ticking:,} tick"), *found] if ticking or found else []


def _outboxes(app: App) -> list[Finding]:
    """How the outboxes stand that are relayed into this store."""
    found = []
    for one in outboxes(app.store):
        if one.silent:
            text = f"no relay of {one.name} was heard of for {output.span(one.heard)}: dayjob relay --from URL"
        elif one.error:
            text = f"{one.name} is not delivered: {one.error}"
        elif one.failed:
            text = f"{output.jobs(one.failed)} set aside in {one.name}: dayjob relay --from URL --failed"
        else:
            found.append(Finding("ok", "outbox", f"{one.name}: {one.waiting:,} waiting"))
            continue
        found.append(Finding("problem", "outbox", text))
    return found


def _staff(people: Sequence[WorkerStats], waiting: int) -> Finding:
    if not people:
        text = "none is alive: start one with `dayjob worker`"
        return Finding("note", "workers", f"{text}; {output.jobs(waiting)} wait" if waiting else text)
    if not any(one.leader for one in people):
        return Finding("problem", "workers", f"{len(people)} alive, but none leads: nothing is staged or rescued")
    return Finding("ok", "workers", f"{len(people)} alive")


def _serves(queues: str, name: str) -> bool:
    return queues == "*" or name in (part.partition(":")[0].strip() for part in queues.replace(",", " ").split())
