"""Names of gates and numbers of lines: what the tables of gates are keyed by. Pure."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

import msgspec

from dayjob.clock import SECOND
from dayjob.store.gating import Gate, GateKind, Gating

KINDS: dict[str, GateKind] = {"c": "concurrency", "r": "rate", "o": "order", "b": "breaker"}
PAUSED, HELD, WHOLE = "q:", "h:", "w:"
"""Gates of queues: open unless paused, or closed to new jobs; and the rate of a whole queue, which the claim holds."""
LENT = "~"
"""Before the name of a holder that is no job."""

gating_of = msgspec.json.Decoder(Gating).decode


def name_of(gate: Gate) -> str:
    """The gate's name in tables."""
    return f"{gate.kind[0]}:{gate.key}"


def names_of(gating: Gating | None) -> tuple[str, ...]:
    """The gates that a job has to pass, each once, in one order for all."""
    return () if gating is None or not gating.gates else tuple(sorted({name_of(gate) for gate in gating.gates}))


def limits_of(gate: Gate) -> tuple[int, int]:
    """Tokens, and the microseconds of a rate."""
    return (1 if gate.kind == "order" else gate.limit), int(gate.per * SECOND)


def line_of(queue: str, gating: Gating | None) -> int | None:
    """The number of the line in which such a job waits: those of a queue with the same gates, or those of a strict lane."""
    names = names_of(gating)
    if not names:
        return None
    strict = next((name for name in names if name[0] == "o"), None)
    return -_number(strict) if strict is not None else _number("\0".join((queue, *names)))


def held_line(queue: str) -> int:
    """The number of the line in which new jobs wait for a closed queue to be opened."""
    return _number(HELD + queue)


def lane_of(gating: Gating | None) -> str | None:
    """The lane by which a job gets its place; one that has gates stands where it came."""
    return None if gating is None or gating.gates else gating.lane


@lru_cache(maxsize=4096)
def _number(name: str) -> int:
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 2 | 1
