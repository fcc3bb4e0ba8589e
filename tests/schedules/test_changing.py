"""Schedules that are changed, deleted and made anew while a leader holds them; and what then was not missed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from dayjob import Cron, DayjobError, Unique
from dayjob.clock import from_stamp
from dayjob.services.agenda import KIND
from dayjob.services.announcer import announce
from dayjob.store.gating import QueueLimits
from dayjob.store.records import Want, WorkerInfo
from tests.schedules.test_scheduler import NOON, Place, call, engine, minutes, place  # noqa: F401  two are fixtures


@pytest.mark.parametrize("looked", [True, False])
def test_a_schedule_that_is_deleted_and_made_anew_is_not_taken_for_the_old_one(place: Place, looked: bool) -> None:  # noqa: F811
    place.app.schedules.set("often", call(place, kind="old"), Cron("* * * * *"))
    leader = place.leader()
    leader.tick()
    assert place.app.schedules.delete("often")
    assert not place.app.schedules.delete("often")
    assert place.app.schedules.list() == []
    place.app.schedules.set("often", call(place, kind="new"), Cron("0 3 * * *"))
    place.advance(60)
    if not looked:  # the tick of the old one is due before the leader sees that it is gone
        leader.duty._look_at = float("inf")
        leader.duty.tick(1)
    leader.tick()

    assert place.made() == []
    assert place.app.schedules.get("often").when == Cron("0 3 * * *")


def test_what_code_declares_may_come_back_after_it_was_deleted(place: Place) -> None:  # noqa: F811
    place.app.schedules.set("often", call(place), Cron("0 3 * * *"))
    place.app.schedules.delete("often")
    place.app.cron("* * * * *", name="often", overlap="allow")(place.app.registry.get("report"))
    place.declare()
    place.advance(60)
    place.leader().tick()

    assert place.made("often") == minutes(NOON, 1)
    assert place.app.schedules.get("often").origin == "code"


@pytest.mark.parametrize(
    "kept_back",
    [{"start": NOON + timedelta(days=30)}, {"start": NOON + timedelta(hours=3)}, {"end": NOON + timedelta(minutes=2)}],
    ids=["not begun", "begun", "ended"],
)
def test_a_start_or_end_that_is_taken_away_makes_no_ticks_of_the_time_that_it_excluded(
    place: Place,  # noqa: F811
    kept_back: dict[str, Any],
) -> None:
    place.app.schedules.set("hourly", call(place), Cron("0 */2 * * *"), overlap="allow", catch_up="all", **kept_back)
    leader = place.leader()
    leader.tick()
    place.advance(3 * 3600 + 60)
    leader.tick()
    place.app.schedules.set("hourly", start=None, end=None)
    leader.tick()

    assert place.made() == []
    place.advance(3600)
    leader.tick()
    assert len(place.made()) == 1


def test_what_is_made_up_for_waits_behind_a_job_that_has_not_ended(place: Place) -> None:  # noqa: F811
    place.app.schedules.set("hourly", call(place), Cron("0 * * * *"), catch_up="all")
    place.leader().tick()
    place.advance(3600)
    place.leader().tick()
    place.advance(3600 + 120)
    place.leader().tick()

    assert len(place.made()) == 2
    place.store.beat(WorkerInfo("worker", "w", "h", 1), [])
    assert len(place.store.turn("worker", 1, [], [Want(None, 10)]).claimed) == 1


@pytest.mark.parametrize(
    "record",
    [
        b'{"run": {"job": {"task": "t", "queue": "q", "payload": ""}, "rrule": "FREQ=DAILY"}}',
        b'{"run": {"job": {"task": "t", "queue": "q", "payload": "", "tags": "["}, "every": 60}}',
    ],
    ids=["times of a later release", "tags that are none"],
)
def test_a_record_that_makes_no_sense_keeps_neither_its_neighbours_nor_the_leader_back(
    place: Place,  # noqa: F811
    record: bytes,
) -> None:
    place.app.schedules.set("often", call(place), Cron("* * * * *"))
    place.store.write(KIND, "newer", record)
    leader = place.leader()
    place.advance(60)
    leader.tick()
    leader.tick()

    assert place.made() == minutes(NOON, 1)
    assert [event.schedule for event in place.named("schedule.failed")] == ["newer"]  # type: ignore[attr-defined]
    assert "often" in [one.name for one in place.app.schedules.list()]


@pytest.mark.parametrize("closed", [None, "refuse"])
def test_a_tick_whose_job_is_refused_is_told_and_counted_and_no_job_is_named_that_never_was(
    place: Place,  # noqa: F811
    closed: Any,
) -> None:
    place.app.schedules.set("often", call(place), Cron("* * * * *"), overlap="allow")
    leader = place.leader()
    place.advance(60)
    leader.tick()
    place.store.limit_queue("default", QueueLimits(max_depth=None if closed else 1, closed=closed))
    for _ in range(2):
        place.advance(60)
        leader.tick()
    with pytest.raises(DayjobError, match="default"):
        place.app.schedules.trigger("often")

    found, (job,) = place.app.schedules.get("often"), place.app.jobs.find()
    assert (found.refused, found.skipped, found.missed) == (2, 0, 0)
    assert (found.last_job, found.last_run) == (job.id, from_stamp(minutes(NOON, 1)[0]))
    assert len(place.named("schedule.failed")) == 2

    place.store.limit_queue("default", QueueLimits())
    place.advance(60)
    leader.tick()
    assert place.made() == [minutes(NOON, 4)[n] for n in (0, 3)]
    assert place.app.schedules.get("often").refused == 2


def test_a_tick_whose_key_is_held_names_the_job_that_stands_for_it(place: Place) -> None:  # noqa: F811
    task = place.app.task(name="keyed", unique=Unique(key="k"))(keyed)
    place.app.schedules.set("often", task.job(), Cron("* * * * *"), overlap="allow")
    leader = place.leader()
    for _ in range(3):
        place.advance(60)
        leader.tick()
    triggered = place.app.schedules.trigger("often")

    (job,) = place.app.jobs.find()
    assert triggered.id == job.id == place.app.schedules.get("often").last_job
    assert [event.id for event in place.named("schedule.ticked")] == [job.id] * 3  # type: ignore[attr-defined]


def keyed() -> None: ...


def test_what_another_program_declares_ticks_again_a_second_after_it_could_say_so(place: Place) -> None:  # noqa: F811
    place.app.cron("* * * * *", name="mine", overlap="allow")(place.app.registry.get("report"))
    place.declare()
    (record,) = place.store.list(KIND)
    place.store.write(KIND, "theirs", record.value)
    announce(place.store, ["theirs"])
    leader = place.leader()
    leader.tick()
    place.advance(100)  # the store was away, and nobody could say anything
    leader.duty._reload_at = 0.0
    leader.tick()
    assert place.app.schedules.get("theirs").state == "active"

    announce(place.store, ["theirs"])
    leader.tick()

    assert place.made("mine") == place.made("theirs") == minutes(NOON, 2)[1:]
