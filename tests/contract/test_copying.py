"""Copying: what one store exports another adopts, and the job is what it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dayjob.clock import SECOND
from dayjob.states import Outcome, State
from dayjob.store.records import Cancel, Checkpoint, Delete, Filter, JobRow, Log, Progress, Retry
from tests.contract.engines import EngineUnderTest, SqliteFile
from tests.contract.ids import named
from tests.contract.scene import Scene

EVERY_BYTE = bytes(range(256))


@pytest.fixture
def away(scene: Scene, tmp_path: Path) -> Iterator[Scene]:
    """A second store of the same kind, elsewhere, at the same time."""
    engine = type(scene.engine)(tmp_path)
    yield Scene(engine)
    engine.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Scene]:
    """An SQLite file: another kind of engine, mostly."""
    engine: EngineUnderTest = SqliteFile(tmp_path)
    yield Scene(engine)
    engine.close()


def carry(here: Scene, there: Scene, *ids: str) -> list[str]:
    return [one.outcome for one in there.store.adopt(here.store.export(ids), now=there.now)]


def plain(row: JobRow) -> dict[str, object]:
    """All that does not belong to the store in which it is."""
    return {name: getattr(row, name) for name in row.__struct_fields__ if name not in ("entry", "place")}


def test_a_waiting_job_comes_over_as_it_was(scene: Scene, away: Scene) -> None:
    id = scene.job(
        task="billing.charge", queue="billing", payload=EVERY_BYTE, priority=-7, delay=60.0, expires=3600.0,
        max_attempts=7, tags='["vip"]', meta='{"by":"web ☃"}', options=EVERY_BYTE,
    )  # fmt: skip

    assert carry(scene, away, id) == ["inserted"]
    assert plain(away.get(id)) == plain(scene.get(id))


def test_what_a_job_left_behind_comes_with_it(scene: Scene, away: Scene) -> None:
    id, ann = scene.job(), scene.worker()
    job = ann.take(id)
    ann.record(job, Log(scene.now, "INFO", "first"), Log(scene.now, "INFO", "second"))
    ann.record(job, Progress(1, 3, "steps"), Checkpoint(EVERY_BYTE))
    ann.fail(job, delay=30.0, error=EVERY_BYTE)
    carry(scene, away, id)

    assert plain(away.get(id)) == plain(scene.get(id))
    assert away.store.logs(id) == scene.store.logs(id)
    assert away.store.recorded(id) == EVERY_BYTE
    away.advance(30)
    claimed = away.worker("bob").take(id)
    assert (claimed.attempt, claimed.recorded, claimed.payload) == (1, True, job.payload)


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.CANCELLED, Outcome.DEAD])
def test_a_finished_job_comes_over_as_it_was(scene: Scene, away: Scene, outcome: Outcome) -> None:
    id, ann = scene.job(tags='["vip"]', payload=EVERY_BYTE), scene.worker()
    body = {"result": EVERY_BYTE} if outcome is Outcome.COMPLETED else {"error": EVERY_BYTE, "reason": "so"}
    ann.settle(ann.take(id), outcome, keep=7200.0, **body)

    assert carry(scene, away, id) == ["inserted"]
    assert plain(away.get(id)) == plain(scene.get(id))
    assert away.store.count(Filter(states=(scene.state(id),))) == 1
    assert [row.counts for row in away.store.queues(now=away.now)] == [{scene.state(id): 1}]


def test_a_finished_job_is_kept_no_longer_than_it_was_to_be(scene: Scene, away: Scene) -> None:
    ids, ann = scene.jobs(2), scene.worker()
    for job, keep in zip(ann.claim(2), (3600.0, 5 * 86_400.0), strict=True):
        ann.settle(job, keep=keep)
    carry(scene, away, *ids)
    away.pass_time(3700.0)
    away.store.prune(away.term, [], now=away.now)

    assert [away.store.get(id) is not None for id in ids] == [False, True]
    away.advance(7 * 86_400.0)
    away.leader.beat()
    away.store.prune(away.leader.lead(), [], now=away.now)
    assert away.store.get(ids[1]) is None


def test_a_finished_job_can_be_retried_where_it_went(scene: Scene, away: Scene) -> None:
    id, ann, bob = scene.job(delay=1.0, expires=50.0), scene.worker(), away.worker("bob")
    scene.advance(1)
    ann.settle(ann.take(id), Outcome.DEAD, error=b"first", keep=3600.0)
    scene.act(Retry(), id)
    ann.record(job := ann.take(id), Progress(2, 3, "so far"), Checkpoint(b"x"))
    ann.settle(job, Outcome.DEAD, error=b"second", keep=3600.0)
    away.now = scene.now
    carry(scene, away, id)
    assert plain(away.get(id)) == plain(scene.get(id))
    assert away.get(id).round == 1

    away.act(Retry(), id)
    job = bob.take(id)
    assert (job.round, job.attempt, job.recorded, away.store.recorded(id)) == (2, 0, False, None)
    assert [one.error for one in away.store.export([id])[0].job.attempts] == [b"first", b"second"]
    assert away.store.count(Filter(states=(State.DEAD,))) == 0


def test_a_job_that_waits_expires_where_it_went(scene: Scene, away: Scene) -> None:
    ids = [scene.job(expires=60.0), scene.job(expires=60.0, delay=30.0), scene.job(expires=600.0)]
    carry(scene, away, *ids)
    away.advance(61)
    away.leader.beat()
    away.store.stage(away.term, now=away.now)

    assert [away.state(id) for id in ids] == [State.CANCELLED, State.CANCELLED, State.AVAILABLE]
    assert away.get(ids[0]).reason == "expired"


def test_it_comes_over_between_engines_of_different_kinds_and_back(scene: Scene, file: Scene) -> None:
    ids, ann = scene.jobs(3, payload=EVERY_BYTE, delay=5.0), scene.worker()
    scene.advance(5)
    ann.settle(ann.take(), keep=3600.0)
    ann.fail(ann.take(), error=EVERY_BYTE)
    before = [plain(scene.get(id)) for id in ids]
    file.now = scene.now
    carry(scene, file, *ids)
    assert [plain(file.get(id)) for id in ids] == [{**row, "state": _due(row, file)} for row in before]
    assert file.store.export(ids)[1].job.attempts == scene.store.export(ids)[1].job.attempts


def _due(row: dict[str, object], scene: Scene) -> object:
    waits = row["state"] in (State.SCHEDULED, State.AVAILABLE)
    return State.AVAILABLE if waits and int(str(row["run_at"])) <= scene.now else row["state"]


def test_what_became_due_on_the_way_is_available(scene: Scene, away: Scene) -> None:
    id = scene.job(delay=60.0)
    away.advance(61)
    carry(scene, away, id)

    assert away.state(id) == State.AVAILABLE
    assert away.worker().ids() == [id]


def test_jobs_stand_in_the_order_given_behind_what_waits_there(scene: Scene, away: Scene) -> None:
    ids, first = scene.jobs(3), away.job(id=named("first"))
    carry(scene, away, *reversed(ids))

    assert away.worker().ids() == [first, *reversed(ids)]


def test_a_suspect_stays_one(scene: Scene, away: Scene) -> None:
    id, ann = scene.job(), scene.worker()
    ann.take(id)
    ann.leave(death="signal 9 (SIGKILL)")
    carry(scene, away, id)

    assert away.worker().ids() == []
    assert away.worker("solo", solo=True).ids(suspects=True) == [id]


def test_adopting_again_changes_nothing_not_even_when_the_job_has_finished_or_gone(scene: Scene, away: Scene) -> None:
    id, ann = scene.job(), away.worker()
    carry(scene, away, id)
    assert carry(scene, away, id) == ["existing"]
    job = ann.take(id)
    assert carry(scene, away, id) == ["existing"]
    ann.settle(job, keep=3600.0)
    assert carry(scene, away, id) == ["existing"]
    away.act(Delete(), id)
    assert carry(scene, away, id) == ["existing"]
    assert away.store.get(id) is None


def test_one_batch_may_name_a_job_twice(scene: Scene, away: Scene) -> None:
    [one] = scene.store.export([scene.job()])

    assert [each.outcome for each in away.store.adopt([one, one], now=away.now)] == ["inserted", "existing"]


def test_what_was_moved_away_comes_back(scene: Scene, away: Scene) -> None:
    id, ann = scene.job(), scene.worker()
    ann.record(job := ann.take(id), Log(scene.now, "INFO", "here"))
    ann.fail(job)
    there = scene.store.export([id])
    scene.act(Cancel("moved to sqlite:////tmp/other.db"), id)

    assert [one.outcome for one in scene.store.adopt(there, now=scene.now)] == ["inserted"]
    assert plain(scene.get(id)) == plain(there[0].job)
    assert scene.store.logs(id) == there[0].logs
    assert scene.store.count(Filter()) == 1


def test_what_its_owner_cancelled_does_not_come_back(scene: Scene) -> None:
    id = scene.job()
    there = scene.store.export([id])
    scene.act(Cancel("moved to another plan"), id)

    assert [one.outcome for one in scene.store.adopt(there, now=scene.now)] == ["existing"]
    assert scene.state(id) == State.CANCELLED


def test_export_keeps_the_order_and_leaves_out_who_is_unknown(scene: Scene) -> None:
    a, b = scene.jobs(2)

    assert [one.job.id for one in scene.store.export([b, named("nobody"), a, b])] == [b, a]


def test_all_records_are_listed_by_kind_and_key(scene: Scene) -> None:
    for kind, key in (("b", "1"), ("a", "2"), ("a", "1")):
        scene.store.write(kind, key, b"x", now=scene.now)
    scene.store.write("c", "1", b"x", ttl=1.0, now=scene.now)
    scene.advance(2)

    found = [(one.kind, one.key) for one in scene.store.list(None, now=scene.now)]
    assert found == [("a", "1"), ("a", "2"), ("b", "1")]


def test_the_place_of_waiting_jobs_is_the_order_in_which_they_are_claimed(scene: Scene) -> None:
    scene.jobs(5)
    ann = scene.worker("ann")
    ann.ids(2)
    ann.leave()
    rows = sorted(scene.store.find(Filter()).jobs, key=lambda row: row.place)

    assert scene.worker("bob").ids(5) == [row.id for row in rows]
    assert rows[0].created_at // SECOND > 0
