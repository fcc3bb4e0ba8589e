"""Durability told truthfully: what doctor says, and where a worker does not work."""

from __future__ import annotations

import pytest

from dayjob.errors import StoreError
from dayjob.store import open_store
from dayjob.store.records import WorkerInfo
from dayjob.store.redis.health import HOLES
from tests.contract.engines import Redis
from tests.schema.redis_place import place

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
