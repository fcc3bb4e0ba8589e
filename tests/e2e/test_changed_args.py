"""A waiting job gets other arguments: it waits behind the limits that are theirs, on every engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dayjob import App, Breaker, Concurrency, Job, Lane, RateLimit, Unique
from tests.e2e.test_limits import app

__all__ = ["app"]

Change = Callable[[Job[Any]], object]


def keys(job: Job[Any]) -> list[str]:
    """What *job* waits behind."""
    gating = job.refresh().gating
    return [] if gating is None else [gate.key for gate in gating.gates]


@pytest.fixture(params=["edit", "replace", "merge"])
def change(request: pytest.FixtureRequest, app: App) -> tuple[Job[Any], Job[Any]]:
    """Two jobs of tenant b of which one may run; the second was of tenant a until one of the three ways changed it."""
    here: list[int] = []
    conflict = "existing" if request.param == "edit" else request.param

    @app.task(
        name="report",
        unique=Unique("{report}", on_conflict=conflict),
        concurrency=Concurrency(1, key="tenant:{tenant}"),
        breaker=Breaker(key="host:{tenant}"),
    )
    def report(report: int, tenant: str) -> int:
        here.append(report)
        time.sleep(0.2)
        most = len(here)
        here.remove(report)
        return most

    first = report.enqueue(1, "b")
    job = report.enqueue(2, "a")
    if request.param == "edit":
        assert job.edit(args={"report": 2, "tenant": "b"})
    else:
        assert report.enqueue(2, "b").outcome == f"{request.param}d"
    return first, job


def test_the_job_waits_at_the_gates_of_its_new_arguments(app: App, change: tuple[Job[Any], Job[Any]]) -> None:
    first, job = change

    assert job.refresh().args == {"report": 2, "tenant": "b"}
    assert keys(job) == ["host:b", "tenant:b"] == keys(first)
    assert job.gating is not None
    assert job.gating.unique is not None
    assert job.gating.unique.key == "2"


def test_and_their_limit_holds(app: App, change: tuple[Job[Any], Job[Any]]) -> None:
    app.worker(concurrency=4).run_until_idle()

    assert [job.result() for job in change] == [1, 1]


def test_and_their_breaker_keeps_it(app: App, change: tuple[Job[Any], Job[Any]]) -> None:
    app.breakers.open("host:b")

    assert not app.worker().run_until_idle()

    app.breakers.close("host:b")
    assert app.worker().run_until_idle() == {"completed": 2}


def test_what_was_said_for_one_job_alone_stays(app: App) -> None:
    @app.task(name="report", concurrency=Concurrency(1, key="tenant:{tenant}"))
    def report(tenant: str) -> None: ...

    own = report.using(concurrency=Concurrency(9, key="mine"), rate_limit=RateLimit(5, per=1, key="api"), delay=60)
    job = own.enqueue("a")
    assert job.edit(args={"tenant": "b"})

    assert keys(job) == ["mine", "api"]


def test_a_limit_said_for_one_job_keeps_its_number_under_the_new_key(app: App) -> None:
    @app.task(name="report", concurrency=Concurrency(1, key="tenant:{tenant}"))
    def report(tenant: str) -> None: ...

    job = report.using(concurrency=Concurrency(9, key="tenant:{tenant}"), delay=60).enqueue("a")
    assert job.edit(args={"tenant": "b"})

    assert [(gate.key, gate.limit) for gate in job.refresh().gating.gates] == [("tenant:b", 9)]  # type: ignore[union-attr]


@pytest.mark.parametrize("order", ["fair", "strict"])
def test_a_lane_follows_the_arguments(app: App, order: Any) -> None:
    @app.task(name="report", lane=Lane("tenant:{tenant}", order=order, weight=3))
    def report(tenant: str) -> None: ...

    job = report.enqueue("a")
    assert job.edit(args={"tenant": "b"})

    gating = job.refresh().gating
    assert gating is not None
    assert (gating.lane, gating.weight) == ("tenant:b", 3)
    assert [(gate.kind, gate.key) for gate in gating.gates] == ([("order", "tenant:b")] if order == "strict" else [])
    assert app.worker().run_until_idle() == {"completed": 1}


def test_arguments_that_make_no_key_are_refused_and_change_nothing(app: App) -> None:
    from dayjob import ConfigError

    @app.task(name="report", concurrency=Concurrency(1, key="{tenant}"))
    def report(tenant: str) -> None: ...

    job = report.using(delay=60).enqueue("a")
    with pytest.raises(ConfigError, match="the key is empty"):
        job.edit(args={"tenant": ""})

    assert job.refresh().args == {"tenant": "a"}
    assert keys(job) == ["a"]


def test_of_many_edits_at_once_the_last_one_has_both_its_arguments_and_its_gates(app: App) -> None:
    @app.task(name="report", concurrency=Concurrency(1, key="tenant:{tenant}"))
    def report(tenant: int) -> None: ...

    job = report.using(delay=60).enqueue(0)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda n: app.jobs.edit(job.id, args={"tenant": n}), range(1, 41)))

    assert keys(job) == [f"tenant:{job.args['tenant']}"]
    assert job.args["tenant"] > 0


def test_an_edit_of_a_job_that_runs_is_refused(app: App) -> None:
    edited = []

    @app.task(name="report", concurrency=Concurrency(1, key="tenant:{tenant}"))
    def report(tenant: str) -> None:
        edited.append(app.jobs.edit(job.id, args={"tenant": "b"}))

    job = report.enqueue("a")
    app.worker().run_until_idle()

    assert edited == [False]
    assert job.refresh().args == {"tenant": "a"}
