"""The Lua scripts: one file per operation, joined with the shared pieces it names, known to the server by their hash.

A file opens with its purpose, KEYS, ARGV and every return; a line `-- Uses: one two` there names files of `lua/shared`,
which are put before it in that order; a line `-- Calls: three` names other operations, each of which it can call as a function
of their ARGV. `'@` begins a literal name of a key; it becomes the namespace's prefix.

The server makes all functions of a script anew in each call, half a microsecond each. Those of the files in a line
`-- Spares: two` are made only where jobs have gates or queues have limits, those of a line `-- Here when x: three`, which
stands where they are put, only when *x*: the others pay nothing for them.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_USES = re.compile(r"^-- Uses: (.+)$", re.MULTILINE)
_SPARES = re.compile(r"^-- Spares: (.+)$", re.MULTILINE)
_HERE = re.compile(r"^-- Here when (.+): (.+)$", re.MULTILINE)
_LOCAL = re.compile(r"^local (function )?([\w, ]+?)(?=\(| =)", re.MULTILINE)
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
    spared = _named(_SPARES, body)
    used = ((piece, texts[f"shared/{piece}"]) for piece in _named(_USES, body))
    pieces = [_made_when("meta[2] or meta[3]", text) if piece in spared else text for piece, text in used]
    pieces += [f"local function {other}(ARGV)\n{texts[other]}\nend" for other in _named(_CALLS, body)]
    here = _HERE.sub(
        lambda line: "\n".join(_made_when(line[1], texts[f"shared/{piece}"]) for piece in line[2].split()), body
    )
    text = _COMMENTS.sub("", "\n".join([*pieces, here])).replace("'@", f"'{prefix}")
    return Script(name, text, hashlib.sha1(text.encode()).hexdigest(), "-- Writes." in body and name not in _UNWAITED)  # noqa: S324  the server's own choice


def _named(line: re.Pattern[str], body: str) -> list[str]:
    found = line.search(body)
    return found[1].split() if found else []


def _made_when(condition: str, piece: str) -> str:
    """*piece*, of which the locals are there in any case, and have values only on that *condition*."""
    names = ", ".join(found[2] for found in _LOCAL.finditer(piece))
    made = _LOCAL.sub(lambda found: f"{found[1] or ''}{found[2]}", piece)
    return f"local {names}\nif {condition} then\n{made}\nend"
