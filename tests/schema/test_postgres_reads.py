"""Pages among many jobs: each looks at a few rows only, and all of them together leave nothing out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

import dayjob.store
from dayjob import App
from dayjob.states import Outcome, State
from dayjob.store.records import Filter, NewRow, Settlement, Want, WorkerInfo
from tests.contract.engines import Postgres18
from tests.contract.ids import numbered

if "postgresql" not in dayjob.store.ENGINES:
    pytest.skip("this release has no PostgreSQL engine", allow_module_level=True)

from dayjob import jobs as facade
from dayjob.store.postgres import finder

FILTERS = [
    Filter(),
    Filter(states=(State.COMPLETED,)),
    Filter(states=(State.DEAD, State.RUNNING)),
    Filter(states=(State.SCHEDULED,)),
    Filter(states=(State.AVAILABLE, State.COMPLETED), queue="q1"),
    Filter(queue="rare"),
    Filter(queue="rare", task="t1"),
    Filter(task="t2"),
    Filter(task="seldom"),
    Filter(tag="red"),
    Filter(text="seldom"),
    Filter(text="nowhere"),
    Filter(states=(State.COMPLETED,), tag="red"),
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres18]:
    """Some thousand jobs in all states."""
    chance = random.Random(1)
    engine = Postgres18(tmp_path_factory.mktemp("reads"))
    store = engine.store()
    store.beat(WorkerInfo("w", "here:1", "here", 1), [])
    numbers = list(range(1_500))
    chance.shuffle(numbers)
    for claim, start in enumerate(range(0, 1_500, 500), 1):
        store.enqueue(
            [
                NewRow(
                    numbered(n), "seldom" if n % 250 == 7 else f"t{n % 3}", "rare" if n % 100 == 3 else f"q{n % 4}", b"{}",
                    delay=3600.0 if n % 10 == 0 else None, tags='["red"]' if n % 50 == 0 else None,
                )
                for n in numbers[start : start + 500]
            ]
        )  # fmt: skip
        claimed = store.turn("w", claim, wants=[Want(None, 300)]).claimed
        outcomes = chance.choices((Outcome.COMPLETED, Outcome.DEAD, None), (20, 1, 1), k=len(claimed))
        store.turn(
            "w",
            settlements=[
                Settlement(job.id, job.entry, outcome, 1, 2, keep=86_400.0, claim_no=claim)
                for job, outcome in zip(claimed, outcomes, strict=True)
                if outcome is not None
            ],
        )
    yield engine
    engine.close()


def all_pages(store: Any, which: Filter, limit: int) -> tuple[list[str], int]:
    ids, pages, after = [], 0, None
    while True:
        page = store.find(which, limit=limit, after=after)
        ids += [job.id for job in page.jobs]
        pages += 1
        after = page.after
        if after is None:
            return ids, pages


@pytest.mark.parametrize("which", FILTERS, ids=str)
@pytest.mark.parametrize("limit", [11, 50])
def test_short_pages_add_up_to_all_that_matches(
    engine: Postgres18, which: Filter, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = engine.store()
    expected, _ = all_pages(store, which, 5_000)
    monkeypatch.setattr(finder, "LOOKED_AT", 100)
    found, _ = all_pages(store, which, limit)

    assert found == expected
    assert len(expected) == store.count(which)


def test_a_page_stops_looking_and_says_where(engine: Postgres18, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "LOOKED_AT", 100)
    page = engine.store().find(Filter(text="nowhere"), limit=5)

    assert page.jobs == []
    assert page.after is not None


def test_the_app_goes_on_looking_until_the_page_is_full(engine: Postgres18, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "LOOKED_AT", 100)
    with App(engine.url) as app:
        page = app.jobs.find(task="seldom", limit=4)
        rest = app.jobs.find(task="seldom", limit=4, after=page.after)

    assert [len(page), len(rest)] == [4, 2]
    assert rest.after is None


def test_but_not_for_ever(engine: Postgres18, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "LOOKED_AT", 100)
    monkeypatch.setattr(facade, "_PATIENCE", 0.0)
    with App(engine.url) as app:
        page = app.jobs.find(text="nowhere")

    assert (len(page), page.after is None) == (0, False)
