"""Durability told truthfully: what doctor says, and where a worker does not work."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from dayjob import App, Settings
from dayjob.errors import StoreError
from dayjob.events import Bus
from dayjob.store import open_store
from dayjob.store.records import WorkerInfo
from dayjob.store.redis.health import HOLES
from dayjob.worker.durability import tell_durability
from tests.contract.engines import Redis
from tests.schema.redis_place import place
from tests.worker.conftest import Witness, working

__all__ = ["place"]

ANN = WorkerInfo(id="ann", name="ann", host="here", pid=1)


def warnings(place: Redis, options: str = "") -> list[str]:
    store = open_store(f"{place.url}{options}")
    try:
        return store.check().warnings
    finally:
        store.close()


def test_a_good_server_has_facts_and_no_warning(place: Redis) -> None:
    health = place.store().check()

    assert health.engine.startswith(place.name.split("-")[0].capitalize())
    assert health.facts["append-only file"] == "on, appendfsync everysec"
    assert health.facts["a crash costs"] == "up to 2 s of writes"
    assert health.facts["wake-ups"].startswith("publish and subscribe")
    assert health.warnings == []


def test_always_means_that_a_crash_costs_nothing(place: Redis) -> None:
    with place.server.set(appendfsync="always"):
        assert place.open().check().facts["a crash costs"] == "nothing"


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("appendonly", "no", "no append-only file"),
        ("appendfsync", "no", "not flushed"),
        ("maxmemory_policy", "allkeys-lru", "deletes jobs when memory is full"),
        ("maxmemory", "1mb", "full"),
    ],
)
def test_what_endangers_jobs_is_a_warning_with_its_remedy(place: Redis, setting: str, value: str, said: str) -> None:
    place.store()
    with place.server.set(**{setting: value}):
        found = warnings(place)

    assert any(said in warning and ": " in warning for warning in found)


def test_a_replica_says_that_it_is_one(place: Redis) -> None:
    with place.outage():
        assert any("replica" in warning for warning in warnings(place))


def test_replicas_that_are_wanted_and_missing_are_a_warning(place: Redis) -> None:
    assert any("2 replicas are waited for and 0 follow" in warning for warning in warnings(place, "?wait_replicas=2"))


@pytest.mark.parametrize(
    ("settings", "options", "costs", "said"),
    [
        ({}, "", "up to 2 s of writes", []),
        ({"appendfsync": "always"}, "", "nothing", []),
        ({"appendfsync": "no"}, "", "what the system had not written", ["the append-only file is not flushed"]),
        ({"appendonly": "no"}, "", "all since the last snapshot", ["there is no append-only file"]),
        ({"maxmemory_policy": "volatile-lru"}, "?evicting=allow", "up to 2 s of writes", ["maxmemory-policy is vol"]),
        ({}, "?wait_replicas=1&wait_ms=50", "up to 2 s of writes", ["1 replicas are waited for and 0 follow"]),
    ],
)
def test_a_worker_that_starts_says_how_durable_its_store_is(
    place: Redis, settings: dict[str, str], options: str, costs: str, said: list[str]
) -> None:
    with place.server.set(**settings), closing(open_store(f"{place.url}{options}")) as store:
        events: list[Any] = []
        bus = Bus()
        bus.subscribe("*", events.append)
        tell_durability(store, bus, "ann")

    told, *warned = events
    assert (told.name, told.crash_costs) == ("store.durability", costs)
    assert told.engine.startswith(place.name.split("-")[0].capitalize())
    assert {event.name for event in warned} <= {"store.endangered"}
    rest = [event.warning for event in warned if "unless its packager has mended it" not in event.warning]
    assert [warning[: len(start)] for warning, start in zip(rest, said, strict=True)] == said


def test_waiting_for_the_disk_is_not_promised_where_the_server_does_not_wait(place: Redis) -> None:
    place.store()
    url, doubt = (
        f"{place.url}?wait_fsync=yes",
        "does not wait for the disk" if place.name == "valkey-9" else "no WAITAOF",
    )
    with closing(open_store(url)) as store:
        told = store.durability()
        assert told.crash_costs == "up to 2 s of writes"
        assert any(doubt in warning for warning in told.warnings)
        with place.server.set(appendfsync="always"):
            told = store.durability()

    assert told.crash_costs.startswith("nothing")
    assert any("no WAITAOF" in warning for warning in told.warnings) is (place.name != "valkey-9")


def test_a_version_with_a_known_hole_is_named_with_the_one_that_mended_it(place: Redis) -> None:
    number = tuple(int(part) for part in place.server.version().split("v=")[1].split()[0].split("."))
    kind = place.name.split("-")[0]
    mended = [until for of, since, until, _ in HOLES if of == kind and since <= number < until]

    told = place.store().durability().warnings

    assert len(told) == len(mended)
    assert all(".".join(map(str, until)) in warning for until, warning in zip(mended, told, strict=True))


def test_a_worker_on_a_server_that_evicts_says_so_until_it_may_work(place: Redis) -> None:
    place.store()
    app = App(place.url, settings=Settings(poll=0.2, beat=0.2))
    witness = Witness(app.bus)
    try:
        with place.server.set(maxmemory_policy="allkeys-lru"), working(app.worker()):
            assert "evicting=allow" in witness.wait_for("store.unavailable").error
            assert witness.of("worker.started") == []
            place.server.do("CONFIG", "SET", "maxmemory-policy", "noeviction")
            assert witness.wait_for("store.durability").crash_costs == "up to 2 s of writes"
    finally:
        app.close()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
def test_no_worker_works_where_keys_are_evicted_unless_it_is_allowed(place: Redis, policy: str) -> None:
    place.store()
    with place.server.set(maxmemory_policy=policy):
        with pytest.raises(StoreError, match="evicting=allow"):
            place.open().beat(ANN, [])
        allowed = open_store(f"{place.url}?evicting=allow")
        assert allowed.beat(ANN, []).lost is False
        allowed.close()

    assert place.open().beat(ANN, []).lost is False


def test_a_worker_that_was_refused_works_once_the_policy_is_mended(place: Redis) -> None:
    store = place.store()
    with place.server.set(maxmemory_policy="allkeys-lru"), pytest.raises(StoreError):
        store.beat(ANN, [])

    assert store.beat(ANN, []).lost is False


def test_the_table_of_holes_is_in_order() -> None:
    for kind, first, mended, what in HOLES:
        assert kind in ("redis", "valkey")
        assert first < mended
        assert what
