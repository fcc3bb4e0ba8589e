"""Jobs as they are, out of the server and into it: the Copying protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from dayjob.errors import BadRow
from dayjob.states import State
from dayjob.store.records import EXISTING, INSERTED, AttemptRow, Enqueued, JobRow, Log, Whole
from dayjob.store.redis.inspector import InspectorPart
from dayjob.store.redis.part import ENOUGH
from dayjob.store.redis.wire import EXACT, URGENT, Head, Mine, Tried, attempt, gated, packed, row

AT_ONCE = 500
_EACH = 48
"""Bytes that a value counts in addition to its own."""

_json = msgspec.json.Encoder(decimal_format="number").encode
_log = msgspec.msgpack.Decoder(Log).decode


class CopyingPart(InspectorPart):
    """Export and adopt."""

    def export(self, ids: Sequence[str]) -> list[Whole]:
        names = list(dict.fromkeys(ids))
        found: list[Whole] = []
        while names:
            came, some = self.server.call("export", ENOUGH, *names[:AT_ONCE])
            found += [_whole(*one) for one in some]
            del names[:came]
        return found

    def adopt(self, jobs: Sequence[Whole], *, now: int | None = None) -> list[Enqueued]:
        parcels = [_Parcel(one) for one in jobs]  # all of them, before any of them is sent: one may be refused
        answers: list[Enqueued] = []
        for some in _loads(parcels):
            values = [value for one in some for value in one.values]
            existing = self.server.call("adopt", self.server.at(now), packed([one.told for one in some]), *values)
            places = set(existing)
            answers += [EXISTING if place in places else INSERTED for place in range(1, len(some) + 1)]
        return answers


class _Parcel:
    """One job, as the script takes it.

    Attributes:
        told: what the script reads. values: what it does not. weight: how much it has to do with it, in bytes.
    """

    def __init__(self, one: Whole) -> None:
        job = one.job
        state, first, second = _finished(job) if job.state.terminal else _waiting(one)
        record = packed(_head(job)) + packed(Mine(job.max_attempts, job.tags, job.meta, job.options, job.payload))
        attempts = [_attempt(each) for each in job.attempts]
        logs = [packed(log) for log in one.logs]
        recorded = one.checkpoint is not None
        gating: object = False if job.gating is None else gated(job.gating)
        self.told = (job.id, *state, len(attempts), len(logs), recorded, gating)
        self.values = [record, first, second, one.checkpoint or b"", *attempts, *logs]
        self.weight = sum(map(len, self.values)) + _EACH * len(self.values)


def _loads(parcels: Sequence[_Parcel]) -> Iterator[list[_Parcel]]:
    """*parcels* in their order, as many at a time as one script should take."""
    load: list[_Parcel] = []
    weight = 0
    for one in parcels:
        if load and (len(load) == AT_ONCE or weight + one.weight > ENOUGH):
            yield load
            load, weight = [], 0
        load.append(one)
        weight += one.weight
    if load:
        yield load


def _head(job: JobRow) -> Head:
    if not -URGENT <= job.priority <= URGENT or any(abs(at or 0) >= EXACT for at in _times(job)):
        raise BadRow(f"job {job.id}: its priority={job.priority} or one of its times is out of this store's range")
    return Head(job.queue, job.priority, job.created_at, job.run_at, job.expires_at or 0, job.task)


def _times(job: JobRow) -> tuple[int | None, ...]:
    return job.created_at, job.run_at, job.expires_at, job.started_at, job.finished_at, job.keep_until


def _dyn(job: JobRow, *, ended: bool, recorded: bool) -> tuple[Any, ...]:
    """DYN, but for the entry. An end counts attempts and crashes by itself."""
    progress = False if job.progress is None else _json(job.progress).decode()
    spent = (0, 0) if ended else (job.attempt, job.crashes)
    suspect = job.suspect and not ended
    return (*spent, job.round, 0, suspect, recorded, job.run_at, job.expires_at or 0, False, False, progress)


def _waiting(one: Whole) -> tuple[tuple[Any, ...], bytes, bytes]:
    """What the script reads of a job that is to wait, and its values."""
    job, recorded = one.job, one.checkpoint is not None
    dyn = _dyn(job, ended=False, recorded=recorded)
    plain = not (job.attempt or job.crashes or job.round or job.suspect or recorded or job.progress)
    told = (False, job.run_at, job.expires_at or 0, job.suspect, not plain)
    return told, b"".join(map(packed, dyn)), b""


def _finished(job: JobRow) -> tuple[tuple[Any, ...], bytes, bytes]:
    """The same of one that has ended."""
    at = job.finished_at or job.created_at
    common = packed(
        (job.state, job.reason or False, job.worker or False, at, job.keep_until or 0, job.attempt, job.crashes)
    )
    dyn = packed((0, *_dyn(job, ended=True, recorded=False)) if job.round or job.progress else None)
    body = job.result if job.state is State.COMPLETED else job.error
    ended = b"".join(map(packed, (job.started_at or 0, job.finished_at or 0, body)))
    return (job.state, at, job.keep_until or 0, False, False), common + dyn, ended


def _attempt(one: AttemptRow) -> bytes:
    tried = Tried(one.number, one.round, one.outcome, one.worker or False, one.finished_at, one.reason or False)
    return packed(tried) + packed((0, one.started_at or 0, one.finished_at, one.error))


def _whole(found: Sequence[bytes], tried: Sequence[bytes], logs: Sequence[bytes], checkpoint: bytes | None) -> Whole:
    job = row(found)
    job.attempts = [attempt(text) for text in tried]
    return Whole(job, [_log(text) for text in logs], checkpoint)
