"""The words of these tests: keys and gates in one line, and what stands at a gate."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from dayjob.store.gating import Gate, Gating, Unique
from dayjob.store.records import Enqueued, NewRow
from tests.contract.scene import Scene


def unique(key: str = "order:7", task: str = "shop.charge", **rest: Any) -> Gating:
    """A key of *task*, and nothing to wait for."""
    return Gating(unique=key_of(key, task, **rest))


def key_of(key: str = "order:7", task: str = "shop.charge", **rest: Any) -> Unique:
    return Unique(blake2b(f"{task}\n{key}".encode(), digest_size=16).hexdigest(), key, **rest)


def laned(lane: str, weight: int = 1) -> Gating:
    return Gating(lane=lane, weight=weight)


def gated(*gates: Gate) -> Gating:
    return Gating(gates=gates)


def concurrency(key: str = "tenant:1", limit: int = 1) -> Gate:
    return Gate("concurrency", key, limit)


def rate(limit: int = 1, per: float = 10.0, key: str = "stripe") -> Gate:
    return Gate("rate", key, limit, per)


def order(key: str = "account:1") -> Gate:
    return Gate("order", key)


def breaker(key: str = "stripe") -> Gate:
    return Gate("breaker", key)


def tokens(scene: Scene) -> dict[str, int]:
    """Tokens taken, by key of the gate; gates without are left out."""
    return {row.gate.key: row.taken for row in scene.store.gates(now=scene.now) if row.taken}


def waiting(scene: Scene) -> dict[str, int]:
    """Jobs that wait, by key of the gate; gates without are left out."""
    return {row.gate.key: row.waiting for row in scene.store.gates(now=scene.now) if row.waiting}


def admit(scene: Scene) -> tuple[int, int | None]:
    """One sweep of the leader, whose term must be good."""
    admitted = scene.store.admit(scene.term, now=scene.now)
    assert admitted is not None
    return admitted


def store_one(scene: Scene, row: NewRow) -> Enqueued:
    """Store one row; what became of it."""
    [answer] = scene.store.enqueue([row], now=scene.now)
    return answer
