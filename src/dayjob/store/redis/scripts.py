"""The Lua scripts: one file per operation, joined with the shared pieces it names, known to the server by their hash.

A file opens with its purpose, KEYS, ARGV and every return; a line `-- Uses: one two` there names files of `lua/shared`,
which are put before it in that order. `'@` begins a literal name of a key; it becomes the namespace's prefix.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_USES = re.compile(r"^-- Uses: (.+)$", re.MULTILINE)
_UNWAITED = ("beat", "leave", "stage", "rescue", "prune", "prune_ids", "sample")
"""What they write is written again, by the next beat or the next sweep, if a promotion loses it: no copy is waited for."""
_COMMENTS = re.compile(r"^\s*--.*\n", re.MULTILINE)


class Script(NamedTuple):
    """A script and its SHA-1. `writes`: what it wrote may have to be in other places, too, before it counts."""

    name: str
    text: str
    sha: str
    writes: bool


@cache
def script(name: str, prefix: str) -> Script:
    """The script of that name, for keys that begin with *prefix*."""
    folder = files("dayjob.store.redis").joinpath("lua")
    body = folder.joinpath(f"{name}.lua").read_text("utf-8")
    named = _USES.search(body)
    pieces = (
        [folder.joinpath("shared", f"{piece}.lua").read_text("utf-8") for piece in named[1].split()] if named else []
    )
    text = _COMMENTS.sub("", "\n".join([*pieces, body])).replace("'@", f"'{prefix}")
    return Script(name, text, hashlib.sha1(text.encode()).hexdigest(), "-- Writes." in body and name not in _UNWAITED)  # noqa: S324  the server's own choice
