"""CPU-bound tasks: one at a time in a child, which has its own lifespan and speaks through its parent."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dayjob.events import Bus
from dayjob.states import Outcome
from dayjob.worker.channel import Channel, Ready
from dayjob.worker.processes import ProcessPool
from dayjob.worker.run import monotonic
from tests.worker.conftest import Witness, working
from tests.worker.shop import marks

pytestmark = pytest.mark.processes


def test_a_pool_child_has_its_own_lifespan_and_arounds(shop: ModuleType) -> None:
    jobs = [shop.where_am_i.enqueue() for _ in range(3)]

    shop.app.worker().run_until_idle()

    for job in jobs:
        found = job.result(timeout=1)
        assert found["here"] == found["lifespan"] != os.getpid()
        assert found["around"] == job.id
        assert found["current"] == job.id


def test_one_child_serves_many_jobs_and_never_more_children_run_than_cores(
    shop: ModuleType, file: Path, witness: Witness
) -> None:
    shop.app.enqueue_many([shop.burn.job(str(file), 0.01) for _ in range(12)])

    counts = shop.app.worker(concurrency=8).run_until_idle()

    assert counts == {Outcome.COMPLETED: 12}
    assert 1 <= len({line.split()[1] for line in marks(file)}) <= (os.cpu_count() or 1)


def test_what_a_child_says_is_stored_under_its_parents_lease(shop: ModuleType, witness: Witness) -> None:
    job = shop.talk_in_child.enqueue()

    shop.app.worker().run_until_idle()

    assert job.result(timeout=1) == {"checkpoint": {"at": 7}}
    assert [(line.level, line.message) for line in job.logs()] == [("info", "seven of 9"), ("error", "nearly")]
    assert witness.of("job.logged")[0].message == "seven of 9"


def test_errors_and_directives_come_back_from_a_child(shop: ModuleType) -> None:
    failed, cancelled, odd = (shop.fail_in_child.enqueue(how) for how in ("error", "cancel", "odd"))

    shop.app.worker().run_until_idle()

    assert (failed.refresh().state, failed.attempts[-1].error_type) == ("dead", "tests.worker.shop.Refused")
    assert "in fail_in_child" in failed.attempts[-1].traceback
    assert (cancelled.refresh().state, cancelled.reason) == ("cancelled", "not wanted")
    assert (odd.refresh().state, odd.reason) == ("dead", "result")


def test_breakers_and_limits_hear_of_what_happens_in_a_child(shop: ModuleType) -> None:
    for how in ("ours", "ours", "wait"):
        shop.call_in_child.enqueue(7, how)
    shop.app.worker().run_until_idle()
    assert shop.app.breakers.list() == []
    shop.call_here.enqueue(7)
    shop.call_here.enqueue(8)
    shop.app.worker().run_until_idle()
    assert [job.args["account"] for job in shop.app.jobs.find(state="completed")] == [8]

    for _ in range(2):
        shop.call_in_child.enqueue(7, "down")
    shop.app.worker().run_until_idle()
    assert [(row.key, row.state) for row in shop.app.breakers.list()] == [("psp", "open")]


def test_a_child_that_cannot_start_fails_the_attempt_with_its_words(
    shop: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = shop.app.worker()
    job = shop.square.using(retry=False).enqueue(3)
    launch = worker._launch

    def closed(role: str, options: dict[str, object]) -> object:
        monkeypatch.setenv("SHOP_CLOSED", "1")
        return launch(role, options)

    monkeypatch.setattr(worker, "_launch", closed)
    worker.run_until_idle()

    assert job.refresh().state == "dead"
    assert "the shop is closed" in job.attempts[0].message


def test_a_job_waits_unspent_while_the_machine_has_no_process_for_it(
    shop: ModuleType, monkeypatch: pytest.MonkeyPatch, witness: Witness
) -> None:
    worker = shop.app.worker()
    job = shop.square.using(retry=False).enqueue(3)
    launch = worker._launch

    def used_up(role: str, options: dict[str, object]) -> object:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
        try:
            return launch(role, options)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)

    monkeypatch.setattr(worker, "_launch", used_up)
    counts = worker.run_until_idle()

    assert counts == {Outcome.PARKED: 1}
    assert (job.refresh().state, job.attempt) == ("scheduled", 0)
    assert "Too many open files" in witness.of("job.parked")[0].reason


def test_a_job_that_waits_for_a_child_can_be_cancelled(shop: ModuleType, file: Path) -> None:
    busy = [shop.burn.enqueue(str(file), 30) for _ in range(os.cpu_count() or 1)]
    with working(shop.app.worker(concurrency=50)):
        end = time.monotonic() + 15
        while len(marks(file)) < len(busy):
            assert time.monotonic() < end
            time.sleep(0.02)
        waiting = shop.burn.enqueue(str(file), 30)
        while waiting.refresh().state != "running":
            assert time.monotonic() < end
            time.sleep(0.02)
        waiting.cancel()
        waiting.join(timeout=5)

        assert waiting.state == "cancelled"
        assert [job.refresh().state for job in busy] == ["running"] * len(busy)
    assert all(line.split()[0] == "begin" for line in marks(file))


def test_a_child_that_crashes_is_seen_to_though_a_process_it_forked_lives_on(
    shop: ModuleType, file: Path, witness: Witness
) -> None:
    shop.fork_and_vanish.enqueue(str(file))
    began = time.monotonic()
    with working(shop.app.worker()):
        died = witness.wait_for("process.died", lambda event: event.role == "pool", timeout=10)

    assert died.death == "signal 9 (SIGKILL)"
    assert time.monotonic() - began < 15


def test_a_forked_copy_holds_no_channel_and_closes_nothing_of_ours() -> None:
    ours, theirs = Channel.pair()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if ours.fileno() == -1 and not ours.send(Ready()) else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert ours.send(Ready())
    ours.close()
    theirs.close()


class SlowStart:
    """A child that is ready at once; what happens meanwhile is up to the test."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self.meanwhile = meanwhile
        self.sent: list[Any] = []
        self.pid, self.channel = 0, SimpleNamespace(send=lambda message: self.sent.append(message))

    def receive(self, timeout: float) -> Any:
        self.meanwhile()
        return Ready()

    def reap(self, **how: bool) -> None:
        return None


@pytest.mark.parametrize("how", ["told", "over"])
def test_a_job_that_is_told_to_stop_while_its_child_starts_is_not_started(how: str) -> None:
    run: Any = SimpleNamespace(stopping=None, told_at=0, over=False, started=1, job=SimpleNamespace(entry=1))

    def meanwhile() -> None:
        if how == "told":
            run.stopping, run.told_at = "cancel", monotonic()
        else:
            run.over = True

    child: Any = SlowStart(meanwhile)
    failed: list[Any] = []
    pool = ProcessPool(lambda role, options: child, Bus(), 1)
    pool.executor = SimpleNamespace(fail=lambda *what: failed.append(what), stamp=lambda: 0)  # type: ignore[assignment]

    pool.run(run)

    assert child.sent == []
    assert len(failed) == (1 if how == "told" else 0)
    assert list(pool._idle) == [child]
