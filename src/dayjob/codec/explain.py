"""Why a call or a payload does not fit a signature, in words that name the argument."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dayjob.errors import PayloadInvalid
from dayjob.policies import nearest

_PLACE = re.compile(r" - at `(?:key` in `)?\$\.?(.*)`$")
_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*)`")
_KIND = re.compile(r"Expected `(.*)`, got `(.*)`")
_WORDS = {"array": "list", "object": "dict", "null": "None"}


def explain_call(
    task: str,
    params: tuple[str, ...],
    required: tuple[str, ...],
    positional: int,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> PayloadInvalid:
    """The error for a call that cannot be bound to *params*, of which the first *positional* go by position."""
    takes = f"the task takes ({', '.join(params)})"
    if len(args) > positional:
        most = f"at most {positional} positional" if positional else "no positional"
        return PayloadInvalid(task, None, f"{len(args)} arguments were given, {most} are taken: {takes}")
    for name in kwargs:
        if name not in params:
            near = nearest(name, params)
            return PayloadInvalid(
                task, str(name), f"there is no such argument{f'; did you mean {near[0]!r}?' if near else f': {takes}'}"
            )
        if name in params[: len(args)]:
            return PayloadInvalid(task, name, "it was given twice, by position and by name")
    given = {*params[: len(args)], *kwargs}
    missing = next((name for name in required if name not in given), None)
    return PayloadInvalid(task, missing, f"it is missing: {takes}" if missing else f"the call does not fit: {takes}")


def explain_misfit(
    task: str, error: BaseException, argument: str | None = None, sent: Mapping[str, Any] | None = None
) -> PayloadInvalid:
    """`PayloadInvalid` out of a message of msgspec's, which ends in the place; *sent* values tell their own types."""
    text = str(error)
    found = _PLACE.search(text)
    if found:
        text, place = text[: found.start()], found.group(1)
        argument = place if argument is None else f"{argument} {place}".strip()
    at_fault = _FIELD.fullmatch(text)
    if at_fault and not argument:
        missing = at_fault.group(1).startswith("missing")
        return PayloadInvalid(task, at_fault.group(2), "it is missing" if missing else "the task has no such argument")
    kinds = _KIND.fullmatch(text)
    if kinds:
        wanted, got = (" | ".join(_WORDS.get(word, word) for word in kind.split(" | ")) for kind in kinds.groups())
        if sent is not None and argument is not None and argument in sent:
            got = type(sent[argument]).__name__
        return PayloadInvalid(task, argument or None, f"expected {wanted}, got {got}: pass a value of type {wanted}")
    return PayloadInvalid(task, argument or None, text[:1].lower() + text[1:].replace("`", ""))
