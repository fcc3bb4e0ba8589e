"""Handles and `app.jobs`: looking, waiting and acting, one, many, or by filter."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any

import pytest

from dayjob import (
    App,
    ConfigError,
    Job,
    JobCancelled,
    JobContext,
    JobFailed,
    JobNotFound,
    PayloadInvalid,
    Retry,
    State,
    Task,
    Unrecoverable,
    WaitTimeout,
)

NOBODY = "01890000-0000-7000-8000-000000000000"


@pytest.fixture
def double(app: App) -> Task[[int], int]:
    @app.task(name="double", retry=Retry(max_attempts=2, backoff=[0]))
    async def double(number: int) -> int:
        if number < 0:
            raise ValueError(f"{number} is negative")
        return number * 2

    return double


@contextmanager
def working(app: App) -> Iterator[None]:
    """A worker in a thread of this process."""
    worker = app.worker(grace=1)
    thread = Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join(10)


# -- handles ---------------------------------------------------------------------------------------------------------


def test_what_an_enqueue_knows_needs_no_look_at_the_store(app: App, double: Task[[int], int]) -> None:
    job = double.using(tags=["a"], meta={"by": "me"}).enqueue(4)
    app.store.act  # noqa: B018  the store is there, and is not asked
    app.jobs.delete(job)

    assert (job.task, job.queue, job.state, job.priority, job.attempt) == ("double", "default", State.AVAILABLE, 0, 0)
    assert (job.args, job.tags, job.meta, job.outcome) == ({"number": 4}, ("a",), {"by": "me"}, "inserted")
    assert (job.reason, job.worker, job.progress, job.error, job.started_at, job.flow_id) == (None,) * 6
    with pytest.raises(JobNotFound):
        _ = job.created_at


def test_a_job_tells_how_it_went(app: App, double: Task[[int], int]) -> None:
    job = double.enqueue(4)
    app.worker().run_until_idle()
    job.refresh()
    (attempt,) = job.attempts

    assert (job.state, job.attempt, job.result()) == (State.COMPLETED, 1, 8)
    assert (attempt.number, attempt.outcome, attempt.error_type) == (1, "completed", None)
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.created_at <= job.run_at <= job.started_at <= job.finished_at


def test_a_dead_job_shows_every_attempt(app: App, double: Task[[int], int]) -> None:
    job = double.enqueue(-1)
    app.worker().run_until_idle()
    job.refresh()

    assert (job.state, job.reason, job.attempt, job.max_attempts) == (State.DEAD, "failed", 2, 2)
    assert [one.outcome for one in job.attempts] == ["failed", "dead"]
    assert {one.error_type for one in job.attempts} == {"ValueError"}
    assert job.error is not None
    assert (job.error.type, job.error.message) == ("ValueError", "-1 is negative")
    assert "in double" in job.error.traceback
    with pytest.raises(JobFailed, match="-1 is negative"):
        job.result()


def test_a_job_that_will_be_tried_again_shows_its_last_error(app: App) -> None:
    @app.task(name="later", retry=Retry(backoff=[3600]))
    def later() -> None:
        raise OSError("not yet")

    job = later.enqueue()
    app.worker().run_until_idle()
    found = app.jobs.find(task="later")[0]

    assert (found.state, found.attempt) == (State.SCHEDULED, 1)
    assert found.error is not None
    assert found.error.message == "not yet"
    assert job.refresh().error == found.error


def test_the_result_comes_with_its_type(app: App) -> None:
    @app.task(name="when")
    def when() -> datetime:
        return datetime(2026, 5, 1, tzinfo=UTC)

    job = when.enqueue()
    app.worker().run_until_idle()

    assert job.result() == datetime(2026, 5, 1, tzinfo=UTC)
    assert Job(App(app.url).jobs, job.id).result() == "2026-05-01T00:00:00Z"


def test_joining_wakes_when_a_worker_finishes_the_job(app: App, double: Task[[int], int]) -> None:
    with working(app):
        began = time.monotonic()
        assert double.enqueue(5).result(timeout=10) == 10
        with pytest.raises(JobFailed) as failed:
            double.enqueue(-5).result(timeout=10)

    assert failed.value.reason == "failed"
    assert time.monotonic() - began < 5


async def test_many_wait_at_once_and_the_loop_turns(app: App, double: Task[[int], int]) -> None:
    jobs = await asyncio.gather(*(double.aenqueue(number) for number in range(100)))
    with working(app):
        results = await asyncio.gather(*(job.aresult(timeout=10) for job in jobs))

    assert results == [number * 2 for number in range(100)]


def test_threads_wait_through_one_listener(app: App, double: Task[[int], int]) -> None:
    results: list[int] = []
    threads = [Thread(target=lambda: results.append(double.enqueue(1).result(timeout=10))) for _ in range(10)]
    with working(app):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)

    assert results == [2] * 10


def test_waiting_too_long_is_an_error_that_says_the_state(double: Task[[int], int]) -> None:
    job = double.enqueue(1)
    with pytest.raises(WaitTimeout) as late:
        job.join(timeout=0.05)
    with pytest.raises(WaitTimeout):
        job.result(timeout=0)

    assert (late.value.id, late.value.timeout, late.value.state) == (job.id, 0.05, "available")
    assert isinstance(late.value, TimeoutError)


async def test_waiting_too_long_in_a_loop(double: Task[[int], int]) -> None:
    job = await double.aenqueue(1)
    with pytest.raises(WaitTimeout):
        await job.ajoin(timeout=timedelta(milliseconds=50))
    with pytest.raises(WaitTimeout):
        await job.aresult(0)


def test_waiting_for_a_job_that_is_deleted_ends(app: App, double: Task[[int], int]) -> None:
    job = double.enqueue(1)
    app.jobs.delete(job)
    with pytest.raises(JobNotFound):
        job.join(timeout=5)


def test_cancelling_a_waiting_job_ends_the_waiting_for_it(app: App, double: Task[[int], int]) -> None:
    job = double.enqueue(1)
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            job.result(timeout=10)
        except JobCancelled as error:
            ended.append(error)

    thread = Thread(target=wait)
    thread.start()
    assert app.jobs.get(job.id).cancel(reason="changed my mind")
    thread.join(10)

    assert [(error.id, error.reason) for error in ended if isinstance(error, JobCancelled)] == [
        (job.id, "changed my mind")
    ]
    assert not job.cancel()


def test_cancelling_a_running_job_stops_it(app: App) -> None:
    @app.task(name="long")
    async def long(ctx: JobContext) -> None:
        await asyncio.sleep(60)

    started = Event()
    app.on("job.started")(lambda event: started.set())
    with working(app):
        job = long.enqueue()
        assert started.wait(10)
        assert job.refresh().state == State.RUNNING
        assert job.cancel()
        job.join(timeout=10)

    assert job.state == State.CANCELLED


def test_the_progress_of_a_running_job_shows(app: App) -> None:
    written, seen = Event(), Event()

    @app.task(name="long")
    def long(ctx: JobContext) -> None:
        ctx.progress(1, 2, "halfway")
        seen.wait(10)

    app.on("job.progress")(lambda event: written.set())
    with working(app):
        job = long.enqueue()
        assert written.wait(10)
        progress = job.refresh().progress
        seen.set()
        job.join(timeout=10)

    assert progress is not None
    assert (progress.done, progress.total, progress.note) == (1, 2, "halfway")


def test_a_finished_job_is_put_back_with_its_history(app: App, double: Task[[int], int]) -> None:
    job = double.enqueue(-1)
    app.worker().run_until_idle()
    assert app.jobs.get(job.id).retry()
    again = app.jobs.get(job.id)

    assert (again.state, again.attempt, len(again.attempts)) == (State.AVAILABLE, 0, 2)
    assert not again.retry()


async def test_verbs_of_a_handle_have_awaitable_twins(app: App, double: Task[[int], int]) -> None:
    job = await double.using(delay=60).aenqueue(1)

    assert (await job.arefresh()).state == State.SCHEDULED
    assert await job.aedit(priority=5)
    assert await job.aretry()
    assert (await job.arefresh()).state == State.AVAILABLE
    assert await job.alogs() == []
    assert await job.acancel()
    with pytest.raises(JobCancelled):
        await job.aresult()


def test_a_waiting_job_can_be_edited_and_promoted(app: App, double: Task[[int], int]) -> None:
    job = double.using(delay=3600).enqueue(1)
    due = datetime(2090, 1, 1, tzinfo=UTC)

    assert job.edit(run_at=due, priority=7, queue="other", args={"number": 9})
    job.refresh()
    assert (job.run_at, job.priority, job.queue, job.args) == (due, 7, "other", {"number": 9})
    assert job.edit(run_at="now")
    assert job.refresh().state == State.AVAILABLE
    app.worker().run_until_idle()
    assert job.result() == 18
    assert not job.edit(priority=1)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"priority": 101},
        {"priority": None},
        {"queue": "../x"},
        {"run_at": "tomorrow"},
        {"run_at": datetime(2030, 1, 1)},  # noqa: DTZ001
        {"color": "red"},
    ],
    ids=repr,
)
def test_an_edit_that_makes_no_sense_changes_nothing(app: App, double: Task[[int], int], changes: Any) -> None:
    job = double.using(delay=3600).enqueue(1)
    before = app.store.get(job.id)
    with pytest.raises(ConfigError):
        job.edit(**changes)

    assert app.store.get(job.id) == before


def test_an_edit_of_arguments_is_checked_like_an_enqueue(app: App, double: Task[[int], int]) -> None:
    job = double.enqueue(1)
    for args in ({"number": "x"}, {}, {"other": 1}, [1]):
        with pytest.raises(PayloadInvalid):
            job.edit(args=args)  # type: ignore[arg-type]

    assert job.refresh().args == {"number": 1}


def test_what_a_job_logs_stays_with_it(app: App) -> None:
    @app.task(name="talk")
    def talk(ctx: JobContext[Any]) -> None:
        ctx.log.info("page %d", 1)
        ctx.log.warning("odd")

    job = talk.enqueue()
    app.worker().run_until_idle()

    assert [(line.level, line.message) for line in job.logs()] == [("info", "page 1"), ("warning", "odd")]
    assert all(line.at.tzinfo is not None for line in job.logs())


def test_arguments_are_shown_plain_when_the_signature_has_changed(app: App, double: Task[[int], int]) -> None:
    job = double.enqueue(1)
    other = App(app.url)

    @other.task(name="double")
    def changed(text: str) -> None: ...

    assert other.jobs.get(job.id).args == {"number": 1}
    other.close()


def test_handles_of_the_same_job_are_equal(app: App, double: Task[[int], int]) -> None:
    job = double.enqueue(1)

    assert job == app.jobs.get(job.id)
    assert len({job, app.jobs.get(job.id)}) == 1
    assert job != double.enqueue(1)
    assert "double" in repr(job)


# -- looking ---------------------------------------------------------------------------------------------------------


def test_pages_of_what_matches_newest_first(app: App, double: Task[[int], int]) -> None:
    jobs = app.enqueue_many([double.using(tags=["odd"] if number % 2 else []).job(number) for number in range(25)])
    first = app.jobs.find(limit=10)
    second = app.jobs.find(limit=10, after=first.after)
    third = app.jobs.find(limit=10, after=second.after)

    assert [job.id for page in (first, second, third) for job in page] == [job.id for job in reversed(jobs)]
    assert third.after is None
    assert app.jobs.count(tag="odd") == 12
    assert app.jobs.count(task="double", queue="default", state=["available", State.RUNNING]) == 25
    assert app.jobs.count(state="dead") == 0
    assert app.jobs.count(since=datetime.now(UTC) + timedelta(hours=1)) == 0
    assert app.jobs.count(text="oub") == 25
    assert app.jobs.count() == 25


def test_a_job_that_is_not_there(app: App) -> None:
    for id in (NOBODY, "nonsense", ""):
        with pytest.raises(JobNotFound):
            app.jobs.get(id)


@pytest.mark.parametrize(
    "conditions",
    [
        {"state": "gone"},
        {"state": []},
        {"state": 7},
        {"queue": ""},
        {"queue": "\ud800"},
        {"text": "a\x00"},
        {"text": 7},
        {"tag": "x" * 2_000},
        {"since": "yesterday"},
        {"since": datetime(2030, 1, 1)},  # noqa: DTZ001
        {"color": "red"},
    ],
    ids=repr,
)
def test_conditions_that_make_no_sense(app: App, conditions: Any) -> None:
    for verb in (app.jobs.find, app.jobs.count, app.jobs.cancel, app.jobs.retry, app.jobs.delete):
        with pytest.raises(ConfigError):
            verb(**conditions)


@pytest.mark.parametrize("limit", [0, -1, 100_001, 1.5, True, "10"])
def test_a_limit_that_makes_no_sense(app: App, limit: Any) -> None:
    with pytest.raises(ConfigError, match="limit"):
        app.jobs.find(limit=limit)


# -- acting on many --------------------------------------------------------------------------------------------------


def test_acting_by_ids_and_by_filter_says_how_many(app: App, double: Task[[int], int]) -> None:
    jobs = app.enqueue_many([double.using(tags=["odd"] if number % 2 else []).job(number) for number in range(10)])

    assert app.jobs.cancel(jobs[0]) == 1
    assert app.jobs.cancel([jobs[0].id, jobs[1], jobs[1].id.upper(), NOBODY]) == 1
    assert app.jobs.cancel(tag="odd", reason="odd ones out") == 4
    assert app.jobs.get(jobs[3].id).reason == "odd ones out"
    assert app.jobs.retry(state="cancelled") == 6
    assert app.jobs.delete(task="double", state=["available"]) == 10
    assert app.jobs.count() == 0


def test_acting_on_more_than_fit_a_transaction(app: App, double: Task[[int], int]) -> None:
    app.enqueue_many([double.job(1)] * 2_500)

    assert app.jobs.cancel(task="double") == 2_500
    assert app.jobs.retry(state="cancelled") == 2_500
    assert app.jobs.cancel([job.id for job in app.jobs.find(limit=1_500)]) == 1_500
    assert app.jobs.delete(all=True) == 2_500


def test_a_retry_by_filter_means_the_dead_unless_it_says_else(app: App, double: Task[[int], int]) -> None:
    app.enqueue_many([double.job(1), double.job(-1)])
    app.worker().run_until_idle()

    assert app.jobs.retry(task="double") == 1
    assert app.jobs.count(state="completed") == 1
    assert app.jobs.retry(all=True) == 0
    assert app.jobs.retry(task="double", state="completed") == 1


@pytest.mark.parametrize("verb", ["cancel", "retry", "delete"])
def test_nothing_chosen_never_means_everything(app: App, double: Task[[int], int], verb: str) -> None:
    double.using(delay=60).enqueue(1)
    act = getattr(app.jobs, verb)
    with pytest.raises(ConfigError, match="all=True"):
        act()
    with pytest.raises(ConfigError, match="all=True"):
        act(queue=None, state=None)
    with pytest.raises(ConfigError, match="all=True"):
        act(all="yes")
    with pytest.raises(ConfigError, match="not both"):
        act([NOBODY], queue="default")
    with pytest.raises(ConfigError, match="is no job"):
        act("everything")
    with pytest.raises(ConfigError, match="ids must be"):
        act(7)

    assert act([]) == 0
    assert act(iter(())) == 0
    assert app.jobs.count(state="scheduled") == 1


async def test_verbs_of_the_manager_have_awaitable_twins(app: App, double: Task[[int], int]) -> None:
    await app.aenqueue_many([double.using(delay=60).job(number) for number in range(5)])

    assert len(await app.jobs.afind(limit=3)) == 3
    assert await app.jobs.acount(state="scheduled") == 5
    assert await app.jobs.aretry(state="scheduled") == 5
    assert await app.jobs.acancel(all=True, reason="enough") == 5
    assert await app.jobs.adelete(state="cancelled") == 5


def test_a_wrong_payload_dies_at_once_and_is_awaited_as_failed(app: App) -> None:
    @app.task(name="stop")
    def stop() -> None:
        raise Unrecoverable("no use")

    job = stop.enqueue()
    app.worker().run_until_idle()
    with pytest.raises(JobFailed) as failed:
        job.result()

    assert (failed.value.id, failed.value.task) == (job.id, "stop")


@pytest.mark.parametrize("verb", ["cancel", "retry", "delete"])
def test_what_is_no_id_is_refused_without_talk_of_options(app: App, verb: str) -> None:
    with pytest.raises(ConfigError, match=f"{verb}: 'x' is no job's id") as caught:
        getattr(app.jobs, verb)("x")

    assert "id=" not in str(caught.value)
