"""Where to cut, and what many cuts come to."""

from __future__ import annotations

import random
import shutil
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct, field, msgpack

from tests.chaos.power.disk import Disk, Losses
from tests.chaos.power.judge import Finding, judge, said
from tests.chaos.power.recorder import Op, Recording, record

CUTS_PER_RECORDING = 100


class Moments:
    """The moments of a recording that are worth a cut, by kind."""

    def __init__(self, recording: Recording) -> None:
        self._by_kind = {
            "at any moment": [op.begun for op in recording.ops],
            "after an enqueue": _marks(recording, "enqueue.acknowledged"),
            "after a settlement": _marks(recording, "finish.accepted"),
            "after a delete": _marks(recording, "delete.acknowledged"),
            "after a checkpoint of a job": _marks(recording, "write.accepted"),
            "before a sync returns": [op.begun for op in recording.of_kind("sync")],
            "in a checkpoint of the log": list(_in_checkpoints(recording.ops)),
            "where the log begins anew": list(_at_beginnings(recording.ops)),
            "where a file comes or goes": list(_at_names(recording.ops)),
        }

    def pick(self, number: int, rng: random.Random) -> tuple[str, float]:
        """A kind, in turn, and a moment of it."""
        kinds = [kind for kind, moments in self._by_kind.items() if moments]
        kind = kinds[number % len(kinds)]
        return kind, rng.choice(self._by_kind[kind])


def _marks(recording: Recording, fact: str) -> list[float]:
    return [op.begun for op in recording.of_kind("mark") if op.fact["fact"] == fact]


def _in_checkpoints(ops: list[Op]) -> Iterator[float]:
    """While pages go from the log to the file: after each such write, and before the sync of them returns."""
    return (op.begun for op in ops if op.name == "jobs.db" and op.kind in ("write", "size"))


def _at_beginnings(ops: list[Op]) -> Iterator[float]:
    """A log that was checkpointed is written from its start again: right after its header, and a few writes later."""
    for place, op in enumerate(ops):
        if op.kind == "write" and op.name == "jobs.db-wal" and op.offset == 0:
            yield from (each.begun for each in ops[place : place + 4])


def _at_names(ops: list[Op]) -> Iterator[float]:
    for place, op in enumerate(ops):
        if op.kind in ("create", "remove"):
            yield from (each.begun for each in ops[max(0, place - 1) : place + 6])


class Report(Struct):
    """What many cuts came to.

    Attributes:
        writes, syncs: recorded. cuts: by kind. unsafe: writes that were not synced at a cut, of which `dropped` and `torn`;
        sizes, names: changes of a file's size or of the folder that did not come about.
        telling: cuts that lost something. jobs: judged. again: jobs that had started before, and ran once more.
        broken: a line per broken promise, with the seed and the moment.
    """

    seed: int
    recordings: int = 0
    writes: int = 0
    syncs: int = 0
    cuts: Counter[str] = field(default_factory=Counter)
    telling: int = 0
    unsafe: int = 0
    dropped: int = 0
    torn: int = 0
    sizes: int = 0
    names: int = 0
    jobs: int = 0
    again: int = 0
    broken: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, where: str, kind: str, losses: Losses, found: Finding) -> None:
        self.cuts[kind] += 1
        self.telling += losses.any
        for name in Losses.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(losses, name))
        self.jobs += found.jobs
        self.again += found.again
        self.broken += [f"{where}: {line}" for line in found.broken]

    def text(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.cuts.items())
        return "\n".join(
            [
                f"seed {self.seed}: {sum(self.cuts.values()):,} power cuts in {self.recordings} recordings of "
                f"{self.writes:,} writes and {self.syncs:,} syncs"
                + (f", {self.seconds:.0f} s" if self.seconds else ""),
                f"cuts: {kinds}; {self.telling:,} of them lost something",
                f"of {self.unsafe:,} unsynced changes {self.dropped:,} were dropped and {self.torn:,} torn; "
                f"{self.sizes:,} sizes and {self.names:,} names were lost",
                f"{self.jobs:,} jobs judged, {self.again:,} ran again; {len(self.broken)} broken promises",
                *self.broken[:20],
            ]
        )


def cut_many(folder: Path, seed: int, cuts: int) -> Report:
    """Record as often as needed, cut *cuts* times in all, judge each.

    What is needed to repeat a cut that broke a promise stays in *folder*: its recording, for `--recording`.
    """
    begun = time.monotonic()
    report = Report(seed)
    for number in range(0, cuts, CUTS_PER_RECORDING):
        here = folder / f"recording{number}"
        recording = record(here, seed + number)
        before = len(report.broken)
        cut(recording, here, min(CUTS_PER_RECORDING, cuts - number), report)
        shutil.rmtree(here)
        if len(report.broken) > before:
            (folder / f"recording{recording.seed}.msgpack").write_bytes(msgpack.encode(recording))
    report.seconds = time.monotonic() - begun
    return report


def cut(recording: Recording, folder: Path, cuts: int, report: Report, kind_of_disk: type[Disk] = Disk) -> Report:
    """Cut *recording* so often, and judge; adds to *report*. The same recording is cut in the same places again."""
    disk, moments = kind_of_disk(recording), Moments(recording)
    marks = recording.of_kind("mark")
    times = [op.begun for op in marks]
    for number in range(cuts):
        rng = random.Random(f"{recording.seed}/{number}")
        kind, moment = moments.pick(number, rng)
        files, losses = disk.cut(moment, rng)
        heard = said([op.fact for op in marks[: bisect_right(times, moment)]])
        found = judge(folder / f"cut{number}", files, heard, rng)
        shutil.rmtree(folder / f"cut{number}")
        report.add(f"recording {recording.seed}, cut {number} {kind} ({moment:.0f})", kind, losses, found)
    report.recordings += 1
    report.writes += len(recording.of_kind("write"))
    report.syncs += len(recording.of_kind("sync"))
    return report
