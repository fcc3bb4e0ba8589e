"""P6 The store's clock decides what is due, expired or gone; a process's wall clock may be hours wrong."""

from __future__ import annotations

import time

import pytest

from dayjob.clock import SECOND, wall
from dayjob.states import Outcome, State
from dayjob.store.contract import Store
from dayjob.store.records import Want, WorkerInfo
from tests.contract.scene import Scene

HOUR_NS = 3600 * 10**9


def set_wall_clock(monkeypatch: pytest.MonkeyPatch, jump_ns: int) -> None:
    """This process's wall clock jumps; the machine's own passage of time does not."""
    time_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: time_ns() + jump_ns)
    monkeypatch.setattr(time, "time", lambda: (time_ns() + jump_ns) / 1e9)


class TestP6StoreClock:
    def test_the_stores_clock_is_near_the_time_of_day(self, store: Store) -> None:
        assert abs(store.now() - wall()) < 5 * SECOND

    def test_two_handles_agree_on_the_time(self, store: Store, other: Store) -> None:
        before, between, after = store.now(), other.now(), store.now()

        assert before - SECOND // 10 <= between <= after + SECOND // 10

    def test_the_stores_clock_does_not_run_backwards(self, store: Store) -> None:
        stamps = [store.now() for _ in range(1000)]

        assert stamps == sorted(stamps)

    @pytest.mark.parametrize("jump", [6 * HOUR_NS, -6 * HOUR_NS])
    def test_a_jump_of_the_wall_clock_moves_no_time_of_the_store(
        self, store: Store, jump: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = store.now()
        set_wall_clock(monkeypatch, jump)

        assert abs(store.now() - before) < 5 * SECOND

    @pytest.mark.parametrize("jump", [6 * HOUR_NS, -6 * HOUR_NS])
    def test_a_process_that_starts_with_a_wrong_clock_rescues_nobody_and_finds_nothing_due(
        self, scene: Scene, jump: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not scene.engine.processes:
            pytest.skip("no other process can come")
        store = scene.store
        healthy = WorkerInfo(id="healthy", name="healthy", host="here", pid=1)
        scene.leader.leave()
        term = store.beat(healthy, []).term
        assert term is not None
        store.enqueue([scene.row(), scene.row(delay=600.0)])
        assert len(store.turn(healthy.id, 1, wants=[Want(None, 5)]).claimed) == 1

        set_wall_clock(monkeypatch, jump)
        stranger = scene.engine.open()
        beat = stranger.beat(WorkerInfo(id="stranger", name="stranger", host="here", pid=2), [])

        assert beat.term is None
        assert stranger.rescue(term) == []
        assert stranger.turn("stranger", 1, wants=[Want(None, 5)]).claimed == []
        assert store.beat(healthy, [1]).lost is False

    def test_without_now_it_is_the_stores_clock_that_is_written(self, scene: Scene) -> None:
        before = scene.store.now()
        row = scene.row(delay=30.0, expires=90.0)
        scene.store.enqueue([row])
        after = scene.store.now()

        stored = scene.get(row.id)
        assert before <= stored.created_at <= after
        assert stored.run_at == stored.created_at + 30 * SECOND
        assert stored.expires_at == stored.created_at + 90 * SECOND

    def test_a_turn_tells_the_stores_time(self, scene: Scene) -> None:
        ann = scene.worker()
        assert ann.turn().now == scene.now

        scene.advance(7)

        assert ann.turn().now == scene.now
        assert ann.beat().now == scene.now

    def test_a_delay_counts_from_the_stores_now(self, scene: Scene) -> None:
        id, ann = scene.job(delay=60.0), scene.worker()

        scene.advance(59.999)
        assert ann.ids() == []

        scene.advance(0.001)
        assert ann.ids() == [id]

    def test_what_is_due_takes_nothing_along_that_is_due_a_moment_later(self, scene: Scene) -> None:
        early, late, ann = scene.job(delay=10.0), scene.job(delay=10.000001), scene.worker()
        scene.advance(10)

        assert ann.ids() == [early]
        assert scene.state(late) is State.SCHEDULED
        scene.advance(0.000001)
        assert scene.store.stage(scene.term, now=scene.now) == (1, None)
        assert ann.ids() == [late]

    def test_run_at_wins_over_delay(self, scene: Scene) -> None:
        id = scene.job(delay=1.0, run_at=scene.stamp(60))

        assert scene.get(id).run_at == scene.stamp(60)
        assert scene.state(id) is State.SCHEDULED

    @pytest.mark.parametrize("time", [{"delay": 0.0}, {"run_at": 1}, {"run_at": -SECOND}, {}])
    def test_a_time_that_is_not_ahead_means_at_once(self, scene: Scene, time: dict[str, float]) -> None:
        id = scene.job(**time)

        assert scene.state(id) is State.AVAILABLE
        assert scene.worker().ids() == [id]

    def test_a_retry_is_due_by_the_stores_clock_whatever_the_worker_thinks(self, scene: Scene) -> None:
        # The worker's stamps are for show: its clock runs a day ahead.
        id, ann = scene.job(), scene.worker()
        ann.settle(
            ann.take(id), Outcome.FAILED, delay=60.0, started_at=scene.stamp(86400), finished_at=scene.stamp(86401)
        )

        assert scene.get(id).run_at == scene.stamp(60)

    def test_retention_counts_by_the_stores_clock_whatever_the_worker_thinks(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        ann.settle(ann.take(id), keep=60.0, started_at=scene.stamp(-86401), finished_at=scene.stamp(-86400))

        assert scene.get(id).keep_until == scene.stamp(60)

    def test_a_microsecond_is_kept_exactly_a_century_away(self, scene: Scene) -> None:
        far = scene.stamp(99 * 365 * 86400) + 1

        assert scene.get(scene.job(run_at=far)).run_at == far


class TestP6Expiry:
    """P6: what is expired by the store's clock is cancelled, with the reason `expired`."""

    @pytest.mark.parametrize("wait", [{}, {"delay": 30.0}, {"delay": 600.0}])
    def test_a_job_not_started_by_then_is_cancelled(self, scene: Scene, wait: dict[str, float]) -> None:
        id = scene.job(expires=60.0, **wait)
        scene.advance(60.001)

        touched = scene.store.stage(scene.term, now=scene.now)

        row = scene.get(id)
        assert touched is not None
        assert touched[0] >= 1
        assert (row.state, row.reason, row.finished_at) == (State.CANCELLED, "expired", scene.now)

    def test_a_job_is_not_expired_before_its_time(self, scene: Scene) -> None:
        id = scene.job(expires=60.0)
        scene.advance(59.999)
        scene.store.stage(scene.term, now=scene.now)

        assert scene.worker().ids() == [id]

    def test_a_running_job_does_not_expire(self, scene: Scene) -> None:
        id, ann = scene.job(expires=60.0), scene.worker()
        job = ann.take(id)
        scene.advance(61)
        scene.store.stage(scene.term, now=scene.now)

        assert scene.state(id) is State.RUNNING
        assert ann.settled(job) is True

    def test_an_expired_job_is_never_started(self, scene: Scene) -> None:
        # Whether the claim skips it or hands it out with its `expires_at`, the stamp tells.
        id, ann = scene.job(expires=60.0), scene.worker()
        scene.advance(61)

        for job in ann.claim():
            assert job.expires_at is not None
            assert job.expires_at < scene.now
            ann.settle(job, Outcome.CANCELLED, reason="expired", started_at=0)
        scene.store.stage(scene.term, now=scene.now)

        assert (scene.state(id), scene.get(id).reason) == (State.CANCELLED, "expired")

    def test_expired_jobs_do_not_hide_the_next_due_time(self, scene: Scene) -> None:
        scene.job(expires=60.0)
        scene.job(delay=3600.0)
        due = scene.stamp(3600)
        scene.advance(61)

        assert scene.store.stage(scene.term, now=scene.now) == (1, due)
