"""A whole worker in this process: waking, recording, losing the store, losing the lease."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import pytest

from dayjob import JobContext, LeaseLost, Settings
from dayjob.errors import SchemaMismatch, StoreUnavailable
from dayjob.states import Outcome
from tests.worker.conftest import Witness, working
from tests.worker.shop import marks


def test_an_idle_worker_wakes_within_milliseconds_of_an_enqueue(shop: ModuleType, witness: Witness) -> None:
    shop.app.settings = Settings(poll=60.0)
    try:
        with working(shop.app.worker()):
            witness.wait_for("worker.started")
            shop.add.enqueue(1, 1).result(timeout=5)
            began = time.monotonic()
            for number in range(10):
                assert shop.add.enqueue(number, 1).result(timeout=5) == number + 1
            took = time.monotonic() - began
    finally:
        shop.app.settings = shop.SETTINGS
    assert took < 5  # without a signal each would have waited for the poll of a minute


def test_a_delayed_job_starts_when_it_is_due(shop: ModuleType, witness: Witness) -> None:
    shop.app.settings = Settings(poll=60.0)
    try:
        with working(shop.app.worker()):
            witness.wait_for("worker.started")
            job = shop.add.using(delay=0.3).enqueue(1, 2)
            assert job.result(timeout=5) == 3
    finally:
        shop.app.settings = shop.SETTINGS
    started = witness.of("job.started")[-1]
    assert started.waited < 0.2


def test_progress_and_logs_are_stored_and_told_while_the_job_runs(shop: ModuleType, witness: Witness) -> None:
    @shop.app.task(name="test.talk")
    async def talk(ctx: JobContext[Any]) -> None:
        for number in range(50):
            ctx.progress(number, 50, "counting")
        ctx.log.info("half of %d", 100)
        while not witness.of("job.logged"):  # noqa: ASYNC110  # an event belongs to one loop
            await asyncio.sleep(0.01)
        ctx.log.warning("nearly done")
        ctx.log.info("100%")
        try:
            raise ValueError("ignored")
        except ValueError:
            ctx.log.exception("odd")

    job = talk.enqueue()
    shop.app.worker().run_until_idle()

    lines = [(line.level, line.message.splitlines()[0]) for line in job.logs()]
    assert lines == [("info", "half of 100"), ("warning", "nearly done"), ("info", "100%"), ("error", "odd")]
    assert "ValueError: ignored" in job.logs()[-1].message
    assert witness.wait_for("job.progress").done == 49  # of fifty only the last was written
    assert job.refresh().progress.done == 49


def test_a_checkpoint_comes_back_in_the_next_attempt_in_all_kinds(shop: ModuleType) -> None:
    @shop.app.task(name="test.count", retry=__import__("dayjob").Retry(max_attempts=3, backoff="fixed", base=0))
    async def count(ctx: JobContext[Any]) -> int:
        seen = ctx.checkpoint or 0
        await ctx.asave_checkpoint(seen + 1)
        assert ctx.checkpoint == seen + 1
        if not ctx.last_attempt:
            raise ValueError
        return seen + 1

    jobs = [count.enqueue(), shop.remember.enqueue()]
    shop.app.worker().run_until_idle()

    assert [job.result(timeout=1) for job in jobs] == [3, 2]


def test_the_idempotency_key_is_new_only_after_a_retry_by_hand(shop: ModuleType) -> None:
    keys: list[str] = []

    @shop.app.task(name="test.keys", retry=__import__("dayjob").Retry(max_attempts=2, backoff="fixed", base=0))
    async def note(ctx: JobContext[Any]) -> None:
        keys.append(ctx.idempotency_key)
        raise ValueError

    job = note.enqueue()
    shop.app.worker().run_until_idle()
    job.retry()
    shop.app.worker().run_until_idle()

    assert keys[0] == keys[1] == job.id
    assert keys[2] == keys[3] != job.id


class Outage:
    """A store that can be away."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.down = False
        self.silent_about = ""

    def __getattr__(self, name: str) -> Any:
        if name == self.silent_about:
            raise StoreUnavailable("not now")
        if self.down and name in ("turn", "beat", "record", "stage", "rescue", "prune", "sample", "leave"):
            raise StoreUnavailable("away")
        return getattr(self._store, name)


@pytest.fixture
def outage(shop: ModuleType) -> Iterator[Outage]:
    store = Outage(shop.app.store)
    with shop.app._link.exchanged(store):
        yield store


def test_a_store_that_is_away_for_a_while_costs_no_job_and_no_attempt(
    shop: ModuleType, outage: Outage, witness: Witness, file: Path
) -> None:
    with working(shop.app.worker()):
        job = shop.wait.enqueue(str(file), 0.5)
        witness.wait_for("job.started")
        outage.down = True
        witness.wait_for("store.unavailable", lambda event: event.service == "pump")
        outage.down = False

        assert job.result(timeout=10) == "waited"
        assert shop.add.enqueue(1, 2).result(timeout=5) == 3
        witness.wait_for("store.available", lambda event: event.service == "pump")
    assert [one.outcome for one in job.refresh().attempts] in ([], ["completed"])
    assert witness.of("worker.lost") == []


def test_a_worker_starts_when_the_store_comes_up_later(shop: ModuleType, outage: Outage, witness: Witness) -> None:
    outage.down = True
    with working(shop.app.worker()):
        witness.wait_for("store.unavailable")
        outage.down = False
        witness.wait_for("worker.started")


def test_a_worker_that_starts_says_what_a_crash_of_its_store_costs(shop: ModuleType, witness: Witness) -> None:
    with working(shop.app.worker()):
        told = witness.wait_for("store.durability")

    assert (told.store, told.crash_costs) == (shop.app.url, "nothing")
    assert told.engine.startswith("SQLite 3.")
    assert witness.of("store.endangered") == []


def test_a_store_that_does_not_say_how_durable_it_is_can_be_worked_on(
    shop: ModuleType, outage: Outage, witness: Witness
) -> None:
    outage.silent_about = "durability"
    with working(shop.app.worker()):
        assert witness.wait_for("store.durability").crash_costs.startswith("unknown: ")
        assert shop.add.enqueue(1, 2).result(timeout=5) == 3


def test_a_worker_that_never_reached_its_store_can_be_stopped(
    shop: ModuleType, outage: Outage, witness: Witness
) -> None:
    outage.down = True
    with working(shop.app.worker()) as worker:
        witness.wait_for("store.unavailable")
        worker.stop()
    assert witness.of("worker.started") == []


def test_a_burst_without_a_store_fails_at_once(shop: ModuleType, outage: Outage) -> None:
    outage.down = True

    with pytest.raises(StoreUnavailable):
        shop.app.worker().run_until_idle()


def test_a_job_whose_lease_was_lost_is_stopped_and_may_write_nothing(
    shop: ModuleType, witness: Witness, file: Path
) -> None:
    seen: list[str] = []

    @shop.app.task(name="test.stale")
    def stale(ctx: JobContext[Any]) -> None:
        file.write_text("begin 0\n")
        while shop.app.store.get(ctx.id).state == "running":
            time.sleep(0.01)
        try:
            ctx.save_checkpoint({"late": True})
        except LeaseLost:
            seen.append("refused")
            raise

    with working(shop.app.worker()) as worker:
        job = stale.enqueue()
        witness.wait_for("job.started")
        first = worker.id
        shop.app.store.leave(first, death="signal 9 (SIGKILL)")
        witness.wait_for("worker.lost")
        witness.wait_for("lease.lost")
        assert shop.add.enqueue(1, 2).result(timeout=10) == 3  # it goes on, under a new name
        assert worker.id != first
    assert seen in (["refused"], [])
    assert shop.app.store.recorded(job.id) is None


async def test_arun_leaves_the_callers_loop_free_and_ends_in_order_when_cancelled(shop: ModuleType) -> None:
    running = asyncio.create_task(shop.app.worker().arun())
    job = await shop.add.aenqueue(1, 2)

    assert await job.aresult(timeout=10) == 3

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert shop.app.workers() == []


def test_a_worker_can_be_run_again(shop: ModuleType) -> None:
    worker = shop.app.worker()
    for number in range(3):
        shop.add.enqueue(number, 1)
        assert worker.run_until_idle() == {Outcome.COMPLETED: 1}


def test_start_and_stop_again_and_again(shop: ModuleType) -> None:
    for _ in range(15):
        with working(shop.app.worker()) as worker:
            worker.stop()
    assert shop.app.workers() == []


@pytest.mark.parametrize("ended", [False, True])
def test_a_hung_job_keeps_its_lease_until_its_process_has_nothing_left_to_do(
    shop: ModuleType, witness: Witness, file: Path, ended: bool
) -> None:
    """Given back any earlier, it would run in two processes at once."""
    job = shop.deaf.enqueue(str(file), 3.0)
    worker = shop.app.worker()
    seen = []
    stop = worker._end

    def end() -> int:
        hung = stop()
        if ended:  # it hears that it should stop after all, before the process ends
            time.sleep(3.0)
        seen.append(str(job.refresh().state))
        return hung

    worker._end = end
    worker.replace = lambda: seen.append(str(job.refresh().state))

    def stop_at_once() -> None:
        while not marks(file):
            time.sleep(0.02)
        worker.stop(now=True)

    Thread(target=stop_at_once, daemon=True).start()
    worker.run()

    assert seen == ["running", "available"]
    assert (job.attempt, job.crashes) == (0, 0)
    assert shop.app.workers() == []
    assert [event.released for event in witness.of("worker.stopped")] == [1]


def test_a_schema_that_is_not_ours_is_raised_from_the_first_beat(
    shop: ModuleType, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = shop.app.store

    def beat(*args: Any, **options: Any) -> Any:
        raise SchemaMismatch(99, 1)

    monkeypatch.setattr(store, "beat", beat)
    worker = shop.app.worker()
    worker.stop()  # told before: it must not hide the error

    with pytest.raises(SchemaMismatch):
        worker.run()
    assert witness.of("worker.started") == []


def test_a_schema_that_changes_under_a_worker_ends_it(
    shop: ModuleType, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = shop.app.store
    raised: list[BaseException] = []
    worker = shop.app.worker()

    def run() -> None:
        try:
            worker.run()
        except SchemaMismatch as error:
            raised.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    witness.wait_for("worker.started")

    def turn(*args: Any, **options: Any) -> Any:
        raise SchemaMismatch(99, 1)

    monkeypatch.setattr(store, "turn", turn)
    thread.join(10)

    assert not thread.is_alive()
    assert len(raised) == 1


def test_a_worker_that_cannot_listen_works_and_stops(
    shop: ModuleType, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listen(topics: Any) -> Any:
        raise StoreUnavailable("cannot listen")

    monkeypatch.setattr(shop.app.store, "listen", listen)
    job = shop.add.enqueue(1, 2)
    with working(shop.app.worker()):
        witness.wait_for("job.completed")

    assert job.refresh().state == "completed"
    assert len(witness.of("store.unavailable")) == 1
