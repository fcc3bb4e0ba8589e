"""The pump when something is ill: the store, a row, the signals; and that no claim is ever listed nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from dayjob import App
from dayjob.errors import BadRow, StoreError, StoreUnavailable
from dayjob.worker import winding
from dayjob.worker.pump import Pump
from dayjob.worker.run import Run, Slots, monotonic
from tests.worker.bench import Bench, enqueue, states


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with App(f"sqlite:///{tmp_path}/jobs.db") as app:

        @app.task(name="noop")
        async def noop() -> None: ...

        yield app


@pytest.fixture
def bench(app: App) -> Iterator[Bench]:
    bench = Bench(app, [Slots(None, 3)])
    yield bench
    bench.pump.close()


@pytest.mark.parametrize(
    "ill",
    [
        StoreError("the file is read-only"),
        OSError("no space"),
        RuntimeError("whatever"),
        ValueError("what the store answered makes no sense"),
        TypeError("the same"),
        OverflowError("the same"),
    ],
    ids=repr,
)
def test_an_ill_store_is_waited_for_and_costs_no_ended_job(app: App, bench: Bench, ill: Exception) -> None:
    """Only a row that cannot be stored ends a job; a store that is read-only, full or damaged says nothing of a row."""
    jobs = enqueue(app, 3)
    bench.tick()
    bench.finish(3)
    bench.store.ill = ill

    delays = [bench.pump.attempt() for _ in range(4)]
    bench.store.ill = None
    bench.pump.attempt()

    assert states(jobs) == ["completed"] * 3
    assert all(delay is not None and delay > 0 for delay in delays)
    assert len({call[1] for call in bench.store.calls[-5:]}) == 1, "repeated as it was"
    assert bench.pump.claims.held_jobs() == 0
    if isinstance(ill, StoreError):
        assert [event.error for event in bench.witness.of("store.unavailable")] == [str(ill)]
        assert len(bench.witness.of("store.available")) == 1


def refused_once(app: App, bench: Bench, count: int, ill: Exception) -> list[Any]:
    """Jobs that ran, and whose settlements the store has refused once."""
    jobs = enqueue(app, count)
    bench.tick()
    bench.finish(count)
    bench.store.ill = ill
    bench.pump.attempt()
    bench.store.ill = None
    return jobs


def test_a_batch_that_cannot_be_encoded_is_sent_run_by_run(app: App, bench: Bench) -> None:
    jobs = refused_once(app, bench, 2, BadRow("surrogates not allowed"))

    for _ in range(2):
        bench.pump.attempt()

    assert states(jobs) == ["completed"] * 2
    assert [call[1] for call in bench.store.calls[-3:]] == [2, 1, 1]


def test_a_claim_beside_a_settlement_may_be_what_fails(app: App, bench: Bench) -> None:
    jobs = refused_once(app, bench, 1, BadRow("a number of more than 64 bits"))

    bench.pump.attempt()

    assert bench.store.calls[-2][2], "the first had a claim with it"
    assert states(jobs) == ["completed"]


def test_words_that_cannot_be_stored_do_not_keep_their_job_from_its_end(app: App, bench: Bench) -> None:
    jobs = enqueue(app, 1)
    bench.tick()
    bench.finish(1)[0].spoke = True

    def flush(run: Run, *, finished: bool = False) -> None:
        raise BadRow("too big")

    bench.pump.recorder.flush = flush  # type: ignore[method-assign]
    bench.pump._done_since = 0
    bench.pump.attempt()

    assert states(jobs) == ["completed"]


def test_a_store_that_does_not_let_us_listen_is_polled_and_asked_again(app: App, bench: Bench) -> None:
    bench.store.deaf = StoreUnavailable("the folder is not ours")
    enqueue(app, 1)

    for _ in range(3):
        assert bench.pump.attempt() is not None
        bench.pump._ears._not_before = 0.0
    assert len(bench.ready()) == 1
    assert [event.service for event in bench.witness.of("store.unavailable")] == ["signals"]

    bench.pump.kick()
    began = monotonic()
    bench.pump.wait(5.0)
    assert monotonic() - began < 2_000_000, "kicked"
    bench.store.deaf = None
    bench.pump.attempt()
    assert [event.service for event in bench.witness.of("store.available")] == ["signals"]


def test_an_ear_that_fails_does_not_end_the_pump(app: App, bench: Bench) -> None:
    bench.tick()

    def wait(timeout: float) -> Any:
        raise OSError("the descriptor is gone")

    bench.pump._ears._listener.wait = wait  # type: ignore[union-attr, method-assign]
    bench.pump.wait(0.01)

    assert bench.pump.attempt() is not None
    assert len(bench.witness.of("store.unavailable")) == 1


class Watched(dict[int, Any]):
    """The batches of a pump, which look whether their claim was listed until the moment they list it themselves."""

    def __init__(self, pump: Pump) -> None:
        super().__init__()
        self._pump = pump
        self.pending: list[int | None] = []

    def __setitem__(self, no: int, batch: Any) -> None:
        self.pending.append(self._pump._pending.no if self._pump._pending is not None else None)
        super().__setitem__(no, batch)


def test_a_claim_is_listed_without_a_gap(app: App, bench: Bench) -> None:
    """A beat that finds it nowhere may give its jobs away while they run here."""
    enqueue(app, 3)
    watched = bench.pump.batches = Watched(bench.pump)

    bench.tick()

    assert watched.pending == [1]
    assert bench.pump.held() == [1]


def test_whatever_telling_of_ends_meets_the_claim_of_the_same_turn_runs(
    app: App, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = enqueue(app, 6)
    bench.tick()
    bench.finish(3)

    def observe(*args: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(bench.pump.claims, "observe", observe)
    bench.pump._done_since = 0
    bench.pump.attempt()

    assert len(bench.ready()) == 3
    assert bench.pump.held() == [2]
    assert bench.pump.claims.held_jobs() == 3
    assert states(jobs)[:3] == ["completed"] * 3


def test_a_claim_that_is_repeated_stays_listed(app: App, bench: Bench) -> None:
    enqueue(app, 1)
    bench.store.lose = 2

    for _ in range(2):
        bench.pump.attempt()
        assert bench.pump.held() == [1]

    bench.pump.attempt()
    assert (len(bench.ready()), bench.pump.held()) == (1, [1])


def test_a_pump_in_trouble_does_not_keep_a_worker_that_was_told_to_stop(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect of the worker's own")

    monkeypatch.setattr(winding, "BACKSTOP", 0.2)
    monkeypatch.setattr(winding.Winding, "advance", broken)
    begun = Event()
    app.on("worker.started")(lambda event: begun.set())
    worker = app.worker(grace=0)
    thread = Thread(target=worker.run)
    thread.start()
    assert begun.wait(10)
    worker.stop()
    thread.join(15)

    assert not thread.is_alive()
