"""What holds for whole queues: `app.queue`, `app.queues.limit`, producers that wait, and draining."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import pytest

from dayjob import App, Concurrency, ConfigError, JobFailed, QueueFull, RateLimit, Settings, Task
from dayjob.backpressure import Backpressure
from dayjob.cli.group import run as cli
from dayjob.errors import QueueClosed
from dayjob.store.gating import QueueLimits
from dayjob.store.records import INSERTED, Enqueued, NewRow

SOON = Settings(full_timeout=0.2)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with App(f"sqlite:///{tmp_path / 'jobs.db'}") as app:
        yield app


@pytest.fixture
def note(app: App) -> Task[[int], int]:
    @app.task(name="note", queue="mail")
    def note(number: int) -> int:
        return number

    return note


def again(app: App, settings: Settings | None = None) -> App:
    """The same app in another process, as far as the store can tell."""
    other = App(app.url, settings=settings)

    @other.task(name="note", queue="mail")
    def note(number: int) -> int:
        return number

    return other


def limits(app: App, queue: str = "mail") -> tuple[QueueLimits | None, str | None]:
    return next(((row.limits, row.limits_from) for row in app.queues.stats() if row.name == queue), (None, None))


# -- declaring and changing --------------------------------------------------------------------------------------------


def test_what_code_declares_is_told_at_once_when_the_app_is_open_and_else_when_it_is_opened(app: App) -> None:
    app.queue("mail", max_depth=3, when_full="wait", rate_limit=RateLimit(10, per=2), concurrency=2)
    with again(app) as other:
        other.queue("reports", concurrency=Concurrency(4))
        other.close()
        other.queue("late", max_depth=1)
        other.open()

    assert limits(app) == (QueueLimits(3, "wait", 2, 10, 2.0), "code")
    assert limits(app, "reports") == (QueueLimits(concurrency=4), "code")
    assert limits(app, "late") == (QueueLimits(max_depth=1), "code")


def test_run_time_wins_over_code_also_over_code_that_comes_later_until_it_is_taken_back(app: App) -> None:
    app.queue("mail", max_depth=3, concurrency=2)
    assert app.queues.limit("mail", concurrency=5) == QueueLimits(3, concurrency=5)
    with again(app) as other:
        other.queue("mail", concurrency=1)

        assert limits(app) == (QueueLimits(3, concurrency=5), "run")
        app.queues.limit("mail", max_depth=None)
        assert limits(app) == (QueueLimits(concurrency=5), "run")
        app.queues.unlimit("mail")
        assert limits(app) == (QueueLimits(concurrency=1), "code")


def test_code_that_declares_nothing_more_takes_its_limits_away(app: App) -> None:
    app.queue("mail", max_depth=3)
    with again(app) as other:
        other.queue("mail", defaults={"priority": 1})

    assert limits(app) == (None, None)


def test_a_queue_with_limits_is_shown_before_it_has_a_job(app: App) -> None:
    app.queue("mail", max_depth=3)

    (row,) = app.queues.stats()

    assert (row.name, row.counts["available"], row.closed) == ("mail", 0, None)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"max_depth": 0}, "max_depth"),
        ({"max_depth": -1}, "max_depth"),
        ({"max_depth": True}, "max_depth"),
        ({"max_depth": 1.5}, "max_depth"),
        ({"max_depth": 2**64}, "max_depth"),
        ({"max_depth": 3, "when_full": "drop"}, "drop_oldest"),
        ({"when_full": "wait"}, "max_depth="),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": "2"}, "concurrency"),
        ({"concurrency": Concurrency(2, key="{x}")}, "key="),
        ({"rate_limit": 10}, "RateLimit(10, per=1)"),
        ({"rate_limit": RateLimit(2, key="stripe")}, "key="),
    ],
)
def test_nonsense_is_refused_with_the_name_of_the_queue_and_changes_nothing(
    app: App, said: dict[str, Any], words: str
) -> None:
    for verb in (app.queue, app.queues.limit):
        with pytest.raises(ConfigError) as refused:
            verb("mail", **said)
        assert "'mail'" in str(refused.value)
        assert words in str(refused.value)
    with pytest.raises(ConfigError):
        app.queue("no name", max_depth=1)
    with pytest.raises(ConfigError, match="colour"):
        app.queues.limit("mail", colour="red")  # type: ignore[call-arg]
    assert app.queues.stats() == []


# -- full --------------------------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_what_is_beyond_and_says_how_many(app: App, note: Task[[int], int]) -> None:
    app.queue("mail", max_depth=3)

    with pytest.raises(QueueFull) as full:
        app.enqueue_many([note.job(number) for number in range(5)])
    with pytest.raises(QueueFull):
        note.enqueue(6)

    assert (full.value.queue, full.value.limit) == ("mail", 3)
    assert "2 of 5 jobs were refused; the others are stored" in full.value.__notes__
    assert app.jobs.count(queue="mail") == 3


def test_who_waits_goes_on_as_soon_as_there_is_room_and_holds_up_nobody(app: App, note: Task[[int], int]) -> None:
    app.queue("mail", max_depth=1, when_full="wait")
    note.enqueue(0)

    async def produce() -> tuple[list[Any], float]:
        waiting = [asyncio.ensure_future(note.aenqueue(number)) for number in (1, 2)]
        many = asyncio.ensure_future(app.aenqueue_many([note.job(3), note.job(4)]))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await note.using(queue="other").aenqueue(9)
        neighbour = time.monotonic() - began
        assert not any(one.done() for one in waiting)
        worker = app.worker(["mail"])
        thread = Thread(target=worker.run)
        thread.start()
        jobs = [*await asyncio.gather(*waiting), *await many]
        for job in jobs:
            await job.ajoin(timeout=10)
        worker.stop()
        await asyncio.to_thread(thread.join)
        return jobs, neighbour

    jobs, neighbour = asyncio.run(produce())

    assert [job.result() for job in jobs] == [1, 2, 3, 4]
    assert neighbour < 1.0


def test_a_thread_that_waits_goes_on_when_the_limit_is_raised(app: App, note: Task[[int], int]) -> None:
    app.queue("mail", max_depth=1, when_full="wait")
    note.enqueue(0)
    stored: list[Any] = []
    thread = Thread(target=lambda: stored.append(note.enqueue(1)))
    thread.start()
    time.sleep(0.05)
    before = list(stored)

    app.queues.limit("mail", max_depth=2)
    thread.join(10)

    assert before == []
    assert str(stored[0].refresh().state) == "available"


def test_who_waits_with_many_asks_for_the_next_of_each_queue_and_not_for_all_each_time(app: App) -> None:
    for queue in ("a", "b"):
        app.queue(queue, max_depth=10, when_full="wait")
    rows = [NewRow(str(place), "note", "ab"[place % 2], b"{}") for place in range(20_000)]
    asked: list[list[NewRow]] = []

    class Taking:
        patience = 1.0

        def send(self, sent: list[NewRow], *, chosen: bool) -> list[Enqueued]:
            asked.append(sent)
            return [INSERTED if row.queue == "a" else Enqueued("refused", QueueFull("b", 10, 10)) for row in sent]

    full = [Enqueued("refused", QueueFull(row.queue, 10, 10)) for row in rows]
    outcomes = Backpressure(Taking(), lambda: app.store, 0.5).again(rows, full, chosen=False)  # type: ignore[arg-type]

    assert max(map(len, asked)) == 2_000
    assert [row for sent in asked for row in sent if row.queue == "a"][:10_000] == rows[::2][: len(asked) * 1_000]
    assert all(outcome.error is None for outcome in outcomes[: 2 * 1_000 : 2])


def test_waiting_ends_with_the_error_of_the_full_queue(app: App, note: Task[[int], int]) -> None:
    app.queue("mail", max_depth=1, when_full="wait")
    note.enqueue(0)
    with again(app, SOON) as other:
        began = time.monotonic()
        with pytest.raises(QueueFull):
            other.registry.get("note").enqueue(1)
        with pytest.raises(QueueFull):
            asyncio.run(other.registry.get("note").aenqueue(1))
        took = time.monotonic() - began

    assert 0.4 <= took < 5
    assert app.jobs.count(queue="mail") == 1


def test_the_oldest_of_the_least_urgent_makes_room_and_is_kept_among_the_dead(app: App, note: Task[[int], int]) -> None:
    app.queue("mail", max_depth=2, when_full="drop_oldest")
    urgent = note.using(priority=5).enqueue(0)
    oldest = note.enqueue(1)

    newest = note.enqueue(2)

    assert [str(job.refresh().state) for job in (urgent, oldest, newest)] == ["available", "dead", "available"]
    assert oldest.reason == "shed"
    with pytest.raises(JobFailed):
        oldest.result(timeout=1)


def test_in_a_transaction_nobody_waits_and_nothing_is_stored(app: App, note: Task[[int], int]) -> None:
    app.queue("mail", max_depth=1, when_full="wait")
    note.enqueue(0)
    with closing(sqlite3.connect(app.url.removeprefix("sqlite:///"))) as connection:
        connection.execute("CREATE TABLE own (x)")
        connection.execute("INSERT INTO own VALUES (1)")
        began = time.monotonic()
        with pytest.raises(QueueFull):
            note.using(conn=connection).enqueue(1)
        took = time.monotonic() - began
        connection.rollback()

    assert took < 2
    assert app.jobs.count(queue="mail") == 1


def test_an_app_that_was_never_opened_joins_a_transaction_although_it_declares_limits(app: App) -> None:
    app.close()
    with closing(sqlite3.connect(app.url.removeprefix("sqlite:///"))) as connection:
        connection.execute("CREATE TABLE own (x)")
        other = again(app)
        other.queue("mail", max_depth=5)
        connection.execute("INSERT INTO own VALUES (1)")
        job = other.registry.get("note").using(conn=connection).enqueue(1)
        connection.commit()
        assert str(job.refresh().state) == "available"
        other.close()


def test_in_a_test_nobody_waits(app: App, note: Task[[int], int]) -> None:
    app.queue("mail", max_depth=1, when_full="wait")
    with app.testing() as t:
        note.enqueue(0)
        began = time.monotonic()
        with pytest.raises(QueueFull):
            note.enqueue(1)
        t.drain()
        note.enqueue(1)

    assert time.monotonic() - began < 5


# -- running -----------------------------------------------------------------------------------------------------------


def test_a_queue_runs_no_more_at_once_than_it_says_and_a_change_is_heard_by_running_workers(app: App) -> None:
    lock, go = Lock(), Event()
    running: list[int] = []
    most = [0]

    @app.task(name="work", queue="mail")
    def work(number: int) -> None:
        with lock:
            running.append(number)
            most[0] = max(most[0], len(running))
        go.wait(10)
        with lock:
            running.remove(number)

    app.queue("mail", concurrency=2)
    app.enqueue_many([work.job(number) for number in range(6)])
    worker = app.worker(concurrency=6)
    thread = Thread(target=worker.run)
    thread.start()
    try:
        _until(lambda: len(running) == 2)
        time.sleep(0.3)
        assert most[0] == 2
        app.queues.limit("mail", concurrency=4)
        _until(lambda: len(running) == 4, 2.0)
        go.set()
        _until(lambda: app.jobs.count(state="completed") == 6)
    finally:
        go.set()
        worker.stop()
        thread.join(15)

    assert most[0] == 4


def _until(true: Any, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- draining ----------------------------------------------------------------------------------------------------------


def test_a_draining_queue_refuses_new_jobs_until_it_is_resumed(app: App, note: Task[[int], int]) -> None:
    app.queue("mail", max_depth=10)
    note.enqueue(0)
    assert app.queues.drain("mail", timeout=0, new="refuse") == 1

    with pytest.raises(QueueClosed, match="dayjob queues resume mail"):
        note.enqueue(1)
    app.worker().run_until_idle()
    assert app.queues.drain("mail", timeout=5, new="refuse") == 0
    assert app.queues.stats()[0].closed == "refuse"
    assert app.queues.resume("mail")
    assert not app.queues.resume("mail")

    assert str(note.enqueue(2).refresh().state) == "available"
    assert limits(app) == (QueueLimits(max_depth=10), "code")


def test_a_draining_queue_holds_new_jobs_back_and_is_empty_all_the_same(app: App, note: Task[[int], int]) -> None:
    old = note.enqueue(0)
    assert app.queues.drain("mail", timeout=0, new="hold") == 1
    held = note.enqueue(1)
    app.worker().run_until_idle()

    assert app.queues.drain("mail", timeout=5, new="hold") == 0
    assert [str(job.refresh().state) for job in (old, held)] == ["completed", "blocked"]
    assert app.queues.resume("mail")
    app.worker().run_until_idle()
    assert str(held.refresh().state) == "completed"
    assert limits(app) == (None, None)


def test_limits_said_at_run_time_survive_a_drain_and_those_said_meanwhile_too(app: App) -> None:
    app.queues.limit("mail", concurrency=2)
    app.queues.drain("mail", timeout=0, new="refuse")
    app.queues.resume("mail")
    assert limits(app) == (QueueLimits(concurrency=2), "run")
    app.queue("other", max_depth=9)
    app.queues.drain("other", timeout=0, new="hold")

    app.queues.limit("other", concurrency=3)
    assert limits(app, "other") == (QueueLimits(9, concurrency=3, closed="hold"), "run")
    app.queues.resume("other")

    assert limits(app, "other") == (QueueLimits(9, concurrency=3), "run")
    app.queues.drain("other", timeout=0, new="hold")
    app.queues.unlimit("other")
    assert limits(app, "other") == (QueueLimits(9, closed="hold"), "run")
    app.queues.resume("other")
    assert limits(app, "other") == (QueueLimits(9), "code")


def test_a_drain_that_accepts_waits_for_newcomers_too(app: App, note: Task[[int], int]) -> None:
    note.enqueue(0)

    assert app.queues.drain("mail", timeout=0) == 1
    assert asyncio.run(app.queues.adrain("mail", 0.01)) == 1
    note.enqueue(1)
    assert app.queues.drain("mail", timeout=0, new="accept") == 2
    with pytest.raises(ConfigError, match="hold"):
        app.queues.drain("mail", new="keep")  # type: ignore[arg-type]


# -- by command --------------------------------------------------------------------------------------------------------


def test_the_command_sets_shows_and_forgets_limits(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*args: str, status: int = 0) -> str:
        exit_status = cli(["queues", *args, "--url", app.url])
        shown = capsys.readouterr()
        assert exit_status == status, shown
        return shown.out + shown.err

    app.queue("mail", max_depth=5)
    said = json.loads(
        run("limit", "mail", "--concurrency", "3", "--rate", "600/1m", "--when-full", "drop_oldest", "--json")
    )
    assert (said["limits_from"], said["limits"]) == (
        "run",
        {"max_depth": 5, "when_full": "drop_oldest", "concurrency": 3, "rate": 600, "per": 60.0},
    )
    assert "depth 5 (drop_oldest), 600 per 60 s, 3 at once; run" in run("limit", "mail")
    assert "depth 5 (drop_oldest)" in run("list")
    assert json.loads(run("limit", "mail", "--rate", "none", "--json"))["limits"]["concurrency"] == 3
    assert "depth 5 (raise); code" in run("limit", "mail", "--clear")
    assert "no rate" in run("limit", "mail", "--rate", "ten", status=2)
    assert "whole number" in run("limit", "mail", "--max-depth", "many", status=2)
    run("limit", "mail", "--clear", "--max-depth", "3", status=2)
    assert "must be between 1 and" in run("limit", "mail", "--max-depth", "0", status=2)
    assert "refuses new jobs until: dayjob queues resume mail" in run("drain", "mail", "--new", "refuse")
    assert "closed" in run("list")
    assert "resumed mail" in run("resume", "mail")


class Racing:
    """Changes the limits of a queue all the while."""

    def __init__(self, app: App) -> None:
        self.app, self.stop = app, Event()

    def __enter__(self) -> Racing:
        self.thread = Thread(target=self._tune)
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop.set()
        self.thread.join()

    def _tune(self) -> None:
        number = 0
        while not self.stop.is_set():
            number += 1
            self.app.queues.limit("q", concurrency=1 + number % 5)


def test_whoever_changes_a_limit_meanwhile_does_not_open_a_queue_that_is_closed(app: App) -> None:
    with Racing(app):
        for _ in range(30):
            assert app.queues.drain("q", new="refuse") == 0
            for _ in range(5):
                (queue,) = app.queues.stats()
                assert queue.closed == "refuse"
            app.queues.resume("q")


def test_a_closed_queue_is_open_at_no_moment_when_what_was_said_of_it_is_forgotten(app: App) -> None:
    app.queue("q", concurrency=3)
    app.open()
    app.queues.limit("q", concurrency=7)
    app.queues.drain("q", new="refuse")
    said = []
    limit_queue = app.store.limit_queue

    def heard(queue: str, limits: QueueLimits | None, **words: Any) -> None:
        said.append(limits)
        limit_queue(queue, limits, **words)

    app.store.limit_queue = heard
    app.queues.unlimit("q")

    assert said == [QueueLimits(concurrency=3, closed="refuse")]
    app.store.limit_queue = limit_queue
    app.queues.resume("q")
    (queue,) = app.queues.stats()
    assert (queue.limits, queue.limits_from) == (QueueLimits(concurrency=3), "code")
