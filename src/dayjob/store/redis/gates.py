"""What holds jobs back: gates, breakers, the limits of queues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal
from uuid import uuid4

import msgspec

from dayjob.clock import SECOND
from dayjob.store.gating import (
    UNCLAIMED,
    BreakerRow,
    Gate,
    GateKind,
    GateRow,
    QueueLimits,
    Report,
    WhenFull,
)
from dayjob.store.redis.part import Part
from dayjob.store.redis.wire import gates, given, micros, packed, stamped

COUNTED = 10_000
"""Waiting jobs of a gate, at most, that are counted."""
AT_ONCE = 200
"""Gates, at most, that one script tells of."""
LONGEST, SHORTEST = 0.25, 0.001
"""Seconds after which a guest asks again, where no time tells when a gate opens; and at least."""
_KINDS: dict[str, GateKind] = {"c": "concurrency", "r": "rate", "o": "order", "b": "breaker"}

_gate = msgspec.msgpack.Decoder(tuple[str, int, float, int, int, int | bool]).decode
_breaker = msgspec.msgpack.Decoder(tuple[str, Literal["closed", "open", "probing"], int, int, int]).decode
_limits = msgspec.msgpack.Decoder(
    tuple[tuple[int | bool, WhenFull, int | bool, int | bool, int, Literal["refuse", "hold"] | bool] | bool, ...]
).decode


class GatesPart(Part):
    """The Gates protocol."""

    def admit(self, term: int, *, limit: int = 1000, now: int | None = None) -> tuple[int, int | None] | None:
        reply = self.server.call(
            "admit", self.server.at(now), term, limit, int(UNCLAIMED * SECOND), self.server.channels
        )
        return None if reply is None else (reply[0], int(reply[1]) if reply[1] else None)

    def gates(self, keys: Sequence[str] | None = None, *, limit: int = 1000, now: int | None = None) -> list[GateRow]:
        if keys is None:
            names = sorted(self._gate_names(), key=lambda name: (_KINDS[name[0]], name[1:]))
        else:
            names = [kind[0] + key for kind in sorted(_KINDS.values()) for key in sorted(set(keys))]
        found: list[GateRow] = []
        for at in range(0, len(names), AT_ONCE):
            told = self.server.call("gates", self.server.at(now), COUNTED, *names[at : at + AT_ONCE])
            found += [_row(*_gate(one)) for one in told]
            if len(found) >= limit:
                break
        return found[:limit]

    def _gate_names(self) -> set[str]:
        names: set[str] = set()
        cursor = b"0"
        while True:
            cursor, some = self.server.command("HSCAN", f"{self.server.prefix}gate", cursor, "COUNT", 1000)
            names.update(name.decode() for name in some[::2])
            if cursor == b"0":
                return names

    def set_limit(
        self, kind: GateKind, key: str, limit: int | None, per: float = 0.0, *, now: int | None = None
    ) -> None:
        micros(per, "per")
        said = packed((False if limit is None else stamped(limit, "limit"), per))
        self.server.call("set_gate", self.server.at(now), kind[0] + key, said, "")

    def delay_gate(self, kind: GateKind, key: str, seconds: float, *, now: int | None = None) -> None:
        self.server.call("set_gate", self.server.at(now), kind[0] + key, "", micros(seconds, "seconds"))

    def take(self, gates_: Sequence[Gate], holder: str, ttl: float, *, now: int | None = None) -> float | None:
        told = self.server.call("take", self.server.at(now), holder, packed(gates(gates_)), micros(ttl, "ttl"))
        return None if told is None else max(SHORTEST, int(told) / SECOND or LONGEST)

    def give(self, holder: str, *, now: int | None = None) -> bool:
        return bool(self.server.call("give", self.server.at(now), holder))

    def report(self, reports: Sequence[Report], *, now: int | None = None) -> list[BreakerRow]:
        return self._report(
            [
                (one.key, one.failed, one.failures, micros(one.within, "within"), micros(one.cooldown, "cooldown"))
                for one in reports
            ],
            now,
        )

    def set_breaker(self, key: str, state: Literal["closed", "open"], *, now: int | None = None) -> None:
        self._report([(key, state)], now)

    def _report(self, reports: Sequence[tuple[object, ...]], now: int | None) -> list[BreakerRow]:
        told = self.server.call("report", self.server.at(now), packed(reports), uuid4().hex)
        return sorted(map(_breaker_row, told), key=lambda one: one.key)

    def breakers(self, *, now: int | None = None) -> list[BreakerRow]:
        told = self.server.call("breakers", self.server.at(now), COUNTED)
        return sorted(map(_breaker_row, told), key=lambda one: one.key)

    def limit_queue(
        self, queue: str, limits: QueueLimits | None, *, origin: Literal["code", "run"] = "run", now: int | None = None
    ) -> None:
        said = b""
        if limits is not None:
            numbers = (limits.max_depth, limits.concurrency, limits.rate)
            depth, running, rate = (False if one is None else stamped(one, "a limit") for one in numbers)
            said = packed((depth, limits.when_full, running, rate, micros(limits.per, "per"), limits.closed or False))
        self.server.call("limit", queue, 1 if origin == "code" else 2, said)

    def queue_limits(
        self, *, origin: Literal["code", "run"] | None = None, now: int | None = None
    ) -> dict[str, tuple[QueueLimits, Literal["code", "run"]]]:
        told = self.server.command("HGETALL", f"{self.server.prefix}limits")
        found: dict[str, tuple[QueueLimits, Literal["code", "run"]]] = {}
        for queue, text in zip(told[::2], told[1::2], strict=True):
            code, run = _limits(text)
            who: Literal["code", "run"] = origin or ("code" if isinstance(run, bool) else "run")
            said = code if who == "code" else run
            if isinstance(said, bool):
                continue
            depth, when_full, running, rate, per, closed = said
            found[queue.decode()] = (
                QueueLimits(given(depth), when_full, given(running), given(rate), per / SECOND, given(closed)),
                who,
            )
        return found


def _row(name: str, limit: int, per: float, taken: int, waiting: int, opens: int | bool) -> GateRow:
    return GateRow(Gate(_KINDS[name[0]], name[1:], limit, per), taken, waiting, given(opens))


def _breaker_row(told: bytes) -> BreakerRow:
    key, state, since, until, failures = _breaker(told)
    return BreakerRow(key, state, since, until or None, failures)
