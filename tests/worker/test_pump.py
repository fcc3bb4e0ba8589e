"""The pump, tick by tick, without threads: what it claims, settles, repeats and lets go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dayjob import App
from dayjob.clock import SECOND
from dayjob.errors import StoreUnavailable
from dayjob.states import Outcome
from dayjob.store.records import Want, WorkerInfo
from dayjob.worker.pump import NAPS
from dayjob.worker.run import Slots, monotonic
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


def test_it_claims_for_free_places_only_when_nothing_is_known_of_the_rate(app: App, bench: Bench) -> None:
    enqueue(app, 10)

    bench.tick()

    assert len(bench.ready()) == 3
    assert bench.store.calls == [(1, 0, [3])]


def test_ends_and_claims_share_a_turn(app: App, bench: Bench) -> None:
    jobs = enqueue(app, 4)
    bench.tick()
    bench.finish(3)
    bench.pump.claims.groups[0].rate = 0.0

    bench.tick()

    assert bench.store.calls[-1][:2] == (2, 3)
    assert states(jobs) == ["completed"] * 3 + ["running"]


def test_short_jobs_are_claimed_ahead_by_time_and_long_ones_not_at_all(app: App, bench: Bench) -> None:
    slots = bench.pump.claims.groups[0]
    enqueue(app, 500)
    slots.rate, slots.recent = 10_000.0, 500
    bench.tick()
    ahead = len(bench.ready()) - slots.limit

    slots.rate = 5.0  # jobs of more than half a second each
    bench.finish(ahead + slots.limit)
    bench.tick()

    assert ahead == pytest.approx(10_000 * 0.02, rel=0.2)
    assert len(bench.ready()) <= slots.limit + ahead


def test_a_lost_reply_to_a_claim_is_repeated_under_its_number_and_brings_the_same_jobs(app: App, bench: Bench) -> None:
    jobs = enqueue(app, 3)
    bench.store.lose = 2
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            bench.tick()
    assert bench.pump.held() == [1]

    bench.tick()

    assert [call[0] for call in bench.store.calls] == [1, 1, 1]
    assert [run.job.id for run in bench.ready()] == [job.id for job in jobs]
    bench.finish(3)
    bench.tick()
    assert states(jobs) == ["completed"] * 3


def test_a_lost_reply_to_a_settlement_settles_once_and_raises_no_alarm(app: App, bench: Bench) -> None:
    jobs = enqueue(app, 3)
    bench.tick()
    bench.finish(3)
    bench.store.lose = 1
    with pytest.raises(StoreUnavailable):
        bench.tick()

    bench.tick()

    assert states(jobs) == ["completed"] * 3
    assert bench.witness.of("lease.lost") == []
    assert bench.pump.claims.held_jobs() == 0


def test_a_settlement_that_comes_too_late_is_refused_counted_and_told(app: App, bench: Bench) -> None:
    jobs = enqueue(app, 1)
    bench.tick()
    bench.app.store.leave("w1", death="signal 9 (SIGKILL)")
    bench.finish(1)

    bench.tick()

    lost = bench.witness.of("lease.lost")
    assert [(event.id, event.write) for event in lost] == [(jobs[0].id, "settle")]
    assert [(tally.name, tally.count) for tally in bench.pump.tallies.take()] == [("refused", 1)]
    assert bench.pump.tallies.counts == {}
    assert states(jobs) == ["available"]


def test_what_was_claimed_ahead_and_not_started_within_a_second_goes_back(app: App, bench: Bench) -> None:
    jobs = enqueue(app, 50)
    slots = bench.pump.claims.groups[0]
    slots.rate, slots.recent = 1_000.0, 100
    bench.tick()
    held = len(bench.ready())
    bench.finish(1)
    for batch in bench.pump.batches.values():
        batch.at -= 2_000_000
    slots.rate = 1_000.0

    bench.tick()

    assert states(jobs).count("running") <= slots.limit
    assert held > slots.limit
    assert bench.pump.tallies.counts[Outcome.RELEASED] == held - 1
    assert all(event.reason == "waited" for event in bench.witness.of("job.released"))


def test_jobs_of_a_queue_that_pauses_go_back_unless_they_run(app: App, bench: Bench) -> None:
    jobs = enqueue(app, 3)
    bench.tick()
    first = bench.pump.claims.groups[0].take()
    assert first is not None
    bench.executor.begin(first, monotonic())
    bench.app.store.pause("default", True)

    bench.pump.heard(bench.beat("w1", [1]), "w1")
    bench.tick()

    assert states(jobs) == ["running", "available", "available"]


def test_a_worker_that_was_given_up_drops_everything_and_comes_back_under_a_new_name(app: App, bench: Bench) -> None:
    jobs = enqueue(app, 3)
    bench.tick()
    running = bench.pump.claims.groups[0].take()
    assert running is not None
    bench.executor.begin(running, monotonic())
    bench.app.store.leave("w1", death="no beat")

    lost = bench.beat("w1", [1])
    assert lost.lost
    bench.pump.heard(lost, "w1")
    bench.tick()

    assert bench.pump.worker == "w2"
    assert bench.ready() == []
    assert running.stopping == "lost"
    bench.executor.complete(running, None, monotonic())
    bench.pump.claims.groups[0].give()
    bench.beat("w2")
    bench.pump._look_at = 0
    bench.tick()
    assert bench.pump.claims.held_jobs() == 0
    assert states(jobs) == ["available"] * 3  # suspects: nobody but a solo worker claims them
    assert len(bench.witness.of("lease.lost")) == 3


def test_nothing_is_claimed_once_the_lease_may_have_run_out(app: App, bench: Bench) -> None:
    enqueue(app, 3)
    bench.executor.lease_until = 0

    bench.tick()

    assert bench.ready() == []


def test_a_job_claimed_before_a_long_stop_of_the_process_is_released_not_started(app: App, bench: Bench) -> None:
    jobs = enqueue(app, 1)
    bench.tick()
    run = bench.pump.claims.groups[0].take()
    assert run is not None

    bench.executor.lease_until = monotonic() - 1

    assert not bench.executor.begin(run, monotonic())
    bench.tick()
    assert states(jobs) == ["available"]


def test_each_group_of_queues_is_asked_for_what_it_has_room_for(app: App) -> None:
    groups = [Slots(("mail",), 2), Slots(None, 5, ("mail",))]
    bench = Bench(app, groups)
    mail, other = enqueue(app, 10, queue="mail"), enqueue(app, 10)

    bench.tick()

    assert bench.store.calls == [(1, 0, [2, 5])]
    assert (states(mail).count("running"), states(other).count("running")) == (2, 5)
    bench.pump.close()


def fall_asleep(bench: Bench) -> float:
    """Let the pump find nothing until it sleeps in earnest; how long it will."""
    delay = bench.tick()
    for nap in NAPS:
        assert 0.0 < delay <= nap / SECOND
        time.sleep(delay)  # two short looks, in case a signal was missed while nobody listened
        delay = bench.tick()
    return delay


def test_idle_it_asks_once_a_second(app: App, bench: Bench) -> None:
    delay = fall_asleep(bench)

    assert 0.9 < delay <= 1.0
    assert len(bench.store.calls) == 1 + len(NAPS)
    assert bench.tick() <= 1.0
    assert len(bench.store.calls) == 1 + len(NAPS)


def test_it_wakes_for_what_is_due_soon(app: App, bench: Bench) -> None:
    enqueue(app, 1, delay=0.7)

    delay = fall_asleep(bench)

    assert 0.2 < delay <= 0.5


def test_tallies_that_reached_nobody_are_counted_again(app: App, bench: Bench) -> None:
    enqueue(app, 3)
    bench.tick()
    bench.finish(3)
    bench.tick()

    taken = bench.pump.tallies.take()
    bench.pump.tallies.give_back(taken)

    assert [(tally.queue, tally.name, tally.count) for tally in bench.pump.tallies.take()] == [
        ("default", "completed", 3)
    ]
    assert bench.pump.tallies.take() == []


def test_a_settlement_that_the_store_cannot_take_ends_its_own_job_and_no_other(app: App, bench: Bench) -> None:
    jobs = enqueue(app, 3)
    bench.tick()
    bench.finish(3)
    bench.store.poison = jobs[1].id

    delays = [bench.pump.attempt() for _ in range(6)]

    assert states(jobs) == ["completed", "dead", "completed"]
    assert (jobs[1].reason, jobs[1].attempts[-1].message) == ("unsettled", "this cannot be stored")
    assert bench.pump.claims.held_jobs() == 0
    assert None not in delays


def test_a_worker_whose_places_are_taken_still_learns_that_suspects_wait(app: App, bench: Bench) -> None:
    told: list[bool] = []
    bench.pump._on_suspects = lambda: not told.append(True)
    enqueue(app, 4)
    bench.tick()
    bench.beat("w9")
    bench.app.store.turn("w9", 1, (), [Want(None, 1)])
    bench.app.store.leave("w9", death="signal 9 (SIGKILL)")
    bench.pump._look_at = 0

    bench.tick()

    assert bench.store.calls[-1][2] == [0]
    assert told == [True]


def test_one_quick_job_does_not_make_a_rate(app: App, bench: Bench) -> None:
    """Else a long job behind it would be claimed early, and wait here while others could start it."""
    enqueue(app, 100)
    bench.tick()
    bench.finish(1)
    bench.pump.claims.groups[0].since = monotonic() - 10  # it took no time at all

    bench.pump._done_since = 0
    bench.tick()
    bench.pump._look_at = 0
    bench.tick()

    assert len(bench.ready()) <= 3 + 4


def test_a_worker_runs_suspects_alone_only_when_it_holds_nothing_else_and_the_store_knows(
    app: App, bench: Bench
) -> None:
    """A crash of one that the store takes for alone counts for each job that it holds (P5)."""
    [suspect] = enqueue(app, 1)
    app.store.beat(WorkerInfo("w0", "w0", "here", 1), [])
    app.store.turn("w0", 1, (), [Want(None, 1)])
    app.store.leave("w0", death="signal 9 (SIGKILL)")
    told: list[tuple[bool, int]] = []
    answers = iter([False, True, True])
    bench.pump._on_suspects = None

    def tell(alone: bool) -> bool:
        told.append((alone, bench.pump.claims.held_jobs()))
        return next(answers)

    bench.pump._on_alone = tell
    enqueue(app, 2)
    bench.tick()  # brings two jobs, and word of the suspect
    bench.tick()
    assert told == []

    bench.finish(2)
    assert bench.tick() == 0.0  # their ends are stored, then it goes on at once
    bench.tick()  # the store cannot be told
    bench.pump.look_now()
    assert (told, bench.ready()) == ([(True, 0)], [])

    bench.tick()
    assert [run.job.id for run in bench.ready()] == [suspect.id]
    bench.finish(1)
    bench.tick()  # looks for more, finds none, and says so
    bench.tick()

    assert told == [(True, 0), (True, 0), (False, 0)]
