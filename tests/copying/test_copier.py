"""Moving from one store to another: everything arrives, once, whatever happens on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any, cast

import pytest

from dayjob.copier import Copier, Report, copier, steps
from dayjob.errors import ConfigError, NotSupported, StoreUnavailable
from dayjob.ids import new_id
from dayjob.states import Outcome, State
from dayjob.store import open_store
from dayjob.store.contract import Store
from dayjob.store.records import Cancel, Delete, Filter, Retry, Settlement, Want, WorkerInfo
from tests.contract.engines import Postgres18, SqliteFile, Valkey9
from tests.copying.conftest import Pair, fill, row, run_all

WAITING = Filter(states=(State.SCHEDULED, State.AVAILABLE))


def copied(source: Store, target: Store) -> Report:
    report = Copier(source, target).run()
    assert report.whole, report
    return report


def counts(store: Store) -> dict[str, int]:
    return {str(state): n for state in State if (n := store.count(Filter(states=(state,))))}


def test_everything_arrives_and_the_counts_add_up(pair: Pair) -> None:
    made = fill(pair.source)
    report = copied(pair.source, pair.target)

    assert {name: one.copied for name, one in report.counts.items() if one.found} == {
        k: len(v) for k, v in made.items()
    }
    assert counts(pair.target) == {k: len(v) for k, v in made.items()}
    for state, ids in made.items():
        for one in pair.target.export(ids):
            assert one.job.state == state
            assert len(one.job.attempts) == (0 if state in ("completed", "available", "scheduled") else 1)
    assert sorted(run_all(pair.target)) == sorted(made["available"])


def test_moved_jobs_run_in_the_target_alone(pair: Pair) -> None:
    made = fill(pair.source)
    copied(pair.source, pair.target)

    assert run_all(pair.source) == []
    job = pair.source.get(made["available"][0])
    assert job is not None
    assert (job.state, job.reason) == ("cancelled", f"moved to {pair.target.url}")


def test_each_queue_keeps_its_order(pair: Pair) -> None:
    """Also what was claimed and handed back: its place is older than its entry."""
    rows = [row(queue="q", priority=n % 3) for n in range(30)]
    pair.source.enqueue(rows)
    ann = WorkerInfo(new_id(), "ann", "here", 1)
    pair.source.beat(ann, ())
    pair.source.turn(ann.id, 1, (), [Want(None, 7)])
    pair.source.leave(ann.id)
    copied(pair.source, pair.target)

    assert run_all(pair.target) == [one.id for one in sorted(rows, key=lambda one: -one.priority)]


def test_a_second_copy_takes_what_is_new_and_nothing_twice(pair: Pair) -> None:
    made = fill(pair.source)
    copied(pair.source, pair.target)
    ran = run_all(pair.target)
    new = row()
    pair.source.enqueue([new])
    report = copied(pair.source, pair.target)

    assert {name: one.copied for name, one in report.counts.items() if one.copied} == {"available": 1}
    assert sorted(ran) == sorted(made["available"])
    assert run_all(pair.target) == [new.id]


def test_a_dry_run_counts_and_writes_nothing(pair: Pair) -> None:
    made = fill(pair.source)
    pair.source.pause("q1", True)
    before = counts(pair.source)
    report = Copier(pair.source, pair.target).plan()

    assert {name: one.copied for name, one in report.counts.items() if one.found} == {
        **{k: len(v) for k, v in made.items()},
        "pauses": 1,
    }
    assert counts(pair.source) == before
    assert pair.target.check().schema == 0
    assert pair.source.list(None) == []


def test_there_and_back_again(pair: Pair) -> None:
    made = fill(pair.source)
    copied(pair.source, pair.target)
    [done] = run_all(pair.target, 1)
    report = copied(*pair.back())

    assert report.counts["available"].copied == len(made["available"]) - 1
    assert report.counts["completed"].copied == 1
    job = pair.source.get(done)
    assert job is not None
    assert job.state == "completed"
    assert sorted(run_all(pair.source)) == sorted(set(made["available"]) - {done})
    assert run_all(pair.target) == []
    assert counts(pair.source)["scheduled"] == len(made["scheduled"])


def test_what_is_to_come_back_to_a_store_that_has_just_deleted_it_stays_and_is_told(one_way: Pair) -> None:
    """The memory of what was moved away may go by a bound of retention; its id is known for an hour more."""
    made = fill(one_way.source)
    copied(one_way.source, one_way.target)
    one, *others = made["available"]
    one_way.source.act(Filter(ids=(one,)), Delete())
    report = Copier(*one_way.back()).run()

    assert [problem.what for problem in report.problems] == [f"job {one}"]
    assert "copy again" in report.problems[0].why
    assert (report.counts["available"].refused, report.counts["available"].even) == (1, True)
    assert run_all(one_way.target) == [one]
    assert sorted(run_all(one_way.source)) == sorted(others)


def test_a_dry_run_says_what_is_there_already(pair: Pair) -> None:
    for store in (pair.source, pair.target):
        store.migrate()
        store.pause("q", True)
        store.write("setting", "same", b"1")
        store.write("setting", "other", store.url.encode())
    report = Copier(pair.source, pair.target).plan()

    assert (report.counts["pauses"].there, report.counts["records"].there, report.counts["records"].refused) == (
        1,
        1,
        1,
    )
    assert all(count.even for count in report.counts.values())


def test_pauses_and_records_come_over_and_what_the_target_has_stays(pair: Pair) -> None:
    pair.source.pause("q", True)
    pair.source.write("setting", "a", b"1")
    pair.source.write("setting", "b", b"2", ttl=3600.0)
    pair.source.write("once", "c", b"3")
    pair.source.enqueue([row(queue="q")])
    pair.target.migrate()
    pair.target.write("setting", "a", b"other")
    pair.target.write("once", "c", b"3")
    report = Copier(pair.source, pair.target).run()

    record = report.counts["records"]
    assert (record.found, record.copied, record.there, record.refused) == (3, 1, 1, 1)
    assert [problem.what for problem in report.problems] == ["record setting/a"]
    assert [one.value for one in pair.target.list("setting")] == [b"other", b"2"]
    assert pair.target.list("setting")[1].expires_at is not None
    assert run_all(pair.target) == []
    assert [one.paused for one in pair.target.queues()] == [True]


def test_what_a_relay_told_of_its_outbox_stays_behind(one_way: Pair) -> None:
    """It delivers to the new store by now, and tells that one how it stands."""
    one_way.target.migrate()
    for store, lag in ((one_way.source, b"7"), (one_way.target, b"0")):
        store.write("outbox", "shop", lag)
    planned = Copier(one_way.source, one_way.target).plan()
    report = copied(one_way.source, one_way.target)

    assert (planned.counts["records"].found, report.counts["records"].found) == (0, 0)
    assert [one.value for one in one_way.target.list("outbox")] == [b"0"]


def test_jobs_of_workers_that_are_gone_come_over_as_suspects(pair: Pair) -> None:
    pair.source.enqueue([one := row()])
    ann = WorkerInfo(new_id(), "ann", "here", 1, expiry=0.0)
    pair.source.beat(ann, ())
    assert len(pair.source.turn(ann.id, 1, (), [Want(None, 1)]).claimed) == 1
    copied(pair.source, pair.target)

    job = pair.target.get(one.id)
    assert job is not None
    assert (job.state, job.suspect) == ("available", True)


def test_alive_workers_are_a_reason_to_refuse(pair: Pair) -> None:
    fill(pair.source)
    pair.source.beat(WorkerInfo(new_id(), "ann", "here", 1), ())
    before = counts(pair.source)

    with pytest.raises(ConfigError, match=r"1 worker is alive in .*: stop them"):
        Copier(pair.source, pair.target).run()
    assert counts(pair.source) == before
    assert pair.target.check().schema == 0


@pytest.mark.parametrize(
    ("pair", "odd"),
    [((SqliteFile, Postgres18), {"task": "nul\0nul"}), ((SqliteFile, Valkey9), {"priority": 128})],
    indirect=["pair"],
    ids=["postgres-18", "valkey-9"],
)
def test_what_the_target_cannot_store_stays_and_its_neighbours_go(pair: Pair, odd: dict[str, object]) -> None:
    # A file takes what a server does not.
    rows = [row(), row(delay=5000.0, **odd), row()]
    pair.source.enqueue(rows)
    report = Copier(pair.source, pair.target).run()

    assert not report.whole
    assert [problem.what for problem in report.problems] == [f"job {rows[1].id}"]
    assert (report.counts["scheduled"].refused, report.waiting) == (1, 1)
    assert run_all(pair.target) == [rows[0].id, rows[2].id]
    left = pair.source.get(rows[1].id)
    assert left is not None
    assert (left.state, left.run_at - left.created_at) == ("scheduled", 5_000_000_000)


def test_finished_jobs_that_live_again_in_the_target_stay_there(one_way: Pair) -> None:
    made = fill(one_way.source)
    copied(one_way.source, one_way.target)
    one_way.target.act(Filter(ids=(made["dead"][0],)), Retry())
    report = copied(one_way.source, one_way.target)

    assert report.counts["dead"].there == len(made["dead"])
    job = one_way.target.get(made["dead"][0])
    assert job is not None
    assert job.state == "available"


def test_a_job_that_its_owner_cancelled_is_history_like_any_other(one_way: Pair) -> None:
    one_way.source.enqueue([one := row()])
    one_way.source.act(Filter(ids=(one.id,)), Cancel("moved to next week"))
    report = copied(one_way.source, one_way.target)

    assert report.counts["cancelled"].copied == 1


# -- while it works ----------------------------------------------------------------------------------------------


def test_live_it_follows_until_nobody_works_there_and_no_job_runs_twice(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copier, "LOOK", 0.02)
    source, ann = pair.source, WorkerInfo(new_id(), "ann", "here", 1)
    source.pause("slow", True)
    source.beat(ann, ())
    ids = fill(source)["available"]
    reports: list[Report] = []
    thread = Thread(target=lambda: reports.append(Copier(source, pair.target, live=True).run()))
    thread.start()
    here: list[str] = []
    for number in range(1, 11):
        rows = [row(queue=f"q{n}") for n in range(6)]
        source.enqueue(rows)
        source.notify("work", b"q0")
        ids += [one.id for one in rows]
        claimed = source.turn(ann.id, number, (), [Want(None, 2)]).claimed
        here += [job.id for job in claimed]
        done = [Settlement(job.id, job.entry, Outcome.COMPLETED, 1, source.now(), keep=9e5) for job in claimed]
        assert source.turn(ann.id, None, done).refused == []
    assert thread.is_alive()
    source.leave(ann.id)
    thread.join(15)

    there = run_all(pair.target)
    assert reports[0].whole, reports
    assert sorted(here + there) == sorted(ids)
    assert reports[0].counts["completed"].copied == 20 + len(here)
    assert [one.name for one in pair.target.queues() if one.paused] == ["slow"]


# -- killed on the way -------------------------------------------------------------------------------------------

POINTS = [
    "source.write 1",
    "source.write 2",
    "source.act 1",
    "source.write 3",
    "target.adopt 1",
    "source.write 4",
    "target.adopt 3",
    "target.find 1",
]


def killed(pair: Pair, point: str) -> None:
    """A copy that dies after that call, and another: whatever was stored runs once, in the target."""
    # Six batches of those that wait: two in each of the states, and more.
    made = fill(pair.source, 150)
    arguments = [*pair.urls, "after", *point.split()]
    child = [sys.executable, "-c", CHILD, *arguments]
    died = subprocess.run(
        child, timeout=15, check=False, cwd=Path(__file__).parents[2], env=os.environ | {"DAYJOB": ""}
    )
    assert died.returncode == -9
    early = run_all(pair.target) if pair.target.check().schema else []
    report = copied(pair.source, pair.target)

    late = run_all(pair.target)
    assert sorted(early + late) == sorted(made["available"])
    assert run_all(pair.source) == []
    assert pair.target.count(Filter(states=(State.SCHEDULED,))) == len(made["scheduled"])
    assert pair.source.list("copy") == []
    waiting = [report.counts[name] for name in ("available", "scheduled")]
    assert [one.found for one in waiting] == [150, 150]
    for name in ("completed", "dead", "cancelled"):
        assert report.counts[name].found == len(made[name])


@pytest.mark.crash
@pytest.mark.processes
@pytest.mark.parametrize("point", POINTS)
def test_a_copy_that_was_killed_anywhere_is_finished_by_the_next(one_way: Pair, point: str) -> None:
    killed(one_way, point)


@pytest.mark.crash
@pytest.mark.processes
@pytest.mark.parametrize("point", ["source.act 2", "target.adopt 2"])
def test_a_copy_that_was_killed_is_finished_by_the_next_in_each_direction(pair: Pair, point: str) -> None:
    killed(pair, point)


CHILD = """
import sys
from dayjob.copier import copier
copier.BATCH = 64
from tests.copying.child import main
main(*sys.argv[1:])
"""


@pytest.mark.crash
@pytest.mark.processes
def test_what_retention_took_meanwhile_is_not_lost(one_way: Pair) -> None:
    """A worker of the source may keep few cancelled jobs, and the memory of what was moved is among them."""
    made = fill(one_way.source)
    child = [sys.executable, "-c", CHILD, *one_way.urls, "before", "target.adopt", "1"]
    assert subprocess.run(child, timeout=15, check=False, cwd=Path(__file__).parents[2]).returncode == -9
    one_way.source.act(Filter(ids=tuple(made["available"])), Delete())
    copied(one_way.source, one_way.target)

    assert sorted(run_all(one_way.target)) == sorted(made["available"])


@pytest.mark.crash
@pytest.mark.processes
def test_who_goes_elsewhere_before_a_killed_copy_is_finished_is_told(one_way: Pair, tmp_path: Path) -> None:
    fill(one_way.source)
    child = [sys.executable, "-c", CHILD, *one_way.urls, "before", "target.adopt", "1"]
    assert subprocess.run(child, timeout=15, check=False, cwd=Path(__file__).parents[2]).returncode == -9
    third = open_store(f"sqlite:///{tmp_path}/third.db")

    with pytest.raises(ConfigError, match=f"a copy from .* to {one_way.urls[1]} was not finished"):
        Copier(one_way.source, third).run()
    with pytest.raises(ConfigError, match="was not finished"):
        Copier(*one_way.back()).run()
    copied(one_way.source, one_way.target)
    third.close()


class Forgetful:
    """A store of whose calls every second does what it should, and then says that it cannot be reached."""

    def __init__(self, store: Store) -> None:
        self._store, self._calls = store, 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return self._forgetting(found) if name in ("write", "act", "adopt", "export", "find", "pause") else found

    def _forgetting(self, call: Any) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            self._calls += 1
            answer = call(*args, **kwargs)
            if self._calls % 2:
                raise StoreUnavailable("the line is broken")
            return answer

        return called


def test_lost_replies_lose_and_double_nothing(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "PAUSE", 0.0)
    monkeypatch.setattr(copier, "BATCH", 8)
    made = fill(pair.source)
    pair.source.pause("slow", True)
    pair.source.write("setting", "a", b"1")
    report = Copier(cast("Store", Forgetful(pair.source)), cast("Store", Forgetful(pair.target))).run()

    assert report.whole, report
    assert {name: one.found for name, one in report.counts.items()} == {
        **{state: len(ids) for state, ids in made.items()}, "pauses": 1, "records": 1,
    }  # fmt: skip
    assert counts(pair.target) == {state: len(ids) for state, ids in made.items()}
    assert sorted(run_all(pair.target)) == sorted(made["available"])
    assert run_all(pair.source) == []


# -- wrong stores ------------------------------------------------------------------------------------------------


def test_stores_that_cannot_be_copied_are_refused(one_way: Pair, tmp_path: Path) -> None:
    memory, nothing = open_store("sqlite:///:memory:"), open_store(f"sqlite:///{tmp_path}/nothing.db")
    with pytest.raises(NotSupported, match="in-memory"):
        Copier(memory, one_way.target).run()
    with pytest.raises(ConfigError, match=r"there is no store at .*nothing\.db"):
        Copier(nothing, one_way.target).run()
    with pytest.raises(ConfigError, match="the same store"):
        Copier(one_way.source, one_way.source).run()
    assert one_way.target.check().schema == 0


def test_one_store_under_two_names_is_noticed(one_way: Pair, tmp_path: Path) -> None:
    made = fill(one_way.source)
    (tmp_path / "link").symlink_to(tmp_path)
    path = Path(one_way.urls[0].removeprefix("sqlite:///"))
    again = open_store(f"sqlite:///{tmp_path}/link/{path.name}")
    with pytest.raises(ConfigError, match="lead to the same store"):
        Copier(one_way.source, again).run()
    again.close()

    assert sorted(run_all(one_way.source)) == sorted(made["available"])
    assert one_way.source.list("copy") == []


def test_of_two_copies_at_once_the_later_goes_on(one_way: Pair) -> None:
    made = fill(one_way.source)
    first = Copier(one_way.source, one_way.target)
    one_way.target.migrate()
    first._begin()
    copied(one_way.source, one_way.target)

    with pytest.raises(ConfigError, match=r"another copy .* has begun"):
        first._announce(made["available"])
