"""Schedules: their records and the jobs that they make, in one script."""

from __future__ import annotations

from collections.abc import Sequence

from dayjob.store.records import Enqueued, Tick
from dayjob.store.redis.jobs import outcomes_of, part_of, shape_of
from dayjob.store.redis.part import Part
from dayjob.store.redis.wire import packed


class TicksPart(Part):
    """The Ticks protocol; the script calls those of `enqueue`."""

    def tick(self, ticks: Sequence[Tick], *, now: int | None = None) -> list[list[Enqueued] | None]:
        jobs = [job for tick in ticks for job in tick.jobs]
        shapes: dict[tuple[object, ...], int] = {}
        which = [shapes.setdefault(shape_of(job), len(shapes) + 1) for job in jobs]
        told = self.server.call(
            "tick",
            self.server.at(now),
            self.server.channels,
            len(ticks),
            packed(list(shapes)),
            packed(which),
            "1" if any(job.gating for job in jobs) else "0",
            *[word for tick in ticks for word in (tick.key, tick.expected, tick.value, len(tick.jobs))],
            *[job.id for job in jobs],
            *[part_of(job) for job in jobs],
        )
        return [None if each == 0 else outcomes_of(tick.jobs, each) for tick, each in zip(ticks, told, strict=True)]
