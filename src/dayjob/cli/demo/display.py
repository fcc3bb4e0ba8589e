"""The demo's screen: a block of lines that is drawn over itself on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import TextIO

_CODES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
_BARS = " ▁▂▃▄▅▆▇█"


class Screen:
    """Writes to *stream*: `say` for lines that stay, `show` for the block that moves.

    Elsewhere than on a terminal the block becomes one line a second, and only when it has changed.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self.live = self._stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._colour = self.live and not os.environ.get("NO_COLOR")
        self._drawn = 0
        self._last_line = ""
        self._last_at = 0.0

    def paint(self, words: str, *styles: str) -> str:
        """*words* in these styles, where there is colour."""
        if not self._colour or not styles:
            return words
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{words}\x1b[0m"

    @property
    def width(self) -> int:
        """Columns to use: as wide as the terminal, no wider than reads well."""
        return min(shutil.get_terminal_size((100, 24)).columns, 100) if self.live else 100

    def say(self, line: str = "") -> None:
        """Print a line that stays, above the block."""
        self._write(f"{self._erased()}{line}\n")

    def show(self, block: list[str], summary: str) -> None:
        """Draw *block* in place of the one before; without a terminal print *summary* once a second."""
        if self.live:
            body = "".join(f"{clip(line, self.width)}\x1b[K\n" for line in block)
            up = f"\x1b[{self._drawn}A\r" if self._drawn else ""
            surplus = "\x1b[J" if self._drawn > len(block) else ""
            self._write(f"\x1b[?25l{up}{surplus}{body}")
            self._drawn = len(block)
        elif summary != self._last_line and time.monotonic() - self._last_at >= 1.0:
            self._last_line, self._last_at = summary, time.monotonic()
            self._write(f"{summary}\n")

    def keep(self) -> None:
        """Leave the block as it stands and go on below it."""
        self._drawn = 0
        if self.live:
            self._write("\x1b[?25h")

    def clear(self) -> None:
        """Take the block away and give the cursor back."""
        self._write(self._erased() + ("\x1b[?25h" if self.live else ""))

    def _erased(self) -> str:
        text = f"\x1b[{self._drawn}A\r\x1b[J" if self._drawn else ""
        self._drawn = 0
        return text

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def clip(line: str, width: int) -> str:
    """*line* cut to *width* visible columns; colour codes take none."""
    if len(line) <= width:
        return line
    out, seen, i = [], 0, 0
    while i < len(line):
        if line[i] == "\x1b":
            end = line.index("m", i) + 1
            out.append(line[i:end])
            i = end
            continue
        if seen < width:
            out.append(line[i])
            seen += 1
        i += 1
    return "".join(out)


def bar(parts: list[tuple[float, str]], width: int) -> str:
    """A bar of *width* cells filled by *parts* (share of the whole, cell); what is left stays dim dots by the caller."""
    cells = ""
    total = 0.0
    for share, cell in parts:
        total += share
        cells += cell * (round(total * width) - len(cells))
    return cells[:width]


def sparkline(values: list[float], width: int) -> str:
    """The last *width* values as a small graph."""
    recent = values[-width:]
    top = max(recent, default=0.0)
    if top <= 0:
        return _BARS[0] * len(recent)
    return "".join(_BARS[min(8, round(value / top * 8))] for value in recent)
