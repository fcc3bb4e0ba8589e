"""Executes one page: `python runner.py PAGE`, in an empty folder of its own. Exit 1 and a report at the first failure."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import shlex
import subprocess
import sys
import traceback
import types
from pathlib import Path

from page import Block, matches, read

COMMAND_LIMIT = 60.0


class Wrong(Exception):
    """An example does not do what the page says."""


class Session:
    """One page being executed: its module, and what its last python block printed."""

    def __init__(self, page: Path) -> None:
        self.page = page
        self.module = types.ModuleType("example")
        self.module.__file__ = str(page)
        sys.modules["example"] = self.module
        self.printed: str | None = None

    def run(self, block: Block) -> None:
        """Do what *block* is there for."""
        if block.file:
            self.write(block)
        elif block.kind == "python" and block.note == "foreign":
            self.compile(block)
        elif block.kind == "python":
            self.execute(block)
        elif block.kind == "output":
            self.compare(block.text, self.printed if self.printed is not None else "", "the block before it printed")
            self.printed = None
        elif block.kind == "console":
            self.console(block)
        elif block.kind == "sql":
            self.sql(block)
        elif block.kind == "sh":
            self.parse(block)

    def write(self, block: Block) -> None:
        path = Path(str(block.file))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text + "\n", encoding="utf-8")

    def compile(self, block: Block) -> types.CodeType:
        source = "\n" * (block.line - 1) + block.text
        code: types.CodeType = compile(source, str(self.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        return code

    def execute(self, block: Block) -> None:
        code = self.compile(block)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            try:
                awaited = eval(code, self.module.__dict__)
                if awaited is not None:
                    asyncio.run(awaited)
            except Exception as error:
                if block.note != "raises":
                    raise
                print(f"{type(error).__name__}: {error}")
            else:
                if block.note == "raises":
                    raise Wrong("the block should have raised an error, it did not")
        self.printed = out.getvalue()

    def console(self, block: Block) -> None:
        for command, expected in commands(block.text):
            done = subprocess.run(
                ["bash", "-c", command], capture_output=True, text=True, timeout=COMMAND_LIMIT, check=False
            )
            self.compare(expected, done.stdout + done.stderr, f"`{command}` printed")

    def sql(self, block: Block) -> None:
        import psycopg

        with psycopg.connect("", autocommit=True) as connection:
            try:
                cursor = connection.execute(block.text)
                while cursor.nextset():
                    pass
            except psycopg.Error as error:
                if block.note != "raises":
                    raise
                self.printed = "\n".join(
                    filter(None, [f"ERROR: {error.diag.message_primary}", error.diag.message_hint])
                )
                return
            if block.note == "raises":
                raise Wrong("the statement should have failed, it did not")
            rows = cursor.fetchall() if cursor.description else []
        self.printed = "\n".join(" | ".join("" if value is None else str(value) for value in row) for row in rows)

    def parse(self, block: Block) -> None:
        """Every `dayjob` command in the block has a valid form; nothing is run."""
        import click

        from dayjob.cli.group import root

        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and "=" in words[0] and not words[0].startswith("-"):
                words.pop(0)
            if words[:1] == ["dayjob"]:
                command: click.Command | None = root
                context, rest = click.Context(root), words[1:]
                while isinstance(command, click.Group):
                    if not rest or (command := command.get_command(context, rest.pop(0))) is None:
                        raise Wrong(f"no such command: {line}")
                command.make_context(line, rest)

    def compare(self, expected: str, actual: str, what: str) -> None:
        if not matches(expected, actual):
            raise Wrong(f"{what}:\n{actual}\nthe page says:\n{expected}")


def commands(text: str) -> list[tuple[str, str]]:
    """(command, expected output) of a console block; `> ` continues a command."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.startswith("> ") and found and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", [])
        elif found:
            found[-1][1].append(line)
    return [(command, "\n".join(expected)) for command, expected in found]


def main() -> int:
    page = Path(sys.argv[1])
    sys.path.insert(0, str(Path.cwd()))
    session = Session(page)
    for block in read(page):
        try:
            session.run(block)
        except Exception as error:
            print(f"{page.name}, line {block.line}:\n{block.text}\n", file=sys.stderr)
            if not isinstance(error, Wrong):
                traceback.print_exc()
            else:
                print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
