"""Completing in a transaction inside a pool child: its parent finds out how that ended, however the child ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.contract.engines import EngineUnderTest, Postgres18, SqliteFile

TASKS = ("pay", "pay_here")


@pytest.fixture(params=[SqliteFile, Postgres18], ids=lambda engine: engine.name)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ModuleType]:
    from tests.transactions import shop as module

    engine: EngineUnderTest = request.param(tmp_path)
    engine.store()
    module.app.close()
    module.app.url = engine.url
    with closing(module.connect()) as connection:
        connection.execute("CREATE TABLE effect (note text)")
        connection.commit()
    yield module
    module.app.close()
    engine.close()


def ran(shop: ModuleType, task: str, how: str) -> tuple[Any, list[str], int]:
    """The job, what happened to it, and how often its effect is there."""
    seen: list[str] = []
    names = ("job.completed", "job.raised_late", "job.failed", "job.dead", "lease.lost", "process.died")
    ends = [shop.app.bus.subscribe(name, lambda event: seen.append(event.name)) for name in names]
    job = getattr(shop, task).enqueue(how)
    shop.app.worker().run_until_idle()
    for end in ends:
        end()
    with closing(shop.connect()) as connection:
        [(effects,)] = connection.execute("SELECT count(*) FROM effect").fetchall()
    return job.refresh(), seen, effects


@pytest.mark.parametrize("task", TASKS)
def test_it_completes_once_and_its_words_are_kept(shop: ModuleType, task: str) -> None:
    job, seen, effects = ran(shop, task, "well")

    assert (job.state, job.result(timeout=1), effects) == ("completed", "paid", 1)
    assert [line.message for line in job.logs()] == ["paying"]
    assert seen == ["job.completed"]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("how", ["raise", "kill", "hang"])
def test_whatever_happens_after_the_commit_it_stays_completed(shop: ModuleType, task: str, how: str) -> None:
    job, seen, effects = ran(shop, task, how)

    assert (job.state, job.result(timeout=1), effects) == ("completed", "paid", 1)
    assert [name for name in seen if name != "process.died"] == ["job.raised_late", "job.completed"]
    assert ("process.died" in seen) is (how == "kill")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("how", "reason"), [("raise", "failed"), ("hang", "failed")])
def test_what_happens_before_it_decides_as_always(shop: ModuleType, task: str, how: str, reason: str) -> None:
    job, seen, effects = ran(shop, task, f"before {how}")

    assert (job.state, job.reason, effects) == ("dead", reason, 0)
    assert [line.message for line in job.logs()] == ["paying"]
    assert seen == ["job.failed", "job.dead"]


def test_who_forgets_to_commit_has_failed(shop: ModuleType) -> None:
    job, seen, effects = ran(shop, "pay", "forget")

    assert (job.state, effects) == ("dead", 0)
    assert "NotCommitted" in job.error.type
    assert seen == ["job.failed", "job.dead"]
