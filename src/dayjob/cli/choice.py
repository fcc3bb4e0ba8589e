"""Which jobs a command acts on, and the one way to act: count, ask, do, say."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from dayjob.cli import output
from dayjob.cli.target import opened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dayjob import App


class Choice(Struct, frozen=True):
    """Jobs by id, or by conditions.

    Attributes:
        ids: as given. words: the conditions in the facade's words.
    """

    ids: tuple[str, ...]
    words: dict[str, Any]

    @classmethod
    def of(cls, given: Mapping[str, Any], fit: Sequence[str] = (), *, default: Sequence[str] = ()) -> Choice:
        """From a command's options; contradictions, and an empty choice for an act, are wrong usage.

        Args:
            fit: the states in which the act does something; none for looking.
            default: the states that conditions without one mean, where they are fewer than *fit*.
        """
        ids = tuple(dict.fromkeys(given.get("ids", ())))
        words = {name: given[name] for name in ("queue", "task", "tag", "since", "text") if given.get(name)}
        states = list(given.get("state") or ())
        if not fit:
            return cls(ids, {"state": states, **words} if states else words)
        chosen = words or states or given.get("everything")
        if ids and chosen:
            raise click.UsageError("give ids or conditions, not both")
        if not ids and not chosen:
            raise click.UsageError("which jobs? Give ids, conditions (--queue, --task, --state …) or --all")
        if states and not set(states) <= set(fit):
            raise click.UsageError(f"--state {' '.join(set(states) - set(fit))}: here only {', '.join(fit)} make sense")
        return cls(ids, words if ids else {"state": states or list(default or fit), **words})


def act(
    app_name: str | None,
    url: str | None,
    choice: Choice,
    verb: str,
    done: str,
    *,
    yes: bool,
    json: bool,
    **more: Any,
) -> int:
    """Do *verb* (`cancel`, `retry`, `delete`) to the jobs of *choice*, after saying how many and asking.

    Returns: the exit status; 1 when ids were given and not all of them could be touched.
    """
    more = {name: value for name, value in more.items() if value is not None}
    with opened(app_name, url) as app:
        count = len(choice.ids) if choice.ids else app.jobs.count(**choice.words)
        if count and not _harmless(verb, choice):
            output.ask(f"{verb} {output.jobs(count)}?", yes=yes)
        touched = _touch(app, choice, verb, more) if count else 0
    if json:
        output.document({done: touched})
    else:
        click.echo(f"{done} {output.jobs(touched)}")
    missed = len(choice.ids) - touched if choice.ids else 0
    if missed:
        output.say(
            f"dayjob: {output.jobs(missed)} could not be {done}: unknown id, or in a state that does not allow it"
        )
    return 1 if missed else 0


def _harmless(verb: str, choice: Choice) -> bool:
    """A retry destroys nothing: it asks only a person who chose by conditions, and may not know how many they are."""
    return verb == "retry" and (bool(choice.ids) or not sys.stdin.isatty())


def _touch(app: App, choice: Choice, verb: str, more: dict[str, Any]) -> int:
    method = getattr(app.jobs, verb)
    if choice.ids:
        return int(method(list(choice.ids), **more))
    return int(method(**choice.words, **more))
