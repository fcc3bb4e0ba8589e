"""What is kept of a schedule, and what follows from it: which ticks are due, and which jobs they make.

A schedule is one record (kind `schedule`) that holds what code declares, what was said at run time, and how far it has come. So an
edit and a tick cannot pass each other: each is a compare-and-set of that record.

    declared by code ─┐
                      ├─▶ definition ─▶ times after the cursor ─▶ ticks ─▶ rows
    said at run time ─┘   (this wins)                          └─ skipped, missed
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec
from msgspec import Struct, structs

from dayjob.clock import SECOND, from_stamp, to_stamp
from dayjob.context import SCHEDULED_FOR
from dayjob.ids import new_id
from dayjob.schedule import Cron, Every, Rules, When, latest
from dayjob.store.gating import Gate, Gating
from dayjob.store.records import Enqueued, NewRow, Record

KIND = "schedule"
"""The kind of the records."""
CODE = "schedule-code"
"""The kind of the records by which live workers say what their code declares."""
DELETED, REMAINS = b"", 3600.0
"""What a deleted schedule's record holds, and the seconds for which it stays: one of the same name that is made meanwhile goes on
from its version, so that a leader who still holds the old one can neither take it for the new one nor write over it."""
REVISION = ("setting", "schedules")
"""Kind and key of the record whose version rises with each change of any schedule but its ticks."""
MOST = 1_000
"""Ticks that are made up for at most, the latest; and jobs in one tick."""
REMEMBERED = 20
"""Ids of jobs that are kept to know whether the one before has ended."""

NAME_KEY = "dayjob.schedule"
"""What a schedule's jobs carry in their meta beside the nominal time: its name."""


class Template(Struct, frozen=True, omit_defaults=True):
    """All of a job but its id and time; see `NewRow`."""

    task: str
    queue: str
    payload: bytes
    priority: int = 0
    delay: float | None = None
    expires: float | None = None
    max_attempts: int | None = None
    tags: str | None = None
    meta: str | None = None
    options: bytes | None = None
    gating: Gating | None = None

    @classmethod
    def of(cls, row: NewRow) -> Template:
        """What *row* says of the jobs to come."""
        return cls(**{name: getattr(row, name) for name in cls.__struct_fields__})


class Definition(Struct, frozen=True, omit_defaults=True):
    """What a schedule does and when. `cron` with `tz`, or `every` seconds from the stamp `anchor` on."""

    job: Template
    cron: str | None = None
    tz: str = "UTC"
    every: float | None = None
    anchor: int = 0
    rules: Rules = Rules()

    @classmethod
    def made(cls, job: Template, when: When, rules: Rules) -> Definition:
        """The storable form of *when*, too."""
        if isinstance(when, Cron):
            return cls(job, when.expr, when.tz, rules=rules)
        return cls(job, every=when.seconds, anchor=to_stamp(when.anchor), rules=rules)

    @property
    def timetable(self) -> tuple[str | None, str, float | None, int]:
        """What `when` is made of; to compare, also where the zone is unknown."""
        return self.cron, self.tz, self.every, self.anchor

    @property
    def when(self) -> When:
        return _when(self.cron, self.tz, self.every, self.anchor)

    def next_stamp(self, after: int) -> int | None:
        """The next time after *after* that lies between start and end."""
        start, end = self.rules.start, self.rules.end
        at = self.when.next_stamp(after if start is None else max(after, start - 1))
        return None if at is None or (end is not None and at > end) else at


@lru_cache(maxsize=20_000)
def _when(cron: str | None, tz: str, every: float | None, anchor: int) -> When:
    if cron is not None:
        return Cron(cron, tz)
    assert every is not None
    return Every(every, from_stamp(anchor))


class Entry(Struct, frozen=True, omit_defaults=True):
    """A schedule as it is stored.

    Attributes:
        code: as code declares it, at `where`; None when it was made at run time.
        run: what was said at run time; wins as a whole.
        cursor: the stamp up to which all ticks are dealt with.
        last: the nominal time of the last tick that made a job. jobs: ids of the last jobs, the newest last.
        skipped, missed, refused: ticks that made no job since the beginning: the job before had not ended; nobody was there in
            time; the store refused it, as its queue was full or closed, or its key held.
    """

    code: Definition | None = None
    run: Definition | None = None
    where: str = ""
    paused: bool = False
    cursor: int = 0
    last: int | None = None
    jobs: tuple[str, ...] = ()
    skipped: int = 0
    missed: int = 0
    refused: int = 0

    @property
    def definition(self) -> Definition:
        found = self.run or self.code
        assert found is not None
        return found

    @property
    def next_stamp(self) -> int | None:
        """The next tick, as if it were not paused."""
        return self.definition.next_stamp(self.cursor)


_decode = msgspec.json.Decoder(Entry).decode
encode = msgspec.json.Encoder().encode


def entry_of(record: Record) -> Entry:
    """What *record* holds.

    Raises:
        ValueError: it cannot be read here: another release wrote it, or somebody by hand. ConfigError: its zone is unknown here.
    """
    try:
        entry = _decode(record.value)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"the record of schedule {record.key!r} cannot be read: {error}") from error
    if entry.code is None and entry.run is None:
        raise ValueError(f"the record of schedule {record.key!r} says nothing")
    if entry.definition.cron is None and entry.definition.every is None:
        raise ValueError(f"the record of schedule {record.key!r} says no time that this release knows")
    return entry


def declared(entry: Entry | None, code: Definition, where: str, now: int) -> Entry:
    """*entry* after code said *code*; the same when that is nothing new."""
    if entry is None:
        return Entry(code, where=where, cursor=now)
    if entry.code == code and entry.where == where:
        return entry
    return changed(entry, structs.replace(entry, code=code, where=where), now)


def changed(before: Entry, after: Entry, now: int) -> Entry:
    """*after*, made of *before*, its cursor where it belongs: what another timetable, start or end kept from ticking was not missed."""
    old, new = before.definition, after.definition
    if old.timetable != new.timetable:
        return structs.replace(after, cursor=now)
    start = old.rules.start
    if (start, old.rules.end) == (new.rules.start, new.rules.end):
        return after
    if before.next_stamp is None or (start is not None and start > now):
        return structs.replace(after, cursor=now)
    return after if start is None else structs.replace(after, cursor=max(after.cursor, start - 1))


class Due(Struct, frozen=True):
    """What is due of one schedule.

    Attributes:
        ticks: nominal times to make jobs for. late: some of them are made up for. missed: ticks for which no job is made.
        cursor: where the schedule is then.
    """

    ticks: list[int]
    late: bool
    missed: int
    cursor: int


def due(entry: Entry, now: int, grace: float) -> Due:
    """The ticks after the cursor up to *now*, by the catch-up policy; of very many the latest `MOST`.

    Args:
        grace: seconds by which a tick may be late and is not missed: the time in which another leader is found.
    """
    definition = entry.definition
    first = definition.next_stamp(entry.cursor)
    if first is None or first > now:
        return Due([], False, 0, entry.cursor)
    second = definition.next_stamp(first)
    earlier = 0
    if second is None or second > now:
        found = [first]
    else:
        end = definition.rules.end
        found, earlier = latest(definition.when, first - 1, now if end is None else min(now, end), MOST)
    edge = now - int(grace * SECOND)
    late = sum(at < edge for at in found)
    if not late:
        return Due(found, False, earlier, found[-1])
    if definition.rules.catch_up == "all":
        return Due(found, True, earlier, found[-1])
    if definition.rules.catch_up == "latest":
        return Due(found[-1:], True, earlier + len(found) - 1, found[-1])
    return Due(found[late:], False, earlier + late, found[-1])


def row(name: str, definition: Definition, at: int, *, ordered: bool) -> NewRow:
    """The job of the tick *at* of schedule *name*. *ordered*: behind the schedule's jobs before it, never beside them."""
    job = definition.job
    meta = msgspec.json.decode(job.meta) if job.meta else {}
    tags = msgspec.json.decode(job.tags) if job.tags else []
    gating = job.gating
    if ordered:
        given = gating or Gating()
        gating = structs.replace(given, gates=(*given.gates, Gate("order", f"schedule:{name}")))
    return NewRow(
        new_id(),
        job.task,
        job.queue,
        job.payload,
        job.priority,
        run_at=at + int(((job.delay or 0.0) + _jitter(name, definition.rules.jitter, at)) * SECOND),
        expires=job.expires,
        max_attempts=job.max_attempts,
        tags=encode([*tags, tag(name)]).decode(),
        meta=encode({**meta, NAME_KEY: name, SCHEDULED_FOR: at}).decode(),
        options=job.options,
        gating=gating,
    )


def settled(before: Entry, after: Entry, rows: Sequence[NewRow], answer: Sequence[Enqueued]) -> Entry:
    """*after*, which was written with *rows*, by what the store answered: some may be refused, for some another job stands."""
    if all(one.error is None and one.id is None for one in answer):
        return after
    ids = {row.id: None if one.error else one.id or row.id for row, one in zip(rows, answer, strict=True)}
    jobs = dict.fromkeys(found for id in after.jobs if (found := ids.get(id, id)) is not None)
    refused = sum(one.error is not None for one in answer)
    last = before.last if refused == len(rows) else after.last
    return structs.replace(after, jobs=tuple(jobs), last=last, refused=after.refused + refused)


def tag(name: str) -> str:
    """The tag by which a schedule's jobs are found."""
    return f"schedule:{name}"


def _jitter(name: str, most: float, at: int) -> float:
    """Between 0 and *most* seconds; the same for everyone who asks."""
    if not most:
        return 0.0
    from zlib import crc32

    return most * (crc32(f"{name}/{at}".encode()) / 2**32)
