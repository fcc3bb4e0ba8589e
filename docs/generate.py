"""Writes what the code says better than a page can: `python docs/generate.py`. A test keeps both the same.

cli.md from the commands, the table of events in guide/events.md, the table of rooms in internals.md, the results in proof.md.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from dayjob.cli.group import LATER, root
from dayjob.events import EVENTS

DOCS = Path(__file__).resolve().parent
SOURCE = DOCS.parent / "src" / "dayjob"
SOAKS = DOCS.parent / "tests" / "chaos" / "reports"

_HEAD = """# Command line

The app comes from the command's argument or `--app`, from `DAYJOB_APP`, or from `[tool.dayjob]` in `pyproject.toml`; the store alone from
`--url` or `DAYJOB_URL`. Every option can be given as `DAYJOB_<NAME>`, too. Everything that lists takes `--json`: one JSON document
with stable field names. Exit status: 0 done, 1 something failed, 2 wrong usage. Destructive commands say how many jobs they will touch, and ask,
unless `--yes`. `python -m dayjob` is the same as `dayjob`.
"""
_LATER = """
## Not part of this release

{names}: the names are taken, and each refuses with exit status 2.
"""


def pages() -> dict[Path, str]:
    """Every generated page, whole, by its path."""
    events, internals, proof = DOCS / "guide" / "events.md", DOCS / "internals.md", DOCS / "proof.md"
    return {
        DOCS / "cli.md": commands(),
        events: _into(events, event_table()),
        internals: _into(internals, rooms()),
        proof: _into(proof, soaks()),
    }


def _into(page: Path, table: str) -> str:
    """The text of *page* with *table* between its marks."""
    before, opening, rest = page.read_text(encoding="utf-8").partition("<!-- generated -->\n")
    _, closing, after = rest.partition("<!-- /generated -->")
    if not closing:
        raise ValueError(f"{page} has no <!-- generated --> and <!-- /generated -->")
    return f"{before}{opening}\n{table}\n{closing}{after}"


def event_table() -> str:
    """Every event: its name, what it tells, its fields."""
    lines = ["| event | what | fields beside `at` |", "|---|---|---|"]
    for name, kind in EVENTS.items():
        fields = ", ".join(field for field in kind.__struct_fields__ if field != "at")
        lines.append(f"| `{name}` | {_cell(kind.__doc__ or '')} | {fields} |")
    return "\n".join(lines) + "\n"


def rooms() -> str:
    """Every module: its path and the first sentence of its docstring."""
    lines = ["| room | what |", "|---|---|"]
    for path in sorted(SOURCE.rglob("*.py"), key=lambda path: (path.parent, path.name)):
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if doc:
            first = re.split(r"\n\s*\n", doc)[0]
            lines.append(f"| `{path.relative_to(SOURCE)}` | {_cell(first)} |")
    return "\n".join(lines) + "\n"


def soaks() -> str:
    """What came of the live soaks whose reports are kept: a line per rule with the bound it supports, a column per engine."""
    reports: list[dict[str, Any]] = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(SOAKS.glob("*.json"))
    ]
    if not reports:
        return "No soak's report is kept here yet.\n"
    head = ["", *(report["engine"] for report in reports)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    total = [f"{sum(report['faults'].values()):,}" for report in reports]
    run = [f"{report['jobs']:,} jobs in {report['seconds'] / 60:.0f} min, seed {report['seed']}" for report in reports]
    lines += [f"| **run** | {' | '.join(run)} |", f"| **faults** | {' | '.join(total)} |"]
    for findings in zip(*(report["verdict"]["findings"] for report in reports), strict=True):
        lines.append(f"| {findings[0]['rule']} | {' | '.join(map(_finding, findings))} |")
    names = sorted({name for report in reports for name in report["faults"]})
    lines += ["", f"| fault | {' | '.join(head[1:])} |", "|---" * len(head) + "|"]
    for name in names:
        lines.append(f"| {name} | {' | '.join(str(report['faults'].get(name, '–')) for report in reports)} |")
    lines += ["", *(f"{report['engine']}: {report['machine']}." for report in reports)]
    return "\n".join(lines) + "\n"


def _finding(finding: dict[str, Any]) -> str:
    """`0 of 9,000 (≤ 0.00033)`: violations, observations, and three divided by them."""
    looked_at, broken = finding["looked_at"], len(finding["broken"])
    if not looked_at and not broken:
        return "–"
    bound = "" if broken or not looked_at else f" (≤ {3 / looked_at:.2g})"
    figures = f"; {finding['figures']}" if finding["figures"] else ""
    return f"{broken} of {looked_at:,}{bound}{figures}"


def commands() -> str:
    """The page of the command line."""
    context = click.Context(root, info_name="dayjob")
    names = root.list_commands(context)
    parts = [_HEAD]
    for name in names:
        if name not in LATER:
            parts += _command(root.get_command(context, name), context, name, 2)
    parts.append(_LATER.format(names=", ".join(f"`{name}`" for name in names if name in LATER)))
    return "".join(parts)


def _command(command: click.Command | None, parent: click.Context, name: str, depth: int) -> Iterator[str]:
    assert command is not None
    context = click.Context(command, info_name=name, parent=parent)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"\n{'#' * depth} {context.command_path}\n\n"
    yield f"{_text(command.help)}\n\n```text\n{context.command_path} {usage}\n```\n"
    if options := [one for one in command.params if isinstance(one, click.Option) and one.name != "help"]:
        yield "\n| option | |\n|---|---|\n"
        yield from (f"| `{_names(one)}` | {_cell(_meaning(one))} |\n" for one in options)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            yield from _command(command.get_command(context, child), context, child, depth + 1)


def _names(option: click.Option) -> str:
    """`-c, --concurrency N`: written here, because what click prints changes from release to release."""
    kinds = {"integer range": "N", "integer": "N", "text": "TEXT"}
    value = option.metavar or kinds.get(option.type.name, option.type.name.upper())
    if isinstance(option.type, click.Choice):
        value = "\\|".join(option.type.choices)
    return ", ".join(option.opts) + ("" if option.is_flag else f" {value}")


def _meaning(option: click.Option) -> str:
    default = f" [default: {option.default}]" if option.show_default and option.default is not None else ""
    return (option.help or "") + default


def _text(text: str | None) -> str:
    paragraphs = re.split(r"\n\s*\n", (text or "").strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
