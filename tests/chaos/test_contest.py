"""The contest: who was given up settles jobs that run again in other hands, and every lack of a fence shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, nullcontext

import pytest

from dayjob.store import open_store
from tests.chaos.contest import contest
from tests.chaos.mutants import MUTANTS


def found(bug: str | None) -> Iterator[str]:
    with MUTANTS[bug].seeded("sqlite") if bug else nullcontext(), closing(open_store("sqlite:///:memory:")) as store:
        store.migrate()
        yield from contest(store).broken


def test_past_leases_write_nothing() -> None:
    assert list(found(None)) == []


@pytest.mark.parametrize(
    "bug", ["a completion is not fenced", "a record is not fenced", "a refusal is not told", "a job keeps its entry"]
)
def test_a_fence_that_is_missing_shows(bug: str) -> None:
    assert list(found(bug))
