"""The leader's services: terms, distrust of oneself, and each duty's tick."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dayjob import App, Retention, Settings
from dayjob.clock import SECOND
from dayjob.events import Bus
from dayjob.services import leader as leader_module
from dayjob.services.duties import Pruner, Rescuer, Sampler, Stager
from dayjob.services.leader import Leader
from dayjob.states import State
from dayjob.store.records import Bound, Want, WorkerInfo
from dayjob.worker.run import monotonic
from tests.worker.conftest import Witness


class Count:
    """A duty that counts; over when *term* is."""

    def __init__(self, delay: float = 5.0) -> None:
        self.terms: list[int] = []
        self.delay = delay
        self.over = False

    def tick(self, term: int) -> float | None:
        self.terms.append(term)
        return None if self.over else self.delay


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with App(f"sqlite:///{tmp_path}/jobs.db", settings=Settings(retention=Retention(completed=(None, 2)))) as app:

        @app.task(name="noop")
        async def noop() -> None: ...

        yield app


def test_without_a_term_nothing_is_done() -> None:
    duty = Count()
    leader = Leader([duty], Bus(), lease=20, worker="w1")

    assert leader.tick() == leader_module.IDLE
    leader.heard(None, monotonic())
    leader.tick()

    assert duty.terms == []


def test_a_term_begins_with_all_duties_at_once_and_each_comes_again_when_it_said() -> None:
    bus = Bus()
    witness = Witness(bus)
    often, seldom = Count(0.0), Count(60.0)
    leader = Leader([often, seldom], bus, lease=20, worker="w1")
    leader.heard(7, monotonic())

    leader.tick()
    leader.tick()

    assert (often.terms, seldom.terms) == ([7, 7], [7])
    assert leader.leads
    assert [event.name for event in witness.events] == ["leader.elected"]


class Failing(Count):
    """A duty that fails each time."""

    def tick(self, term: int) -> float | None:
        super().tick(term)
        raise KeyError("a defect")


def test_a_duty_that_fails_each_time_keeps_the_others_not_back_and_is_told() -> None:
    failing, other = Failing(), Count(60.0)
    leader = Leader([failing, other], Bus(), lease=20, worker="w1")
    leader.heard(7, monotonic())

    for _ in range(2):
        with pytest.raises(KeyError):
            leader.tick()

    assert (failing.terms, other.terms) == ([7, 7], [7])


def test_it_steps_down_by_itself_before_the_store_could_have_elected_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bus = Bus()
    witness = Witness(bus)
    duty = Count(0.0)
    leader = Leader([duty], bus, lease=20, worker="w1")
    sent = monotonic()
    leader.heard(7, sent)
    leader.tick()

    monkeypatch.setattr(leader_module, "monotonic", lambda: sent + int(15.1 * SECOND))
    leader.tick()

    assert duty.terms == [7]
    assert not leader.leads
    assert "no beat" in witness.wait_for("leader.resigned").why
    leader.heard(7, sent + 15 * SECOND)  # the store answers again: the term still holds
    leader.tick()
    assert duty.terms == [7, 7]


def test_a_stale_term_ends_the_work_at_once() -> None:
    bus = Bus()
    witness = Witness(bus)
    first, second = Count(), Count()
    first.over = True
    leader = Leader([first, second], bus, lease=20, worker="w1")
    leader.heard(7, monotonic())

    leader.tick()

    assert (first.terms, second.terms) == ([7], [])
    assert "over" in witness.wait_for("leader.resigned").why


def test_a_new_term_is_a_new_beginning() -> None:
    duty = Count(60.0)
    leader = Leader([duty], Bus(), lease=20, worker="w1")
    for term in (1, 2):
        leader.heard(term, monotonic())
        leader.tick()

    assert duty.terms == [1, 2]


# -- the duties, on the real store -------------------------------------------------------------------------------------


def lead(app: App, worker: str = "w1") -> int:
    term = app.store.beat(WorkerInfo(worker, worker, "here", 1), []).term
    assert term is not None
    return term


def test_the_stager_sleeps_until_the_next_job_is_due(app: App) -> None:
    term = lead(app)
    stager = Stager(app.store)
    assert stager.tick(term) == 5.0

    app.registry.get("noop").using(delay=1.0).enqueue()

    delay = stager.tick(term)
    assert delay is not None
    assert 0.5 < delay <= 1.0
    assert stager.tick(term + 1) is None


def test_the_rescuer_tells_what_it_took_and_from_whom(app: App) -> None:
    term = lead(app)
    app.enqueue_many([app.registry.get("noop").job() for _ in range(2)])
    app.store.beat(WorkerInfo("w2", "w2", "there", 77, expiry=0.01), [])
    app.store.turn("w2", 1, (), [Want(None, 2)])
    now = app.store.now()
    for later in range(1, 4):
        app.store.beat(WorkerInfo("w1", "w1", "here", 1), [], now=now + later * SECOND)
    witness = Witness(app.bus)
    dead: list[Any] = []

    assert Rescuer(app.store, app.bus, every=5.0, on_dead=lambda *what: dead.append(what)).tick(term) == 5.0

    gone = witness.wait_for("worker.gone")
    assert (gone.worker, gone.host, gone.pid, gone.jobs) == ("w2", "there", 77, 2)
    assert [(event.worker, event.state) for event in witness.of("job.stalled")] == [("w2", "available")] * 2
    assert dead == []


def test_the_pruner_comes_back_at_once_while_there_is_more(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    app.enqueue_many([app.registry.get("noop").job() for _ in range(10)])
    app.worker().run_until_idle()
    term = lead(app)
    witness = Witness(app.bus)
    monkeypatch.setattr("dayjob.services.duties.BATCH", 5)
    pruner = Pruner(app.store, app.bus, [Bound(State.COMPLETED, 2)])

    delays = [pruner.tick(term) for _ in range(2)]

    assert delays[0] is not None
    assert delays[0] < 1.0
    assert delays[1] == 15.0
    assert sum(event.jobs for event in witness.of("store.pruned")) == 8
    assert app.jobs.count(state="completed") == 2


def depths(app: App) -> list[str]:
    return [sample.name for sample in app.store.history(0) if sample.name.startswith("depth:")]


def test_the_sampler_writes_once_a_minute_but_not_in_the_first_second_of_a_term(app: App) -> None:
    term, sampler = lead(app), Sampler(app.store)
    app.enqueue("noop", {})

    assert sampler.tick(term) == 1.0
    assert depths(app) == []
    assert sampler.tick(term) == 60.0
    assert depths(app) != []
    assert sampler.tick(99) == 1.0
    assert sampler.tick(99) is None
