"""What is said of a restored backup: a sound one passes, and what is missing from it is noticed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from dayjob import App
from dayjob.ids import new_id
from dayjob.schedule import Every
from dayjob.store import open_store
from dayjob.store.records import Want, WorkerInfo
from tests.chaos import app as chaos
from tests.chaos.ledger import Plan
from tests.chaos.places.postgres import Postgres
from tests.chaos.places.sqlite import Sqlite
from tests.chaos.places.valkey import Valkey
from tests.chaos.restore import Backup, wrong_with

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


Restorable = Sqlite | Postgres | Valkey


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Restorable]:
    """A store in which three jobs wait; of SQLite, where a test does not ask for others."""
    kind: type[Restorable] = getattr(request, "param", Sqlite)
    monkeypatch.setattr(chaos.ledger, "folder", tmp_path / "ledger")
    chaos.ledger.folder.mkdir()
    with kind(tmp_path) as made, closing(App(made.url)) as app:
        app.migrate()
        for job in app.enqueue_many([chaos.nap.job(0.01)] * 3):
            noted(job.id)
        yield made


def noted(id: str) -> None:
    """Somebody enqueued it, and was told so."""
    chaos.ledger.note("enqueue.tried", id=id, task="nap", plan=msgspec.to_builtins(Plan()))
    chaos.ledger.note("enqueue.acknowledged", id=id)


def backed_up(place: Restorable) -> Backup:
    backup = Backup(place.folder / "backup", time.monotonic())
    place.back_up(backup.path)
    return backup


def cut_off(place: Restorable) -> None:
    """A process in which a job ran alone was stopped for longer than its lease lasts: the job counts a crash."""
    alone = WorkerInfo(new_id(), "alone", "here", 7, solo=True, expiry=0.1)
    with closing(open_store(place.url)) as store:
        store.beat(alone, [])
        [_] = store.turn(alone.id, 1, (), (Want(None, 1),)).claimed
        leader = WorkerInfo(new_id(), "leader", "here", 8)
        deadline = time.monotonic() + 10.0
        while not (gone := store.rescue(store.beat(leader, []).term or 0)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert gone[0].jobs[0].crashes == 1
        store.leave(leader.id)


@pytest.mark.parametrize("place", [Sqlite, Postgres, Valkey], indirect=True)
def test_a_backup_is_drained_and_need_not_know_what_was_acknowledged_later(place: Restorable) -> None:
    backup = backed_up(place)
    noted("later")

    assert wrong_with(place, backup) == ([], 3)
    assert {fact["id"] for fact in chaos.ledger.facts("enqueue.acknowledged")} > {"later"}, "the run's own ledger"


def test_what_was_acknowledged_before_a_backup_and_is_not_in_it_is_noticed(place: Restorable) -> None:
    noted("forgotten")

    wrong, jobs = wrong_with(place, backed_up(place))

    assert jobs == 3
    assert len(wrong) == 1
    assert "forgotten was acknowledged and is not in the store" in wrong[0]


def test_schedules_of_a_backup_do_not_go_on_while_it_is_drained(place: Restorable) -> None:
    with closing(App(place.url)) as app:
        app.schedules.set("tick", chaos.tick.job(), Every(1.0), overlap="allow", catch_up="all")
    backup = backed_up(place)
    time.sleep(1.2)

    assert wrong_with(place, backup) == ([], 3)
    assert not [file for file in (place.folder / "restored" / "ledger").iterdir() if "tick" in file.read_text()]


def test_what_had_happened_to_a_process_before_a_backup_is_known_to_its_judge(place: Restorable) -> None:
    chaos.ledger.note("worker.up", worker="1", name="alone", solo=True)
    stopped = time.monotonic()
    cut_off(place)
    backup = backed_up(place)
    chaos.ledger.note("fault", name="SIGSTOP", target=os.getpid(), at=stopped, until=backup.begun)

    assert wrong_with(place, backup) == ([], 3)


def test_a_crash_of_a_process_to_which_nothing_had_happened_is_noticed_in_a_backup(place: Restorable) -> None:
    chaos.ledger.note("worker.up", worker="1", name="alone", solo=True)
    cut_off(place)

    [wrong], _ = wrong_with(place, backed_up(place))

    assert "('completed', 1, 1, 0)" in wrong
