"""A replica is promoted, and a Cluster moves a namespace: the engine follows, by Sentinel and by the nodes' word."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from dayjob.errors import StoreUnavailable
from dayjob.states import State
from dayjob.store import open_store
from dayjob.store.contract import Store
from dayjob.store.records import Filter, NewRow, Want
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


def until(call: Callable[[], object]) -> object:
    """Repeat *call* as a producer does, while the store is unavailable."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


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


def test_a_slot_that_has_moved_is_found_again(stack: ExitStack) -> None:
    nodes = [started(stack, cluster_enabled="yes", cluster_port=str(free_port())) for _ in range(2)]
    nodes[0].do("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    nodes[0].do("CLUSTER", "MEET", "127.0.0.1", nodes[1].port, nodes[1].setting("cluster-port"))
    store = stack.enter_context(closing(open_store(f"redis+cluster://127.0.0.1:{nodes[0].port}")))
    until(store.migrate)
    until(lambda: store.enqueue([row(1)]))
    slot = nodes[0].do("CLUSTER", "KEYSLOT", "{dayjob}:meta")
    names = [node.do("CLUSTER", "MYID").decode() for node in nodes]
    deadline = time.monotonic() + PATIENCE
    while not all(acquainted(node, names) for node in nodes) and time.monotonic() < deadline:
        time.sleep(0.05)
    nodes[1].do("CLUSTER", "SETSLOT", slot, "IMPORTING", names[0])
    nodes[0].do("CLUSTER", "SETSLOT", slot, "MIGRATING", names[1])
    keys = nodes[0].do("CLUSTER", "GETKEYSINSLOT", slot, 100)
    nodes[0].do("MIGRATE", "127.0.0.1", nodes[1].port, "", 0, 5000, "KEYS", *keys)
    for node in nodes[::-1]:
        node.do("CLUSTER", "SETSLOT", slot, "NODE", names[1])

    until(lambda: store.enqueue([row(2)], repeat=True))

    assert has_all(store, 2)
