"""What lies in the server: all in one slot, nothing behind a job that is gone but its id, and little for one that waits."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.crc import key_slot

from dayjob.states import Outcome, State
from dayjob.store import open_store
from dayjob.store.records import (
    AttemptRow,
    Bound,
    Cancel,
    Checkpoint,
    Delete,
    Filter,
    JobRow,
    Log,
    NewRow,
    Progress,
    Retry,
    Tally,
    Want,
    Whole,
)
from tests.contract.engines import Redis, SqliteFile
from tests.contract.ids import numbered
from tests.contract.scene import Scene
from tests.schema.redis_place import do, place, scene

__all__ = ["place", "scene"]

ALWAYS = {b"{dayjob}:meta", b"{dayjob}:dyn", b"{dayjob}:run", b"{dayjob}:end"}


def keys(place: Redis) -> set[bytes]:
    return set(do(place, "KEYS", "*"))


def dataset(place: Redis) -> int:
    """Bytes that all keys take, each value counted. The server's own sum has in it what is under way to disk and clients."""
    return sum(do(place, "MEMORY", "USAGE", key, "SAMPLES", 0) for key in keys(place))


def test_all_keys_share_a_slot(scene: Scene, place: Redis) -> None:
    ann = scene.worker()
    for number, outcome in enumerate(Outcome):
        [job] = ann.turn(wants=[Want(None, 1, id=scene.job(expires=1000.0, queue=f"q{number}"))]).claimed
        ann.settle(job, outcome, delay=9.0, error=b"e", keep=100.0)
    scene.job(delay=60.0)
    ann.record(ann.take(scene.job(priority=9)), Log(1, "info", "x"), Checkpoint(b"x"), Progress(1, 2))
    scene.store.write("kind", "key", b"", ttl=9.0, now=scene.now)
    scene.store.pause("queue", True)

    assert {key_slot(key) for key in keys(place)} == {key_slot(b"{dayjob}:meta")}
    assert len(keys(place)) > 15


def test_nothing_stays_behind_jobs_that_are_gone_but_their_ids(scene: Scene, place: Redis) -> None:
    ann = scene.worker()
    ann.leave()
    scene.leader.leave()
    before = keys(place)
    assert before == ALWAYS
    bob = scene.worker("bob")
    term = bob.lead()
    for number, outcome in enumerate(Outcome):
        id = scene.job(expires=1e6, delay=1.0 if number % 2 else None, queue=f"q{number}")
        scene.advance(2)
        [job] = bob.turn(wants=[Want(None, 1, id=id)]).claimed
        bob.record(job, Log(1, "info", "x"), Checkpoint(b"x"), Progress(1, 2))
        bob.settle(job, outcome, delay=1.0, error=b"e", keep=None if number % 3 else 10.0)
    some = scene.store.find(Filter(states=(State.AVAILABLE, State.SCHEDULED))).jobs
    scene.act(Delete(), *(job.id for job in some[::2]))
    scene.act(Cancel(keep=0.0), *(job.id for job in some[1::2]))
    scene.advance(11)
    ended = (State.COMPLETED, State.DEAD, State.CANCELLED)
    scene.store.prune(term, [Bound(state, 0) for state in ended], now=scene.now)
    bob.beat(held=[])
    bob.leave()

    assert keys(place) - before == {b"{dayjob}:gone"}
    assert do(place, "ZCARD", "{dayjob}:gone") == len(Outcome)
    term = scene.worker("carl").lead()
    scene.advance(3601)
    scene.store.prune(term, [], now=scene.now)
    scene.store.leave("worker-carl", now=scene.now)
    assert keys(place) == before


def test_jobs_of_another_store_are_taken_and_given_in_pieces_and_leave_nothing_behind(
    scene: Scene, place: Redis, tmp_path: Path
) -> None:
    """Each with as much as is kept of one: more than one script should move."""
    away, ann = Scene(SqliteFile(tmp_path)), scene.worker()
    ann.leave()
    scene.leader.leave()
    before = keys(place)
    jobs = [
        Whole(
            JobRow(
                numbered(n), n, "shop.charge", f"q{n % 2}", (State.AVAILABLE, State.DEAD)[n % 2], b"x" * n,
                attempt=n % 3, round=n % 5, finished_at=n, run_at=1, progress=Progress(n, None), keep_until=scene.now + n,
                attempts=[AttemptRow(i, 0, Outcome.FAILED, i, i, "ann", b"e" * 20, "why") for i in range(1, 1 + 100 * (n % 7 == 0))],
            ),
            [Log(i, "info", "☃" * 20) for i in range(1000 * (n % 50 == 0))],
            b"\0" * n if n % 11 == 0 else None,
        )
        for n in range(1200)
    ]  # fmt: skip
    assert [one.outcome for one in scene.store.adopt(jobs, now=scene.now)] == ["inserted"] * 1200
    there = scene.store.export([one.job.id for one in jobs])
    assert [one.outcome for one in away.store.adopt(there, now=away.now)] == ["inserted"] * 1200
    back = away.store.export([one.job.id for one in jobs])
    for one in (*there, *back):
        one.job.entry = one.job.place = 0

    assert there == back
    assert [one.logs for one in there] == [one.logs for one in jobs]
    assert [one.job.attempts for one in there] == [one.job.attempts for one in jobs]
    scene.act(Delete(), *[one.job.id for one in jobs], limit=2000)
    assert keys(place) == before | {b"{dayjob}:gone"}


def test_many_records_are_listed_in_pieces(scene: Scene, place: Redis) -> None:
    for n in range(3000):
        scene.store.write("once", f"{n:04}", b"%d" % n, now=scene.now)
    scene.store.write("other", "x", b"x" * 100, now=scene.now)

    found = scene.store.list("once", now=scene.now)
    assert [(one.key, one.value) for one in found] == [(f"{n:04}", b"%d" % n) for n in range(3000)]
    assert len(scene.store.list(None, now=scene.now)) == 3001
    assert scene.store.list("nothing", now=scene.now) == []


def test_samples_of_an_old_week_and_expired_records_leave_nothing(scene: Scene, place: Redis) -> None:
    scene.leader.beat(tallies=[Tally("mail", "completed", 1)])
    scene.store.write("once", "k", b"", ttl=60.0, now=scene.now)
    scene.advance(8 * 86400)
    scene.leader.beat()
    scene.store.prune(scene.term, [], now=scene.now)
    scene.leader.leave()

    assert keys(place) == ALWAYS


def test_a_waiting_job_takes_at_most_600_bytes(place: Redis) -> None:
    store = place.store()
    payload = b"x" * 120
    rows = [NewRow(numbered(n), "shop.charge", "default", payload) for n in range(30_000)]
    before = dataset(place)
    for at in range(0, len(rows), 1000):
        store.enqueue(rows[at : at + 1000])
    each = (dataset(place) - before) / len(rows)

    print(f"{place.name}: {each:.0f} bytes")
    assert 300 < each <= 600


def test_batches_are_never_too_large_for_the_scripts(scene: Scene, place: Redis) -> None:
    ids = []
    for _ in range(12):
        ids += scene.jobs(1000, delay=1.0, expires=100_000.0)
    scene.advance(2)
    while scene.store.stage(scene.term, limit=12_000, now=scene.now) != (0, None):
        pass
    ann = scene.worker()
    jobs = ann.claim(12_000)
    assert [job.id for job in jobs] == ids
    assert ann.repeat(ann.number) == jobs
    ann.turn([ann.settlement(job, (Outcome.RELEASED, Outcome.COMPLETED)[n % 2]) for n, job in enumerate(jobs)])
    gone = scene.worker("bob").claim(12_000)
    assert len(gone) == 6_000

    assert len(scene.store.leave("worker-bob", death="x", now=scene.now).jobs) == 6_000  # type: ignore[union-attr]
    assert scene.store.prune(scene.term, [Bound(State.COMPLETED, 0)], limit=10_000, now=scene.now) == 6_000
    assert len(scene.act(Retry(), *ids, limit=20_000)) == 0
    assert scene.store.count(Filter(states=(State.AVAILABLE,))) == 6_000


def test_namespaces_of_one_database_know_nothing_of_each_other(place: Redis) -> None:
    one, two = place.store(), open_store(place.url, namespace="other")
    two.migrate()
    one.enqueue([NewRow(numbered(1), "t", "q", b"")])
    two.enqueue([NewRow(numbered(2), "t", "q", b"")])

    assert [job.id for job in one.find(Filter()).jobs] == [numbered(1)]
    two.drop()
    assert one.count(Filter()) == 1
    assert all(key.startswith(b"{dayjob}:") for key in keys(place))
    two.close()


@pytest.mark.parametrize("topic", ["work", "done"])
def test_p11_signals_of_one_database_are_not_heard_in_another(place: Redis, topic: str, tmp_path: object) -> None:
    number = place.server.database()
    elsewhere = open_store(place.server.url(number))
    ear = place.store().listen([topic])
    elsewhere.notify(topic, b"no")
    place.open().notify(topic, b"yes")

    assert ear.wait(5.0) == [(topic, b"yes")]
    ear.close()
    elsewhere.close()
