"""`dayjob migrate` and `dayjob doctor`: the store's schema, and its health."""

from __future__ import annotations

import contextlib
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from dayjob.cli import output
from dayjob.cli.options import as_json, option, target
from dayjob.cli.target import store_of
from dayjob.errors import DayjobError, NotSupported, SchemaMismatch, StoreError

if TYPE_CHECKING:
    from dayjob.store.contract import Store


@click.command()
@option("--check", is_flag=True, help="Only look; exit status 1 when something is due.")
@option("--sql", is_flag=True, help="Print the SQL that is due, and run nothing.")
@option("--pre", is_flag=True, help="Not part of this release.")
@option("--post", is_flag=True, help="Not part of this release.")
@as_json
@target
def migrate(app_name: str | None, url: str | None, json: bool, check: bool, sql: bool, pre: bool, post: bool) -> int:
    """Bring the store's schema up to date."""
    if pre or post:
        raise NotSupported("--pre" if pre else "--post", "this engine's migrations have one part")
    with store_of(app_name, url) as store:
        due = store.migrate(dry_run=True)
        if sql:
            click.echo(_sql(store, due), nl=False)
            return 0
        applied = [] if check else store.migrate()
    if json:
        output.document({"store": store.url, "due": due if check else [], "applied": applied})
    elif check:
        click.echo("\n".join(f"due: {name}" for name in due) or "the schema is up to date")
    else:
        click.echo("\n".join(f"applied: {name}" for name in applied) or "the schema is up to date")
    return 1 if check and due else 0


def _sql(store: Store, due: list[str]) -> str:
    """The text of the migrations *due*; they lie beside their engine."""
    from dayjob.store.migrate import migrations

    steps = migrations(f"{import_module(type(store).__module__).__package__}.migrations")
    return "".join(f"-- {step.name}\n{step.sql.rstrip()}\n\n" for step in steps if step.name in due)


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
    findings: list[Finding] = [_versions()]
    try:
        with store_of(app_name, url) as store:
            findings += _store(store)
            if not any(one.level == "problem" and one.about == "schema" for one in findings):
                findings += _work(store)
    except click.ClickException as error:
        findings.append(Finding("problem", "app", error.format_message()))
    except (StoreError, DayjobError) as error:
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
    for extra in ("rich", "psutil"):
        with contextlib.suppress(ModuleNotFoundError):
            have.append(f"{extra} {version(extra)}")
    return Finding("ok", "versions", ", ".join(have))


def _store(store: Store) -> list[Finding]:
    health = store.check()
    facts = ", ".join(f"{name} {value}" for name, value in health.facts.items())
    found = [Finding("ok", "store", f"{health.engine} at {store.url}"), Finding("ok", "facts", facts)]
    if health.schema != health.wanted:
        found.append(Finding("problem", "schema", str(SchemaMismatch(health.schema, health.wanted))))
    else:
        found.append(Finding("ok", "schema", f"version {health.schema}"))
    return found + [Finding("problem", "store", warning) for warning in health.warnings]


def _work(store: Store) -> list[Finding]:
    """What the jobs, queues and workers tell."""
    from dayjob.states import State
    from dayjob.store.records import Filter

    found = []
    people, queues = store.workers(), store.queues()
    if people:
        leaders = sum(one.leader for one in people)
        found.append(
            Finding("ok" if leaders else "note", "workers", f"{len(people)} alive, {leaders or 'none'} of them leads")
        )
    else:
        waiting = sum(queue.counts.get("available", 0) for queue in queues)
        text = "none is alive: start one with `dayjob worker`"
        found.append(Finding("note", "workers", f"{text}; {output.jobs(waiting)} wait" if waiting else text))
    for queue in queues:
        if queue.paused:
            waiting = queue.counts.get("available", 0)
            found.append(
                Finding(
                    "note",
                    "queues",
                    f"{queue.name} is paused, {output.jobs(waiting)} wait: dayjob queues resume {queue.name}",
                )
            )
    if dead := store.count(Filter(states=(State.DEAD,))):
        found.append(Finding("note", "dead", f"{output.jobs(dead)} dead: dayjob dead list"))
    return found
