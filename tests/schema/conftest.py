"""What the tests of a schema start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.engines import Postgres, Postgres15, Postgres18
from tests.contract.scene import Scene
from tests.contract.theirs import Theirs, theirs


@pytest.fixture(params=(Postgres18, Postgres15), ids=lambda engine: engine.name)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Postgres]:
    """A migrated database, on the newest server and on the oldest that is tested."""
    engine: Postgres = request.param(tmp_path)
    engine.store()
    yield engine
    engine.close()


@pytest.fixture
def scene(place: Postgres) -> Scene:
    """A store in it, at a virtual time."""
    return Scene(place)


@pytest.fixture
def app(scene: Scene) -> Iterator[Theirs]:
    """An application on a connection of its own, whose transaction stays open until a test ends it."""
    with theirs(scene) as app:
        yield app
