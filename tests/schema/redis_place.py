"""What the tests of the Redis engine alone share: an empty place on each of the servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.engines import Redis, Redis62, Redis70, Valkey9
from tests.contract.scene import Scene

KINDS = (Valkey9, Redis70, Redis62)


@pytest.fixture(params=KINDS, ids=lambda engine: engine.name)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Redis]:
    """A database of its own, with nothing in it."""
    engine: Redis = request.param(tmp_path)
    yield engine
    engine.close()


@pytest.fixture
def scene(place: Redis) -> Scene:
    """A migrated store at a virtual time."""
    return Scene(place)


def do(place: Redis, *words: Any) -> Any:
    """A command to the place's database, past the engine."""
    return place.server.do(*words, database=place.database)
