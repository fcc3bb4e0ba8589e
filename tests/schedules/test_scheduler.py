"""The scheduler on every engine: each tick once, whoever leads and however late; what overlaps, is missed, edited, or orphaned."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dayjob import App, ConfigError, Cron, Every, JobContext, ScheduleNotFound, StoreUnavailable
from dayjob.clock import SECOND, from_stamp, to_stamp
from dayjob.errors import BadRow
from dayjob.events import Event
from dayjob.schedule import times
from dayjob.services.agenda import KIND, SCHEDULED_FOR
from dayjob.services.announcer import Announcer, announce
from dayjob.services.scheduler import Scheduler
from dayjob.store.contract import Store
from dayjob.store.records import Filter, NewRow, Tick, Want, WorkerInfo
from tests.contract.engines import ENGINES, EngineUnderTest

NOON = datetime(2026, 3, 2, 12, 0, 30, tzinfo=UTC)


class Place:
    """An app on a store at a virtual time, and leaders that tick when told."""

    def __init__(self, engine: EngineUnderTest) -> None:
        self.now = to_stamp(NOON)
        engine.clock = lambda: self.now
        self.store = engine.store()
        self.engine = engine
        self.app = App("sqlite:///:memory:")
        self.events: list[Event] = []
        self.app.bus.subscribe("*", self.events.append)

    def leader(self, store: Store | None = None) -> Leading:
        return Leading(self, store or self.store)

    def declare(self) -> None:
        """As a worker does that starts."""
        Announcer(self.store, self.app.bus, self.app.schedules.declared()).tick()

    def advance(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)

    def named(self, name: str) -> list[Event]:
        return [event for event in self.events if event.name == name]

    def made(self, schedule: str | None = None) -> list[int]:
        """The nominal times of all jobs there are, in order."""
        import msgspec

        tag = None if schedule is None else f"schedule:{schedule}"
        rows = self.store.find(Filter(tag=tag), limit=2000).jobs
        return sorted(msgspec.json.decode(row.meta or "{}")[SCHEDULED_FOR] for row in rows)


class Leading:
    """One who believes to lead."""

    def __init__(self, place: Place, store: Store) -> None:
        self.duty = Scheduler(store, place.app.bus, lease=20.0, declared=place.app.schedules.declared())

    def tick(self) -> float:
        """Tick, after a look whether something changed."""
        self.duty._look_at = 0.0
        delay = self.duty.tick(1)
        assert delay is not None
        return delay


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EngineUnderTest]:
    under_test: EngineUnderTest = request.param(tmp_path)
    yield under_test
    under_test.close()


@pytest.fixture
def place(engine: EngineUnderTest) -> Iterator[Place]:
    place = Place(engine)
    with place.app.substituted(place.store, stored=None, guard=lambda: None):

        @place.app.task(name="report")
        def report(ctx: JobContext, kind: str = "short") -> None: ...

        yield place


def call(place: Place, **args: Any) -> Any:
    return place.app.registry.get("report").job(**args)


def minutes(begin: datetime, count: int) -> list[int]:
    return [to_stamp(begin.replace(second=0) + timedelta(minutes=n)) for n in range(1, count + 1)]


def test_each_tick_makes_one_job_with_its_nominal_time_and_arguments(place: Place) -> None:
    place.app.schedules.set("often", call(place, kind="full").using(queue="reports", priority=7), Cron("* * * * *"))
    leader = place.leader()

    assert leader.tick() == pytest.approx(1.0, abs=0.2)
    for _ in range(3):
        place.advance(60)
        leader.tick()
        leader.tick()

    assert place.made("often") == minutes(NOON, 1)  # the first has not ended: the others were skipped
    job = place.app.jobs.find()[0]
    assert (job.queue, job.priority, job.args, job.tags) == ("reports", 7, {"kind": "full"}, ("schedule:often",))
    schedule = place.app.schedules.get("often")
    assert (schedule.skipped, schedule.last_job, schedule.last_run) == (2, job.id, from_stamp(minutes(NOON, 1)[0]))
    assert len(place.named("schedule.skipped")) == 2


def test_two_who_believe_to_lead_make_each_tick_once(place: Place) -> None:
    for n in range(20):
        place.app.schedules.set(f"s{n}", call(place), Every(60), overlap="allow")
    leaders = [place.leader(), place.leader(place.engine.open())]

    for round in range(5):
        place.advance(60)
        for leader in leaders[:: -1 if round % 2 else 1]:
            leader.tick()

    assert place.made() == sorted(at for at in minutes(NOON, 5) for _ in range(20))


class Dying:
    """A store whose leader dies at its tick: before the commit, or after it, without the reply."""

    def __init__(self, store: Store, when: str) -> None:
        self._store, self._when = store, when

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def tick(self, ticks: list[Tick], **how: Any) -> Any:
        if self._when == "after":
            self._store.tick(ticks, **how)
        raise StoreUnavailable("killed here")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_leader_that_dies_in_the_second_of_a_tick_neither_doubles_nor_loses_it(place: Place, when: str) -> None:
    place.app.schedules.set("often", call(place), Cron("* * * * *"), overlap="allow")
    dying = place.leader(Dying(place.store, when))  # type: ignore[arg-type]  # all of a store but its tick
    dying.tick()
    place.advance(60)
    with pytest.raises(StoreUnavailable):
        dying.tick()

    place.advance(25)  # so long until another leads
    place.leader().tick()
    place.advance(35)
    place.leader().tick()

    assert place.made() == minutes(NOON, 2)


def test_a_reply_that_was_lost_does_not_confuse_the_leader_who_lives_on(place: Place) -> None:
    place.app.schedules.set("often", call(place), Cron("* * * * *"), overlap="allow")
    leader = place.leader()
    leader.tick()
    store = leader.duty._store
    for _ in range(3):
        place.advance(60)
        leader.duty._store = Dying(store, "after")  # type: ignore[assignment]  # the same
        with pytest.raises(StoreUnavailable):
            leader.tick()
        leader.duty._store = store
        leader.tick()

    assert place.made() == minutes(NOON, 3)


@pytest.mark.parametrize(("catch_up", "expected"), [("none", [60]), ("latest", [60]), ("all", list(range(1, 61)))])
def test_after_an_hour_in_which_nobody_was_there_so_much_is_made_up_for(
    place: Place, catch_up: Any, expected: list[int]
) -> None:
    place.app.schedules.set("often", call(place), Cron("* * * * *"), catch_up=catch_up)
    place.leader().tick()
    place.advance(3600)

    leader = place.leader()
    leader.tick()
    leader.tick()

    hour = minutes(NOON, 60)
    assert place.made() == [hour[n - 1] for n in expected]
    (missed,) = place.named("schedule.missed")
    assert (missed.ticks, missed.made) == {"none": (59, 0), "latest": (60, 1), "all": (60, 60)}[catch_up]  # type: ignore[attr-defined]
    if catch_up == "all":  # they come one after the other, as two at once are not wanted
        place.store.beat(WorkerInfo("worker", "w", "h", 1), [])
        claimed = [place.store.turn("worker", n, [], [Want(None, 10)]).claimed for n in (1, 2)]
        assert [len(jobs) for jobs in claimed] == [1, 0]


def test_what_is_made_up_for_is_bounded(place: Place) -> None:
    place.app.schedules.set("often", call(place), Every(1), catch_up="all", overlap="allow")
    place.leader().tick()
    place.advance(86_400)

    place.leader().tick()

    made = place.made()
    assert len(made) == 1000
    assert made[-1] == place.now
    assert place.app.schedules.get("often").missed == 85_400
    assert [(event.ticks, event.made) for event in place.named("schedule.missed")] == [(86_400, 1000)]  # type: ignore[attr-defined]
    place.advance(1)
    place.leader().tick()
    assert place.store.count(Filter()) == 1001


def test_a_job_that_ended_makes_room_for_the_next_tick(place: Place) -> None:
    place.app.schedules.set("often", call(place), Cron("* * * * *"))
    leader = place.leader()
    leader.tick()
    place.advance(60)
    leader.tick()
    place.app.jobs.cancel([job.id for job in place.app.jobs.find()])
    place.advance(60)
    leader.tick()

    assert place.made() == minutes(NOON, 2)


def test_overlap_allow_makes_all_and_queue_puts_each_behind_the_one_before(place: Place) -> None:
    rows: list[NewRow] = []
    for overlap in ("allow", "queue"):
        place.app.schedules.set(overlap, call(place), Cron("* * * * *"), overlap=overlap)  # type: ignore[arg-type]  # two of three
    leader = place.leader()
    told = place.store.tick
    place.store.tick = lambda ticks, **how: (rows.extend(row for one in ticks for row in one.jobs), told(ticks, **how))[
        1
    ]  # type: ignore[method-assign, func-returns-value]
    for _ in range(3):
        place.advance(60)
        leader.tick()

    gates = {(row.tags or "").split(":")[1].strip('"]'): row.gating for row in rows}
    assert len(rows) == 6
    assert gates["allow"] is None
    assert gates["queue"] is not None
    assert [(gate.kind, gate.key) for gate in gates["queue"].gates] == [("order", "schedule:queue")]


def test_what_is_paused_does_not_tick_and_nothing_of_it_is_made_up_for(place: Place) -> None:
    place.app.schedules.set("often", call(place), Cron("* * * * *"), overlap="allow", catch_up="all")
    leader = place.leader()
    leader.tick()
    assert place.app.schedules.pause("often")
    assert not place.app.schedules.pause("often")
    place.advance(180)
    leader.tick()
    assert place.made() == []
    assert place.app.schedules.get("often").state == "paused"

    assert place.app.schedules.resume("often")
    leader.tick()
    place.advance(60)
    leader.tick()
    assert place.made() == minutes(NOON, 4)[3:]


def test_a_changed_expression_acts_at_the_next_look_and_the_old_one_no_more(place: Place) -> None:
    place.app.schedules.set("often", call(place), Cron("* * * * *"), overlap="allow", catch_up="all")
    leader = place.leader()
    leader.tick()
    place.app.schedules.set("often", when=Cron("*/5 * * * *"))
    place.advance(600)
    leader.tick()

    assert place.made() == [to_stamp(NOON.replace(minute=5, second=0)), to_stamp(NOON.replace(minute=10, second=0))]
    assert place.app.schedules.get("often").catch_up == "all"


def test_start_and_end_bound_the_ticks(place: Place) -> None:
    start, end = NOON + timedelta(minutes=5), NOON + timedelta(minutes=7)
    place.app.schedules.set("often", call(place), Cron("* * * * *"), overlap="allow", start=start, end=end)
    leader = place.leader()
    for _ in range(12):
        place.advance(60)
        leader.tick()

    assert place.made() == minutes(NOON, 7)[5:]
    assert place.app.schedules.get("often").state == "ended"


def test_jitter_puts_off_the_start_and_not_the_nominal_time_and_is_the_same_for_all(place: Place) -> None:
    place.app.schedules.set("often", call(place), Cron("* * * * *"), overlap="allow", jitter=30)
    leader = place.leader()
    for _ in range(5):
        place.advance(60)
        leader.tick()

    jobs = place.app.jobs.find()
    delays = [(job.run_at - from_stamp(job.meta[SCHEDULED_FOR])).total_seconds() for job in jobs]
    assert place.made() == minutes(NOON, 5)
    assert all(0 <= delay < 30 for delay in delays)
    assert len(set(delays)) == 5


def test_triggered_by_hand_it_makes_a_job_at_once_whatever_its_state_and_the_next_tick_comes_as_ever(
    place: Place,
) -> None:
    place.app.schedules.set("daily", call(place, kind="full"), Cron("0 13 * * *"), paused=True)

    job = place.app.schedules.trigger("daily")

    assert (job.state, job.args, job.meta[SCHEDULED_FOR]) == ("available", {"kind": "full"}, place.now)
    schedule = place.app.schedules.get("daily")
    assert (schedule.last_job, schedule.state) == (job.id, "paused")
    assert schedule.next_runs(1) == [NOON.replace(hour=13, minute=0, second=0)]


def test_a_declaration_is_stored_once_by_all_workers_and_a_change_of_code_is_taken_over(place: Place) -> None:
    place.app.every(60, name="often", overlap="allow")(place.app.registry.get("report"))
    place.declare()
    version = place.store.list(KIND)[0].version
    place.declare()
    assert place.store.list(KIND)[0].version == version
    assert (place.app.schedules.get("often").origin, place.app.schedules.get("often").edited) == ("code", False)

    place.app.registry.get("report").schedules.clear()
    place.app.every(120, name="often")(place.app.registry.get("report"))
    place.declare()
    assert place.app.schedules.get("often").words == "Every 2 minutes"
    assert "test_scheduler.py:" in place.app.schedules.get("often").where


def test_another_timetable_in_code_has_missed_nothing(place: Place) -> None:
    task = place.app.registry.get("report")
    place.app.cron("0 6 * * *", name="daily", catch_up="all")(task)
    place.declare()
    place.advance(7200)
    task.schedules.clear()
    place.app.cron("* * * * *", name="daily", catch_up="all")(task)
    place.declare()

    place.leader().tick()

    assert place.made() == []


def test_what_was_said_at_run_time_wins_over_code_and_shows_until_it_is_reset(place: Place) -> None:
    task = place.app.registry.get("report")
    place.app.cron("0 6 * * *", name="daily")(task)
    place.declare()
    place.app.schedules.set("daily", when=Cron("0 7 * * *"))
    place.app.schedules.pause("daily")
    task.schedules.clear()
    place.app.cron("0 8 * * *", name="daily")(task)
    place.declare()

    found = place.app.schedules.get("daily")
    assert (found.when, found.origin, found.edited, found.state) == (Cron("0 7 * * *"), "code", True, "paused")

    found = place.app.schedules.reset("daily")
    assert (found.when, found.edited, found.state) == (Cron("0 8 * * *"), False, "active")


def test_a_schedule_that_vanished_from_code_is_reported_and_rests_and_is_not_deleted(place: Place) -> None:
    task = place.app.registry.get("report")
    place.app.cron("* * * * *", name="gone", overlap="allow")(task)
    place.app.cron("* * * * *", name="stays", overlap="allow")(task)
    place.declare()
    del task.schedules[0]
    place.declare()  # a worker of the next release, while one of the old lives
    leader = place.leader()
    place.advance(60)
    leader.tick()
    assert place.made("gone") == minutes(NOON, 1)
    assert place.named("schedule.orphaned") == []

    place.advance(100)  # by now the old one is gone
    place.declare()
    leader.duty._reload_at = 0.0
    leader.tick()
    place.advance(60)
    leader.tick()

    assert len(place.made("gone")) == 1
    assert len(place.made("stays")) == 3
    assert [event.schedule for event in place.named("schedule.orphaned")] == ["gone"]  # type: ignore[attr-defined]
    assert {one.name: one.state for one in place.app.schedules.list()} == {"gone": "orphaned", "stays": "active"}
    kept = place.app.schedules.set("gone")
    assert (kept.origin, kept.state) == ("run", "active")
    assert place.app.schedules.delete("gone")


def test_the_last_schedule_that_vanishes_is_noticed_too(place: Place) -> None:
    task = place.app.registry.get("report")
    place.app.cron("* * * * *", name="gone")(task)
    place.declare()
    task.schedules.clear()
    place.advance(100)

    place.leader().tick()

    assert [event.schedule for event in place.named("schedule.orphaned")] == ["gone"]  # type: ignore[attr-defined]
    assert place.app.schedules.get("gone").state == "orphaned"


def test_programs_that_share_a_store_do_not_orphan_each_others_schedules(place: Place) -> None:
    place.app.cron("* * * * *", name="mine", overlap="allow")(place.app.registry.get("report"))
    place.declare()
    place.app.schedules.set("theirs", call(place), Cron("* * * * *"))
    record = next(one for one in place.store.list(KIND) if one.key == "mine")
    place.store.write(KIND, "other", record.value)
    announce(place.store, ["other"])
    leader = place.leader()
    place.advance(60)
    leader.tick()

    assert place.made("mine") == place.made("other") == minutes(NOON, 1)
    assert place.named("schedule.orphaned") == []


def test_what_living_code_declares_cannot_be_deleted_as_it_would_come_back(place: Place) -> None:
    place.app.cron("0 6 * * *", name="daily")(place.app.registry.get("report"))
    place.declare()

    with pytest.raises(ConfigError, match="remove it there, or pause it"):
        place.app.schedules.delete("daily")
    assert place.app.schedules.delete("unknown") is False


def test_a_record_that_cannot_be_read_is_reported_and_its_neighbours_tick(place: Place) -> None:
    place.app.schedules.set("often", call(place), Cron("* * * * *"))
    place.store.write(KIND, "newer", b'{"run": {"job": 5}}')
    place.store.write(KIND, "broken", b"\xff")
    leader = place.leader()
    place.advance(60)
    leader.tick()
    leader.tick()

    assert place.made() == minutes(NOON, 1)
    assert [event.schedule for event in place.named("schedule.failed")] == ["broken", "newer"]  # type: ignore[attr-defined]
    assert [one.name for one in place.app.schedules.list()] == ["often"]


def test_a_job_that_can_never_be_stored_does_not_keep_other_schedules_back(place: Place) -> None:
    for name in ("bad", "good"):
        place.app.schedules.set(name, call(place), Cron("* * * * *"))
    told = place.store.tick

    def refusing(ticks: list[Tick], **how: Any) -> Any:
        if any(tick.key == "bad" for tick in ticks):
            raise BadRow("no")
        return told(ticks, **how)

    place.store.tick = refusing  # type: ignore[method-assign, assignment]
    leader = place.leader()
    place.advance(60)
    leader.tick()

    assert place.made() == minutes(NOON, 1)
    assert [event.schedule for event in place.named("schedule.failed")] == ["bad"]  # type: ignore[attr-defined]


def test_ticks_of_a_week_equal_the_oracle_with_leaders_that_come_and_go(place: Place) -> None:
    crons = {"a": Cron("*/30 * * * *", "Europe/Berlin"), "b": Cron("30 2 * * *", "Europe/Berlin"), "c": Every(5400)}
    place.now = begin = to_stamp(datetime(2026, 3, 27, tzinfo=UTC))
    for name, when in crons.items():
        place.app.schedules.set(name, call(place), when, overlap="allow", catch_up="all")
    leaders = [place.leader(), place.leader(place.engine.open())]
    steps = 0
    while place.now < begin + 4 * 86_400 * SECOND:
        steps += 1
        place.advance((7, 61, 1, 1799, 40)[steps % 5] * 3)
        leaders[steps % 2].tick()
        if steps % 17 == 0:
            leaders[steps % 2] = place.leader()

    for name, when in crons.items():
        assert place.made(name) == [*times(when, begin, place.now)], name


@pytest.mark.parametrize(
    ("name", "given", "match"),
    [
        ("a b", {}, "schedule name"),
        ("x" * 300, {}, "characters"),
        ("new", {"when": Cron("* * * * *")}, "needs its job"),
        ("new", {"overlap": "allow"}, "needs its job"),
        ("old", {"when": "* * * * *"}, "Cron"),
        ("old", {"job": "report"}, "must be a call"),
        ("old", {"overlap": "kill"}, "overlap"),
        ("old", {"jitter": float("nan")}, "jitter"),
        ("old", {"paused": "no"}, "paused"),
        ("old", {"start": datetime(2026, 1, 1)}, "start"),  # noqa: DTZ001
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_and_nothing_is_written(
    place: Place, name: str, given: dict[str, Any], match: str
) -> None:
    place.app.schedules.set("old", call(place), Cron("* * * * *"))
    before = [*place.store.list(None)]

    with pytest.raises(ConfigError, match=match):
        place.app.schedules.set(name, **given)
    for wrong in ({"run_at": NOON}, {"id": "01890000-0000-7000-8000-000000000001"}):
        with pytest.raises(ConfigError, match="cannot be said for a schedule"):
            place.app.schedules.set("new", call(place).using(**wrong), Cron("* * * * *"))
    assert [*place.store.list(None)] == before


def test_a_wrong_name_is_answered_with_the_one_that_was_meant(place: Place) -> None:
    place.app.schedules.set("daily-report", call(place), Cron("* * * * *"))

    with pytest.raises(ScheduleNotFound, match="daily-report"):
        place.app.schedules.pause("daily-raport")
