"""What crosses to the scripts and back: msgpack, in which the client's own parts are never looked into by a script.

Lua's numbers are doubles: whatever a script has to count with stays below 2^53, and everything else is inside those parts
or travels as digits. Its msgpack knows no nil inside of lists, so absent is `false`, and no binary values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from dayjob.clock import SECOND
from dayjob.errors import BadRow
from dayjob.states import Outcome, State
from dayjob.store.gating import Conflict, Gate, Gating, Unique, Until
from dayjob.store.records import AttemptRow, Claimed, JobRow, Progress

EXACT = 1 << 53
FAR = EXACT // 2
"""Microseconds, 142 years: a time that far from now is still exact."""
LEVEL = 1 << 45
URGENT = 127
"""Priorities go from -127 to 127: more have no room in a score beside the place."""

T = TypeVar("T")

_encode = msgspec.msgpack.Encoder().encode


class Head(Struct, array_like=True, gc=False):
    """What scripts read of a job."""

    queue: str
    priority: int
    created_at: int
    run_at: int
    expires_at: int
    task: str


class Mine(Struct, array_like=True, gc=False):
    """What they do not."""

    max_attempts: int | None
    tags: str | None
    meta: str | None
    options: bytes | None
    payload: bytes


class Dyn(Struct, array_like=True, gc=False):
    """What has become of a live job."""

    entry: int
    attempt: int
    crashes: int
    round: int
    parked: int
    suspect: bool
    recorded: bool
    run_at: int
    expires_at: int
    cancelling: bool
    reason: str | bool
    progress: str | bool
    place: int = 0


class Common(Struct, array_like=True, gc=False):
    """What finished jobs of one batch have in common."""

    state: State
    reason: str | bool
    worker: str | bool
    now: int
    keep_until: int
    attempts: int
    crashes: int


class Ended(Struct, array_like=True, gc=False):
    """The client's part of a settlement."""

    entry: int
    started_at: int
    finished_at: int
    body: bytes | None


class Given(Struct, array_like=True, gc=False):
    """A claimed job."""

    dyn: Dyn | None
    head: Head
    mine: Mine


class Whole(Struct, array_like=True, gc=False):
    """A job as it was stored."""

    head: Head
    mine: Mine


class Ending(Struct, array_like=True, gc=False):
    """The end of a finished job."""

    common: Common
    dyn: Dyn | None
    ended: Ended


class Tried(Struct, array_like=True, gc=False):
    """An attempt, but for the client's part."""

    number: int
    round: int
    outcome: Outcome
    worker: str | bool
    now: int
    reason: str | bool


class Attempted(Struct, array_like=True, gc=False):
    """An attempt."""

    tried: Tried
    ended: Ended


class _Unique(Struct, array_like=True, gc=False):
    hash: str
    key: str
    until: Until
    ttl: float | bool
    on_conflict: Conflict
    latest: float | bool


class _Gating(Struct, array_like=True, gc=False):
    """What one job may have to wait for: GATING of the scripts."""

    unique: _Unique | bool
    lane: str | bool
    weight: int
    gates: tuple[Gate, ...]

    def row(self) -> Gating:
        unique = given(self.unique)
        held = unique and Unique(
            unique.hash, unique.key, unique.until, given(unique.ttl), unique.on_conflict, given(unique.latest)
        )
        return Gating(held or None, given(self.lane), self.weight, self.gates)


_gating = msgspec.msgpack.Decoder(_Gating).decode
_givens = msgspec.msgpack.Decoder(list[Given]).decode
_whole = msgspec.msgpack.Decoder(Whole).decode
_dyn = msgspec.msgpack.Decoder(Dyn).decode
_ending = msgspec.msgpack.Decoder(Ending).decode
_attempted = msgspec.msgpack.Decoder(Attempted).decode
_progress = msgspec.json.Decoder(Progress).decode
_two, _three = b"\x92", b"\x93"


def packed(value: Any) -> bytes:
    """*value* as msgpack.

    Raises:
        BadRow: a number of more than 64 bits, or text that is none.
    """
    try:
        return _encode(value)
    except (OverflowError, UnicodeError, TypeError) as error:
        raise BadRow(f"the store cannot keep this row ({error})") from error


def micros(seconds: float, what: str) -> int:
    """*seconds* from now, as scripts count them.

    Raises:
        BadRow: that is further than they can count.
    """
    if not abs(seconds) * SECOND <= FAR:  # nor anything that is no number
        raise BadRow(f"{what}={seconds} s is out of this store's range")
    return int(seconds * SECOND)


def kept(seconds: float | None) -> int | bool:
    """How long a finished job stays, `False` for ever. Longer than can be counted is FAR: its end has to be storable."""
    if seconds is None:
        return False
    return int(seconds * SECOND) if seconds * SECOND <= FAR else FAR


def stamped(at: int, what: str) -> int:
    """*at*, a time that scripts can count.

    Raises:
        BadRow: they cannot.
    """
    if abs(at) >= EXACT:
        raise BadRow(f"{what}={at} is out of this store's range")
    return at


def ranked(priority: int) -> int:
    """*priority*, for which there is room.

    Raises:
        BadRow: there is none.
    """
    if not -URGENT <= priority <= URGENT:
        raise BadRow(f"priority={priority} is out of this store's range")
    return priority


def given(value: T | bool) -> T | None:
    """*value*, None when it is `false`."""
    return None if isinstance(value, bool) else value


def gated(gating: Gating) -> tuple[object, ...]:
    """*gating* as scripts read it; each gate once.

    Raises:
        BadRow: a number that they cannot count with.
    """
    unique = gating.unique
    held: object = False
    if unique is not None:
        for seconds in (unique.ttl, unique.latest):
            micros(seconds or 0.0, "ttl or latest")
        ttl, latest = (False if seconds is None else seconds for seconds in (unique.ttl, unique.latest))
        held = (unique.hash, unique.key, unique.until, ttl, unique.on_conflict, latest)
    return held, False if gating.lane is None else gating.lane, gating.weight, gates(gating.gates)


def gates(some: Sequence[Gate]) -> tuple[tuple[str, str, int, float], ...]:
    """*some*, each once, as scripts read them.

    Raises:
        BadRow: a number that they cannot count with.
    """
    for gate in some:
        micros(gate.per, "per")
        stamped(gate.limit, "limit")
    return tuple({(gate.kind, gate.key): (gate.kind, gate.key, gate.limit, gate.per) for gate in some}.values())


def claimed(ids: Sequence[bytes], entries: Sequence[bytes], blob: bytes) -> list[Claimed]:
    """The jobs that a turn hands out, decoded in one go."""
    decoded = _givens(b"\xdd" + len(ids).to_bytes(4, "big") + blob)
    return [_claimed(*one) for one in zip(ids, entries, decoded, strict=True)]


def _claimed(id: bytes, entry: bytes, job: Given) -> Claimed:
    head, mine, dyn = job.head, job.mine, job.dyn
    if dyn is None:
        return Claimed(
            int(entry), id.decode(), head.task, head.queue, head.priority, 0, 0, 0, 0, mine.max_attempts,
            head.created_at, head.run_at, head.expires_at or None, mine.tags, mine.meta, mine.options, False, False,
            mine.payload,
        )  # fmt: skip
    return Claimed(
        int(entry), id.decode(), head.task, head.queue, head.priority, dyn.attempt, dyn.crashes, dyn.round, dyn.parked,
        mine.max_attempts, head.created_at, dyn.run_at, dyn.expires_at or None, mine.tags, mine.meta, mine.options,
        dyn.recorded, dyn.suspect, mine.payload,
    )  # fmt: skip


def whole(record: bytes) -> Whole:
    """A stored record."""
    return _whole(_two + record)


def row(found: Sequence[bytes]) -> JobRow:
    """A job from what the scripts' `rows` tell of it."""
    id, record, dyn_text, run, end, state, score, worker, gating_text = found
    stored = whole(record)
    head, mine = stored.head, stored.mine
    ending = _ending(_three + end) if end else None
    dyn = _dyn(dyn_text) if dyn_text else None if ending is None else ending.dyn
    job = JobRow(
        id.decode(), 0, head.task, head.queue, State.AVAILABLE, mine.payload, head.priority,
        max_attempts=mine.max_attempts, created_at=head.created_at, run_at=head.run_at,
        expires_at=head.expires_at or None, tags=mine.tags, meta=mine.meta, options=mine.options,
    )  # fmt: skip
    if gating_text:
        job.gating = _gating(gating_text).row()
    if dyn is not None:
        job.attempt, job.crashes, job.round = dyn.attempt, dyn.crashes, dyn.round
        job.run_at, job.expires_at = dyn.run_at, dyn.expires_at or None
        job.suspect, job.cancelling, job.reason = dyn.suspect, dyn.cancelling, given(dyn.reason)
        if not isinstance(dyn.progress, bool):
            job.progress = _progress(dyn.progress)
    if ending is not None:
        _end(job, ending)
    else:
        job.state = State(state.decode())
        job.entry = dyn.entry if dyn is not None and dyn.entry else int(score or 0) % LEVEL
        if job.state is State.SCHEDULED:  # its score is its time
            job.place = (dyn is not None and dyn.place) or job.entry
        else:
            job.place = int(score) % LEVEL if score else job.entry
        if run:
            entry, score, _, claimed_at, _ = run.split(b" ", 4)
            job.entry, job.started_at, job.worker = int(entry), int(claimed_at), worker.decode() or None
            job.place = int(score) % LEVEL
    return job


def _end(job: JobRow, ending: Ending) -> None:
    common, ended = ending.common, ending.ended
    job.state, job.entry, job.reason = common.state, ended.entry, given(common.reason)
    job.worker, job.keep_until = given(common.worker), common.keep_until or None
    job.attempt += common.attempts
    job.crashes += common.crashes
    job.suspect = job.cancelling = False
    job.started_at, job.finished_at = ended.started_at or None, ended.finished_at or common.now
    if common.state is State.COMPLETED:
        job.result = ended.body
    else:
        job.error = ended.body


def attempt(text: bytes) -> AttemptRow:
    """A kept attempt."""
    found = _attempted(_two + text)
    tried, ended = found.tried, found.ended
    return AttemptRow(
        tried.number, tried.round, tried.outcome, ended.started_at or None, ended.finished_at or tried.now,
        given(tried.worker), ended.body, given(tried.reason),
    )  # fmt: skip
