"""Tables on a terminal, drawn by rich (an extra): import this module only where it may be missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dayjob.cli.output import STYLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dayjob.cli.output import Column

GAP = 3
"""Columns that the box takes between two cells."""
NARROWEST = 12


def draw(columns: Sequence[Column], lines: Sequence[Sequence[str]]) -> None:
    """Print a table that fits the terminal, if need be by shortening and leaving out columns; ids stay whole."""
    console = Console(highlight=False)
    widths = [max(cell_len(column.title), *(cell_len(line[i]) for line in lines)) for i, column in enumerate(columns)]
    kept = _fit(columns, widths, console.width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for i in kept:
        table.add_column(columns[i].title, justify="right" if columns[i].right else "left", no_wrap=True)
    for line in lines:
        table.add_row(*(_cell(line[i], widths[i]) for i in kept))
    console.print(table, width=max(console.width, _total(widths, kept)), crop=False, no_wrap=True)


def _total(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[i] for i in kept) + GAP * (len(kept) - 1)


def _fit(columns: Sequence[Column], widths: list[int], room: int) -> list[int]:
    """The columns that stay, by index; narrows *widths* of the wide ones as far as it must."""
    kept = list(range(len(columns)))
    wanted = list(widths)
    wide = [i for i in kept if columns[i].wide]
    for i in wide:
        widths[i] = min(NARROWEST, widths[i])
    for i in sorted((i for i in kept if columns[i].spare), key=lambda i: -columns[i].spare):
        if _total(widths, kept) <= room:
            break
        kept.remove(i)
    for i in wide:
        widths[i] = min(wanted[i], widths[i] + max(0, room - _total(widths, kept)))
    return kept


def _cell(cell: str, width: int) -> Text:
    if cell_len(cell) > width:
        cell = set_cell_size(cell, width - 1).rstrip() + "…"
    return Text(cell, style=STYLES.get(cell, "bright_black" if cell == "-" else ""))
