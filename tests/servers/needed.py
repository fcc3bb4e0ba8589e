"""A test that needs a server which this machine does not have: skipped on a developer's, failed where all must run."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import pytest

from tests.servers.host import Missing, Unavailable

T = TypeVar("T")


def needed(start: Callable[[], T]) -> T:
    """What *start* answers; where the server is missing, the running test is skipped, and fails if `CI` is set."""
    try:
        return start()
    except Missing as missing:
        if os.environ.get("CI") and not isinstance(missing, Unavailable):
            pytest.fail(str(missing))
        pytest.skip(str(missing))
