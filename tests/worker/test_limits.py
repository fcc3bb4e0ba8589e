"""Time limits that hold, in each of the three kinds; and jobs that do not stop when they are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from dayjob.clock import SECOND
from dayjob.states import Outcome
from dayjob.worker import limits
from dayjob.worker.limits import Step, due
from dayjob.worker.loop import LoopPool
from tests.worker.conftest import Witness, working
from tests.worker.shop import marks
from tests.worker.test_shutdown import Station, begun, stations

__all__ = ["stations"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become tenths."""
    for name in ("AGAIN", "FORCE", "LAST", "COURTESY"):
        monkeypatch.setattr(limits, name, getattr(limits, name) // 10)


def fake(kind: str, **fields: Any) -> Any:
    plan = SimpleNamespace(kind=kind, timeout=fields.pop("timeout", 5.0), takes_context=fields.pop("looks", False))
    run = {"abandoned": False, "started": 1, "stopping": None, "told": 0, "told_at": 0, "plan": plan}
    return SimpleNamespace(**{**run, **fields})


def seconds(number: float) -> int:
    return int(number * SECOND)


# -- what is due when ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "thread"])
def test_nothing_is_due_before_the_limit(kind: str) -> None:
    assert due(fake(kind), seconds(4.9)) == (Step.NOTHING, "")


@pytest.mark.parametrize("kind", ["async", "thread"])
def test_a_job_is_told_at_its_limit_and_every_second_after(kind: str) -> None:
    run = fake(kind)

    assert due(run, seconds(5.1)) == (Step.TELL, "timeout")

    run.stopping, run.told, run.told_at = "timeout", 1, seconds(5.1)
    assert due(run, seconds(5.9))[0] is Step.NOTHING
    assert due(run, seconds(6.2))[0] is Step.TELL


def test_a_job_without_a_limit_is_never_told() -> None:
    assert due(fake("thread", timeout=None), seconds(1e6)) == (Step.NOTHING, "")


def test_ten_seconds_after_it_was_told_a_thread_is_abandoned() -> None:
    run = fake("thread", stopping="timeout", told=10, told_at=seconds(5))

    assert due(run, seconds(15.1))[0] is Step.ABANDON

    run.abandoned = True
    assert due(run, seconds(15.2))[0] is Step.NOTHING


def test_an_async_job_that_swallows_its_cancellation_is_closed() -> None:
    run = fake("async", stopping="timeout", told=10, told_at=seconds(5))

    assert due(run, seconds(15.1))[0] is Step.CLOSE
    assert due(run, seconds(25.1))[0] is Step.CLOSE


def test_a_job_that_blocks_the_loop_is_broken_into_and_then_abandoned() -> None:
    run = fake("async", stopping="timeout", told=10, told_at=seconds(5))

    assert due(run, seconds(15.1), blocks=True)[0] is Step.BREAK
    assert due(run, seconds(17), blocks=True)[0] is Step.NOTHING
    assert due(run, seconds(20.1), blocks=True)[0] is Step.ABANDON


def test_a_cancelled_sync_job_with_a_context_has_five_seconds_to_see_it() -> None:
    run = fake("thread", looks=True, stopping="cancel", told_at=seconds(1))

    assert due(run, seconds(5.9))[0] is Step.NOTHING
    assert due(run, seconds(6.1))[0] is Step.TELL


def test_a_job_in_a_child_process_is_left_to_the_thread_that_waits_for_it() -> None:
    assert due(fake("process", stopping="cancel", told_at=1), seconds(60))[0] is Step.NOTHING


# -- the real thing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["wait", "wait_in_thread", "burn"])
def test_a_hung_job_ends_at_its_limit_as_failed(shop: ModuleType, file: Path, task: str) -> None:
    job = getattr(shop, task).using(timeout=0.4, retry=False).enqueue(str(file), 30.0)
    began = time.monotonic()

    shop.app.worker().run_until_idle()

    job.refresh()
    assert (job.state, job.reason, job.attempts[0].error_type) == ("dead", "failed", "dayjob.errors.JobTimeout")
    assert "0.4 s" in job.attempts[0].message
    assert [line.split()[0] for line in marks(file)] == ["begin"]
    assert time.monotonic() - began < 5


def test_the_limit_counts_from_the_start_not_from_the_claim(shop: ModuleType, file: Path) -> None:
    jobs = [shop.wait_in_thread.using(timeout=0.6, retry=False).enqueue(str(file), 0.3) for _ in range(4)]

    counts = shop.app.worker(concurrency=1).run_until_idle()

    assert counts == {Outcome.COMPLETED: 4}
    assert [job.result(timeout=1) for job in jobs] == ["waited"] * 4


@pytest.mark.usefixtures("impatient")
def test_an_async_job_that_swallows_its_cancellation_ends_all_the_same(
    shop: ModuleType, file: Path, witness: Witness
) -> None:
    job = shop.swallow.using(timeout=0.2, retry=False).enqueue(str(file))

    shop.app.worker().run_until_idle()

    assert job.refresh().attempts[0].error_type == "dayjob.errors.JobTimeout"
    assert len(witness.of("job.interrupted")) > 2


@pytest.mark.usefixtures("impatient")
def test_a_blocked_loop_is_reported_with_job_and_stack_and_broken_into_past_the_limit(
    shop: ModuleType, file: Path, witness: Witness
) -> None:
    job = shop.block.using(timeout=0.2, retry=False).enqueue(str(file), 60.0)
    after = shop.add.enqueue(1, 2)

    shop.app.worker().run_until_idle()

    blocked = witness.wait_for("loop.blocked")
    assert (blocked.id, blocked.task) == (job.id, "tests.worker.shop.block")
    assert blocked.duration >= 0.3
    assert "in block" in blocked.stack
    assert job.refresh().attempts[0].error_type == "dayjob.errors.JobTimeout"
    assert after.result(timeout=1) == 3


@pytest.mark.usefixtures("impatient")
def test_a_thread_that_will_not_die_is_abandoned_and_its_place_given_to_others(
    shop: ModuleType, file: Path, witness: Witness
) -> None:
    """In a process that is not the worker's own, which cannot be replaced: the job keeps its thread and its lease."""
    job = shop.deaf.using(timeout=0.2, retry=False).enqueue(str(file), 6.0)
    with working(shop.app.worker(concurrency=1)):
        abandoned = witness.wait_for("job.abandoned")
        other = shop.join.enqueue("a", "b")

        assert other.result(timeout=5) == "ab"
        assert (abandoned.id, abandoned.why) == (job.id, "timeout")
        assert "in deaf" in abandoned.stack
        assert job.refresh().state == "running"
        job.join(timeout=10)  # it does end in the end: settled as what it is, late
    assert job.refresh().attempts[0].error_type == "dayjob.errors.JobTimeout"


@pytest.mark.processes
def test_a_loop_that_stands_still_in_no_job_is_given_up_and_its_process_replaced(
    shop: ModuleType, file: Path, stations: Callable[..., Station]
) -> None:
    """A job that suspended, and one that never began there, go on in the next process."""
    suspended = shop.wait.enqueue(str(file), 2)
    station = stations(processes=1)
    begun(file)
    first = marks(file)[0].split()[-1]
    shop.leave_a_block.enqueue(str(file), 30)
    begun(file, 2)
    after = [shop.add.enqueue(1, 2), shop.join.enqueue("a", "b"), shop.add.enqueue(3, 4)]

    why = station.wait_for("process.recycled")["why"]

    assert "the event loop stands still" in why
    assert [job.result(timeout=12) for job in after] == [3, "ab", 7]
    assert suspended.result(timeout=12) == "waited"
    assert marks(file)[2].split()[-1] != first
    assert (suspended.refresh().crashes, suspended.attempt) == (0, 1)
    assert "process.died" not in station.names()


def test_what_was_handed_to_a_loop_that_stands_still_can_be_taken_back(shop: ModuleType) -> None:
    loop = LoopPool(SimpleNamespace())  # type: ignore[arg-type]
    run: Any = Mock(slots=None)

    loop.put(run)

    assert loop.take_back() == [run]
    asyncio.run(loop._runner(run.slots, run))  # begins nothing: there is no executor here


# -- cancelling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["wait", "wait_in_thread"])
def test_a_running_job_is_cancelled_within_a_second(shop: ModuleType, file: Path, witness: Witness, task: str) -> None:
    job = getattr(shop, task).enqueue(str(file), 30.0)
    with working(shop.app.worker()):
        witness.wait_for("job.started")
        began = time.monotonic()
        job.cancel()
        witness.wait_for("job.cancelled")
        took = time.monotonic() - began

    assert (job.refresh().state, job.attempt) == ("cancelled", 0)
    assert took < 1.0
    assert [line.split()[0] for line in marks(file)] == ["begin"]


@pytest.mark.parametrize("task", ["look_and_wait", "burn_and_look"])
def test_a_job_that_looks_at_its_context_ends_by_itself(
    shop: ModuleType, file: Path, witness: Witness, task: str
) -> None:
    job = getattr(shop, task).enqueue(str(file))
    with working(shop.app.worker()):
        witness.wait_for("job.started")
        while not marks(file):  # the child of a CPU-bound job needs a moment to be there
            time.sleep(0.02)
        job.cancel()
        witness.wait_for("job.cancelled")

    assert job.refresh().state == "cancelled"
    assert [line.split()[0] for line in marks(file)] == ["begin", "saw"]


def test_a_cpu_bound_job_that_does_not_look_is_killed_when_cancelled(
    shop: ModuleType, file: Path, witness: Witness
) -> None:
    job = shop.burn.enqueue(str(file), 60.0)
    with working(shop.app.worker()):
        witness.wait_for("job.started")
        job.cancel()
        witness.wait_for("job.cancelled")

    assert job.refresh().state == "cancelled"
    assert witness.of("process.died") == []
