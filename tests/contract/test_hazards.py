"""Hazards that were found by trying to break an engine: each was a bug once."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from dayjob.errors import BadRow, NotSupported, StoreError
from dayjob.states import Outcome, State
from dayjob.store.records import NewRow, Settlement
from tests.contract.ids import numbered
from tests.contract.scene import Scene


def test_a_thousand_queues_with_work_are_claimed_from_by_priority(scene: Scene) -> None:
    scene.store.enqueue(
        [NewRow(numbered(n), "t", f"tenant-{n}", b"{}", priority=n % 7) for n in range(1000)], now=scene.now
    )
    ann = scene.worker()

    first = ann.claim(limit=500)
    rest = ann.claim(limit=600)

    assert [job.id for job in first] == [numbered(n) for n in sorted(range(1000), key=lambda n: (-(n % 7), n))][:500]
    assert len(rest) == 500


def test_a_worker_that_goes_on_alone_counts_crashes_from_then_on(scene: Scene) -> None:
    id, ann = scene.job(), scene.worker()
    ann.info = msgspec.structs.replace(ann.info, solo=True)
    ann.beat()
    ann.take(id, suspects=False)
    ann.leave(death="exit code 9")

    assert scene.get(id).crashes == 1


def test_a_clock_that_went_back_at_a_reboot_stops_neither_leadership_nor_rescue(scene: Scene) -> None:
    id, ann = scene.job(), scene.worker()
    ann.take(id)
    scene.now -= 3 * 3600 * 1_000_000
    bob = scene.worker("bob")
    for _ in range(12):
        scene.advance(5)
        bob.beat()
        if bob.term is not None:
            scene.store.rescue(bob.term, now=scene.now)

    assert bob.term is not None
    assert scene.state(id) is State.AVAILABLE


@pytest.mark.parametrize("ending", ["failed", "snoozed", "crashed"])
def test_a_job_that_has_started_does_not_expire(scene: Scene, ending: str) -> None:
    id, ann = scene.job(expires=60.0), scene.worker()
    job = ann.take(id)
    if ending == "crashed":
        ann.leave(death="signal 9")
    else:
        ann.settle(job, Outcome(ending), delay=100.0, started_at=scene.now)
    scene.advance(61)
    scene.store.stage(scene.term, now=scene.now)

    assert scene.state(id) in (State.SCHEDULED, State.AVAILABLE)


def test_a_job_released_before_it_started_still_expires_and_is_counted(scene: Scene) -> None:
    id, ann = scene.job(expires=60.0, queue="mail"), scene.worker()
    ann.settle(ann.take(id), Outcome.RELEASED, started_at=0)
    scene.advance(61)
    scene.store.stage(scene.term, now=scene.now)

    assert (scene.state(id), scene.get(id).reason) == (State.CANCELLED, "expired")
    assert [sample.value for sample in scene.store.history(0, "mail") if sample.name == "cancelled"] == [1]


def test_a_batch_claimed_after_the_beats_list_was_made_is_not_released(scene: Scene) -> None:
    id, ann = scene.job(), scene.worker()
    listed, claims = [*ann.batches], ann.number
    ann.take(id)
    scene.advance(12)  # the process stood still between its list and its beat
    scene.store.beat(ann.info, listed, claims=claims, now=scene.now)
    held = scene.state(id)
    scene.store.beat(ann.info, listed, claims=claims + 1, now=scene.now)

    assert (held, scene.state(id)) == (State.RUNNING, State.AVAILABLE)


def test_a_row_that_can_never_be_stored_is_told_from_a_store_that_fails(scene: Scene) -> None:
    id, ann = scene.job(), scene.worker()
    job = ann.take(id)

    with pytest.raises(BadRow):
        ann.turn([Settlement(job.id, job.entry, Outcome.COMPLETED, 1 << 70, scene.now)])
    assert ann.settled(job)


@pytest.mark.usefixtures("many_files")
def test_a_process_with_a_thousand_open_files_works_and_hears(scene: Scene) -> None:
    store, ann = scene.engine.open(), scene.worker()
    if scene.engine.processes:
        ann.store = store
    ear = store.listen(["work"])
    first, second = scene.job(), scene.job()
    store.notify("work", b"default")

    assert ear.wait(5.0)
    done = ann.settlement(ann.take(first), Outcome.COMPLETED)
    assert [job.id for job in ann.turn([done], [ann.want()]).claimed] == [second]
    assert scene.state(first) is State.COMPLETED
    ear.close()


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # psycopg leaves such a connection to its end
@pytest.mark.parametrize("free", range(4))
def test_without_a_descriptor_the_store_fails_as_a_store_does(scene: Scene, free: int) -> None:
    other = scene.engine.open()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
    lowest = sorted(set(range(max(taken) + 10)) - taken)[free]
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        for call in (lambda: other.get(numbered(1)), other.begin):
            with suppress(StoreError, NotSupported):
                call()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    other.close()
