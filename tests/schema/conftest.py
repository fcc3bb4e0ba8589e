"""What the tests of a schema start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.engines import Postgres, Postgres15, Postgres18


@pytest.fixture(params=(Postgres18, Postgres15), ids=lambda engine: engine.name)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Postgres]:
    """A migrated database, on the newest server and on the oldest that is tested."""
    engine: Postgres = request.param(tmp_path)
    engine.store()
    yield engine
    engine.close()
