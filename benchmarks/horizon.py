"""PostgreSQL for minutes on end, while another session holds a snapshot open: `python -m benchmarks.horizon`.

A report, a forgotten session, a replica's feedback: as long as a snapshot is held, vacuum may remove nothing that died
after it, and a queue kills as many rows as it runs jobs. A claim must not look at the dead again and again.

Jobs are stored at a steady rate, in batches ten times a second. Every so often it is written down how long the server
took for a claim (from pg_stat_statements: all that the statement did, waits for locks included), how many jobs a claim
brought, and how many wait. The worker is one process with its default settings; a peer is set as in the scenarios.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import psycopg

from benchmarks.children import ROOT, Child
from benchmarks.engines.postgres import Postgres
from benchmarks.sides import SIDES, Side

PERIOD = 0.1
AT_EITHER_END = 0.1
"""Share of the windows that are the beginning, and the end."""
_STATEMENTS = "SELECT coalesce(sum(calls), 0)::bigint, coalesce(sum(total_exec_time), 0) FROM pg_stat_statements WHERE query ILIKE %s AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"


@dataclass
class Window:
    """A stretch of the run.

    Attributes:
        at: seconds since the beginning, at its end. claim: milliseconds of a claim in the server, their mean.
        claims: claims per second. jobs: done per second. waiting: stored and not done, at its end.
    """

    at: float
    claim: float
    claims: float
    jobs: float
    waiting: int


@dataclass
class Course:
    """A run of one side.

    Attributes:
        failing: share of the jobs that fail once. future: jobs that wait for next year. snapshot: one was held open.
    """

    side: str
    version: str
    rate: int
    minutes: float
    failing: float
    future: int
    snapshot: bool
    windows: list[Window] = field(default_factory=list)

    def ends(self) -> tuple[list[Window], list[Window]]:
        """The first windows after the start, and the last."""
        number = max(1, round(len(self.windows) * AT_EITHER_END))
        return self.windows[:number], self.windows[-number:]

    def summary(self) -> dict[str, float]:
        """What the floors are about."""
        first, last = self.ends()
        before, after = (statistics.fmean(window.claim for window in windows) for windows in (first, last))
        return {
            "claim_first": before,
            "claim_last": after,
            "growth": after / before,
            "waiting_first": statistics.fmean(window.waiting for window in first),
            "waiting_last": statistics.fmean(window.waiting for window in last),
            "waiting_most": max(window.waiting for window in self.windows),
        }


@click.command(help=__doc__)
@click.option("--side", "sides", multiple=True, default=("dayjob",), type=click.Choice(list(SIDES)), show_default=True)
@click.option("--minutes", default=10.0, show_default=True)
@click.option("--rate", default=1_000, show_default=True, help="Jobs per second.")
@click.option("--failing", default=0.0, show_default=True, help="The share of jobs that fail at their first attempt.")
@click.option("--future", default=0, show_default=True, help="So many jobs are scheduled for next year, beforehand.")
@click.option("--window", default=10.0, show_default=True, help="Seconds.")
@click.option("--no-snapshot", is_flag=True, help="For comparison: nobody holds a snapshot open.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "build" / "horizon.json", show_default=True)
def main(
    sides: tuple[str, ...],
    minutes: float,
    rate: int,
    failing: float,
    future: int,
    window: float,
    no_snapshot: bool,
    out: Path,
) -> None:
    """Run it, tell each window, and add what was found to the file OUT."""
    engine = Postgres()
    engine.server.restart("fast", shared_preload_libraries="pg_stat_statements", **{"pg_stat_statements.track": "top"})
    for name in sides:
        side = SIDES[name]()
        if reason := side.missing():
            click.echo(f"{name}: {reason}")
            continue
        course = Course(name, side.version(), rate, minutes, failing, future, not no_snapshot)
        click.echo(f"{name}: {rate}/s for {minutes:g} min, {failing:.0%} failing once, {future:,} in the future")
        with TemporaryDirectory() as folder:
            for found in run(engine, side, course, Path(folder), window):
                course.windows.append(found)
                click.echo(
                    f"  {found.at:6.0f} s  claim {found.claim:8.2f} ms  {found.claims:7.1f} claims/s"
                    f"  {found.jobs:8.0f} jobs/s  {found.waiting:8,d} waiting"
                )
        click.echo("  " + "  ".join(f"{name} {value:.2f}" for name, value in course.summary().items()))
        engine.clear()
        _add(out, {**asdict(course), **course.summary()})


def run(engine: Postgres, side: Side, course: Course, folder: Path, window: float) -> Iterator[Window]:
    """The windows, as they end."""
    url = engine.url(folder)
    side.prepare(url)
    with ExitStack() as stack:
        watch = stack.enter_context(psycopg.connect(url, autocommit=True))
        watch.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        if course.future:
            side.fill_future(url, course.future)
            watch.execute("CHECKPOINT")
        if course.snapshot:
            stack.enter_context(snapshot(url))
        worker = stack.enter_context(side.worker(url, course.failing))
        store = stack.enter_context(side.producer(url, course.failing))
        stored, turn = 0, 0
        begun = before = time.monotonic()
        claims, milliseconds, done = *_claims(watch, side), 0
        while before - begun < course.minutes * 60:
            store(round(course.rate * PERIOD))
            stored += round(course.rate * PERIOD)
            turn += 1
            time.sleep(max(0.0, begun + turn * PERIOD - time.monotonic()))
            now = time.monotonic()
            if now - before < window:
                continue
            claims_now, milliseconds_now = _claims(watch, side)
            done_now = _done(worker)
            number = claims_now - claims
            yield Window(
                at=now - begun,
                claim=(milliseconds_now - milliseconds) / max(number, 1),
                claims=number / (now - before),
                jobs=(done_now - done) / (now - before),
                waiting=stored - done_now,
            )
            before, claims, milliseconds, done = now, claims_now, milliseconds_now, done_now


@contextmanager
def snapshot(url: str) -> Iterator[None]:
    """A session that took a snapshot, and is idle in its transaction."""
    with psycopg.connect(url) as holder:
        holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT count(*) FROM pg_class")
        yield
        holder.rollback()


def _claims(watch: psycopg.Connection[Any], side: Side) -> tuple[int, float]:
    """How many claims there were in all, and the milliseconds that the server spent on them."""
    row = watch.execute(_STATEMENTS, (side.claim,)).fetchone()
    assert row is not None
    return int(row[0]), float(row[1])


def _done(worker: Child) -> int:
    worker.tell(done=True)
    return int(worker.hear()["done"])


def _add(out: Path, course: dict[str, Any]) -> None:
    courses = json.loads(out.read_text()) if out.exists() else []
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps([*courses, course], indent=1) + "\n")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.horizon")
