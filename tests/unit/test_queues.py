"""`app.queues` and `app.workers()`."""

from __future__ import annotations

import os
from threading import Event, Thread

import pytest

from dayjob import App, ConfigError, State, Task


@pytest.fixture
def note(app: App) -> Task[[], None]:
    @app.task(name="note", queue="mail")
    def note() -> None: ...

    return note


def test_stats_count_by_state_and_say_how_long_the_oldest_waits(app: App, note: Task[[], None]) -> None:
    app.enqueue_many([note.job(), note.job(), note.using(delay=60).job()])
    (stats,) = app.queues.stats()

    assert (stats.name, stats.paused) == ("mail", False)
    assert stats.counts == {**dict.fromkeys(map(str, State), 0), "available": 2, "scheduled": 1}
    assert stats.oldest is not None
    assert 0 <= stats.oldest < 10
    assert app.jobs.cancel(all=True) == 3
    assert app.queues.stats()[0].oldest is None


def test_a_paused_queue_keeps_its_jobs(app: App, note: Task[[], None]) -> None:
    job = note.enqueue()
    assert app.queues.pause("mail")
    assert not app.queues.pause("mail")
    app.worker().run_until_idle()
    assert job.refresh().state == State.AVAILABLE
    assert app.queues.stats()[0].paused

    assert app.queues.resume("mail")
    assert not app.queues.resume("mail")
    app.worker().run_until_idle()
    assert job.refresh().state == State.COMPLETED


def test_draining_waits_until_nothing_is_left(app: App, note: Task[[], None]) -> None:
    note.enqueue()
    note.using(queue="other").enqueue()
    assert app.queues.drain("mail", timeout=0.05) == 1
    thread = Thread(target=app.worker(["mail"]).run_until_idle)
    thread.start()

    assert app.queues.drain("mail", timeout=10) == 0
    thread.join(10)


def test_purging_takes_what_waits_and_leaves_what_is_finished(app: App, note: Task[[], None]) -> None:
    note.enqueue()
    app.worker().run_until_idle()
    app.enqueue_many([note.job()] * 1_200 + [note.using(delay=60).job(), note.using(queue="other").job()])

    assert app.queues.purge("mail") == 1_201
    assert app.jobs.count(queue="mail") == 1
    assert app.jobs.count(queue="other") == 1


async def test_awaitable_twins(app: App, note: Task[[], None]) -> None:
    await note.aenqueue()

    assert await app.queues.apause("mail")
    assert await app.queues.aresume("mail")
    assert [stats.name for stats in await app.queues.astats()] == ["mail"]
    assert await app.queues.adrain("mail", 0) == 1
    assert await app.queues.apurge("mail") == 1


@pytest.mark.parametrize("name", ["", "../x", "a\x00", None, 7, "x" * 10_000])
def test_names_that_make_no_sense(app: App, name: str) -> None:
    for verb in (app.queues.pause, app.queues.resume, app.queues.drain, app.queues.purge):
        with pytest.raises(ConfigError, match="queue name"):
            verb(name)


def test_workers_that_are_alive_are_listed(app: App, note: Task[[], None]) -> None:
    worker = app.worker(["mail"], concurrency=3, grace=1)
    started = Event()
    app.on("worker.started")(lambda event: started.set())
    thread = Thread(target=worker.run)
    thread.start()
    try:
        assert started.wait(10)
        found = app.workers()
    finally:
        worker.stop()
        thread.join(10)

    assert (found[0].pid, found[0].queues, found[0].solo) == (os.getpid(), "mail", False)
    assert found[0].started_at <= found[0].last_beat
    assert app.workers() == []


@pytest.mark.parametrize("queues", [[], {}, ["../x"], {"a": 0}, {"a": True}, {"a": "10"}, [7], ""])
def test_a_worker_of_queues_that_make_no_sense(app: App, queues: list[str]) -> None:
    with pytest.raises(ConfigError):
        app.worker(queues)


@pytest.mark.parametrize("option", ["concurrency", "max_jobs", "max_memory"])
def test_a_worker_with_numbers_that_make_no_sense(app: App, option: str) -> None:
    for value in (0, -1, 1.5, True, "10"):
        with pytest.raises(ConfigError, match=option):
            app.worker(**{option: value})  # type: ignore[arg-type]
    for grace in (-1, float("nan"), "soon"):
        with pytest.raises(ConfigError, match="grace"):
            app.worker(grace=grace)  # type: ignore[arg-type]
