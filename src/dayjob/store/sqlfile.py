"""A loader for `.sql` files that hold one named statement per operation.

    -- name: stage_due
    UPDATE ...;

The statement runs to the next `-- name:` line; a closing semicolon is dropped. Tables are written with the prefix
`dayjob_` or in the schema `dayjob.` (`SCHEMA dayjob`), which the loader changes to the namespace in use.
"""

from __future__ import annotations

import re
from importlib.resources import files
from types import SimpleNamespace

from dayjob.errors import ConfigError

_HEADER = re.compile(r"^-- name: *(\w+) *$", re.MULTILINE)
_NAMESPACE = re.compile(r"[a-z][a-z0-9_]{0,30}\Z")


def statements(text: str, namespace: str = "dayjob") -> SimpleNamespace:
    """The statements in *text* as attributes; a name given twice or an empty statement is a ValueError."""
    found: dict[str, str] = {}
    parts = _HEADER.split(in_namespace(text, namespace))
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        body = body.strip().removesuffix(";").strip()
        if name in found or not body:
            raise ValueError(f"statement {name!r} is {'given twice' if name in found else 'empty'}")
        found[name] = body
    return SimpleNamespace(**found)


def load(package: str, filename: str, namespace: str = "dayjob") -> SimpleNamespace:
    """`statements` of a file that ships in *package*."""
    return statements(files(package).joinpath(filename).read_text("utf-8"), namespace)


def in_namespace(sql: str, namespace: str) -> str:
    """*sql* with *namespace* for every prefix `dayjob_`, schema `dayjob.` and `SCHEMA dayjob`, and the word `'dayjob'`."""
    if not _NAMESPACE.match(namespace):
        raise ConfigError(f"namespace {namespace!r:.80} must be a lower-case word like 'dayjob' (letters, digits, _)")
    if namespace == "dayjob":
        return sql
    named = r"\bdayjob(?=([._']))|(?<=\bSCHEMA )dayjob\b"
    return re.sub(named, lambda found: namespace if found[1] in ("_", "'") else f'"{namespace}"', sql)
