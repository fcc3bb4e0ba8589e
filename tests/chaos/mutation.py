"""How a bug is seeded: a piece of dayjob's text is replaced by another, while the interpreter runs.

    store/sqlite/queries.sql, store/redis/lua/turn.lua   the text that the engine reads when it is opened
    store/postgres/migrations/001_initial.sql            the text that `migrate` runs
    dayjob.worker.pump:Pump._exchange                    the code of a function, wherever it was imported to

What is to be replaced must be there, exactly as often as was said, or nothing is: a bug that is seeded no more would be
caught by nobody.
"""

from __future__ import annotations
import __future__

import inspect
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import reduce
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from msgspec import Struct

import dayjob
from dayjob.store import sqlfile

HOME = Path(dayjob.__file__).parent


class Change(Struct, frozen=True):
    """*old* becomes *new* in a function (`module:Class.method`) or in a file below `src/dayjob`, as often as it is there."""

    where: str
    old: str
    new: str
    times: int = 1

    def applied(self, text: str) -> str:
        """*text* after it; a `LookupError` when *old* is not there so often."""
        found = text.count(self.old)
        if found != self.times:
            raise LookupError(f"{self.where} has {found} times, not {self.times}: {self.old!r}")
        return text.replace(self.old, self.new)


@contextmanager
def seeded(changes: Sequence[Change]) -> Iterator[None]:
    """While this is open, *changes* are in force, for stores that are opened and code that is called meanwhile."""
    texts: dict[Path, str] = {}
    codes: dict[str, tuple[FunctionType, str]] = {}
    for change in changes:
        if ":" in change.where:
            function, source = codes.get(change.where) or _source(change.where)
            codes[change.where] = function, change.applied(source)
        else:
            path = HOME / change.where
            texts[path] = change.applied(texts.get(path) or path.read_text("utf-8"))
    with ExitStack() as undo:
        for function, source in codes.values():
            undo.callback(setattr, function, "__code__", function.__code__)
            function.__code__ = _compiled(function, source)
        if texts:
            undo.enter_context(_read_as(texts))
        yield


def _source(where: str) -> tuple[FunctionType, str]:
    module, _, name = where.partition(":")
    function = inspect.unwrap(reduce(getattr, name.split("."), import_module(module)))
    if isinstance(function, property):
        function = function.fget
    return function, inspect.getsource(function)


def _compiled(function: FunctionType, source: str) -> CodeType:
    """The code of *source*, for the place of that of *function*: all who hold the function run it from then on."""
    made: dict[str, Any] = {}
    flags = __future__.annotations.compiler_flag
    code = compile(textwrap.dedent(source), f"<mutant of {function.__qualname__}>", "exec", flags, dont_inherit=True)
    exec(code, function.__globals__, made)
    return inspect.unwrap(made[function.__name__]).__code__  # type: ignore[no-any-return]


class _Page:
    """A file or folder of a package, of which some files read otherwise."""

    def __init__(self, path: Any, texts: dict[Path, str]) -> None:
        self._path, self._texts = path, texts
        self.name: str = path.name

    def iterdir(self) -> Iterator[_Page]:
        return (_Page(each, self._texts) for each in self._path.iterdir())

    def joinpath(self, *names: str) -> _Page:
        return _Page(self._path.joinpath(*names), self._texts)

    def read_text(self, encoding: str) -> str:
        return self._texts.get(self._path) or str(self._path.read_text(encoding))


@contextmanager
def _read_as(texts: dict[Path, str]) -> Iterator[None]:
    with ExitStack() as undo:
        for reader in _readers():
            undo.callback(setattr, reader, "files", reader.files)
            reader.files = lambda package: _Page(files(package), texts)
        for forget in _memories():
            forget()
            undo.callback(forget)
        for path, text in texts.items():
            if path.parent.name == "migrations":
                undo.callback(_migrate_by, path, path.read_text("utf-8"))
                _migrate_by(path, text)
        yield


def _readers() -> list[Any]:
    """The modules that read engines' texts."""
    return [sqlfile, *([import_module("dayjob.store.redis.scripts")] if "redis" in dayjob.store.ENGINES else [])]


def _memories() -> list[Any]:
    """What forgets the texts that were read."""
    return [
        memory.cache_clear
        for reader in _readers()
        if hasattr(reader, "script")
        for memory in (reader.sources, reader.script)
    ]


def _migrate_by(path: Path, text: str) -> None:
    engine = path.parent.parent.name
    steps = import_module(f"dayjob.store.{engine}.database")._MIGRATIONS
    for place, step in enumerate(steps):
        if step.name == path.stem:
            steps[place] = step._replace(sql=text)
