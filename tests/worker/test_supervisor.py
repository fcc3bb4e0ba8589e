"""N processes: replaced when they die or ask for it, stopped together."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dayjob.locate import ref_of
from dayjob.worker.launch import Child
from dayjob.worker.reload import Reloader
from dayjob.worker.supervisor import Supervisor
from tests.worker.shop import marks
from tests.worker.test_shutdown import Station, begun, stations

pytestmark = pytest.mark.processes
__all__ = ["stations"]


def pids(shop: ModuleType) -> set[int]:
    return {one.pid for one in shop.app.workers()}


def test_all_processes_work_and_end_together(shop: ModuleType, file: Path, stations: Callable[..., Station]) -> None:
    jobs = [shop.wait.enqueue(str(file), 0.7) for _ in range(4)]
    station = stations(processes=2, concurrency=2)
    begun(file, 4)
    assert len({line.split()[-1] for line in marks(file)}) == 2

    station.signal(signal.SIGTERM)

    assert station.end() == 0
    assert [job.refresh().state for job in jobs] == ["completed"] * 4
    assert pids(shop) == set()


def test_a_killed_process_is_reported_replaced_and_its_jobs_need_not_wait_for_the_lease(
    shop: ModuleType, file: Path, stations: Callable[..., Station]
) -> None:
    job = shop.wait.enqueue(str(file), 1)
    station = stations(processes=1)
    begun(file)
    victim = int(marks(file)[0].split()[-1])

    os.kill(victim, signal.SIGKILL)

    died = station.wait_for("process.died")
    assert (died["pid"], died["death"], died["role"]) == (victim, "signal 9 (SIGKILL)", "worker")
    assert died["peak_mb"] > 1
    gone = station.wait_for("worker.gone")
    assert (gone["pid"], gone["jobs"]) == (victim, 1)
    assert "signal 9" in gone["death"]
    assert job.result(timeout=10) == "waited"
    assert job.refresh().crashes == 0


def test_a_process_that_asks_for_it_is_followed_by_a_new_one_while_it_drains(
    shop: ModuleType, file: Path, stations: Callable[..., Station]
) -> None:
    station = stations(processes=1, concurrency=2, options={"max_jobs": 5})
    long = shop.wait.enqueue(str(file), 3)
    begun(file)
    first = marks(file)[0].split()[-1]
    short = [shop.add.enqueue(number, 1) for number in range(5)]
    station.wait_for("process.recycled")
    after = shop.wait.enqueue(str(file), 0)

    assert after.result(timeout=10) == "waited"

    assert long.refresh().state == "running"
    assert marks(file)[1].split()[-1] != first
    assert long.result(timeout=10) == "waited"
    assert all(job.refresh().state == "completed" for job in short)


def test_a_second_signal_ends_all_at_once(shop: ModuleType, file: Path, stations: Callable[..., Station]) -> None:
    job = shop.wait.enqueue(str(file), 60)
    station = stations(processes=2, grace=60)
    begun(file)

    station.signal(signal.SIGINT)
    assert station.wait_for("supervisor.stopping")["why"] == "SIGINT"
    station.signal(signal.SIGINT)

    assert station.end() == 0
    assert (job.refresh().state, job.attempt) == ("available", 0)


def test_a_process_that_was_told_to_stop_and_had_to_be_killed_makes_no_suspects(
    shop: ModuleType, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dayjob.worker.supervisor.OVERTIME", 0.3)
    shop.app.open()
    job = shop.wait.enqueue(str(file), 60)
    supervisor = supervising(shop, grace=0.2)
    tick_until(supervisor, lambda: bool(marks(file)))
    os.kill(supervisor.children[0].pid, signal.SIGSTOP)

    supervisor.stop()
    tick_until(supervisor, lambda: not supervisor.children)

    row = shop.app.store.get(job.id)
    assert (row.state, row.suspect, row.crashes) == ("available", False, 0)
    assert [one.outcome for one in row.attempts] in ([], ["released"])


@pytest.mark.timeout(90)  # every wait for a writer is one of 5 s
def test_what_a_process_could_not_settle_before_it_ended_in_order_is_recorded_as_lost(
    shop: ModuleType, file: Path, stations: Callable[..., Station]
) -> None:
    job = shop.lock_out.enqueue(str(file))
    supervisor = supervising(shop, grace=60.0, child_grace=0.2)
    tick_until(supervisor, lambda: bool(marks(file)))

    supervisor.stop()
    tick_until(supervisor, lambda: not supervisor.children, within=60)

    stations()
    assert job.result(timeout=15) == "alone"
    assert [one.outcome for one in job.refresh().attempts] == ["lost", "completed"]


def supervising(shop: ModuleType, *, grace: float, child_grace: float | None = None) -> Supervisor:
    """One for one process of *shop*; whoever calls it ticks."""
    ref = ref_of(shop.app)
    assert ref is not None

    def launch(role: str, options: dict[str, Any]) -> Child:
        return Child(role, ref, {**options, "url": shop.app.url})

    options = {"grace": grace if child_grace is None else child_grace}
    return Supervisor(launch, lambda: shop.app.store, shop.app.bus, processes=1, options=options, grace=grace)


def tick_until(supervisor: Supervisor, done: Callable[[], bool], *, within: float = 15) -> None:
    end = time.monotonic() + within
    while not done():
        supervisor.tick()
        assert time.monotonic() < end


@pytest.mark.usefixtures("many_files")
def test_a_supervisor_hears_its_processes_beside_a_thousand_open_files(shop: ModuleType, file: Path) -> None:
    shop.app.open()
    shop.wait.enqueue(str(file), 0)
    ref = ref_of(shop.app)
    assert ref is not None

    def launch(role: str, options: dict[str, Any]) -> Child:
        return Child(role, ref, {**options, "url": shop.app.url})

    supervisor = Supervisor(launch, lambda: shop.app.store, shop.app.bus, processes=1, options={}, grace=5.0)
    end = time.monotonic() + 15
    while not marks(file):
        supervisor.tick()
        assert time.monotonic() < end
    supervisor.stop()
    tick_until(supervisor, lambda: not supervisor.children)


def test_workers_end_in_order_when_their_supervisor_is_killed(
    shop: ModuleType, file: Path, stations: Callable[..., Station]
) -> None:
    job = shop.wait.enqueue(str(file), 1)
    station = stations(processes=1)
    begun(file)

    station.process.kill()

    assert job.result(timeout=10) == "waited"
    assert job.refresh().attempts[-1].outcome == "completed"


def test_a_lifespan_that_fails_ends_the_supervisor_with_its_error(
    shop: ModuleType, stations: Callable[..., Station], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_CLOSED", "1")
    station = stations(processes=2)

    assert station.end() == 1


def test_changed_source_files_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dayjob.worker.reload.EVERY", 0.0)
    (tmp_path / "package").mkdir()
    code = tmp_path / "package" / "tasks.py"
    code.write_text("one")
    (tmp_path / ".hidden").mkdir()
    reloader = Reloader(tmp_path)
    assert reloader() is None

    (tmp_path / ".hidden" / "other.py").write_text("x")
    (tmp_path / "package" / "notes.txt").write_text("x")
    assert reloader() is None

    os.utime(code, ns=(1, 1))
    assert reloader() == "code changed: package/tasks.py"
    assert reloader() is None
    code.unlink()
    assert reloader() == "code changed: package/tasks.py"
