"""The suite's fixtures: an engine, a scene on it, and who else is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dayjob.store.contract import Store
from tests.contract.engines import ENGINES, EngineUnderTest
from tests.contract.scene import Scene
from tests.contract.theirs import Theirs, theirs


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EngineUnderTest]:
    """An engine with an empty place of its own; one test, one place."""
    under_test: EngineUnderTest = request.param(tmp_path)
    yield under_test
    under_test.close()


@pytest.fixture
def scene(engine: EngineUnderTest) -> Scene:
    """A migrated store at a virtual time."""
    return Scene(engine)


@pytest.fixture
def store(scene: Scene) -> Store:
    """The scene's store."""
    return scene.store


@pytest.fixture
def app(scene: Scene) -> Iterator[Theirs]:
    """An application on a connection of its own, whose transaction stays open until a test ends it."""
    with theirs(scene) as app:
        yield app


@pytest.fixture
def other(scene: Scene) -> Store:
    """A second handle on the scene's data, as another process has it."""
    return scene.engine.open()
