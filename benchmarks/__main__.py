"""The command line: `python -m benchmarks run | list | report`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from tempfile import gettempdir

import click

from benchmarks import engines, measure, peers, report, runner
from benchmarks.children import ROOT
from benchmarks.scenarios import ALL

LATEST = ROOT / "build"
PUBLISHED = ROOT / "benchmarks" / "results"
COURSES = ROOT / "benchmarks" / "horizon.json"
NOTES = ROOT / "benchmarks" / "notes.md"


@click.group(help=__doc__, invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """The group of commands; without one it runs everything."""
    if context.invoked_subcommand is None:
        context.invoke(run)


@main.command("list")
def list_() -> None:
    """The scenarios and their floors."""
    for scenario in ALL.values():
        click.echo(f"{scenario.name:<12} {scenario.about}")
        for floor in scenario.floors:
            click.echo(f"{'':<14} {floor.title} {floor.limit}{f' ({floor.engine})' if floor.engine else ''}")


@main.command()
@click.argument("names", nargs=-1, type=click.Choice(list(ALL)))
@click.option("--engine", default="sqlite", type=click.Choice(engines.names()), show_default=True)
@click.option("--rounds", type=click.IntRange(1), help="Instead of each scenario's own number.")
@click.option("--quick", is_flag=True, help="One round with a tenth of the jobs: does it run, not how fast.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the JSON goes; default build/bench-ENGINE.json.")
@click.option("--dir", "root", type=click.Path(path_type=Path, exists=True), help="Where the stores are made.")
def run(
    names: tuple[str, ...], engine: str, rounds: int | None, quick: bool, out: Path | None, root: Path | None
) -> None:
    """Measure NAMES, or everything that fits the engine. Exit 1 when something could not be measured; a missed floor is
    only reported."""
    baseline = engines.engine(engine)
    answers = []
    for name in names or [name for name, scenario in ALL.items() if scenario.fits(engine)]:
        answer = runner.run(ALL[name], baseline, rounds=1 if quick else rounds, scale=0.1 if quick else 1.0, root=root)
        answers.append(answer)
        click.echo(report.table(report.document([answer], {})["scenarios"][0]) + "\n")
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "engine": engine,
        "quick": quick,
        "machine": measure.machine(root or Path(gettempdir())),
        "versions": {**baseline.versions(), **_packages("dayjob", "msgspec"), **peers.versions(engine)},
    }
    out = out or LATEST / f"bench-{engine}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report.document(answers, facts), indent=1) + "\n")
    raise SystemExit(1 if any(answer.problem for answer in answers) else 0)


@main.command("report")
def report_() -> None:
    """Write benchmarks/RESULTS.md (with notes.md at its end) and the figures in README.md, from benchmarks/results."""
    documents = published()
    (ROOT / "benchmarks" / "RESULTS.md").write_text(report.results(documents, NOTES.read_text(), courses()))
    readme = ROOT / "README.md"
    readme.write_text(report.into(readme.read_text(), documents))


def published() -> list[report.Document]:
    """The runs that RESULTS.md shows: one of each engine, in the order of `engines.names`."""
    paths = [PUBLISHED / f"{name}.json" for name in engines.names()]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def courses() -> list[report.Document]:
    """The runs of `benchmarks.horizon` that RESULTS.md shows."""
    return json.loads(COURSES.read_text()) if COURSES.exists() else []  # type: ignore[no-any-return]


def _packages(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
