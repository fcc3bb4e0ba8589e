"""Jobs in, and what running ones write down."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dayjob.errors import BadRow
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
from dayjob.store.redis.wire import micros, packed, ranked, stamped

_json = msgspec.json.Encoder(decimal_format="number").encode


class JobsPart(TurnPart):
    """The Jobs protocol's `enqueue` and `record`."""

    def enqueue(self, jobs: Sequence[NewRow], *, repeat: bool = False, now: int | None = None) -> list[Enqueued]:
        shapes: dict[tuple[object, ...], int] = {}
        which = [shapes.setdefault(_shape(job), len(shapes) + 1) for job in jobs]
        existing = self.server.call(
            "enqueue",
            self.server.at(now),
            self.server.channels,
            "1" if repeat else "0",
            packed(list(shapes)),
            b"" if len(shapes) == 1 else packed(which),
            *[job.id for job in jobs],
            *[packed((job.max_attempts, job.tags, job.meta, job.options, job.payload)) for job in jobs],
        )
        outcomes = [INSERTED] * len(jobs)
        for place in existing:
            outcomes[place - 1] = EXISTING
        return outcomes

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


def _shape(job: NewRow) -> tuple[object, ...]:
    """What decides where *job* goes; alike for nearly all of a batch."""
    try:
        delay = micros(job.delay, "delay") if job.delay else False
        expires = False if job.expires is None else micros(job.expires, "expires")
        run_at = False if job.run_at is None else stamped(job.run_at, "run_at")
        return job.queue, ranked(job.priority), delay, run_at, expires, job.task
    except BadRow as error:
        raise BadRow(f"job {job.id}: {error}") from None
