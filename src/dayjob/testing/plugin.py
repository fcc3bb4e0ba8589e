"""The pytest plugin: the fixture `dayjob_app`. It is there wherever dayjob is installed.

Which app is under test: the ini option `dayjob_app = module:app`, else `DAYJOB_APP` or `[tool.dayjob] app` in
`pyproject.toml`; with none of them, a new and empty one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dayjob.testing.kit import Testing


def pytest_addoption(parser: pytest.Parser) -> None:
    """The ini option."""
    parser.addini("dayjob_app", "the app under test of the fixture dayjob_app, as module:app", default="")


@pytest.fixture
def dayjob_app(request: pytest.FixtureRequest) -> Iterator[Testing]:
    """The app under test, on a private in-memory store: `dayjob_app.drain()`, `dayjob_app.enqueued(...)` …

    All attributes of the app are there, too: `dayjob_app.enqueue(...)`, `dayjob_app.jobs.find()`.
    """
    from dayjob.app import App
    from dayjob.errors import ConfigError
    from dayjob.locate import find_app

    named = request.config.getini("dayjob_app")
    try:
        app = find_app(named or None, os.environ, request.config.rootpath)
    except ConfigError as error:
        if named or "no app was named" not in str(error):
            raise
        app = App("sqlite:///:memory:")
    with app.testing() as t:
        yield t
