"""Batches, limits of queues and draining, with a real worker, on every engine."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from dayjob import App, Call, QueueFull, RateLimit, Retry, Settings
from dayjob.errors import QueueClosed
from tests.contract.engines import ENGINES, EngineUnderTest

AT_ONCE = Retry(max_attempts=2, backoff="fixed", base=0, jitter=0)
SETTINGS = Settings(lease=5.0, beat=0.2, sweep=0.2, poll=0.2, full_timeout=10.0)


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.name)
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[App]:
    engine: EngineUnderTest = request.param(tmp_path)
    store = engine.store()
    store.migrate()
    with App(store.url if engine.url.endswith(":memory:") else engine.url, settings=SETTINGS) as app:
        yield app
    engine.close()


@pytest.fixture
def work(app: App) -> Iterator[Callable[[], None]]:
    """Starts a worker, which ends with the test."""
    started: list[tuple[Any, Thread]] = []

    def start() -> None:
        worker = app.worker(concurrency=6)
        thread = Thread(target=worker.run, daemon=True)
        thread.start()
        started.append((worker, thread))

    yield start
    for worker, thread in started:
        worker.stop(now=True)
        thread.join(15)


def until(true: Callable[[], bool], timeout: float = 15.0) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_calls_run_together_and_end_apart(app: App) -> None:
    sizes: list[int] = []

    @app.task(name="send", batch=50, retry=AT_ONCE)
    def send(calls: list[Call[int]]) -> list[int | Exception]:
        sizes.append(len(calls))
        return [ValueError("no") if call.value % 100 == 7 else call.value for call in calls]

    jobs = app.enqueue_many([send.job(number) for number in range(220)])
    app.worker(concurrency=1).run_until_idle()

    assert sizes[:4] == [50, 50, 50, 50]
    assert Counter(str(job.refresh().state) for job in jobs) == {"completed": 217, "dead": 3}
    assert jobs[8].result() == 8


def test_a_queue_takes_runs_and_starts_no_more_than_it_says(app: App, work: Callable[[], None]) -> None:
    lock, go = threading.Lock(), threading.Event()
    running: list[int] = []
    most = [0]

    @app.task(name="hold", queue="mail")
    def hold(number: int) -> None:
        with lock:
            running.append(number)
            most[0] = max(most[0], len(running))
        go.wait(20)
        with lock:
            running.remove(number)

    app.queue("mail", concurrency=2, max_depth=6)
    with pytest.raises(QueueFull):
        app.enqueue_many([hold.job(number) for number in range(8)])
    work()
    until(lambda: len(running) == 2)
    time.sleep(0.3)
    assert most[0] == 2

    app.queues.limit("mail", concurrency=4)
    until(lambda: len(running) == 4, 3.0)
    go.set()
    until(lambda: app.jobs.count(queue="mail", state="completed") == 6)

    assert most[0] == 4


def test_a_rate_of_a_queue_holds_and_who_waits_for_room_gets_it(app: App, work: Callable[[], None]) -> None:
    starts: list[float] = []

    @app.task(name="tick", queue="mail")
    def tick(number: int) -> None:
        starts.append(time.monotonic())

    app.queue("mail", rate_limit=RateLimit(2, per=0.5), max_depth=2, when_full="wait")
    work()
    app.enqueue_many([tick.job(number) for number in range(6)])
    until(lambda: len(starts) == 6)

    assert starts[5] - starts[0] >= 0.6  # 1.0 by the store's clock, of claims; a first job may start late


def test_a_closed_queue_finishes_what_is_there_and_holds_or_refuses_the_rest(
    app: App, work: Callable[[], None]
) -> None:
    @app.task(name="note", queue="mail")
    def note(number: int) -> int:
        return number

    old = app.enqueue_many([note.job(number) for number in range(5)])
    work()

    assert app.queues.drain("mail", timeout=15, new="hold") == 0
    held = note.enqueue(9)
    assert [str(job.refresh().state) for job in (*old, held)] == ["completed"] * 5 + ["blocked"]
    assert app.queues.drain("mail", timeout=15, new="refuse") == 0
    with pytest.raises(QueueClosed):
        note.enqueue(10)
    assert app.queues.resume("mail")
    assert held.result(timeout=15) == 9
