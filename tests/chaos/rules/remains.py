"""What is left when all is over: the store's own data, and what processes hold."""

from __future__ import annotations

from tests.chaos.evidence import Evidence
from tests.chaos.ledger import Fact
from tests.chaos.verdict import Broken, Finding, middle

MINUTES = 600.0
GROWTH = 1 << 20
"""Bytes by which a process may grow in ten minutes."""
DESCRIPTORS = 5


def sound(of: Evidence) -> Finding:
    return Finding("the store's own data are sound", of.conditions.audited, of.conditions.audit)


def steady(of: Evidence) -> Finding:
    """Who lives long holds no more than at first: descriptors, memory."""
    c = of.conditions
    if not c.steady:
        return Finding("processes do not grow", 0, ())
    ended: dict[int, list[float]] = {}
    for fact in of.of["exit"]:
        ended.setdefault(fact["target"], []).append(fact["at"])
    samples: dict[tuple[int, int], list[Fact]] = {}
    for fact in of.of["sample"]:  # a number is given again, to another process
        life = sum(at < fact["at"] for at in ended.get(fact["target"], ()))
        samples.setdefault((fact["target"], life), []).append(fact)
    figures: list[str] = []
    old = 0

    def broken() -> Broken:
        nonlocal old
        for (pid, _), mine in samples.items():
            settled = [fact for fact in mine if fact["at"] > mine[0]["at"] + c.steady / 5]  # imports, pools, caches
            if not settled or mine[-1]["at"] - mine[0]["at"] < c.steady:
                continue
            old += 1
            half = len(settled) // 2 or 1
            more, grown = (
                middle(settled[-half:], what) - middle(settled[:half], what) for what in ("descriptors", "memory")
            )
            span = (middle(settled[-half:], "at") - middle(settled[:half], "at")) / MINUTES
            figures.append(f"{more:+.0f} descriptors, {grown / span / GROWTH:+.2f} MiB in 10 min")
            if abs(more) > DESCRIPTORS:
                yield f"process {pid} holds {more:+.0f} descriptors"
            if grown / span > GROWTH:
                yield f"process {pid} grows by {grown / span / GROWTH:.1f} MiB in 10 min"

    lines = list(broken())
    if not old:
        lines.append(f"no process lived for {c.steady:g} s")
    return Finding("processes do not grow", old, tuple(lines), "; ".join(figures[:3]))
