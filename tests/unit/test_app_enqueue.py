"""Enqueueing through the app: from code, from anywhere, and what is refused at the boundary."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import dayjob
from dayjob import (
    App,
    ConfigError,
    JobContext,
    NewJob,
    NotSupported,
    PayloadInvalid,
    PayloadNotSerializable,
    PayloadTooLarge,
    Retention,
    Retry,
    State,
    Task,
)


@pytest.fixture
def charge(app: App) -> Task[[int, Decimal], str]:
    @app.task(name="billing.charge", queue="billing", priority=10)
    def charge(order_id: int, amount: Decimal) -> str:
        return "receipt"

    return charge


# -- what is stored --------------------------------------------------------------------------------------------------


def test_a_job_is_stored_with_the_arguments_and_the_options_of_its_task(app: App, charge: Task[..., str]) -> None:
    job = app.jobs.get(charge.enqueue(order_id=7, amount=Decimal("9.99")).id)

    assert (job.task, job.queue, job.priority, job.state) == ("billing.charge", "billing", 10, State.AVAILABLE)
    assert job.args == {"order_id": 7, "amount": Decimal("9.99")}
    assert (job.attempt, job.max_attempts, job.crashes, job.attempts) == (0, 5, 0, [])


def test_what_using_says_is_stored_with_the_job(app: App, charge: Task[..., str]) -> None:
    mine = str(uuid.uuid4())
    made = charge.using(
        delay=60, priority=-5, queue="other", tags=["vip"], meta={"by": "web"}, expires=3600, id=mine, retry=3
    ).enqueue(7, Decimal(1))
    job = app.jobs.get(mine)

    assert made == job
    assert (job.queue, job.priority, job.tags, job.meta) == ("other", -5, ("vip",), {"by": "web"})
    assert (job.state, job.max_attempts) == (State.SCHEDULED, 3)
    assert job.run_at - job.created_at == timedelta(seconds=60)
    assert job.expires_at is not None
    assert job.expires_at - job.created_at == timedelta(hours=1)


def test_a_point_in_time_is_kept_to_the_microsecond(charge: Task[..., str]) -> None:
    due = datetime(2090, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)
    job = charge.using(run_at=due).enqueue(7, Decimal(1))

    assert job.state == State.SCHEDULED
    assert job.refresh().run_at == due


def test_a_time_in_the_past_means_now(charge: Task[..., str]) -> None:
    job = charge.using(run_at=datetime(2001, 1, 1, tzinfo=UTC)).enqueue(7, Decimal(1))

    assert job.state == State.AVAILABLE
    assert job.refresh().state == State.AVAILABLE


def test_an_id_of_ones_own_makes_the_enqueue_repeatable(app: App, charge: Task[..., str]) -> None:
    mine = uuid.uuid4()
    first = charge.using(id=mine).enqueue(7, Decimal(1))
    second = charge.using(id=str(mine).upper()).enqueue(7, Decimal(1))

    assert (first.outcome, second.outcome) == ("inserted", "existing")
    assert first == second
    assert app.jobs.count() == 1


def test_many_calls_of_several_tasks_are_stored_in_their_order(app: App, charge: Task[..., str]) -> None:
    @app.task(name="note")
    async def note(text: str) -> None: ...

    jobs = app.enqueue_many([charge.job(1, Decimal(1)), note.job("a"), note.using(priority=3).job("b")])

    assert [job.args for job in jobs] == [{"order_id": 1, "amount": Decimal(1)}, {"text": "a"}, {"text": "b"}]
    assert [job.id for job in jobs] == sorted(job.id for job in jobs)
    assert [job.id for job in reversed(app.jobs.find())] == [job.id for job in jobs]


def test_more_than_a_thousand_are_several_commits_and_one_answer(app: App, charge: Task[..., str]) -> None:
    jobs = app.enqueue_many(charge.job(number, Decimal(number)) for number in range(2_345))

    assert len(jobs) == 2_345
    assert app.jobs.count(state="available") == 2_345
    assert jobs[2_344].refresh().args["order_id"] == 2_344


def test_a_call_by_name_is_checked_where_the_code_is(app: App, charge: Task[..., str]) -> None:
    job = app.enqueue("billing.charge", {"order_id": 7, "amount": "9.99"}, delay=60)

    assert job.args == {"order_id": 7, "amount": Decimal("9.99")}
    assert (job.queue, job.priority, job.state) == ("billing", 10, State.SCHEDULED)
    with pytest.raises(PayloadInvalid, match="amount"):
        app.enqueue("billing.charge", {"order_id": 7})
    with pytest.raises(PayloadInvalid, match="nothing"):
        app.enqueue("billing.charge", {"order_id": 7, "amount": "1", "nothing": 1})
    assert app.jobs.count() == 1


def test_a_call_by_name_is_stored_as_it_is_where_the_code_is_not(app: App) -> None:
    app.queue("far", defaults={"priority": 7})
    job = app.enqueue("elsewhere.run", {"order_id": 7, "amount": "9.99"}, queue="far", tags=["x"], retry=2)
    stored = app.jobs.get(job.id)

    assert stored.args == {"order_id": 7, "amount": "9.99"}
    assert (stored.queue, stored.priority, stored.tags, stored.max_attempts) == ("far", 7, ("x",), 2)


async def test_awaitable_twins_do_the_same(app: App, charge: Task[..., str]) -> None:
    one = await charge.aenqueue(1, Decimal(1))
    two = await app.aenqueue("billing.charge", {"order_id": 2, "amount": "2"})
    three, four = await app.aenqueue_many([charge.job(3, Decimal(3)), charge.job(4, Decimal(4))])
    found = await app.jobs.afind()

    assert [job.id for job in found] == [four.id, three.id, two.id, one.id]
    assert (await app.jobs.aget(one.id)).args == {"order_id": 1, "amount": Decimal(1)}


def test_on_enqueue_stamps_every_job(app: App, charge: Task[..., str]) -> None:
    @app.on_enqueue
    def stamp(new: NewJob[Any]) -> None:
        new.meta["request"] = "r-1"

    jobs = [charge.using(meta={"by": "web"}).enqueue(1, Decimal(1)), app.enqueue("other", {})]
    jobs += app.enqueue_many([charge.job(2, Decimal(2))])

    assert [app.jobs.get(job.id).meta for job in jobs] == [
        {"by": "web", "request": "r-1"},
        {"request": "r-1"},
        {"request": "r-1"},
    ]


def test_what_a_stamp_cannot_store_is_refused(app: App, charge: Task[..., str]) -> None:
    @app.on_enqueue
    def stamp(new: NewJob[Any]) -> None:
        new.meta["request"] = object()

    with pytest.raises(ConfigError, match="request"):
        charge.enqueue(1, Decimal(1))
    assert app.jobs.count() == 0


def test_an_enqueue_is_an_event(app: App, charge: Task[..., str]) -> None:
    seen: list[str] = []

    @app.on("job.enqueued")
    def note(event: Any) -> None:
        seen.append(f"{event.task} {event.outcome}")

    charge.enqueue(1, Decimal(1))
    app.enqueue_many([charge.job(2, Decimal(2))])

    assert seen == ["billing.charge inserted"] * 2
    with pytest.raises(ConfigError, match="no event is named"):
        app.on("job.exploded")(note)


# -- from anywhere ---------------------------------------------------------------------------------------------------


async def test_the_sync_verb_works_in_a_running_loop(app: App, charge: Task[..., str]) -> None:
    job = charge.enqueue(1, Decimal(1))

    assert app.jobs.get(job.id).state == State.AVAILABLE


def test_threads_and_loops_at_once(app: App, charge: Task[..., str]) -> None:
    async def together() -> None:
        await asyncio.gather(*(charge.aenqueue(number, Decimal(1)) for number in range(50)))

    def one_by_one() -> None:
        for number in range(20):
            charge.enqueue(number, Decimal(1))

    threads = [Thread(target=one_by_one) for _ in range(6)] + [Thread(target=asyncio.run, args=(together(),))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)

    assert app.jobs.count() == 6 * 20 + 50


def _in_child(work: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def test_parent_and_forked_child_go_on_with_the_same_app(app: App, charge: Task[..., str]) -> None:
    charge.enqueue(1, Decimal(1))

    def work() -> None:
        charge.enqueue(2, Decimal(2))
        asyncio.run(charge.aenqueue(3, Decimal(3)))

    assert _in_child(work) == 0
    charge.enqueue(4, Decimal(4))
    assert app.jobs.count() == 4


def test_what_a_forked_child_stores_survives_its_parents_close(app: App, charge: Task[..., str]) -> None:
    charge.enqueue(1, Decimal(1))
    begin, begun, closed = os.pipe(), os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.read(begin[0], 1)
            charge.enqueue(2, Decimal(2))
            os.write(begun[1], b".")
            os.read(closed[0], 1)
            charge.enqueue(3, Decimal(3))
            status = 0
        finally:
            os._exit(status)
    charge.enqueue(4, Decimal(4))
    os.write(begin[1], b".")
    os.read(begun[0], 1)
    app.close()
    os.write(closed[1], b".")
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert sorted(job.args["order_id"] for job in app.jobs.find()) == [1, 2, 3, 4]


def test_a_child_forked_while_threads_enqueue_can_enqueue(app: App, charge: Task[..., str]) -> None:
    stop: list[bool] = []

    def busy() -> None:
        while not stop:
            charge.enqueue(1, Decimal(1))

    threads = [Thread(target=busy) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert [_in_child(lambda: charge.enqueue(2, Decimal(2))) for _ in range(5)] == [0] * 5
    finally:
        stop.append(True)
        for thread in threads:
            thread.join(10)


def test_a_store_in_memory_is_refused_in_a_forked_child() -> None:
    with App("sqlite:///:memory:") as app:

        @app.task
        def note() -> None: ...

        note.enqueue()
        reports, report = os.pipe()

        def work() -> None:
            try:
                note.enqueue()
            except NotSupported as error:
                os.write(report, str(error).encode())

        assert _in_child(work) == 0
        assert b"after os.fork()" in os.read(reports, 1_000)
        assert app.jobs.count() == 1


def test_a_closed_app_opens_again_when_it_is_used(app: App, charge: Task[..., str]) -> None:
    job = charge.enqueue(1, Decimal(1))
    app.close()
    app.close()

    assert job.refresh().state == State.AVAILABLE


async def test_async_with_opens_and_closes(tmp_path: Path) -> None:
    async with App(f"sqlite:///{tmp_path / 'jobs.db'}") as app:
        assert await app.jobs.acount() == 0
        assert await app.amigrate() == []
        assert (await app.acheck()).warnings == []
        assert await app.aworkers() == []


# -- bad input -------------------------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "options",
    [
        {"delay": -1},
        {"delay": NAN},
        {"delay": INF},
        {"delay": "60"},
        {"delay": True},
        {"delay": 1e12},
        {"delay": timedelta(days=-1)},
        {"run_at": datetime(9999, 1, 1, tzinfo=UTC)},
        {"run_at": datetime(2030, 1, 1)},  # noqa: DTZ001
        {"run_at": "tomorrow"},
        {"delay": 1, "run_at": datetime(2090, 1, 1, tzinfo=UTC)},
        {"priority": 101},
        {"priority": -101},
        {"priority": 1.5},
        {"priority": True},
        {"retry": -1},
        {"retry": 10**9},
        {"retry": Retry(retry_on=lambda error: True)},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": NAN},
        {"expires": 0},
        {"expires": INF},
        {"queue": ""},
        {"queue": "x" * 10_000},
        {"queue": "../etc"},
        {"queue": "a\x00b"},
        {"queue": "{a}"},
        {"queue": 'a"b'},
        {"queue": 7},
        {"tags": "vip"},
        {"tags": [""]},
        {"meta": {"a": NAN}},
        {"meta": {"a": {1, 2}}},
        {"meta": {"a": "\ud800"}},
        {"meta": []},
        {"id": "order-7"},
        {"id": 7},
        {"retention": 60},
        {"color": "red"},
    ],
    ids=repr,
)
def test_an_option_that_makes_no_sense_is_refused_and_nothing_written(
    app: App, charge: Task[..., str], options: dict[str, Any]
) -> None:
    named = next(iter(options))
    began = time.perf_counter()
    with pytest.raises(ConfigError) as by_task:
        charge.using(**options).enqueue(1, Decimal(1))
    with pytest.raises(ConfigError) as by_name:
        app.enqueue("billing.charge", {"order_id": 1, "amount": "1"}, **options)
    with pytest.raises(ConfigError):
        app.enqueue("unknown.task", {}, **options)
    took = time.perf_counter() - began

    assert app.jobs.count() == 0
    assert took < 0.3
    for error in (by_task.value, by_name.value):
        assert named.rstrip("s") in str(error) or "attempts" in str(error)


@pytest.mark.parametrize("name", ["once", "signal", "asgi", "flow"])
def test_a_verb_of_a_later_release_is_refused_by_name(app: App, name: str) -> None:
    with pytest.raises(NotSupported, match=f"app.{name}"):
        getattr(app, name)("anything")


@pytest.mark.parametrize("name", ["asignal", "aonce"])
async def test_so_are_their_awaitable_twins(app: App, name: str) -> None:
    with pytest.raises(NotSupported, match=f"app.{name}"):
        await getattr(app, name)("anything")


@pytest.mark.parametrize("name", ["astep", "aspawn", "asleep", "await_signal"])
async def test_and_those_of_the_context(name: str) -> None:
    context = JobContext.detached("shop.send")
    with pytest.raises(NotSupported, match=f"ctx.{name}"):
        await getattr(context, name)(*["anything"] * (2 if name == "astep" else 1))


@pytest.mark.parametrize(
    "name",
    [
        "chain",
        "group",
        "previous",
    ],
)
def test_a_value_of_a_later_release_is_refused_by_name(name: str) -> None:
    with pytest.raises(NotSupported, match=name):
        getattr(dayjob, name)("key")


@pytest.mark.parametrize("given", [[], (), iter(())])
def test_an_empty_enqueue_many_is_refused(app: App, given: Any) -> None:
    with pytest.raises(ConfigError, match="no calls"):
        app.enqueue_many(given)


@pytest.mark.parametrize("given", ["text", 7, None, {"a": 1}])
def test_enqueue_many_of_no_list_is_refused(app: App, given: Any) -> None:
    with pytest.raises(ConfigError, match="takes a list of calls"):
        app.enqueue_many(given)


def test_one_that_is_no_call_is_refused_by_its_place_and_nothing_is_written(app: App, charge: Task[..., str]) -> None:
    calls: list[Any] = [charge.job(1, Decimal(1))] * 3_000
    calls[2_500] = charge
    with pytest.raises(ConfigError, match="number 2500 is no call"):
        app.enqueue_many(calls)
    with pytest.raises(ConfigError, match="takes a list of calls"):
        app.enqueue_many(charge.job(1, Decimal(1)))  # type: ignore[arg-type]

    assert app.jobs.count() == 0


@pytest.mark.parametrize("name", ["", "a" * 10_000, "../x", "{}", "a\nb", "a\x00", "'", None, 7, ["a"]])
def test_a_task_name_that_makes_no_sense_is_refused(app: App, name: Any) -> None:
    with pytest.raises(ConfigError, match="task name"):
        app.enqueue(name, {})


def test_arguments_by_name_that_cannot_travel_are_refused(app: App) -> None:
    began = time.perf_counter()
    circular: dict[str, Any] = {}
    circular["me"] = circular
    for bad in (NAN, INF, "\ud800", {1, 2}, object(), {("a",): 1}, circular, datetime(2030, 1, 1)):  # noqa: DTZ001
        with pytest.raises((PayloadInvalid, PayloadNotSerializable)):
            app.enqueue("other", {"value": bad})
    for bad_args in ("text", [1], 7):
        with pytest.raises(PayloadInvalid, match="must be a mapping"):
            app.enqueue("other", bad_args)  # type: ignore[arg-type]
    with pytest.raises(PayloadTooLarge, match="pass a reference"):
        app.enqueue("other", {"value": "x" * 10_000_000})

    assert time.perf_counter() - began < 1.0
    assert app.jobs.count() == 0


def test_retention_of_one_job_is_stored_with_it(app: App, charge: Task[..., str]) -> None:
    job = charge.using(retention=Retention(completed=(3600, 500))).enqueue(1, Decimal(1))
    row = app.store.get(job.id)

    assert row is not None
    assert row.options is not None


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_million_jobs_in_one_call_are_stored(app: App, charge: Task[..., str]) -> None:
    call = charge.job(1, Decimal(1))
    jobs = app.enqueue_many([call] * 1_000_000)

    assert len(jobs) == 1_000_000
    assert app.jobs.count() == 1_000_000
    with pytest.raises(ConfigError, match="split them"):
        app.enqueue_many(call for _ in range(1_000_001))
