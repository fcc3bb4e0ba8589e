"""The leader's duty of schedules: at its time each tick makes its jobs, once, whoever else believes to lead.

All schedules are held in memory, with their next times in a heap. Once a second one record tells whether any was changed, and then
those that were are read anew. What is due goes to the store in batches: a record's version decides who makes a tick, so a leader that
lost its term, or died within it, neither doubles nor loses one.

    heap ─▶ due ─▶ ticks by policy ─▶ store.tick ─▶ None: somebody was faster ─▶ read it again
                                               └──▶ stored ─▶ next time into the heap
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from heapq import heapify, heappop, heappush

from msgspec import Struct, structs

from dayjob.clock import SECOND
from dayjob.errors import BadRow, ConfigError
from dayjob.events import (
    Bus,
    JobEnqueued,
    ScheduleFailed,
    ScheduleMissed,
    ScheduleOrphaned,
    ScheduleSkipped,
    ScheduleTicked,
)
from dayjob.services.agenda import (
    CODE,
    DELETED,
    KIND,
    MOST,
    REMEMBERED,
    REVISION,
    Due,
    Entry,
    due,
    encode,
    entry_of,
    row,
    settled,
)
from dayjob.services.announcer import announce, announced
from dayjob.states import State
from dayjob.store.contract import Store
from dayjob.store.records import Enqueued, Filter, NewRow, Record, Tick

LOOK = 1.0
"""Seconds between two looks whether a schedule was changed."""
RELOAD = 30.0
"""Seconds after which all are read again, also when nobody said that one was changed: he may have died before."""
BATCH = 250
"""Schedules in one transaction."""
ROUNDS = 8
"""Batches before the leader's other duties have their turn."""
UNFINISHED = (State.SCHEDULED, State.BLOCKED, State.AVAILABLE, State.RUNNING)


class Held(Struct):
    """A schedule as it was read. `version`: of its record. `next`: its next tick; `at`: the same, None when it rests."""

    name: str
    version: int
    entry: Entry
    next: int | None
    at: int | None = None


class Work(Struct):
    """What a batch is about to write for one schedule."""

    held: Held
    after: Entry
    due: Due
    rows: list[NewRow]
    times: list[int]
    skipped: int


class Scheduler:
    """A duty of the leader.

    Args:
        declared: the names that this worker's own code declares.
        lease: seconds after which another leader is found; ticks that are late by three of it, or a minute, are not missed.
    """

    def __init__(self, store: Store, bus: Bus, *, lease: float, declared: Collection[str]) -> None:
        self._store, self._bus = store, bus
        self._grace = max(60.0, 3 * lease)
        self._own = frozenset(declared)
        self._term: int | None = None
        self._held: dict[str, Held] = {}
        self._heap: list[tuple[int, str]] = []
        self._revision = -1
        self._look_at = self._reload_at = 0.0
        self._told: set[tuple[str, str]] = set()

    def tick(self, term: int) -> float | None:
        if term != self._term:
            self._term, self._revision = term, -1
            self._told.clear()
        began = time.monotonic()
        if began >= self._look_at or self._revision < 0:
            self._look(began)
        if not self._heap:
            return LOOK
        now = self._store.now()
        revision, self._revision = self._revision, -1  # whatever is raised below, everything is read again then
        for _ in range(ROUNDS):
            batch = self._pop(now)
            if not batch:
                break
            self._run(batch, now)
        self._revision = revision
        if not self._heap:
            return LOOK
        spent = time.monotonic() - began
        return max(0.0, min(LOOK, (self._heap[0][0] - now) / SECOND - spent))

    # -- knowing -----------------------------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        """Read what has changed since the last look."""
        found = self._store.read(*REVISION)
        revision = 0 if found is None else found.version
        if revision != self._revision or now >= self._reload_at:
            self._revision = -1
            self._load()
            self._reload_at = now + RELOAD
        self._look_at, self._revision = now + LOOK, revision

    def _load(self) -> None:
        records = [record for record in self._store.list(KIND) if record.value != DELETED]
        known = announced(self._store.list(CODE)) if records else None
        held: dict[str, Held] = {}
        for record in records:
            before = self._held.get(record.key)
            one = before if before is not None and before.version == record.version else self._read(record)
            if one is not None:
                held[one.name] = one
                self._rest(one, self._own if known is None else known | self._own)
        self._held = held
        self._heap = [(one.at, one.name) for one in held.values() if one.at is not None]
        heapify(self._heap)
        if not self._own and any(one.entry.code is not None for one in held.values()):
            announce(self._store, ())  # so that others see that somebody is there who declares none

    def _read(self, record: Record) -> Held | None:
        try:
            entry = entry_of(record)
            return Held(record.key, record.version, entry, entry.next_stamp)
        except (ValueError, ConfigError) as error:
            self._tell_once(record.key, ScheduleFailed(schedule=record.key, error=str(error)))
            return None

    def _rest(self, one: Held, declared: frozenset[str]) -> None:
        """A schedule that is paused, or that no code declares any more, has no next time."""
        if one.entry.code is not None and one.name not in declared:
            self._tell_once(one.name, ScheduleOrphaned(schedule=one.name, where=one.entry.where))
            one.at = None
        else:
            one.at = None if one.entry.paused else one.next
            self._told.discard((one.name, ScheduleOrphaned.name))

    def _tell_once(self, name: str, event: ScheduleFailed | ScheduleOrphaned) -> None:
        if (name, event.name) not in self._told:
            self._told.add((name, event.name))
            self._bus.emit(event)

    def _again(self, name: str) -> None:
        """Read one schedule anew: somebody else has written it."""
        record = self._store.read(KIND, name)
        one = None if record is None or record.value == DELETED else self._read(record)
        if one is None:
            self._held.pop(name, None)
            return
        self._held[name] = one
        one.at = None if one.entry.paused else one.next
        self._push(one)

    def _push(self, one: Held) -> None:
        if one.at is not None:
            heappush(self._heap, (one.at, one.name))

    # -- doing -------------------------------------------------------------------------------------------------------

    def _pop(self, now: int) -> list[Held]:
        found: dict[str, Held] = {}
        while self._heap and self._heap[0][0] <= now and len(found) < BATCH:
            at, name = heappop(self._heap)
            one = self._held.get(name)
            if one is not None and one.at == at:  # else it was read anew since
                found[name] = one
        return list(found.values())

    def _run(self, batch: Sequence[Held], now: int) -> None:
        """Make the ticks of *batch*, in transactions of at most `MOST` jobs."""
        busy = self._busy(batch)
        part: list[Work] = []
        jobs = 0
        for one in batch:
            try:
                work = plan(one, now, self._grace, busy)
            except Exception as error:  # noqa: BLE001  whatever one record says, the others tick
                self._fail(one, error)
                continue
            if part and jobs + len(work.rows) > MOST:
                self._write(part, now)
                part, jobs = [], 0
            part.append(work)
            jobs += len(work.rows)
        if part:
            self._write(part, now)

    def _busy(self, batch: Sequence[Held]) -> set[str]:
        """Ids of jobs that have not ended, of those schedules that skip then."""
        ids = [id for one in batch if one.entry.definition.rules.overlap == "skip" for id in one.entry.jobs]
        found: set[str] = set()
        for start in range(0, len(ids), 500):
            which = Filter(ids=tuple(ids[start : start + 500]), states=UNFINISHED)
            after: str | None = None
            while True:
                page = self._store.find(which, limit=500, after=after)
                found.update(job.id for job in page.jobs)
                if (after := page.after) is None:
                    break
        return found

    def _write(self, works: Sequence[Work], now: int) -> None:
        ticks = [Tick(one.held.name, one.held.version, encode(one.after), tuple(one.rows)) for one in works]
        try:
            answers = self._store.tick(ticks)
        except BadRow as error:
            if len(works) > 1:
                for one in works:  # it must not keep the others back
                    self._write([one], now)
                return
            self._fail(works[0].held, error)
            return
        queues: dict[str, None] = {}
        for work, answer in zip(works, answers, strict=True):
            if answer is None:
                self._again(work.held.name)
                continue
            held = work.held
            after = settled(held.entry, work.after, work.rows, answer)
            held.entry, held.version = work.after, held.version + 1
            held.at = held.next = work.after.next_stamp
            self._push(held)
            queues.update((one.queue, None) for one in work.rows)
            self._tell(work, answer, now)
            if after != work.after:
                self._correct(held, after)
        for queue in queues:
            self._store.notify("work", queue.encode())

    def _correct(self, held: Held, entry: Entry) -> None:
        """Write down that a tick's jobs were refused, or that others stand for them."""
        version = self._store.write(KIND, held.name, encode(entry), expected=held.version)
        if version is None:
            self._again(held.name)
        else:
            held.entry, held.version = entry, version

    def _fail(self, held: Held, error: Exception) -> None:
        """Let a schedule rest until it is changed, or all are read again."""
        self._tell_once(held.name, ScheduleFailed(schedule=held.name, error=str(error)))
        held.at = None

    def _tell(self, work: Work, answer: Sequence[Enqueued], now: int) -> None:
        name, bus = work.held.name, self._bus
        if work.skipped:
            bus.emit(ScheduleSkipped(schedule=name, scheduled_for=work.after.cursor, ticks=work.skipped))
        if work.due.missed or work.due.late:
            made, ticks = len(work.rows) if work.due.late else 0, work.due.missed + len(work.due.ticks) * work.due.late
            bus.emit(ScheduleMissed(schedule=name, scheduled_for=work.after.cursor, ticks=ticks, made=made))
        for one, at, outcome in zip(work.rows, work.times, answer, strict=True):
            if outcome.error is not None:
                bus.emit(ScheduleFailed(schedule=name, error=f"the job of {at} was refused: {outcome.error}"))
                continue
            if bus.wants("schedule.ticked"):
                late = (now - at) / SECOND
                bus.emit(
                    ScheduleTicked(schedule=name, id=outcome.id or one.id, task=one.task, scheduled_for=at, late=late)
                )
            if bus.wants("job.enqueued"):
                bus.emit(JobEnqueued(id=outcome.id or one.id, task=one.task, queue=one.queue, outcome=outcome.outcome))


def plan(held: Held, now: int, grace: float, busy: Collection[str]) -> Work:
    """What becomes of the ticks of *held* up to *now*; *busy*: which jobs have not ended, of schedules that skip then."""
    entry, found = held.entry, due(held.entry, now, grace)
    definition = entry.definition
    overlap, catch_up = definition.rules.overlap, definition.rules.catch_up
    times, skipped, before = found.ticks, 0, entry.jobs
    alive = [id for id in before if id in busy]
    if overlap == "skip":
        before = tuple(alive) or before[-1:]  # of the others nothing is to be asked any more
    if overlap == "skip" and not (found.late and catch_up == "all"):
        kept = [] if alive else times[:1]
        times, skipped = kept, len(times) - len(kept)
    # What is made up for comes one after the other where two at once are not wanted, and behind what has not ended.
    ordered = overlap == "queue" or (overlap == "skip" and catch_up == "all")
    rows = [row(held.name, definition, at, ordered=ordered) for at in times]
    after = structs.replace(
        entry,
        cursor=found.cursor,
        last=times[-1] if times else entry.last,
        jobs=(*before, *(one.id for one in rows))[-REMEMBERED:],
        skipped=entry.skipped + skipped,
        missed=entry.missed + found.missed,
    )
    return Work(held, after, found, rows, times, skipped)
