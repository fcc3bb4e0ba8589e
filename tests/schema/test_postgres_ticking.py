"""Ticks of very many schedules at once."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

import dayjob.store
from dayjob.store import open_store
from dayjob.store.records import Tick
from tests.contract.engines import Postgres

if "postgresql" not in dayjob.store.ENGINES:
    pytest.skip("this release has no PostgreSQL engine", allow_module_level=True)

ALL, FEW, MANY = 10_000, 50, 1_000


def test_what_many_schedules_cost_goes_with_their_number(place: Postgres) -> None:
    """Twenty times as many took a hundred times as long when each was held against all others."""
    with closing(open_store(place.url)) as store:
        fill = f"INSERT INTO dayjob.record SELECT 'schedule', 'each-' || n, repeat('x', 500)::bytea, 1 FROM generate_series(1, {ALL}) AS n"
        place.server.sql(fill, database=place.database)
        keys = iter([f"each-{n}" for n in range(1, ALL + 1)])

        def seconds(count: int) -> float:
            ticks = [Tick(next(keys), 1, b"x" * 500, ()) for _ in range(count)]
            begun = time.perf_counter()
            assert store.tick(ticks) == [[]] * count
            return time.perf_counter() - begun

        seconds(FEW)  # connects, and plans
        few, many = (min(seconds(count) for _ in range(3)) for count in (FEW, MANY))

    assert many < 50 * few
