"""A disk when the power goes: what of a recording is there afterwards.

A write is safe once a sync of its file that began after it has returned. Of later ones each is there, absent, or torn
at sectors of 512 bytes, independently of all others: so any order is possible in which they may have reached the
disk. A change of a file's size is apart from its data: it may be there without it (then zeros or old rubbish are in
its place) or the other way round. That a name was created or removed is safe

* on a strict disk once the folder was synced, which is all that POSIX promises;
* on a lenient one once any file was synced, as ext4 and others with one journal do; and what is not safe yet is there
  up to some moment, and nothing of what came later.

What SQLite takes for granted holds: a write that is torn leaves the bytes beside it alone ("powersafe overwrite",
sqlite.org/psow.html). The rest of the model is that of sqlite.org/atomiccommit.html and of Pillai et al., All file systems are
not created equal (OSDI 2014).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

from msgspec import Struct

from tests.chaos.power.recorder import FOLDER, Op, Recording

SECTOR = 512
ANY = -1
NEVER = -1.0

Fate = Literal["there", "absent", "torn"]
Fates = Callable[[int, int], Fate]
"""(number, of how many) of an unsafe write -> what becomes of it."""


Synced = Callable[[int], float]
"""Number of a file -> what ended before this moment is safe."""


class Losses(Struct):
    """What one cut cost. names: creations and removals that did not come about."""

    unsafe: int = 0
    dropped: int = 0
    torn: int = 0
    sizes: int = 0
    names: int = 0

    @property
    def any(self) -> bool:
        return self.dropped + self.torn + self.sizes + self.names > 0


class Disk:
    """The folder of *recording*, cut at a moment."""

    def __init__(self, recording: Recording) -> None:
        self._ops = [op for op in recording.ops if op.kind != "mark"]

    def cut(self, moment: float, rng: random.Random) -> tuple[dict[str, bytes], Losses]:
        """The files by name when the power goes at *moment*, and what was lost."""
        issued = [op for op in self._ops if op.begun <= moment]
        synced = self.synced(issued, moment)
        losses = Losses()
        found = {
            name: _File(rng).content([op for op in issued if op.file == file], synced(file), losses)
            for name, file in _names(issued, synced, rng, losses).items()
        }
        return found, losses

    def synced(self, issued: list[Op], moment: float) -> Synced:
        """The moment of each file's last sync, and for `ANY` of the last one of all."""
        synced: dict[int, float] = {}
        for op in issued:
            if op.kind == "sync" and op.ended <= moment:
                synced[op.file] = synced[ANY] = op.begun
        return lambda file: synced.get(file, NEVER)


class LyingDisk(Disk):
    """A seeded defect: syncs are answered and not done."""

    def synced(self, issued: list[Op], moment: float) -> Synced:
        return lambda file: NEVER


class LitDisk(Disk):
    """The processes die and the power stays: nothing is lost."""

    def synced(self, issued: list[Op], moment: float) -> Synced:
        return lambda file: math.inf


def _names(issued: list[Op], synced: Synced, rng: random.Random, losses: Losses) -> dict[str, int]:
    """Which names there are, and the numbers of their files."""
    strict = rng.random() < 0.5
    safe = synced(FOLDER if strict else ANY)
    changes = [op for op in issued if op.kind in ("create", "remove")]
    unsafe = [op for op in changes if op.ended > safe]
    if strict:
        kept = [op for op in unsafe if rng.random() < 0.5]
    else:
        kept = unsafe[: rng.randint(0, len(unsafe))]
    losses.names += len(unsafe) - len(kept)
    names: dict[str, int] = {}
    for op in [*(op for op in changes if op.ended <= safe), *kept]:
        if op.kind == "create":
            names[op.name] = op.file
        elif names.get(op.name) == op.file:
            del names[op.name]
    return names


class _File:
    """One file: what is safe, and of the rest what chance left."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._data = bytearray()
        self._size = 0
        self._rubbish = rng.random() < 0.3
        self._fates = rng.choice(STORMS)(rng)

    def content(self, ops: list[Op], safe: float, losses: Losses) -> bytes:
        changes = [op for op in ops if op.kind in ("write", "size")]
        unsafe = [op for op in changes if op.ended > safe]
        for op in changes:
            if op.ended <= safe:
                self._whole(op)
        for number, op in enumerate(unsafe):
            self._unsafe(op, self._fates(number, len(unsafe)), losses)
        losses.unsafe += len(unsafe)
        self._reach(self._size)
        return bytes(self._data[: self._size])

    def _whole(self, op: Op) -> None:
        if op.kind == "size":
            self._reach(op.offset)
            del self._data[op.offset :]
            self._size = op.offset
        else:
            self._put(op.offset, op.data)
            self._size = max(self._size, op.offset + len(op.data))

    def _unsafe(self, op: Op, fate: Fate, losses: Losses) -> None:
        sectors = _sectors(op)
        left = {"there": sectors, "absent": [], "torn": _torn(sectors, self._rng)}[fate]
        if len(left) == len(sectors):
            self._whole(op)
            return
        losses.torn += bool(left)
        losses.dropped += not left
        for first, last in left:
            self._put(first, op.data[first - op.offset : last - op.offset])
        if op.kind == "size":
            return
        end = op.offset + len(op.data)
        if end > self._size and self._rng.random() < 0.4:
            self._size = end
        elif end > self._size:
            losses.sizes += 1

    def _put(self, offset: int, data: bytes) -> None:
        self._reach(offset)
        self._data[offset : offset + len(data)] = data

    def _reach(self, size: int) -> None:
        missing = size - len(self._data)
        if missing > 0:
            self._data += self._rng.randbytes(missing) if self._rubbish else bytes(missing)


Sectors = list[tuple[int, int]]


def _sectors(op: Op) -> Sectors:
    """Where the parts of a change begin and end that cannot be torn. A change of a size is one."""
    end = op.offset + len(op.data)
    edges = [op.offset, *range((op.offset // SECTOR + 1) * SECTOR, end, SECTOR), end]
    return list(pairwise(edges))


def _torn(sectors: Sectors, rng: random.Random) -> Sectors:
    """Some of them: the first, the last, or any."""
    some = rng.randint(0, len(sectors))
    return rng.choice((sectors[:some], sectors[some:], rng.sample(sectors, some)))


# -- what becomes of the writes of one file, as a whole -----------------------------------------------------------------


def _nothing(rng: random.Random) -> Fates:
    return lambda number, count: "absent"


def _each(rng: random.Random) -> Fates:
    share = rng.random()
    return lambda number, count: "there" if rng.random() < share else rng.choice(("absent", "torn"))


def _last_torn(rng: random.Random) -> Fates:
    return lambda number, count: "torn" if number == count - 1 else "there"


def _late_ones(rng: random.Random) -> Fates:
    """What came last is there, and what came before is not."""
    share = rng.random()
    return lambda number, count: "there" if number >= share * count else "absent"


def _early_ones(rng: random.Random) -> Fates:
    share = rng.random()
    return lambda number, count: "there" if number < share * count else "absent"


def _all_but_one(rng: random.Random) -> Fates:
    which = rng.random()
    return lambda number, count: rng.choice(("absent", "torn")) if number == int(which * count) else "there"


STORMS: tuple[Callable[[random.Random], Fates], ...] = (
    _nothing,
    _nothing,
    _each,
    _each,
    _last_torn,
    _late_ones,
    _early_ones,
    _all_but_one,
)
