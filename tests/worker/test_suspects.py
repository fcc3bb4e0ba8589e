"""P5: poison is contained, neighbours are not punished."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dayjob.events import Bus
from dayjob.states import Outcome
from dayjob.worker.launch import Death
from dayjob.worker.suspects import Suspects
from tests.worker.conftest import Witness, working
from tests.worker.shop import marks
from tests.worker.test_shutdown import Station, begun, stations

pytestmark = [pytest.mark.processes, pytest.mark.crash]
__all__ = ["stations"]


def test_a_job_that_kills_its_process_is_dead_after_three_crashes_alone_and_says_how(
    shop: ModuleType, file: Path, stations: Callable[..., Station]
) -> None:
    poison = shop.poison.enqueue(str(file))
    healthy = [shop.wait.enqueue(str(file), 0.5) for _ in range(3)]
    first = stations()
    first.process.wait(15)  # it has killed the worker, with everything in it

    second = stations()
    dead = second.wait_for("job.dead")

    poison.refresh()
    assert (poison.state, poison.reason, poison.crashes) == ("dead", "crashed", 3)
    assert [one.outcome for one in poison.attempts] == ["lost", "crashed", "crashed", "crashed"]
    assert all("signal 9 (SIGKILL)" in (one.reason or "") for one in poison.attempts[1:])
    assert "signal 9 (SIGKILL)" in dead["error"]
    for job in healthy:
        assert job.result(timeout=15) == "waited"
        assert job.refresh().crashes == 0
    assert [line.split()[0] for line in marks(file) if line.startswith("dead")] == [f"dead:{poison.id}:JobFailed"]


def test_a_poisonous_call_dies_alone_and_the_others_of_its_batch_are_done(
    shop: ModuleType, file: Path, stations: Callable[..., Station]
) -> None:
    task = shop.poison_in_company
    jobs = shop.app.enqueue_many([task.job((str(file), number == 1)) for number in range(3)])
    first = stations()
    first.process.wait(15)

    stations().wait_for("job.dead")
    for job in (jobs[0], jobs[2]):
        job.join(timeout=15)

    assert [str(job.refresh().state) for job in jobs] == ["completed", "dead", "completed"]
    assert [job.crashes for job in jobs] == [0, 3, 0]
    assert [line.split()[0] for line in marks(file)] == ["batch:3"] * 3 + ["batch:1"] * 5


@pytest.mark.parametrize("code", [0, 75])
def test_a_job_that_ends_its_process_with_an_orderly_exit_code_has_crashed(
    shop: ModuleType, file: Path, stations: Callable[..., Station], code: int
) -> None:
    """Only a goodbye makes an end orderly; 0 and 75 are what a worker ends with."""
    job = shop.leave.enqueue(str(file), code)
    stations(processes=1)

    job.join(timeout=20)

    assert (job.state, job.reason, job.crashes) == ("dead", "crashed", 3)
    assert [one.outcome for one in job.attempts] == ["lost", "crashed", "crashed", "crashed"]
    assert f"exit code {code}" in (job.attempts[-1].reason or "")


@pytest.mark.parametrize("told", [True, False])
def test_a_solo_process_that_was_told_to_stop_is_not_blamed_for_how_it_ends(told: bool) -> None:
    left: list[str | None] = []
    store: Any = SimpleNamespace(leave=lambda worker, death: left.append(death))
    suspects = Suspects(lambda role, options: child, store, Bus(), {}, lambda gone, how: None, lambda: None)
    child: Any = SimpleNamespace(orderly=False, stopping=told, pid=1)
    suspects._incarnations = ["w1"]

    suspects._bury(child, Death(-9, "signal 9 (SIGKILL)", None))

    assert left == [None if told else "signal 9 (SIGKILL)"]


def test_the_death_of_a_solo_process_frees_its_job_at_once(
    shop: ModuleType, file: Path, stations: Callable[..., Station]
) -> None:
    """The parent saw it die: nobody waits for the lease."""
    job = shop.wait.enqueue(str(file), 60)
    first = stations()
    begun(file)
    first.process.kill()
    first.process.wait()
    second = stations()
    begun(file, 2)
    solo = int(marks(file)[-1].split()[-1])

    began = time.monotonic()
    os.kill(solo, signal.SIGKILL)
    second.wait_for("job.stalled", lambda event: event["crashes"] == 1)

    assert time.monotonic() - began < 2
    begun(file, 3)
    second.signal(signal.SIGTERM)
    second.wait_for("worker.stopping")
    second.signal(signal.SIGTERM)
    assert second.end() == 0
    assert (job.refresh().state, job.crashes) == ("available", 1)


def test_a_solo_process_whose_parent_dies_ends_in_order_and_its_job_is_not_blamed(
    shop: ModuleType, file: Path, stations: Callable[..., Station]
) -> None:
    job = shop.wait.enqueue(str(file), 2)
    first = stations()
    begun(file)
    first.process.kill()
    first.process.wait()
    second = stations()
    begun(file, 2)

    second.process.kill()

    assert job.result(timeout=10) == "waited"  # within the grace of the orphan
    assert job.refresh().crashes == 0


def test_a_cpu_bound_job_that_kills_its_child_has_crashed_alone(shop: ModuleType, file: Path, witness: Witness) -> None:
    job = shop.vanish.enqueue(str(file))

    counts = shop.app.worker().run_until_idle()

    job.refresh()
    assert (job.state, job.reason, job.crashes) == ("dead", "crashed", 3)
    assert counts == {Outcome.CRASHED: 1}  # the others in a process for suspects
    died = witness.wait_for("process.died", lambda event: event.role == "pool")
    assert died.death == "signal 9 (SIGKILL)"
    assert died.peak_mb > 1


def test_a_pool_child_dies_with_its_worker_even_inside_c_code(
    shop: ModuleType, file: Path, stations: Callable[..., Station]
) -> None:
    shop.hold_gil.enqueue(str(file), 30)
    station = stations()
    begun(file)
    child = int(marks(file)[0].split()[-1])
    assert child != station.process.pid

    station.process.kill()

    end = time.monotonic() + 3
    with contextlib.suppress(ProcessLookupError):
        while not zombie(child):
            os.kill(child, 0)
            assert time.monotonic() < end, "the pool child lives on"
            time.sleep(0.02)


def zombie(pid: int) -> bool:
    """True when *pid* is dead and nobody has reaped it yet (a container's init may not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def memory_shop(shop: ModuleType) -> ModuleType:
    shop.app.close()
    shop.app.url = "sqlite:///:memory:"
    shop.app.migrate()
    return shop


def test_where_no_process_can_see_the_store_suspects_run_alone_in_this_one(memory_shop: ModuleType) -> None:
    from dayjob.store.records import Want, WorkerInfo

    store = memory_shop.app.store
    jobs = [memory_shop.add.enqueue(1, number) for number in range(3)]
    store.beat(WorkerInfo("w0", "w0", "here", 1), [])
    claimed = store.turn("w0", 1, (), [Want(None, 10)]).claimed
    assert len(claimed) == 3
    store.leave("w0", death="signal 9 (SIGKILL)")

    counts = memory_shop.app.worker().run_until_idle()

    assert counts == {Outcome.COMPLETED: 3}
    assert [job.result(timeout=1) for job in jobs] == [1, 2, 3]


def test_suspects_are_claimed_by_nobody_but_the_solo_child(shop: ModuleType, file: Path, witness: Witness) -> None:
    from dayjob.store.records import Want, WorkerInfo

    store = shop.app.store
    jobs = [shop.wait.enqueue(str(file), 0) for _ in range(5)]
    store.beat(WorkerInfo("w0", "w0", "here", 1), [])
    store.turn("w0", 1, (), [Want(None, 10)])
    store.leave("w0", death="signal 9 (SIGKILL)")

    with working(shop.app.worker()):
        for job in jobs:
            assert job.result(timeout=15) == "waited"

    assert os.getpid() not in {int(line.split()[-1]) for line in marks(file)}
    assert witness.of("process.died") == []


def test_suspects_of_a_paused_queue_are_not_waited_for_and_no_process_is_started_in_vain(
    shop: ModuleType, witness: Witness
) -> None:
    from dayjob.store.records import Want, WorkerInfo

    store = shop.app.store
    job = shop.add.enqueue(1, 2)
    store.beat(WorkerInfo("w0", "w0", "here", 1), [])
    store.turn("w0", 1, (), [Want(None, 10)])
    store.leave("w0", death="signal 9 (SIGKILL)")
    store.pause("default", True)

    assert shop.app.worker().run_until_idle() == {}

    store.pause("default", False)
    shop.app.worker().run_until_idle()
    assert job.result(timeout=1) == 3


def test_the_same_in_memory(memory_shop: ModuleType) -> None:
    test_suspects_of_a_paused_queue_are_not_waited_for_and_no_process_is_started_in_vain(memory_shop, None)  # type: ignore[arg-type]
