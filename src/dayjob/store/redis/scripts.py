"""The Lua scripts: one file per operation, joined with the shared pieces it names, known to the server by their hash.

A file opens with its purpose, KEYS, ARGV and every return; a line `-- Uses: one two` there names files of `lua/shared`,
which are put before it in that order; a line `-- Calls: three` names other operations, each of which it can call as a function
of their ARGV. `'@` begins a literal name of a key; it becomes the namespace's prefix.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_USES = re.compile(r"^-- Uses: (.+)$", re.MULTILINE)
_CALLS = re.compile(r"^-- Calls: (.+)$", re.MULTILINE)
_UNWAITED = ("beat", "leave", "stage", "rescue", "prune", "prune_ids", "sample", "admit")
"""What they write is written again, by the next beat or the next sweep, if a promotion loses it: no copy is waited for."""
_COMMENTS = re.compile(r"^\s*--.*\n", re.MULTILINE)


class Script(NamedTuple):
    """A script and its SHA-1. `writes`: what it wrote may have to be in other places, too, before it counts."""

    name: str
    text: str
    sha: str
    writes: bool


@cache
def sources() -> dict[str, str]:
    """The text of each file by its name, `shared/` for pieces. All are read at once: later there may be no descriptor left."""
    folder = files("dayjob.store.redis").joinpath("lua")
    places = (("", folder), ("shared/", folder.joinpath("shared")))
    return {
        prefix + file.name.removesuffix(".lua"): file.read_text("utf-8")
        for prefix, place in places
        for file in place.iterdir()
        if file.name.endswith(".lua")
    }


@cache
def script(name: str, prefix: str) -> Script:
    """The script of that name, for keys that begin with *prefix*."""
    texts = sources()
    body = texts[name]
    named = _USES.search(body)
    pieces = [texts[f"shared/{piece}"] for piece in named[1].split()] if named else []
    called = _CALLS.search(body)
    others = called[1].split() if called else []
    pieces += [f"local function {other}(ARGV)\n{texts[other]}\nend" for other in others]
    text = _COMMENTS.sub("", "\n".join([*pieces, body])).replace("'@", f"'{prefix}")
    return Script(name, text, hashlib.sha1(text.encode()).hexdigest(), "-- Writes." in body and name not in _UNWAITED)  # noqa: S324  the server's own choice
