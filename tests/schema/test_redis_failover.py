"""A replica is promoted, and a Cluster moves a namespace: the engine follows, by Sentinel and by the nodes' word."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from redis import exceptions

from dayjob.errors import StoreUnavailable
from dayjob.states import Outcome, State
from dayjob.store import open_store
from dayjob.store.contract import Store
from dayjob.store.records import Filter, NewRow, Settlement, Want
from dayjob.store.redis import RedisStore
from tests.contract.ids import numbered
from tests.schema.test_redis_health import ANN
from tests.servers.host import free_port
from tests.servers.needed import needed
from tests.servers.redis import Sentinel, Server, program

PATIENCE = 20.0


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def started(stack: ExitStack, of: Server | None = None, **settings: str) -> Server:
    return stack.enter_context(closing(Server(needed(lambda: program("valkey-9")), of=of, **settings)))


def until(call: Callable[[], Any]) -> Any:
    """Repeat *call* as a producer does, while the store is unavailable."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def eventually(call: Callable[[], object]) -> None:
    """Repeat *call* until a server accepts it and the answer is yes."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(exceptions.RedisError):
            if call():
                return
        time.sleep(0.05)
    raise AssertionError("it never came")


def role(store: Store) -> bytes:
    """What the server that answers *store* says it is."""
    assert isinstance(store, RedisStore)
    said: bytes = store.server.command("ROLE")[0]
    return said


def row(number: int) -> NewRow:
    return NewRow(numbered(number), "shop.charge", "default", b"{}")


def acquainted(node: Server, names: list[str]) -> bool:
    """Whether *node* knows all of *names*, past their handshakes, and serves."""
    known = str(node.do("CLUSTER", "NODES"))
    serves = "cluster_state:ok" in str(node.do("CLUSTER", "INFO"))
    return serves and all(name in known for name in names) and "handshake" not in known


def has_all(store: Store, count: int) -> bool:
    return store.count(Filter(states=(State.AVAILABLE,))) == count


@pytest.mark.timeout(90)
def test_a_replica_is_promoted_and_what_it_acknowledged_is_there(stack: ExitStack) -> None:
    primary = started(stack)
    started(stack, of=primary)
    sentinel = stack.enter_context(closing(Sentinel(primary)))
    store = stack.enter_context(closing(open_store(f"{sentinel.url()}?wait_replicas=1&wait_ms=2000")))
    until(store.migrate)
    for number in range(50):
        until(lambda number=number: store.enqueue([row(number)], repeat=True))
    primary.kill()
    with pytest.raises(StoreUnavailable):
        store.enqueue([row(50)])

    later = stack.enter_context(closing(open_store(sentinel.url())))  # no replica is left to wait for
    until(lambda: later.enqueue([row(50)], repeat=True))

    assert has_all(later, 51)
    until(lambda: store.count(Filter()))
    assert has_all(store, 51)


@pytest.mark.timeout(90)
def test_who_only_reads_or_listens_follows_to_the_new_primary(stack: ExitStack) -> None:
    """The old primary lives on as a replica, which answers who reads, and where nobody is heard to listen."""
    primary = started(stack)
    replica = started(stack, of=primary)
    sentinel = stack.enter_context(closing(Sentinel(primary)))
    writer, reader = (stack.enter_context(closing(open_store(sentinel.url()))) for _ in range(2))
    until(writer.migrate)
    writer.enqueue([row(1)])
    ear = reader.listen(["done"])
    assert reader.count(Filter()) == 1
    eventually(lambda: replica.do("ROLE")[3] == b"connected")
    eventually(sentinel.fail_over)
    eventually(lambda: primary.do("ROLE")[0] == b"slave")

    until(lambda: writer.enqueue([row(2)], repeat=True))
    with pytest.raises(StoreUnavailable):
        ear.wait(PATIENCE)
    ear = until(lambda: reader.listen(["done"]))
    until(lambda: reader.count(Filter()))

    assert role(reader) == b"master"
    assert writer.listening("done") is True


@pytest.mark.timeout(90)
def test_ears_follow_a_cluster_whose_nodes_swap_their_roles(stack: ExitStack) -> None:
    """No line breaks, and a node knows only of those who listen there."""
    nodes = [started(stack, cluster_enabled="yes", cluster_port=str(free_port())) for _ in range(2)]
    nodes[0].do("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    nodes[0].do("CLUSTER", "MEET", "127.0.0.1", nodes[1].port, nodes[1].setting("cluster-port"))
    name = nodes[0].do("CLUSTER", "MYID")
    eventually(lambda: nodes[1].do("CLUSTER", "REPLICATE", name))
    url = f"redis+cluster://127.0.0.1:{nodes[0].port},127.0.0.1:{nodes[1].port}"
    store, other = (stack.enter_context(closing(open_store(url))) for _ in range(2))
    until(store.migrate)
    until(lambda: store.enqueue([row(1)]))
    far, ear = other.listen(["done"]), store.listen(["done"])
    eventually(lambda: nodes[1].do("ROLE")[3] == b"connected")
    nodes[1].do("CLUSTER", "FAILOVER")
    eventually(lambda: nodes[1].do("ROLE")[0] == b"master")

    until(lambda: store.enqueue([row(2)], repeat=True))
    store.beat(ANN, [])
    store.turn(ANN.id, 1, (), [Want(None, 1)])
    assert store.listening("done") is True
    store.notify("done", b"x")
    assert far.wait(PATIENCE) == [("done", b"x")]
    with pytest.raises(StoreUnavailable, match="the primary is another"):
        [ear.wait(PATIENCE) for _ in range(2)]  # it may have heard it, too
    again = until(lambda: store.listen(["done"]))
    store.notify("done", b"y")
    assert again.wait(PATIENCE) == [("done", b"y")]


def test_a_namespace_lives_in_one_slot_of_a_cluster(stack: ExitStack) -> None:
    node = started(stack, cluster_enabled="yes", cluster_port=str(free_port()))
    node.do("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    store = stack.enter_context(closing(open_store(f"redis+cluster://127.0.0.1:{node.port}")))
    until(store.migrate)
    until(lambda: store.enqueue([row(number) for number in range(10)]))
    store.beat(ANN, [])

    assert len(store.turn(ANN.id, 1, (), [Want(None, 10)]).claimed) == 10
    with closing(store.listen(["control"])) as ear:
        store.notify("control", b"x")
        assert ear.wait(5.0) == [("control", b"x")]


class Moving:
    """Two nodes of a Cluster, and the namespace's slot, which goes from the first to the second."""

    def __init__(self, stack: ExitStack) -> None:
        self.nodes = [started(stack, cluster_enabled="yes", cluster_port=str(free_port())) for _ in range(2)]
        here, there = self.nodes
        here.do("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        here.do("CLUSTER", "MEET", "127.0.0.1", there.port, there.setting("cluster-port"))
        self.url = f"redis+cluster://127.0.0.1:{here.port}"
        self.slot = here.do("CLUSTER", "KEYSLOT", "{dayjob}:meta")
        self.names = [node.do("CLUSTER", "MYID").decode() for node in self.nodes]
        deadline = time.monotonic() + PATIENCE
        while not all(acquainted(node, self.names) for node in self.nodes) and time.monotonic() < deadline:
            time.sleep(0.05)

    def begin(self) -> None:
        """From now on a key that is not there is looked for elsewhere."""
        here, there = self.nodes
        there.do("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.names[0])
        here.do("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.names[1])

    def finish(self) -> None:
        here, there = self.nodes
        keys = here.do("CLUSTER", "GETKEYSINSLOT", self.slot, 100)
        here.do("MIGRATE", "127.0.0.1", there.port, "", 0, 5000, "KEYS", *keys)
        for node in self.nodes[::-1]:
            node.do("CLUSTER", "SETSLOT", self.slot, "NODE", self.names[1])


def test_a_slot_that_has_moved_is_found_again(stack: ExitStack) -> None:
    moving = Moving(stack)
    store = stack.enter_context(closing(open_store(moving.url)))
    until(store.migrate)
    until(lambda: store.enqueue([row(1)]))
    moving.begin()
    moving.finish()

    until(lambda: store.enqueue([row(2)], repeat=True))

    assert has_all(store, 2)


def test_what_is_called_while_a_slot_moves_is_done_afterwards_or_not_begun(stack: ExitStack) -> None:
    """A script that needs a key which is not there fails in the middle: enqueue its queue's list, a settlement `end`."""
    moving = Moving(stack)
    store = stack.enter_context(closing(open_store(moving.url)))
    until(store.migrate)
    until(lambda: store.enqueue([row(number) for number in range(4)]))
    store.beat(ANN, [])
    claimed = store.turn(ANN.id, 1, (), [Want(None, 4)]).claimed
    fresh = NewRow(numbered(9), "shop.charge", "fresh", b"{}")
    ends = [
        Settlement(job.id, job.entry, Outcome.COMPLETED, 1, 2, result=b"r", keep=60.0 + number % 2)
        for number, job in enumerate(claimed)
    ]
    moving.begin()
    for call in (lambda: store.enqueue([fresh]), lambda: store.turn(ANN.id, None, ends), lambda: store.beat(ANN, [1])):
        with pytest.raises(StoreUnavailable, match="moving the namespace's slot"):
            call()
    moving.finish()

    assert until(lambda: [one.outcome for one in store.enqueue([fresh], repeat=True)]) == ["inserted"]
    assert store.turn(ANN.id, None, ends).refused == []
    assert [store.count(Filter(states=(state,))) for state in (State.COMPLETED, State.AVAILABLE)] == [4, 1]
    assert [job.id for job in store.turn(ANN.id, 2, (), [Want(None, 9)]).claimed] == [fresh.id]
