"""Commands whose names are fixed and whose work is not there yet: they refuse, and say so."""

from __future__ import annotations

from typing import Any

import click

from dayjob.cli.group import COMMANDS, LATER
from dayjob.errors import NotSupported


def _refusing(name: str) -> click.Command:
    def refuse(**_: Any) -> None:
        raise NotSupported(f"`dayjob {name}`")

    return click.Command(
        name,
        callback=refuse,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        help=f"{COMMANDS[name][1]} Not part of this release.",
        context_settings={"ignore_unknown_options": True},
    )


def __getattr__(name: str) -> click.Command:
    command = name.replace("_", "-")
    if command not in LATER:
        raise AttributeError(name)
    return _refusing(command)
