"""`dayjob worker` and `dayjob dev` as processes: signals, several processes, recycling, reload, events."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.conftest import Project


def until(condition: Callable[[], Any], patience: float = 12.0) -> Any:
    """What *condition* answers as soon as that is something; another process cannot signal us."""
    deadline = time.monotonic() + patience
    while not (answer := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return answer


def pids(project: Project) -> set[int]:
    return {one["pid"] for one in project("workers", "--json").json}


def test_sigterm_lets_the_worker_leave_in_order(project: Project) -> None:
    id = project.enqueue("greet", name="Ada")
    worker = project.start("worker", "-q", "mail:2", "-q", "late")
    until(lambda: project.state(id) == "completed")
    (row,) = project("workers", "--json").json
    worker.signal(signal.SIGTERM)

    assert worker.wait(10) == 0
    assert (row["pid"], row["queues"]) == (worker.pid, "mail:2,late:10")
    assert project("workers", "--json").json == []


def test_ctrl_c_hands_a_long_job_back_after_the_grace(project: Project) -> None:
    marker = project.folder / "marker"
    id = project.enqueue("long", marker=str(marker))
    worker = project.start("worker", "--grace", "0.2")
    until(marker.exists)
    worker.signal(signal.SIGINT)
    status = worker.wait(10)
    job = project("jobs", "show", id, "--json").json

    assert status == 0
    assert (job["state"], job["attempt"], job["crashes"]) == ("available", 0, 0)


def test_a_second_signal_does_not_wait_for_the_grace(project: Project) -> None:
    marker = project.folder / "marker"
    id = project.enqueue("long", marker=str(marker))
    worker = project.start("worker", "--grace", "60")
    until(marker.exists)
    worker.signal(signal.SIGTERM)
    worker.said("worker.stopping")
    worker.signal(signal.SIGTERM)

    assert worker.wait(10) == 0
    assert project.state(id) == "available"


def test_burst_ends_when_nothing_is_left(project: Project) -> None:
    ids = [project.enqueue("greet", name=str(n)) for n in range(3)]
    project("worker", "--burst", "-c", "2")

    assert [project.state(id) for id in ids] == ["completed"] * 3


def test_a_process_that_dies_is_replaced(project: Project) -> None:
    project("migrate")
    supervisor = project.start("worker", "-p", "2")
    before = until(lambda: found if len(found := pids(project)) == 2 else None)
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    after = until(lambda: found if len(found := pids(project)) == 2 and victim not in found else None)
    supervisor.signal(signal.SIGTERM)

    assert len(before & after) == 1
    assert supervisor.wait(15) == 0
    assert pids(project) == set()


def test_a_worker_replaces_itself_after_so_many_jobs(project: Project) -> None:
    project("migrate")
    worker = project.start("worker", "--max-jobs", "1")
    started = [worker.said("worker.started")]
    for _ in range(2):
        project.enqueue("pid")
        started.append(worker.said("worker.started"))
    worker.signal(signal.SIGTERM)

    assert worker.wait(10) == 0
    assert all(f"pid={worker.pid} " in line for line in started)


def test_reload_runs_new_code(project: Project) -> None:
    project("migrate")
    shop = project.folder / "shop.py"
    worker = project.start("worker", "--reload")
    worker.said("worker.started")
    shop.write_text(shop.read_text().replace("Hello", "Good day"))
    worker.said("process.recycled")
    worker.said("worker.started")
    id = project.enqueue("greet", name="Ada")
    waited = project("enqueue", "greet", "--args", '{"name": "Bob"}', "--wait", "10")

    assert waited.out == '"Good day, Bob!"\n'
    assert project.state(id) == "completed"


def test_dev_migrates_and_works(project: Project) -> None:
    dev = project.start("dev")
    dev.said("migrated: 001")
    dev.said("worker.started")

    assert project("enqueue", "greet", "--args", '{"name": "Ada"}', "--wait", "10").out == '"Hello, Ada!"\n'


def test_a_wait_for_a_job_that_dies_is_exit_1(project: Project) -> None:
    project("migrate")
    project.start("worker")
    run = project("enqueue", "fail", "--args", '{"why": "no"}', "--wait", "10", status=1)

    assert "ValueError: no" in run.err


def test_events_are_followed_from_another_process(project: Project) -> None:
    project("migrate")
    listener = project.start("events", "job.completed", "--json")
    worker = project.start("worker")
    # The worker looks once a second whether somebody listens: what comes before may be missed.
    worker.said("worker.started")
    project("enqueue", "greet", "--args", '{"name": "Ada"}', "--delay", "2")
    event = json.loads(listener.said("{", on="out"))

    assert event["event"] == "job.completed"
    assert event["task"] == "greet"


def test_a_store_in_memory_has_one_process(project: Project) -> None:
    run = project("worker", "-p", "2", "--url", "sqlite:///:memory:", status=2)

    assert "one process only" in run.err


def test_an_app_whose_resources_cannot_be_had_ends_at_once(project: Project) -> None:
    shop = project.folder / "shop.py"
    shop.write_text(shop.read_text().replace('yield {"db": "open"}', "raise OSError('no database')\n    yield"))
    alone = project("worker", status=1)
    supervised = project("worker", "-p", "2", status=1)

    assert "no database" in alone.err
    assert "no worker process could start" in supervised.err


@pytest.mark.timeout(60)
def test_a_job_that_hangs_for_good_costs_the_process_not_the_queue(project: Project) -> None:
    shop = project.folder / "shop.py"
    shop.write_text(
        shop.read_text()
        + """
@app.task(name="deaf", timeout=0.2, retry=1)
def deaf() -> None:
    while True:
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            pass
"""
    )
    project("migrate")
    worker = project.start("worker", "--grace", "0.1")
    worker.said("worker.started")
    id = project.enqueue("deaf")
    worker.said("job.abandoned", patience=25)
    again = worker.said("worker.started", patience=25)
    greeted = project("enqueue", "greet", "--args", '{"name": "Ada"}', "--wait", "10").out
    worker.signal(signal.SIGTERM)

    assert worker.wait(10) == 0
    assert f"pid={worker.pid} " in again
    assert greeted == '"Hello, Ada!"\n'
    assert project("jobs", "show", id, "--json").json["error"]["type"] == "dayjob.errors.JobTimeout"
