"""Reads the fenced blocks of a Markdown page, with what hidden comments say about them.

A page is executed from top to bottom in one empty folder (`runner`):

    ```python            runs, in one module per page; a first line `# name.py` writes it to that file instead
    ```output            right after a python block: what the block prints
    ```console           `$ command` lines run in a shell, each followed by what it prints
    ```sql               runs in the page's database; an output block after it shows the rows of its last statement
    ```sh                not run (installing, services); but every `dayjob ...` in it must parse
    <!-- setup           hidden Python, run like a python block
    ... -->
    <!-- raises -->      the next python block ends with an error; its output is `Type: message`
    <!-- foreign -->     the next python block is another library's code; it must only compile
    <!-- postgresql -->  once, anywhere: the page has a server with an empty database `shop`, found by `postgresql:///shop`

In expected output `...` stands for anything.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>.*)$")
_COMMENT = re.compile(r"^<!-- (?P<word>setup|raises|foreign)(?P<rest>.*)$")
_FILE = re.compile(r"^# (?P<name>[\w/]+\.(?:py|toml))$")


class Block(NamedTuple):
    """A fenced block or a hidden one. `line`: of its first line of text, from 1. `note`: `raises` or `foreign`."""

    kind: str
    text: str
    line: int
    note: str | None = None

    @property
    def file(self) -> str | None:
        """The file that the block is to be written to."""
        found = _FILE.match(self.text.partition("\n")[0])
        return found["name"] if found and self.kind in {"python", "toml"} else None


def needs_postgresql(page: Path) -> bool:
    """Whether the examples of *page* need a PostgreSQL server."""
    return "<!-- postgresql -->" in page.read_text(encoding="utf-8")


def pages() -> list[Path]:
    """README and every page of the documentation."""
    return [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)]


def read(path: Path) -> list[Block]:
    """The blocks of the page at *path*, in order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    blocks: list[Block] = []
    note = None
    at = 0
    while at < len(lines):
        if fence := _FENCE.match(lines[at]):
            end = _closing(lines, at, fence["ticks"])
            text = "\n".join(line.removeprefix(fence["indent"]) for line in lines[at + 1 : end])
            blocks.append(Block(fence["info"].strip(), text, at + 2, note))
            note, at = None, end
        elif comment := _COMMENT.match(lines[at]):
            if comment["word"] == "setup":
                end = next(line for line in range(at, len(lines)) if "-->" in lines[line])
                blocks.append(Block("python", "\n".join(lines[at + 1 : end]), at + 2))
                at = end
            else:
                note = comment["word"]
        at += 1
    return blocks


def _closing(lines: list[str], opening: int, ticks: str) -> int:
    for at in range(opening + 1, len(lines)):
        if lines[at].strip() == ticks:
            return at
    raise ValueError(f"the fence in line {opening + 1} is never closed")


def matches(expected: str, actual: str) -> bool:
    """Whether *actual* is *expected*, where `...` stands for anything and trailing blanks do not count."""
    pattern = ".*?".join(re.escape(part) for part in _tidy(expected).split("..."))
    return re.fullmatch(pattern, _tidy(actual), re.DOTALL) is not None


def _tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
