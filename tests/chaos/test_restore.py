"""What is said of a restored backup: a sound one passes, and what is missing from it is noticed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from dayjob import App
from tests.chaos import app as chaos
from tests.chaos.ledger import Plan
from tests.chaos.places.sqlite import Sqlite
from tests.chaos.restore import Backup, wrong_with

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sqlite]:
    """A store in which three jobs wait."""
    monkeypatch.setattr(chaos.ledger, "folder", tmp_path / "ledger")
    chaos.ledger.folder.mkdir()
    with Sqlite(tmp_path) as made, closing(App(made.url)) as app:
        app.migrate()
        for job in app.enqueue_many([chaos.nap.job(0.01)] * 3):
            noted(job.id)
        yield made


def noted(id: str) -> None:
    """Somebody enqueued it, and was told so."""
    chaos.ledger.note("enqueue.tried", id=id, task="nap", plan=msgspec.to_builtins(Plan()))
    chaos.ledger.note("enqueue.acknowledged", id=id)


def backed_up(place: Sqlite) -> Backup:
    backup = Backup(place.folder / "backup", time.monotonic())
    place.back_up(backup.path)
    return backup


def test_a_backup_is_drained_and_need_not_know_what_was_acknowledged_later(place: Sqlite) -> None:
    backup = backed_up(place)
    noted("later")

    assert wrong_with(place, backup) == ([], 3)
    assert {fact["id"] for fact in chaos.ledger.facts("enqueue.acknowledged")} > {"later"}, "the run's own ledger"


def test_what_was_acknowledged_before_a_backup_and_is_not_in_it_is_noticed(place: Sqlite) -> None:
    noted("forgotten")

    wrong, jobs = wrong_with(place, backed_up(place))

    assert jobs == 3
    assert len(wrong) == 1
    assert "forgotten was acknowledged and is not in the store" in wrong[0]
