"""An app on a file of its own, for tests of what stands above the line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dayjob import App


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """An app without tasks, whose store is a file that no one else has."""
    with App(f"sqlite:///{tmp_path / 'jobs.db'}") as app:
        yield app
