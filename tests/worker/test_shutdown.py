"""Signals, and the order of the end: stop claiming, wait, cancel, flush, release, leave."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Condition, Thread
from types import ModuleType
from typing import Any

import pytest

from tests.worker.shop import marks

pytestmark = pytest.mark.processes
ROOT = Path(__file__).parents[2]


class Station:
    """A worker process, and what it says."""

    def __init__(self, url: str, **said: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.worker.station", json.dumps({"url": url, **said})],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.events: list[dict[str, Any]] = []
        self._news = Condition()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.events.append(json.loads(line))
                self._news.notify_all()

    def wait_for(
        self, name: str, where: Callable[[dict[str, Any]], bool] = lambda event: True, *, count: int = 1
    ) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            return [event for event in self.events if event["event"] == name and where(event)]

        with self._news:
            if not self._news.wait_for(lambda: len(found()) >= count, 15):
                raise AssertionError(f"no {name}; seen: " + "\n".join(map(str, self.events[-30:])))
            return found()[count - 1]

    def names(self) -> list[str]:
        return [event["event"] for event in self.events]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        code = self.process.wait(15)
        self._reader.join(5)
        return code


@pytest.fixture
def stations(shop: ModuleType) -> Iterator[Callable[..., Station]]:
    started: list[Station] = []

    def start(**said: Any) -> Station:
        station = Station(shop.app.url, **said)
        started.append(station)
        return station

    shop.app.open()
    yield start
    for station in started:
        with contextlib.suppress(ProcessLookupError):
            station.process.kill()
        station.process.wait()
        if station.process.stdout is not None:
            station.process.stdout.close()


def begun(file: Path, count: int = 1) -> None:
    """Wait until *count* tasks have left their first mark."""
    end = time.monotonic() + 15
    while sum(line.startswith("begin") for line in marks(file)) < count:
        assert time.monotonic() < end, marks(file)
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_jobs_finish_and_hands_the_rest_back(
    shop: ModuleType, file: Path, stations: Callable[..., Station], number: int
) -> None:
    jobs = [shop.wait.enqueue(str(file), 0.8), shop.wait_in_thread.enqueue(str(file), 0.8)]
    waiting = [shop.wait.enqueue(str(file), 0.8) for _ in range(3)]
    station = stations(concurrency=2)
    begun(file, 2)

    station.signal(number)

    assert station.end() == 0
    assert [job.refresh().state for job in jobs] == ["completed", "completed"]
    assert [job.refresh().state for job in waiting] == ["available"] * 3
    assert station.wait_for("worker.stopping")["why"] == signal.Signals(number).name
    assert shop.app.workers() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_heard_that_the_kernel_gives_to_another_thread(
    shop: ModuleType, stations: Callable[..., Station], number: int
) -> None:
    job = shop.take_the_signal.enqueue(int(number))
    station = stations()

    assert station.end() == 0
    assert job.refresh().state == "completed"


def test_what_is_not_done_after_the_grace_is_cancelled_and_goes_back_unspent(
    shop: ModuleType, file: Path, stations: Callable[..., Station]
) -> None:
    jobs = [
        shop.wait.enqueue(str(file), 60),
        shop.wait_in_thread.enqueue(str(file), 60),
        shop.burn.enqueue(str(file), 60),
    ]
    station = stations(grace=0.3)
    begun(file, 3)

    station.signal(signal.SIGTERM)

    assert station.end() == 0
    for job in jobs:
        job.refresh()
        assert (job.state, job.attempt, job.crashes) == ("available", 0, 0)
        assert [one.outcome for one in job.attempts] == ["released"]
    assert not any(shop.app.store.get(job.id).suspect for job in jobs)


def test_a_second_signal_ends_at_once_and_still_releases(
    shop: ModuleType, file: Path, stations: Callable[..., Station]
) -> None:
    job = shop.wait.enqueue(str(file), 60)
    station = stations(grace=60)
    begun(file)

    station.signal(signal.SIGTERM)
    station.wait_for("worker.stopping")
    began = time.monotonic()
    station.signal(signal.SIGTERM)

    assert station.end() == 0
    assert time.monotonic() - began < 3
    assert (job.refresh().state, job.attempt) == ("available", 0)


def test_a_deaf_thread_does_not_keep_the_process_and_its_job_goes_back(
    shop: ModuleType, file: Path, stations: Callable[..., Station]
) -> None:
    job = shop.deaf.enqueue(str(file), 120)
    station = stations(grace=0.2)
    begun(file)

    station.signal(signal.SIGTERM)

    assert station.end() == 75
    assert (job.refresh().state, job.attempt) == ("available", 0)


def test_a_hung_thread_drains_the_worker_and_its_job_fails_only_when_the_process_is_gone(
    shop: ModuleType, file: Path, stations: Callable[..., Station]
) -> None:
    job = shop.deaf.using(timeout=0.3).enqueue(str(file), 120)
    beside = shop.wait.enqueue(str(file), 4)
    station = stations(impatient=True)
    station.wait_for("job.abandoned")
    assert job.refresh().state == "running"

    assert station.end() == 75

    job.refresh()
    assert (job.state, job.attempt) == ("scheduled", 1)
    assert job.attempts[0].error_type == "dayjob.errors.JobTimeout"
    assert job.run_at.timestamp() - job.attempts[0].finished_at.timestamp() >= 1.0
    assert beside.refresh().state == "completed"
    assert "does not stop" in station.wait_for("worker.stopping")["why"]


def test_a_loop_blocked_in_c_costs_the_process_but_no_other_job(
    shop: ModuleType, file: Path, stations: Callable[..., Station]
) -> None:
    beside = shop.wait.using(priority=1).enqueue(str(file), 60)
    job = shop.nap.using(timeout=0.3).enqueue(str(file), 120)
    station = stations(impatient=True, grace=60)
    begun(file, 2)
    other = shop.wait.enqueue(str(file), 0)

    assert station.end() == 75

    assert station.wait_for("loop.blocked")["id"] == job.id
    assert (job.refresh().state, job.attempt) == ("scheduled", 1)
    for one in (other, beside):
        assert (one.refresh().state, one.attempt, one.crashes) == ("available", 0, 0)


def test_after_max_jobs_a_worker_drains_and_ends(shop: ModuleType, stations: Callable[..., Station]) -> None:
    for number in range(50):
        shop.add.enqueue(number, 1)
    station = stations(concurrency=1, options={"max_jobs": 10})

    assert station.end() == 0
    assert "ran 10 jobs" in station.wait_for("worker.stopping")["why"]


def test_above_max_memory_a_worker_drains_and_ends(shop: ModuleType, stations: Callable[..., Station]) -> None:
    station = stations(options={"max_memory": 1})

    assert station.end() == 0
    assert "MB" in station.wait_for("worker.stopping")["why"]


def test_killed_workers_leave_suspects_that_run_alone(
    shop: ModuleType, file: Path, stations: Callable[..., Station]
) -> None:
    job = shop.wait.enqueue(str(file), 1)
    first = stations()
    begun(file)
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()

    second = stations()

    second.wait_for("job.stalled", lambda event: event["id"] == job.id)
    assert job.result(timeout=10) == "waited"
    assert job.refresh().attempts[0].outcome == "lost"
    assert len({line.split()[-1] for line in marks(file)} - {str(first.process.pid), str(second.process.pid)}) == 1


def test_what_is_on_its_way_to_a_blocked_loop_goes_back_and_is_not_started_afterwards(
    shop: ModuleType, file: Path, stations: Callable[..., Station]
) -> None:
    blocker = shop.block.enqueue(str(file), 1.5)
    station = stations(concurrency=4, grace=10)
    begun(file)
    others = [shop.wait.enqueue(str(file), 0) for _ in range(3)]
    deadline = time.monotonic() + 5
    while [job.refresh().state for job in others] != ["running"] * 3:  # claimed, and waiting for the loop
        assert time.monotonic() < deadline
        time.sleep(0.02)

    station.signal(signal.SIGTERM)

    assert station.end() == 0
    assert blocker.refresh().state == "completed"
    assert [job.refresh().state for job in others] == ["available"] * 3
    assert len([line for line in marks(file) if line.startswith("begin")]) == 1


def test_a_burst_that_is_interrupted_from_the_keyboard_gives_everything_back(
    shop: ModuleType, file: Path, stations: Callable[..., Station]
) -> None:
    jobs = [shop.wait.enqueue(str(file), 60) for _ in range(5)]
    station = stations(concurrency=2, burst=True)
    begun(file, 2)

    station.signal(signal.SIGINT)

    assert station.end() == 130
    for job in jobs:
        assert (job.refresh().state, job.attempt, job.crashes) == ("available", 0, 0)
    assert shop.app.workers() == []
