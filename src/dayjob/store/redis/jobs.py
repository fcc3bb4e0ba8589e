"""Jobs in, and what running ones write down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from dayjob.errors import BadRow, JobExists, QueueClosed, QueueFull
from dayjob.store.records import (
    EXISTING,
    INSERTED,
    Checkpoint,
    Enqueued,
    Lease,
    Log,
    NewRow,
    Progress,
    Write,
)
from dayjob.store.redis.turns import TurnPart
from dayjob.store.redis.wire import gated, micros, packed, ranked, stamped

_json = msgspec.json.Encoder(decimal_format="number").encode


class JobsPart(TurnPart):
    """The Jobs protocol's `enqueue` and `record`."""

    def enqueue(self, jobs: Sequence[NewRow], *, repeat: bool = False, now: int | None = None) -> list[Enqueued]:
        shapes: dict[tuple[object, ...], int] = {}
        which = [shapes.setdefault(shape_of(job), len(shapes) + 1) for job in jobs]
        arguments = (
            self.server.at(now),
            self.server.channels,
            "1" if repeat else "0",
            packed(list(shapes)),
            b"" if len(shapes) == 1 else packed(which),
            *[job.id for job in jobs],
            *[part_of(job) for job in jobs],
        )
        told = None if any(job.gating for job in jobs) else self.server.call("enqueue", *arguments)
        if told is None:
            told = self.server.call("accept", *arguments)
        return outcomes_of(jobs, told)

    def record(self, lease: Lease, writes: Sequence[Write], *, now: int | None = None) -> bool:
        progress = [one for one in writes if isinstance(one, Progress)][-1:]
        checkpoint = [one.value for one in writes if isinstance(one, Checkpoint)][-1:]
        return bool(
            self.server.call(
                "record",
                self.server.at(now),
                lease.worker,
                lease.id,
                lease.entry,
                _json(progress[0]) if progress else b"",
                "1" if checkpoint else "0",
                checkpoint[0] if checkpoint else b"",
                *[packed(one) for one in writes if isinstance(one, Log)],
            )
        )

    def recorded(self, id: str) -> bytes | None:
        value: bytes | None = self.server.command("HGET", f"{self.server.prefix}checkpoint", id)
        return value


_REPLIES: dict[str, Literal["existing", "replaced", "extended"]] = {
    "existing": "existing",
    "replaced": "replaced",
    "extended": "extended",
}


def _other(job: NewRow, what: str, rest: Sequence[bytes | int]) -> Enqueued:
    """What became of a row that was neither stored nor there before."""
    if what == "closed":
        return Enqueued("refused", QueueClosed(job.queue))
    if what == "full":
        depth, most = rest
        return Enqueued("refused", QueueFull(job.queue, int(depth), int(most)))
    assert isinstance(rest[0], bytes)
    holder = rest[0].decode()
    if what == "exists":
        assert job.gating is not None
        assert job.gating.unique is not None
        return Enqueued("refused", JobExists(job.gating.unique.key, holder), holder)
    return Enqueued(_REPLIES[what], id=holder)


def outcomes_of(jobs: Sequence[NewRow], told: Sequence[Any]) -> list[Enqueued]:
    """What became of *jobs*, from what the scripts `enqueue` and `accept` tell."""
    outcomes = [INSERTED] * len(jobs)
    for one in told:
        if isinstance(one, int):
            outcomes[one - 1] = EXISTING
        else:
            outcomes[one[0] - 1] = _other(jobs[one[0] - 1], one[1].decode(), one[2:])
    return outcomes


def part_of(job: NewRow) -> bytes:
    """What scripts store of *job* and never look into."""
    return packed((job.max_attempts, job.tags, job.meta, job.options, job.payload))


def shape_of(job: NewRow) -> tuple[object, ...]:
    """What decides where *job* goes; alike for nearly all of a batch."""
    try:
        delay = micros(job.delay, "delay") if job.delay else False
        expires = False if job.expires is None else micros(job.expires, "expires")
        run_at = False if job.run_at is None else stamped(job.run_at, "run_at")
        shape = (job.queue, ranked(job.priority), delay, run_at, expires, job.task)
        return shape if job.gating is None else (*shape, gated(job.gating))
    except BadRow as error:
        raise BadRow(f"job {job.id}: {error}") from None
