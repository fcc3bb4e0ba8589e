"""The users of docs/guide/redis.md: each can do its work, and no more."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dayjob.copier import Copier
from dayjob.errors import StoreError, StoreUnavailable
from dayjob.states import Outcome, State
from dayjob.store import open_store
from dayjob.store.contract import Store
from dayjob.store.records import (
    Bound,
    Cancel,
    Checkpoint,
    Filter,
    Lease,
    Log,
    NewRow,
    Progress,
    Retry,
    Settlement,
    Want,
    WorkerInfo,
)
from tests.contract.engines import Redis
from tests.contract.ids import numbered
from tests.schema.redis_place import place
from tests.schema.test_redis_health import ANN

__all__ = ["place"]

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "redis.md"
USERS = ("producer", "worker", "viewer")
ROW = NewRow(numbered(1), "shop.charge", "default", b"{}")


@pytest.fixture
def users(place: Redis) -> Iterator[dict[str, Store]]:
    """A store for each of the page's users; the namespace is there already."""
    place.store()
    rules = dict(re.findall(r"^ACL SETUSER (\w+) (.+)$", PAGE.read_text(), re.MULTILINE))
    assert set(rules) == set(USERS)
    stores = {}
    for name in USERS:
        place.server.do("ACL", "SETUSER", name, *rules[name].replace(">secret", ">right").split())
        stores[name] = open_store(place.server.url(place.database, user=f"{name}:right"))
    yield stores
    for store in stores.values():
        store.close()
    place.server.do("ACL", "DELUSER", *USERS)


def refused(call: Callable[..., object], *arguments: object) -> bool:
    with pytest.raises(StoreError, match="may not do that"):
        call(*arguments)
    return True


def test_a_producer_stores_jobs_and_reads_their_results(users: dict[str, Store]) -> None:
    producer = users["producer"]
    delayed = NewRow(numbered(2), "t", "q", b"", delay=60.0, expires=90.0)

    assert [one.outcome for one in producer.enqueue([ROW, delayed])] == ["inserted"] * 2
    assert [one.outcome for one in producer.enqueue([ROW], repeat=True)] == ["existing"]
    found = producer.get(ROW.id)
    assert found is not None
    assert found.state is State.AVAILABLE
    with closing(producer.listen(["done"])) as ear:
        users["worker"].notify("done", ROW.id.encode())
        assert ear.wait(5.0) == [("done", ROW.id.encode())]


@pytest.mark.parametrize("name", ["producer", "worker"])
def test_who_writes_may_wait_for_replicas(users: dict[str, Store], place: Redis, name: str) -> None:
    url = f"{place.server.url(place.database, user=f'{name}:right')}?wait_replicas=1&wait_ms=50"
    with closing(open_store(url)) as store, pytest.raises(StoreUnavailable, match="0 of the 1 replicas"):
        store.enqueue([ROW])


def test_a_producer_neither_claims_nor_cancels(users: dict[str, Store]) -> None:
    producer = users["producer"]
    producer.enqueue([ROW])
    users["worker"].beat(ANN, [])

    assert refused(producer.beat, WorkerInfo(id="bob", name="bob", host="here", pid=2), [])
    assert refused(producer.turn, ANN.id, 1, (), [Want(None, 1)])
    assert refused(producer.act, Filter(ids=(ROW.id,)), Cancel())
    assert refused(producer.pause, "default", True)
    assert refused(producer.write, "kind", "key", b"")
    assert refused(producer.drop)
    found = users["viewer"].get(ROW.id)
    assert found is not None
    assert found.state is State.AVAILABLE
    assert [row.info for row in users["viewer"].workers()] == [ANN]


def test_a_worker_does_all_that_workers_and_leaders_do(users: dict[str, Store]) -> None:
    worker = users["worker"]
    assert worker.migrate() == []
    worker.enqueue([ROW])
    term = worker.beat(ANN, []).term
    assert term is not None
    [job] = worker.turn(ANN.id, 1, (), [Want(None, 1)]).claimed
    lease = Lease(ANN.id, job.id, job.entry)
    assert worker.record(lease, [Progress(1, 2), Log(1, "info", "x"), Checkpoint(b"x")])
    assert worker.recorded(job.id) == b"x"
    assert worker.turn(ANN.id, None, [Settlement(job.id, job.entry, Outcome.DEAD, 1, 2)]).refused == []
    assert worker.act(Filter(ids=(job.id,)), Retry()) == [job.id]
    assert worker.pause("x", True)
    worker.write("kind", "key", b"", ttl=60.0)
    assert worker.stage(term) is not None
    assert worker.rescue(term) == []
    assert worker.sample(term)
    assert worker.prune(term, [Bound(State.DEAD, 0)]) == 0
    assert len(worker.queues()) == 2
    assert len(worker.workers()) == 1
    assert worker.listening("event") is False
    with closing(worker.listen(["work", "control"])) as ear:
        worker.enqueue([NewRow(numbered(3), "t", "q", b"")])
        worker.notify("control")
        assert ear.wait(5.0)
    assert worker.check().schema == 1
    assert worker.leave(ANN.id) is not None


def test_a_workers_user_can_copy_from_here_and_to_here(users: dict[str, Store], place: Redis) -> None:
    """With everything that `dayjob copy` asks of a store."""
    other = open_store(place.url, namespace="other")
    other.migrate()
    users["producer"].enqueue([ROW])
    users["worker"].write("setting", "a", b"1")
    for source, target in ((users["worker"], other), (other, users["worker"])):
        assert Copier(source, target).run().whole
    assert len(other.export([ROW.id])) == 1
    assert users["worker"].act(Filter(ids=(ROW.id,)), Cancel()) == [ROW.id]
    other.close()


def test_a_worker_cannot_touch_what_is_not_the_namespaces(users: dict[str, Store], place: Redis) -> None:
    place.server.do("SET", "other", "1", database=place.database)
    worker = open_store(place.server.url(place.database, user="worker:right"), namespace="other")

    assert refused(worker.migrate)
    worker.close()
    assert place.server.do("GET", "other", database=place.database) == b"1"


def test_a_viewer_sees_everything_and_changes_nothing(users: dict[str, Store]) -> None:
    viewer, worker = users["viewer"], users["worker"]
    worker.enqueue([ROW])
    worker.beat(ANN, [])
    before = viewer.find(Filter()).jobs

    assert [job.id for job in before] == [ROW.id]
    assert viewer.count(Filter()) == 1
    assert [queue.name for queue in viewer.queues()] == ["default"]
    assert len(viewer.workers()) == 1
    assert viewer.logs(ROW.id) == []
    assert viewer.history(0) == []
    assert viewer.read("kind", "key") is None
    assert viewer.check().schema == 1
    assert refused(viewer.enqueue, [NewRow(numbered(9), "t", "q", b"")])
    assert refused(viewer.act, Filter(ids=(ROW.id,)), Cancel())
    assert refused(viewer.turn, ANN.id, 1, (), [Want(None, 1)])
    assert refused(viewer.beat, ANN, [])
    assert refused(viewer.write, "kind", "key", b"")
    assert refused(viewer.pause, "default", True)
    assert viewer.find(Filter()).jobs == before


@pytest.fixture
def deaf(place: Redis) -> Iterator[Store]:
    """The store of a user who may neither publish nor ask who listens."""
    place.store()
    place.server.do("ACL", "SETUSER", "deaf", "on", ">right", "~*", "+@all", "-pubsub", "-publish", "resetchannels")
    store = open_store(place.server.url(place.database, user="deaf:right"))
    yield store
    store.close()
    place.server.do("ACL", "DELUSER", "deaf")


def test_who_may_wake_nobody_stores_all_jobs_of_a_batch(deaf: Store, place: Redis) -> None:
    rows = [NewRow(numbered(number), "t", f"q{number}", b"") for number in range(5)]

    assert [one.outcome for one in deaf.enqueue(rows)] == ["inserted"] * 5
    place.store().beat(ANN, [])
    assert len(place.store().turn(ANN.id, 1, (), [Want(None, 9)]).claimed) == 5


def test_who_may_not_ask_who_listens_claims_and_settles(deaf: Store) -> None:
    deaf.enqueue([ROW])
    deaf.beat(ANN, [])
    [job] = deaf.turn(ANN.id, 1, (), [Want(None, 9)]).claimed

    assert deaf.turn(ANN.id, None, [Settlement(job.id, job.entry, Outcome.COMPLETED, 1, 2)]).refused == []
    assert deaf.listening("done") is True
