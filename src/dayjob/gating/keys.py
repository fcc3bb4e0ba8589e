"""Templates of keys: `"tenant:{meta.tenant}"`, `"{order.customer.id}"`.

A name in braces is an argument, or `meta`; what follows the dots are fields of data: of dataclasses, structs, models, named
tuples, and items of mappings. Nothing is called and no other attribute is read, so a template can show what travels with the
job and nothing else. Values appear in their JSON forms, texts without quotes: so a call by name makes the same key as one with the
code at hand.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import lru_cache
from inspect import isclass
from typing import Annotated, Any, Final, cast, get_args, get_origin

from msgspec import Struct

from dayjob.codec.envelope import is_model, read_any, write_alike
from dayjob.errors import ConfigError, shown
from dayjob.policies import nearest

MAX_TEMPLATE: Final = 1_000
MAX_KEY: Final = 500
"""Characters of a key: enough for names and ids; an index of any database takes it."""
META: Final = "meta"

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NAME = re.compile(r"[^\W\d]\w*")
_ABSENT: Final = object()


class Template(Struct, frozen=True):
    """A key with places for values.

    Attributes:
        text: as it was given. parts: texts (str) and paths (tuples of names), in order. paths: the latter alone.
        literal: the key itself, where no value has a place in it; else None.
    """

    text: str
    parts: tuple[str | tuple[str, ...], ...]
    paths: tuple[tuple[str, ...], ...]
    literal: str | None

    @property
    def args(self) -> bool:
        """True when it shows something other than `meta`."""
        return any(path[0] != META for path in self.paths)

    def check(self, what: str, params: Iterable[str], hints: Mapping[str, Any] | None = None) -> None:
        """Refuse it for a task with *params* when it names what is no argument, or a field that an argument's type has not.

        Raises:
            ConfigError: naming *what*, the culprit, and the names that exist.
        """
        known = list(params)
        for path in self.paths:
            if path[0] in known:
                _check_fields(f"{what}: the key {shown(self.text)}", path, (hints or {}).get(path[0], Any))
            elif path[0] != META:
                near = nearest(path[0], known)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join([*known, 'meta.<name>'])}"
                raise ConfigError(f"{what}: the key {shown(self.text)} names {path[0]!r}, which is no argument; {hint}")
            elif len(path) == 1:
                raise ConfigError(
                    f"{what}: the key {shown(self.text)} shows all of meta; name one thing: {{meta.tenant}}"
                )

    def render(self, what: str, args: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
        """The key of a job with *args* and *meta*.

        Raises:
            ConfigError: a value is missing, or the key is empty, too long or no text that every store can keep.
        """
        if self.literal is not None:
            return self.literal
        made = "".join([part if isinstance(part, str) else self._value(what, part, args, meta) for part in self.parts])
        return check_key(what, made)

    def _value(self, what: str, path: tuple[str, ...], args: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
        name = path[0]
        value = args.get(name, meta if name == META else _ABSENT)
        for field in path[1:]:
            if value is not _ABSENT:
                value = _field(value, field)
        if value is _ABSENT:
            raise ConfigError(
                f"{what}: the key {shown(self.text)} needs {'.'.join(path)}, which this job does not have"
            )
        return plain(value)


@lru_cache(maxsize=4_096)
def template(text: str) -> Template:
    """*text* as a template; `ConfigError` where it is none, with how to write one."""
    if not isinstance(text, str):
        raise ConfigError(f"a key must be a str, not {type(text).__name__} {shown(text)}")
    if not text:
        raise ConfigError("a key must not be empty")
    if len(text) > MAX_TEMPLATE:
        raise ConfigError(
            f"the key {shown(text, 40)} has {len(text):,} characters, {MAX_TEMPLATE} are allowed: name what tells jobs apart"
        )
    parts: list[str | tuple[str, ...]] = []
    end = 0
    for found in _PART.finditer(text):
        _add(parts, text[end : found.start()])
        end = found.end()
        if found[1] is not None:
            parts.append(_path(text, found[1]))
        elif len(found[0]) == 2:
            _add(parts, found[0][0])
        else:
            raise ConfigError(
                f"the key {shown(text)} has a brace alone at {found.start()}: write {found[0] * 2} for the sign"
            )
    _add(parts, text[end:])
    paths = tuple(part for part in parts if isinstance(part, tuple))
    literal = None if paths else check_key("a key", "".join(part for part in parts if isinstance(part, str)))
    return Template(text, tuple(parts), paths, literal)


def escape(text: str) -> str:
    """The template whose key is *text* as it stands."""
    return text.replace("{", "{{").replace("}", "}}")


def check_key(what: str, key: Any) -> str:
    """*key* when every store can keep it, else `ConfigError` naming *what*."""
    if key is None or key == "":
        raise ConfigError(f"{what}: the key is empty")
    if not isinstance(key, str):
        raise ConfigError(f"{what}: the key {shown(key)} is a {type(key).__name__}, it must be text")
    if len(key) > MAX_KEY:
        raise ConfigError(
            f"{what}: the key {shown(key, 40)} has {len(key):,} characters, {MAX_KEY} are allowed: use an id instead"
        )
    if "\0" in key:
        raise ConfigError(f"{what}: the key {shown(key)} has a NUL character")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{what}: the key {shown(key)} has a lone surrogate, which is no text") from None
    return key


def plain(value: Any) -> str:
    """*value* as it appears in a key: its JSON form, texts without quotes."""
    if type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    encoded = write_alike(value)
    return str(read_any(encoded)) if encoded.startswith(b'"') else encoded.decode()


def _add(parts: list[str | tuple[str, ...]], text: str) -> None:
    if not text:
        return
    if parts and isinstance(parts[-1], str):
        parts[-1] += text
    else:
        parts.append(text)


def _path(text: str, inside: str) -> tuple[str, ...]:
    path = tuple(inside.split("."))
    for name in path:
        if not _NAME.fullmatch(name) or name.startswith("__"):
            raise ConfigError(
                f"the key {shown(text)}: {shown('{' + inside + '}')} is no argument; write {{name}}, {{name.field}} or "
                "{meta.name}, and {{ }} for braces: no indexes, calls, conversions or formats"
            )
    return path


def _field(value: Any, name: str) -> Any:
    """The *name* of what is data in *value*."""
    if isinstance(value, Mapping):
        return value.get(name, _ABSENT)
    kind: Any = type(value)
    fields = _fields(kind)
    if fields is None or name not in fields:
        return _ABSENT
    return getattr(value, name, _ABSENT)


@lru_cache(maxsize=1_024)
def _fields(kind: Any) -> tuple[str, ...] | None:
    """The data fields of objects of *kind*; None when it is no kind whose fields are known."""
    if not isclass(kind):
        return None
    if issubclass(kind, Struct):
        return kind.__struct_fields__
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    if is_model(kind):
        return tuple(cast("Any", kind).model_fields)
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return tuple(kind._fields)
    if hasattr(kind, "__attrs_attrs__"):
        return tuple(field.name for field in kind.__attrs_attrs__)
    if hasattr(kind, "__total__") and issubclass(kind, dict):  # a TypedDict
        return tuple(kind.__annotations__)
    return () if kind in _SCALARS or issubclass(kind, Enum) else None


_SCALARS: Final = frozenset({str, int, float, bool, bytes, type(None)})


def _check_fields(where: str, path: tuple[str, ...], hint: Any) -> None:
    """Refuse a field that the type of an argument surely has not; what cannot be told is left to the job."""
    if len(path) < 2:
        return
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    fields = _fields(hint)
    if fields is None or path[1] in fields:
        return
    exist = f"there are {', '.join(fields)}" if fields else "it has none"
    raise ConfigError(f"{where}: {path[0]!r} has no field {path[1]!r}; {exist}")
