"""Tables on a terminal, drawn by rich (an extra): import this module only where it may be missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dayjob.cli.output import STYLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dayjob.cli.output import Column


def draw(columns: Sequence[Column], lines: Sequence[Sequence[str]]) -> None:
    """Print a table as wide as it needs, shortening only the columns that say they are wide."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for i, column in enumerate(columns):
        # Ids and names must stay whole, to be copied: only wide columns give way on a narrow terminal.
        widest = max(len(line[i]) for line in lines)
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=min(8, widest) if column.wide else max(widest, len(column.title)),
        )
    for line in lines:
        table.add_row(*(_cell(cell) for cell in line))
    Console(highlight=False).print(table)


def _cell(cell: str) -> Text:
    colour = STYLES.get(cell, "bright_black" if cell == "-" else None)
    return Text(cell, style=colour or "")
