"""Keys, limits and breakers through the whole of dayjob, on every engine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dayjob import (
    App,
    Breaker,
    BreakerOpen,
    Concurrency,
    Job,
    JobExists,
    LimitTimeout,
    RateLimit,
    State,
    Unique,
)
from tests.servers.needed import needed
from tests.servers.postgres import postgres
from tests.servers.redis import redis


@pytest.fixture(params=["sqlite", "postgres-18", "valkey-9"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[App]:
    """An app without tasks at an empty store."""
    if request.param == "sqlite":
        with App(f"sqlite:///{tmp_path / 'jobs.db'}") as app:
            yield app
    elif request.param == "valkey-9":
        valkey = needed(lambda: redis("valkey-9"))
        yield from migrated(valkey.url(valkey.database()))
    else:
        server = needed(postgres)
        with server.database() as name:
            yield from migrated(server.url(name))


def migrated(url: str) -> Iterator[App]:
    app = App(url)
    app.migrate()
    with app:
        yield app


def test_a_key_that_is_held_gives_the_holders_handle(app: App) -> None:
    @app.task(name="charge", unique=Unique("order:{order_id}"))
    def charge(order_id: int, note: str = "") -> None: ...

    first = charge.enqueue(7)
    again = charge.enqueue(7, note="later")

    assert (first.outcome, again.outcome) == ("inserted", "existing")
    assert again == first
    assert again.args == {"order_id": 7, "note": ""}
    many = app.enqueue_many([charge.job(7), charge.job(8), charge.job(8)])
    assert [job.outcome for job in many] == ["existing", "inserted", "existing"]
    assert many[0] == first
    assert many[1] == many[2]
    assert app.jobs.count() == 2
    assert first.refresh().gating is not None
    assert first.gating.unique.key == "order:7"  # type: ignore[union-attr]

    app.worker().run_until_idle()
    assert charge.enqueue(7).outcome == "inserted"


async def test_so_it_does_in_a_loop_and_in_one_iteration(app: App) -> None:
    @app.task(name="charge", unique=Unique())
    async def charge(order_id: int) -> None: ...

    jobs = await asyncio.gather(*(charge.aenqueue(7) for _ in range(20)))
    assert sorted(str(job.outcome) for job in jobs) == ["existing"] * 19 + ["inserted"]
    assert len(set(jobs)) == 1


def test_fifty_producers_at_one_key_store_one_job(app: App) -> None:
    @app.task(name="charge", unique=Unique("k"))
    def charge(n: int) -> None: ...

    with ThreadPoolExecutor(50) as pool:
        jobs = list(pool.map(charge.enqueue, range(200)))

    assert sum(job.outcome == "inserted" for job in jobs) == 1
    assert len(set(jobs)) == 1
    assert app.jobs.count() == 1


def test_raise_says_who_holds_the_key(app: App) -> None:
    @app.task(name="charge", unique=Unique("k", on_conflict="raise"))
    def charge() -> None: ...

    first = charge.enqueue()
    with pytest.raises(JobExists, match="'k'") as caught:
        charge.enqueue()
    assert caught.value.id == first.id


def test_replace_gives_the_waiting_job_the_newer_call(app: App) -> None:
    @app.task(name="charge", unique=Unique("k", on_conflict="replace"))
    def charge(n: int) -> None: ...

    first = charge.using(delay=60).enqueue(1)
    second = charge.using(priority=5, delay=60).enqueue(2)

    assert second.outcome == "replaced"
    assert second == first
    assert first.refresh().args == {"n": 2}
    assert first.priority == 5


@pytest.mark.parametrize("code", [True, False], ids=["with code", "by name"])
def test_merge_joins_lists_updates_mappings_and_takes_the_newer_of_the_rest(app: App, code: bool) -> None:
    unique = Unique("k", on_conflict="merge")
    if code:

        @app.task(name="notify", unique=unique)
        def notify(ids: list[int], data: dict[str, int], note: str = "-") -> None: ...

    def enqueue(**args: Any) -> Job[Any]:
        return app.enqueue("notify", args, unique=unique, delay=60)

    first = enqueue(ids=[1], data={"a": 1, "b": 1}, note="x")
    second = enqueue(ids=[2], data={"b": 2, "c": 3}, note="y")

    assert second.outcome == "merged"
    assert second == first
    assert first.refresh().args == {"ids": [1, 2], "data": {"a": 1, "b": 2, "c": 3}, "note": "y"}
    assert app.jobs.count() == 1


def test_nothing_is_lost_when_many_merge_at_once(app: App) -> None:
    @app.task(name="notify", unique=Unique("k", on_conflict="merge"))
    def notify(ids: list[int]) -> None: ...

    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda n: notify.using(delay=60).enqueue([n]), range(64)))

    assert len(set(jobs)) == 1
    assert sorted(jobs[0].refresh().args["ids"]) == list(range(64))


def test_merge_leaves_a_job_that_runs_as_it_is(app: App) -> None:
    inside, go_on = threading.Event(), threading.Event()

    @app.task(name="notify", unique=Unique("k", on_conflict="merge"))
    def notify(ids: list[int]) -> None:
        inside.set()
        go_on.wait(10)

    first = notify.enqueue([1])
    with working(app):
        assert inside.wait(10)
        second = notify.enqueue([2])
        go_on.set()
        first.join(10)
    assert second.outcome == "existing"
    assert first.refresh().args == {"ids": [1]}


class working:
    """A worker in a thread of its own."""

    def __init__(self, app: App, concurrency: int = 10) -> None:
        self.worker = app.worker(concurrency=concurrency)
        self.thread = threading.Thread(target=self.worker.run)

    def __enter__(self) -> working:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.stop(now=True)
        self.thread.join(20)


class Meter:
    """How many are inside at once."""

    def __init__(self) -> None:
        self.inside = self.most = self.total = 0
        self.lock = threading.Lock()
        self.two = threading.Event()

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            self.total += 1
            self.most = max(self.most, self.inside)
            if self.inside == 2:
                self.two.set()

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1


def test_concurrency_holds_per_key_and_all_run(app: App) -> None:
    meters = {tenant: Meter() for tenant in range(3)}

    @app.task(name="work", concurrency=Concurrency(2, key="tenant:{tenant}"))
    def work(tenant: int) -> None:
        with meters[tenant]:
            assert meters[tenant].two.wait(10)  # the first does not end before a second has come

    jobs = app.enqueue_many([work.job(n % 3) for n in range(60)])
    assert jobs[0].state is State.BLOCKED
    with working(app):
        for job in jobs:
            job.join(20)

    assert {meter.most for meter in meters.values()} == {2}
    assert [meter.total for meter in meters.values()] == [20, 20, 20]
    assert app.limits.list() == []


def test_a_limit_around_calls_counts_with_the_jobs_and_gives_back(app: App) -> None:
    meter, limit = Meter(), Concurrency(2, key="api")

    def call(_: int) -> None:
        with app.limit(limit), meter:
            time.sleep(0.01)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(20)))
    assert (meter.most, meter.total) == (2, 20)
    with pytest.raises(ValueError, match="mine"), app.limit(limit):
        raise ValueError("mine")
    assert app.limits.list() == []


async def test_so_it_does_in_a_loop_and_a_cancelled_wait_leaves_nothing(app: App) -> None:
    limit = Concurrency(1, key="api")
    async with app.limit(limit):
        with pytest.raises(LimitTimeout, match="concurrency api"):
            async with app.limit(limit, timeout=0.05):
                raise AssertionError("two inside")
        waiting = asyncio.create_task(entered(app, limit))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert app.limits.list() == []
    async with app.limit(limit, timeout=1):
        assert [row.taken for row in await app.limits.alist()] == [1]


async def test_what_a_look_took_that_nobody_waits_for_any_more_is_given_back(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, taken, go_on = Concurrency(1, key="api"), threading.Event(), threading.Event()
    store = app.store
    take = store.take

    def slow(*args: Any, **kwargs: Any) -> float | None:
        answer = take(*args, **kwargs)
        taken.set()
        go_on.wait(10)
        return answer

    monkeypatch.setattr(store, "take", slow)
    waiting = asyncio.create_task(entered(app, limit))
    await asyncio.to_thread(taken.wait, 10)
    waiting.cancel()
    asyncio.get_running_loop().call_later(0.05, go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert app.limits.list() == []


async def entered(app: App, limit: Concurrency) -> None:
    async with app.limit(limit):
        pass


def test_outside_of_a_job_values_are_given(app: App) -> None:
    with app.limit(Concurrency(1, key="account:{account}"), account=7):
        assert [row.key for row in app.limits.list()] == ["account:7"]


def test_a_breaker_around_a_call_hears_how_it_went_and_refuses_at_once_when_open(app: App) -> None:
    breaker = Breaker("psp", failures=2, within=60, cooldown=600, on=(ConnectionError,))
    for _ in range(2):
        with pytest.raises(ConnectionError), app.limit(breaker):
            raise ConnectionError
    began = time.monotonic()
    with pytest.raises(BreakerOpen, match="psp") as caught, app.limit(breaker):
        raise AssertionError("called")
    assert time.monotonic() - began < 1
    assert caught.value.retry_in == pytest.approx(600, abs=5)
    app.breakers.close("psp")
    with app.limit(breaker):
        pass


def test_a_producer_may_keep_to_a_rate(app: App) -> None:
    @app.task(name="work")
    def work(n: int) -> None: ...

    limit = RateLimit(5, per=0.3, key="imports")
    began = time.monotonic()
    for n in range(11):
        with app.limit(limit):
            work.enqueue(n)
    assert 0.6 <= time.monotonic() - began < 5


def test_a_job_whose_time_is_up_inside_a_limit_leaves_nothing_taken(app: App) -> None:
    limit = Concurrency(3, key="api")

    @app.task(name="work", timeout=0.2, retry=1)
    def work(n: int) -> None:
        while True:
            with app.limit(limit):
                time.sleep(0.001)

    jobs = app.enqueue_many([work.job(n) for n in range(20)])
    with working(app, concurrency=4):
        for job in jobs:
            job.join(30)
        assert {job.refresh().state for job in jobs} == {State.DEAD}
        assert app.limits.list() == []
