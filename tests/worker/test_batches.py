"""Batches: many calls, one run of the function, and each call ends on its own."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dayjob import App, Call, CancelJob, ConfigError, JobContext, Retry, RetryAfter, Settings, Snooze, current_job
from dayjob.cli.single import Bench as SingleBench
from dayjob.errors import JobTimeout, LeaseLost
from dayjob.states import Outcome
from dayjob.worker.executor import Executor
from dayjob.worker.run import TIMEOUT, Run, Slots
from tests.worker.bench import Bench
from tests.worker.conftest import Witness, working

AT_ONCE = Retry(max_attempts=2, backoff="fixed", base=0, jitter=0)
SETTINGS = Settings(lease=2.5, beat=0.2, sweep=0.2, grace=5.0, poll=0.2)


@dataclass
class Mail:
    to: str
    text: str = ""


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with App(f"sqlite:///{tmp_path}/jobs.db", settings=SETTINGS) as app:
        yield app


def states(jobs: list[Any]) -> list[str]:
    return [str(job.refresh().state) for job in jobs]


# -- gathering -------------------------------------------------------------------------------------------------------


def test_one_free_place_gets_full_batches_from_a_queue_that_holds_nothing_else(app: App) -> None:
    sizes: list[int] = []

    @app.task(name="send", batch=100)
    def send(calls: list[Call[int]]) -> None:
        sizes.append(len(calls))

    app.enqueue_many([send.job(number) for number in range(1_050)])

    counts = app.worker(concurrency=1).run_until_idle()

    assert counts == {Outcome.COMPLETED: 1_050}
    assert sizes == [100] * 10 + [50]


def test_a_place_is_worth_a_batch_when_claiming(app: App) -> None:
    @app.task(name="send", batch=50)
    def send(calls: list[Call[int]]) -> None: ...

    bench = Bench(app, [Slots(None, 2)])
    app.enqueue_many([send.job(number) for number in range(500)])

    for _ in range(4):
        bench.tick()
    bench.pump.close()

    assert bench.store.calls[:2] == [(1, 0, [2]), (2, 0, [2, 96])]
    assert [len(parcel.members) for parcel in bench.ready()] == [50, 50]


def test_where_other_tasks_share_the_queue_nothing_is_claimed_beyond_the_free_places(app: App) -> None:
    @app.task(name="send", batch=50)
    def send(calls: list[Call[int]]) -> None: ...

    @app.task(name="single")
    def single(number: int) -> None: ...

    bench = Bench(app, [Slots(None, 4)])
    app.enqueue_many([make(number) for number in range(40) for make in (send.job, single.job)])

    for _ in range(3):
        bench.tick()
    bench.pump.close()

    assert all(len(limits) == 1 and limits[0] <= 4 for _, _, limits in bench.store.calls)


def test_a_lonely_call_waits_for_company_no_longer_than_it_is_told(app: App) -> None:
    started: list[tuple[int, float]] = []
    done = threading.Event()

    @app.task(name="send", batch=100, batch_wait=0.3)
    def send(calls: list[Call[int]]) -> None:
        started.append((len(calls), time.monotonic()))
        done.set()

    with working(app.worker()):
        began = time.monotonic()
        send.enqueue(1)
        send.enqueue(2)
        assert done.wait(10)

    assert started[0][0] == 2
    assert 0.25 <= started[0][1] - began < 2.0


def test_a_full_batch_does_not_wait(app: App) -> None:
    done = threading.Event()

    @app.task(name="send", batch=10, batch_wait=60)
    def send(calls: list[Call[int]]) -> None:
        done.set()

    with working(app.worker()):
        app.enqueue_many([send.job(number) for number in range(10)])

        assert done.wait(10)


def test_what_is_gathered_goes_back_at_once_when_its_queue_is_paused_and_when_the_worker_stops(app: App) -> None:
    @app.task(name="send", queue="mail", batch=10, batch_wait=60)
    def send(calls: list[Call[int]]) -> None: ...

    witness = Witness(app.bus)
    with working(app.worker()) as worker:
        job = send.enqueue(1)
        witness.wait_for("worker.started")
        _until(lambda: str(job.refresh().state) == "running")
        app.queues.pause("mail")
        _until(lambda: str(job.refresh().state) == "available")
        app.queues.resume("mail")
        _until(lambda: str(job.refresh().state) == "running")
        worker.stop()
        _until(lambda: str(job.refresh().state) == "available")

    assert job.refresh().attempt == 0
    witness.end()


def _until(true: Callable[[], bool], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- ends --------------------------------------------------------------------------------------------------------------


def test_a_failure_of_one_call_does_not_fail_the_others(app: App) -> None:
    sizes: list[int] = []

    @app.task(name="send", batch=10, retry=AT_ONCE)
    def send(calls: list[Call[Mail]]) -> list[str | Exception]:
        sizes.append(len(calls))
        return [ValueError("nobody there") if call.value.to == "x" else call.value.to.upper() for call in calls]

    good, bad, other = app.enqueue_many([send.job(Mail("a")), send.job(Mail("x")), send.job(Mail("b"))])

    app.worker().run_until_idle()

    assert states([good, bad, other]) == ["completed", "dead", "completed"]
    assert (good.result(), other.result()) == ("A", "B")
    assert [attempt.message for attempt in bad.attempts] == ["nobody there"] * 2
    assert sizes == [3, 1]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_each_call_says_for_itself_how_it_goes_on(app: App, kind: str) -> None:
    def settle(calls: list[Call[str]]) -> None:
        for call in calls:
            if call.value == "done":
                call.complete(7)
            elif call.value == "snooze":
                call.fail(Snooze(60))
            elif call.value == "later":
                call.fail(RetryAfter(60))
            elif call.value == "cancel":
                call.fail(CancelJob("not wanted"))

    if kind == "sync":

        @app.task(name="send", batch=10)
        def send(calls: list[Call[str]]) -> None:
            settle(calls)

    else:

        @app.task(name="send", batch=10)
        async def send(calls: list[Call[str]]) -> None:
            await asyncio.sleep(0)
            settle(calls)

    jobs = app.enqueue_many([send.job(word) for word in ("done", "snooze", "later", "cancel", "nothing")])

    app.worker().run_until_idle()

    assert states(jobs) == ["completed", "scheduled", "scheduled", "cancelled", "completed"]
    assert [job.attempt for job in jobs] == [1, 0, 1, 0, 1]
    assert jobs[3].reason == "not wanted"


def test_an_error_of_the_function_fails_all_that_had_not_ended(app: App) -> None:
    @app.task(name="send", batch=10, retry=False)
    def send(calls: list[Call[int]]) -> None:
        calls[0].complete()
        raise OSError("the line is dead")

    jobs = app.enqueue_many([send.job(number) for number in range(3)])

    app.worker().run_until_idle()

    assert states(jobs) == ["completed", "dead", "dead"]
    assert "the line is dead" in str(jobs[1].error)


def test_a_call_that_has_ended_is_stored_while_the_function_goes_on(app: App) -> None:
    go = threading.Event()

    @app.task(name="send", batch=2)
    def send(calls: list[Call[int]]) -> None:
        calls[0].complete()
        assert go.wait(10)

    first, second = app.enqueue_many([send.job(1), send.job(2)])
    with working(app.worker()):
        first.join(timeout=10)
        running = states([second])
        go.set()
        second.join(timeout=10)

    assert running == ["running"]


def test_a_burst_goes_on_after_functions_that_had_ended_their_calls_before_their_own_end(app: App) -> None:
    @app.task(name="send", batch=2, batch_wait=0.05)
    def send(calls: list[Call[int]]) -> None:
        for call in calls:
            call.complete()
        time.sleep(0.1)  # the pump looks again: nothing is held, and no place is free

    app.enqueue_many([send.job(number) for number in range(20)])

    assert app.worker(concurrency=1).run_until_idle() == {Outcome.COMPLETED: 20}


def test_a_list_of_the_wrong_length_is_final_because_the_work_is_done(app: App) -> None:
    @app.task(name="send", batch=10, retry=AT_ONCE)
    def send(calls: list[Call[int]]) -> list[int]:
        return [1]

    jobs = app.enqueue_many([send.job(1), send.job(2)])

    app.worker().run_until_idle()

    assert states(jobs) == ["dead", "dead"]
    assert "2 calls" in str(jobs[0].error)
    assert len(jobs[0].attempts) == 1


def test_a_call_ends_once(app: App) -> None:
    @app.task(name="send", batch=10, retry=False)
    def send(calls: list[Call[int]]) -> None:
        calls[0].complete()
        calls[0].fail(ValueError())

    job = send.enqueue(1)

    app.worker().run_until_idle()

    assert states([job]) == ["completed"]


def test_a_payload_that_does_not_fit_is_parked_alone(app: App) -> None:
    seen: list[int] = []

    @app.task(name="send", batch=10)
    def send(calls: list[Call[int]]) -> None:
        seen.extend(call.value for call in calls)

    app.registry._tasks.clear()
    misfit = app.enqueue("send", {"value": "no number"})
    app.registry.add(send)
    fit = send.enqueue(7)

    app.worker().run_until_idle()

    assert states([misfit, fit]) == ["scheduled", "completed"]
    assert seen == [7]


# -- being told to stop ------------------------------------------------------------------------------------------------


def test_a_time_limit_ends_the_function_and_what_has_ended_before_stays_ended(app: App) -> None:
    @app.task(name="send", batch=2, timeout=0.2, retry=False)
    def send(calls: list[Call[int]]) -> None:
        calls[0].complete()
        while True:
            time.sleep(0.01)

    jobs = app.enqueue_many([send.job(1), send.job(2)])
    app.worker().run_until_idle()

    assert states(jobs) == ["completed", "dead"]
    assert jobs[1].attempts[0].error_type == "dayjob.errors.JobTimeout"


def test_a_time_limit_that_comes_while_a_call_ends_lets_it_end(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Executor.complete

    def complete(self: Executor, run: Run, value: Any, now: int) -> None:
        if run.parcel is not None and value == "done":
            self.interrupt(run.parcel, TIMEOUT)
        for _ in range(1_000):
            pass  # here it would be raised
        plain(self, run, value, now)

    monkeypatch.setattr(Executor, "complete", complete)

    @app.task(name="send", batch=2, batch_wait=0.05, timeout=10, retry=False)
    def send(calls: list[Call[int]]) -> None:
        calls[0].complete("done")
        until = time.monotonic() + 5
        while time.monotonic() < until:
            time.sleep(0.01)

    jobs = app.enqueue_many([send.job(number) for number in range(2)])
    app.worker().run_until_idle()

    assert states(jobs) == ["completed", "dead"]
    assert jobs[1].error is not None
    assert jobs[1].error.type.endswith("JobTimeout")


def test_a_cancelled_call_sees_it_and_its_neighbours_go_on(app: App) -> None:
    started = threading.Event()

    @app.task(name="send", batch=2)
    async def send(calls: list[Call[int]]) -> None:
        started.set()
        while not any(call.ctx.cancelled for call in calls):  # noqa: ASYNC110  # a flag is all that a job has
            await asyncio.sleep(0.01)
        for call in calls:
            if call.ctx.cancelled:
                call.ctx.raise_if_cancelled()

    first, second = app.enqueue_many([send.job(1), send.job(2)])
    with working(app.worker()):
        assert started.wait(10)
        first.cancel()
        _until(lambda: first.refresh().state.terminal)
        second.cancel()  # it was put back, unspent, and runs again
        _until(lambda: second.refresh().state.terminal)

    assert states([first, second]) == ["cancelled", "cancelled"]
    assert second.attempts[0].outcome == "released"
    assert second.attempt == 0


def test_when_all_its_calls_are_cancelled_the_function_is_interrupted(app: App) -> None:
    started = threading.Event()

    @app.task(name="send", batch=2)
    async def send(calls: list[Call[int]]) -> None:
        started.set()
        await asyncio.sleep(60)

    jobs = app.enqueue_many([send.job(1), send.job(2)])
    with working(app.worker()):
        assert started.wait(10)
        for job in jobs:
            job.cancel()
        _until(lambda: all(job.refresh().state.terminal for job in jobs))

    assert states(jobs) == ["cancelled", "cancelled"]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_shutdown_puts_all_calls_back_unspent(app: App, kind: str) -> None:
    started = threading.Event()

    if kind == "sync":

        @app.task(name="send", batch=3)
        def send(calls: list[Call[int]]) -> None:
            started.set()
            while True:
                time.sleep(0.01)

    else:

        @app.task(name="send", batch=3)
        async def send(calls: list[Call[int]]) -> None:
            started.set()
            await asyncio.sleep(60)

    jobs = app.enqueue_many([send.job(number) for number in range(3)])
    with working(app.worker(grace=0.1)):
        assert started.wait(10)

    assert states(jobs) == ["available"] * 3
    assert [job.attempt for job in jobs] == [0] * 3


def test_a_job_that_was_told_to_stop_has_time_to_end_also_after_a_second_signal(app: App) -> None:
    started, told = threading.Event(), threading.Event()

    @app.task(name="tidy")
    async def tidy() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            told.set()
            await asyncio.sleep(0.3)

    job = tidy.enqueue()
    with working(app.worker(grace=0.0)) as worker:
        assert started.wait(10)
        worker.stop()
        assert told.wait(10)  # `working` says "now" next

    assert (job.refresh().state, job.attempt) == ("available", 0)


def test_the_lost_lease_of_one_call_puts_its_neighbours_back(app: App) -> None:
    ran: list[int] = []

    @app.task(name="send", batch=2, retry=False)
    def send(calls: list[Call[int]]) -> None:
        ran.append(len(calls))
        if len(calls) == 2:
            raise LeaseLost(calls[0].ctx.id, 1)

    jobs = app.enqueue_many([send.job(1), send.job(2)])
    app.worker(max_jobs=10).run_until_idle()

    assert ran == [2, 1]
    assert states(jobs)[1] == "completed"
    assert jobs[1].attempt == 1


def test_after_a_crash_each_call_runs_alone(app: App) -> None:
    sizes: list[int] = []

    @app.task(name="send", batch=10)
    def send(calls: list[Call[int]]) -> None:
        sizes.append(len(calls))

    with app.testing() as t:
        jobs = app.enqueue_many([send.job(number) for number in range(3)])
        t.crash(jobs[0])
        t.drain()

    assert sorted(sizes) == [1, 2]


# -- around it -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["sync", "async"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_around_hooks_see_each_call_with_its_own_error(app: App, kind: str, hook: str) -> None:
    seen: list[tuple[int, str]] = []

    @contextlib.contextmanager
    def watch(ctx: JobContext[Any]) -> Iterator[None]:
        job = current_job()
        assert job is ctx
        if ctx.meta.get("refuse"):
            raise RuntimeError("not this one")
        try:
            yield
        except ValueError as error:
            seen.append((ctx.attempt, str(error)))
            raise
        except KeyError:
            seen.append((ctx.attempt, "swallowed"))
        else:
            seen.append((ctx.attempt, "well"))

    if hook == "sync":
        app.around(watch)
    else:

        @app.around
        async def awatch(ctx: JobContext[Any]) -> AsyncIterator[None]:
            with watch(ctx):
                yield

    def work(calls: list[Call[str]]) -> None:
        assert current_job() is None
        for call in calls:
            if call.value == "bad":
                call.fail(ValueError("bad"))
        errors[:] = [call.value for call in calls]

    errors: list[str] = []
    if kind == "sync":

        @app.task(name="send", batch=10, retry=False)
        def send(calls: list[Call[str]]) -> list[Exception | None]:
            work(calls)
            return [KeyError(1) if call.value == "key" else None for call in calls]

    else:

        @app.task(name="send", batch=10, retry=False)
        async def send(calls: list[Call[str]]) -> list[Exception | None]:
            await asyncio.sleep(0)
            work(calls)
            return [KeyError(1) if call.value == "key" else None for call in calls]

    jobs = app.enqueue_many(
        [send.job("good"), send.job("bad"), send.job("key"), send.using(meta={"refuse": True}).job("refused")]
    )

    app.worker().run_until_idle()

    assert states(jobs) == ["completed", "dead", "completed", "dead"]
    assert sorted(seen) == [(1, "bad"), (1, "swallowed"), (1, "well")]
    assert errors == ["good", "bad", "key"]


def test_progress_and_lines_belong_to_the_call(app: App) -> None:
    @app.task(name="send", batch=10)
    def send(calls: list[Call[int]]) -> None:
        for call in calls:
            call.ctx.log.info("number %d", call.value)

    jobs = app.enqueue_many([send.job(1), send.job(2)])
    app.worker().run_until_idle()

    assert [[line.message for line in job.logs()] for job in jobs] == [["number 1"], ["number 2"]]


def test_a_call_completes_together_with_what_it_writes(app: App) -> None:
    @app.task(name="send", batch=10, retry=False)
    def send(calls: list[Call[int]]) -> None:
        for call in calls:
            with call.ctx.transaction() as tx:
                tx.execute("CREATE TABLE IF NOT EXISTS own (x)")
                tx.execute("INSERT INTO own VALUES (?)", (call.value,))
                if call.value == 2:
                    raise ValueError("not this one")
                tx.result = call.value

    jobs = app.enqueue_many([send.job(1), send.job(2), send.job(3)])
    app.worker().run_until_idle()
    with contextlib.closing(sqlite3.connect(app.url.removeprefix("sqlite:///"))) as connection:
        written = connection.execute("SELECT x FROM own").fetchall()

    assert states(jobs) == ["completed", "dead", "dead"]
    assert (jobs[0].result(), written) == (1, [(1,)])


def test_one_job_is_run_by_hand_as_a_batch_of_one(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    @app.task(name="send", batch=10)
    def send(calls: list[Call[int]]) -> list[str]:
        return [f"{call.ctx.id} {call.value}" for call in calls]

    job = send.enqueue(7)

    row = app.jobs.load(job.id)
    with asyncio.Runner() as runner:
        bench = SingleBench(app, row, app.registry.plan(row.task, row.queue, row.options), None, None)
        assert bench.run(runner, debug=False) == 0

    assert f'"{job.id} 7"' in capsys.readouterr().out


def test_calling_the_task_runs_its_function_with_this_one_call(app: App) -> None:
    @app.task(name="send", batch=10)
    def send(calls: list[Call[int]]) -> list[int | Exception]:
        return [ValueError("no") if call.value < 0 else call.value * 2 for call in calls]

    @app.task(name="asend", batch=10)
    async def asend(calls: list[Call[int]]) -> None:
        calls[0].fail(KeyError("gone"))

    assert send(4) == 8
    with pytest.raises(ValueError, match="no"):
        send(-1)
    with pytest.raises(KeyError):
        asyncio.run(asend(1))


def test_a_test_runs_one_job_or_all(app: App) -> None:
    @app.task(name="send", batch=10, batch_wait=60)
    def send(calls: list[Call[int]]) -> list[int | Exception]:
        return [ValueError("no") if call.value < 0 else len(calls) for call in calls]

    with app.testing() as t:
        one, two, three = app.enqueue_many([send.job(1), send.job(2), send.job(3)])
        assert t.run(one).result() == 1
        t.drain()
        assert (two.result(), three.result()) == (2, 2)
        send.enqueue(-1)
        with pytest.raises(ValueError, match="no"):
            t.drain()


# -- declaring -----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_a_batch_is_refused_at_decoration(app: App) -> None:
    def numbers(calls: list[int]) -> None: ...
    def with_context(ctx: JobContext[Any], calls: list[Call[int]]) -> None: ...
    def two(calls: list[Call[int]], more: int) -> None: ...
    def word(calls: list[Call[int]]) -> str: ...
    def strange(calls: list[Call[threading.Thread]]) -> None: ...
    def good(calls: list[Call[int]]) -> None: ...

    for fn, words in (
        (numbers, "list[Call[Mail]]"),
        (with_context, "call.ctx"),
        (two, "nothing else"),
        (word, "a list with a result for each call"),
        (strange, "no JSON form"),
    ):
        with pytest.raises(ConfigError) as refused:
            app.task(name="send", batch=10)(fn)  # type: ignore[call-overload]
        assert words in str(refused.value)
    options: list[dict[str, Any]] = [
        {"batch": 0},
        {"batch": 1_001},
        {"batch": True},
        {"batch": 10, "batch_wait": -1},
        {"batch": 10, "batch_wait": 61},
        {"batch_wait": 1},
        {"batch": 10, "executor": "process"},
    ]
    for said in options:
        with pytest.raises(ConfigError):
            app.task(name="send", **said)(good)
    assert "send" not in app.registry


def test_a_late_end_of_a_call_from_another_thread_is_refused() -> None:
    call = Call(1)
    assert call.close()

    with pytest.raises(ConfigError, match="ends once"):
        call.complete()


def test_parcels_of_a_worker_that_was_given_up_are_forgotten(app: App) -> None:
    @app.task(name="send", batch=10, batch_wait=60)
    def send(calls: list[Call[int]]) -> None: ...

    bench = Bench(app, [Slots(None, 2)])
    app.enqueue_many([send.job(number) for number in range(3)])
    bench.tick()
    assert bench.pump.claims.packing.busy
    bench.pump._begin_again()
    bench.pump.close()

    assert not bench.pump.claims.packing.busy
    assert bench.pump.claims.held_jobs() == 0


def test_timeouts_of_arounds_name_the_limit(app: App) -> None:
    seen: list[BaseException] = []

    @app.around
    def watch(ctx: JobContext[Any]) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            seen.append(error)
            raise

    @app.task(name="send", batch=2, timeout=0.1, retry=False)
    async def send(calls: list[Call[int]]) -> None:
        await asyncio.sleep(60)

    jobs = app.enqueue_many([send.job(1), send.job(2)])
    app.worker().run_until_idle()

    assert [type(error) for error in seen] == [JobTimeout, JobTimeout]
    assert states(jobs) == ["dead", "dead"]
