"""Which app, and which store, a command works on."""

from __future__ import annotations

import contextlib
import os
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from dayjob.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dayjob import App


def load_app(name: str | None, url: str | None = None) -> App:
    """The app with its code, for commands that run tasks or check arguments against them.

    Args:
        name: `module:app`; else DAYJOB_APP, else `[tool.dayjob]` of pyproject.toml.
        url: a store that wins over the app's own, when it was typed. DAYJOB_URL does not: it is the default of an app
            that names no store, here as in Python, so that producers and workers meet at the same one.
    """
    from dayjob.locate import find_app

    url = _typed(url)
    if url is not None:
        os.environ["DAYJOB_URL"] = url  # for worker processes and the pool's children, too
    try:
        app = find_app(name, os.environ, Path.cwd())
    except (ConfigError, SyntaxError) as error:
        raise click.UsageError(str(error)) from None
    except Exception as error:
        raise click.ClickException(f"the app cannot be imported: {_blame(error)}") from error
    if url is not None:
        app.url = url
    return app


def _typed(url: str | None) -> str | None:
    """*url* when it was given on the command line, None when it came from DAYJOB_URL."""
    context = click.get_current_context(silent=True)
    given = context is not None and context.get_parameter_source("url") is ParameterSource.ENVIRONMENT
    return None if given else url


def located(name: str | None, url: str | None, *, code: bool = False) -> App:
    """An app to look at and act on stored jobs.

    Its code is loaded when nothing else says where the store is, or with *code* wherever there is any: then arguments
    are checked, and options come from the task.
    """
    from dayjob import App

    named = name is not None or bool(os.environ.get("DAYJOB_APP"))
    alone = _typed(url) is not None or (bool(os.environ.get("DAYJOB_URL")) and not named)
    if not alone or (code and name is not None):
        return load_app(name, url)
    if code:
        with contextlib.suppress(click.UsageError):  # no app is named anywhere: by name, then
            return load_app(None, url)
    return App(url)


@contextlib.contextmanager
def opened(name: str | None, url: str | None, *, code: bool = False) -> Iterator[App]:
    """`located`, opened. Without *code*, to look and act, there must be a store: a wrong path must not look empty."""
    app = located(name, url, code=code)
    if not code and app.migrate(dry_run=True) and not app.check().schema:
        app.close()
        raise click.ClickException(
            f"there is no store at {app.url} yet: `dayjob migrate` makes it; a file is made by an enqueue or a worker, too"
        )
    with app:
        yield app


def _blame(error: Exception) -> str:
    """The error in one line, with the place in the user's file where it came up."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "importlib" not in frame.filename and "/dayjob/" not in frame.filename]
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{place}"
