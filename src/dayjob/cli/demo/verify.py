"""The demo's judgement: what the jobs say against what one plain process computes, and every effect accounted for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec import Struct

from dayjob.cli.demo.reading import Binary, Reading, measure

BINARY, UNREADABLE = "binary", "unreadable"
EXCUSES = frozenset({"lost", "crashed"})
"""Outcomes of an attempt after which an effect may be there twice: the process was gone, or given up, in mid-run."""


class Outcome(Struct):
    """How one job ended, as the store tells.

    Attributes:
        reading: its result, when it is completed.
        excuses: attempts that ended `lost` or `crashed`; None when nobody has looked yet.
    """

    id: str
    name: str
    state: str
    reason: str | None
    attempt: int
    reading: Reading | None
    excuses: int | None = None


class Verdict(Struct):
    """What the comparison found; good when `faults` is empty.

    Attributes:
        doubled: effects that are there more than once, each explained by a recorded loss of its worker.
        changed: files that someone changed while the demo ran; they prove nothing either way.
    """

    checked: int = 0
    effects: int = 0
    doubled: int = 0
    changed: list[str] = []
    faults: list[str] = []


def plain(path: str) -> Reading | str:
    """What one process without any queue makes of a file: a reading, or why there is none."""
    try:
        return measure(path)
    except Binary:
        return BINARY
    except OSError:
        return UNREADABLE


def stamp(path: str) -> tuple[int, int] | None:
    """Size and modification time, to notice files that change meanwhile; None when there is no such file."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def read_effects(folder: Path) -> Counter[str]:
    """How often each job has left its effect. The last line of a killed process may be torn; a torn line is none."""
    counts: Counter[str] = Counter()
    for file in folder.glob("effects-*.jsonl"):
        for line in file.read_bytes().split(b"\n"):
            if line.endswith(b"]"):
                counts[json.loads(line)[0]] += 1
    return counts


def compare(
    expected: Mapping[str, Reading | str],
    outcomes: Iterable[Outcome],
    effects: Counter[str],
    max_attempts: int,
    changed: frozenset[str] = frozenset(),
) -> Verdict:
    """Hold every job against the plain computation.

    Args:
        expected: by name, what `plain` says. effects: by job id, how often its effect is there.
        changed: names of files that changed meanwhile.
    """
    verdict = Verdict(effects=effects.total(), changed=sorted(changed), faults=[])
    by_name: dict[str, Outcome] = {}
    for outcome in outcomes:
        if outcome.name in by_name:
            verdict.faults.append(f"two jobs for {outcome.name}")
        by_name[outcome.name] = outcome
    for name, wanted in expected.items():
        found = by_name.pop(name, None)
        fault = "lost: no job is stored for it" if found is None else _fault(found, wanted, max_attempts)
        if fault and name not in changed:
            verdict.faults.append(f"{name}: {fault}")
        if found is not None:
            verdict.checked += 1
            verdict.doubled += _account(found, effects.pop(found.id, 0), verdict.faults)
    verdict.faults += [f"{name}: a job that nobody enqueued" for name in by_name]
    verdict.faults += [f"job {id}: an effect without a job" for id in effects]
    return verdict


def _fault(found: Outcome, wanted: Reading | str, max_attempts: int) -> str | None:
    """What is wrong with how a job ended, or None."""
    if found.state == "completed":
        return None if found.reading == wanted else f"says {found.reading}, plain computation says {wanted}"
    if found.state != "dead":
        return f"never finished, it is {found.state}"
    if wanted == BINARY:
        return None if found.reason == "unrecoverable" else f"binary, but dead of {found.reason}"
    if wanted == UNREADABLE:
        if found.reason != "unrecoverable" and found.attempt == max_attempts:
            return None
        return f"unreadable, but dead of {found.reason} after {found.attempt} of {max_attempts} attempts"
    return f"dead of {found.reason}, but plain computation reads it"


def _account(found: Outcome, count: int, faults: list[str]) -> int:
    """Check how often a job left its effect; returns how many of them are doubles that a recorded loss explains."""
    if found.state == "completed" and count == 0:
        faults.append(f"{found.name}: completed without its effect")
    extra = count - 1 if found.state == "completed" else count
    if extra <= 0:
        return 0
    if extra > (found.excuses or 0):
        faults.append(f"{found.name}: its effect is there {count} times, {found.excuses or 0} losses are recorded")
        return 0
    return extra
