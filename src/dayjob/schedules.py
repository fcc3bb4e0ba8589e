"""`app.schedules`: which schedules there are, and changing them while everything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Unpack

from msgspec import UNSET, Struct, UnsetType, structs

from dayjob.clock import from_stamp, to_stamp
from dayjob.errors import ConfigError, ScheduleNotFound, StoreError, shown
from dayjob.offload import offload
from dayjob.policies import check_name, nearest
from dayjob.schedule import CatchUp, Overlap, When, check_when, rules
from dayjob.services.agenda import (
    CODE,
    DELETED,
    KIND,
    REMAINS,
    REMEMBERED,
    REVISION,
    Definition,
    Entry,
    Template,
    changed,
    encode,
    entry_of,
    row,
    settled,
)
from dayjob.services.announcer import announced
from dayjob.store.records import Tick
from dayjob.task import NewJob

if TYPE_CHECKING:
    from dayjob.job import Job
    from dayjob.jobs import JobsManager
    from dayjob.options import JobOptions
    from dayjob.producer import Producer
    from dayjob.registry import Registry
    from dayjob.store.contract import Store

_TRIES = 50
"""Times to read, change and write a record that others write, too."""

ScheduleState = Literal["active", "paused", "ended", "orphaned"]


class Schedule(Struct, frozen=True):
    """A schedule as it stands.

    Attributes:
        when: a `Cron` or an `Every`. words: the same in English.
        origin: `code` when code declares it (at `where`), else `run`. edited: what was said at run time wins over that code.
        state: `active`; `paused`; `ended`, no tick will come any more; `orphaned`: declared by code that no live worker has, so it
            does not tick.
        next_run: the next tick, None when none comes, also while it is paused. last_run: nominal time of the last tick that made
            a job. last_job: its id.
        skipped, missed, refused: ticks that made no job: because the job before had not ended; because nobody was there; because
            the store refused the job (a full or closed queue, a held key).
        read_at: when all this was so, by the store's clock.
    """

    name: str
    when: When
    words: str
    task: str
    queue: str
    origin: Literal["code", "run"]
    edited: bool
    where: str
    state: ScheduleState
    next_run: datetime | None
    last_run: datetime | None
    last_job: str | None
    overlap: Overlap
    catch_up: CatchUp
    jitter: float
    start: datetime | None
    end: datetime | None
    skipped: int
    missed: int
    refused: int
    read_at: datetime

    def next_runs(self, count: int = 5, after: datetime | None = None) -> list[datetime]:
        """The next *count* times, in UTC, as if it were active.

        Args:
            after: by default when this was read.
        """
        begin = to_stamp(self.read_at if after is None else after, "after")
        first = None if self.start is None else to_stamp(self.start) - 1
        last = None if self.end is None else to_stamp(self.end)
        found: list[datetime] = []
        at = self.when.next_stamp(begin if first is None else max(begin, first))
        while at is not None and len(found) < count and (last is None or at <= last):
            found.append(from_stamp(at))
            at = self.when.next_stamp(at)
        return found


class SchedulesManager:
    """The schedules. Every verb has an awaitable twin that never blocks the loop.

    Args:
        producer: makes of a call the row that its jobs are like. jobs: what handles act through.
    """

    def __init__(
        self,
        store: Callable[[], Store],
        registry: Callable[[], Registry],
        producer: Producer,
        jobs: JobsManager,
    ) -> None:
        self._store, self._registry, self._jobs = store, registry, jobs
        self._producer, self._template = producer, producer.template

    # -- looking -----------------------------------------------------------------------------------------------------

    def list(self) -> list[Schedule]:
        """All schedules, by name. One that cannot be read here (a newer release wrote it) is left out."""
        store = self._store()
        living, now = self._living(store), store.now()
        found = []
        for record in store.list(KIND):
            try:
                found.append(_schedule(record.key, entry_of(record), living, now))
            except ValueError:
                continue
        return found

    async def alist(self) -> Iterable[Schedule]:
        """Awaitable `list`."""
        return await offload(self.list)

    def get(self, name: str) -> Schedule:
        """The schedule of this name; `ScheduleNotFound` when there is none."""
        store = self._store()
        return self._shown(name, self._read(store, name)[0])

    async def aget(self, name: str) -> Schedule:
        """Awaitable `get`."""
        return await offload(self.get, name)

    def call(self, task: str, args: Mapping[str, Any] | None = None, **options: Unpack[JobOptions]) -> NewJob[Any]:
        """A call by the task's name, whose code need not be here, for `set`; *args* in their JSON forms."""
        return self._producer.named(task, args, **options)

    # -- changing ----------------------------------------------------------------------------------------------------

    def set(
        self,
        name: str,
        job: NewJob[Any] | None = None,
        when: When | None = None,
        *,
        overlap: Overlap | None = None,
        catch_up: CatchUp | None = None,
        jitter: float | timedelta | None = None,
        start: datetime | UnsetType | None = UNSET,
        end: datetime | UnsetType | None = UNSET,
        paused: bool | None = None,
    ) -> Schedule:
        """Make a schedule, or change one; what is not given stays as it is. Acts within a second.

        What is set of a schedule that code declares wins over that code, and shows (`edited`), until `reset`. Setting one that is
        orphaned makes it the store's own.

        Args:
            job: a call, `task.job(...)`, with what `using()` says, but no time. when: `Cron(...)` or `Every(...)`.
            others: see `app.cron`. start, end: None takes them away.
        Raises:
            ConfigError: something makes no sense, or a new schedule lacks its job or its times; nothing was written.
        """
        check_name("schedule", name)
        if job is not None and not isinstance(job, NewJob):
            raise ConfigError(f"schedule {name!r}: the job must be a call, task.job(...), not {shown(job)}")
        template = None if job is None else Template.of(self._template(job))
        if when is not None:
            check_when(when)
        if paused is not None and not isinstance(paused, bool):
            raise ConfigError(f"paused={shown(paused)} must be True or False")
        said: dict[str, Any] = {"overlap": overlap, "catch_up": catch_up, "jitter": jitter}
        policies = {key: value for key, value in said.items() if value is not None}
        policies |= {key: value for key, value in (("start", start), ("end", end)) if value is not UNSET}
        living = self._living(self._store())

        def change(entry: Entry | None, now: int) -> Entry:
            before = None if entry is None else entry.definition
            definition = _defined(name, before, template, when, policies)
            entry = Entry(cursor=now) if entry is None else entry
            orphaned = entry.code is not None and living is not None and name not in living
            after = structs.replace(
                entry,
                code=None if orphaned else entry.code,
                run=definition if definition != before or orphaned or entry.code is None else entry.run,
                paused=entry.paused if paused is None else paused,
            )
            if before is None or (entry.paused and not after.paused):
                return structs.replace(after, cursor=now)
            return changed(entry, after, now)

        return self._shown(name, self._change(name, change, new=True))

    async def aset(self, name: str, job: NewJob[Any] | None = None, when: When | None = None, **said: Any) -> Schedule:
        """Awaitable `set`."""
        return await offload(self.set, name, job, when, **said)

    def pause(self, name: str) -> bool:
        """Let a schedule rest, within a second. Its ticks are not made up for. False: it was paused already."""
        return self._tap(name, paused=True)

    async def apause(self, name: str) -> bool:
        """Awaitable `pause`."""
        return await offload(self.pause, name)

    def resume(self, name: str) -> bool:
        """Let a schedule tick again, from now on. False: it was not paused."""
        return self._tap(name, paused=False)

    async def aresume(self, name: str) -> bool:
        """Awaitable `resume`."""
        return await offload(self.resume, name)

    def reset(self, name: str) -> Schedule:
        """Forget what was said at run time: what code declares holds again. `ConfigError` when no code declares it."""

        def change(entry: Entry | None, now: int) -> Entry:
            assert entry is not None
            if entry.code is None:
                raise ConfigError(f"schedule {name!r} was made at run time, no code declares it: set or delete it")
            return structs.replace(entry, run=None, paused=False, cursor=now)

        return self._shown(name, self._change(name, change))

    async def areset(self, name: str) -> Schedule:
        """Awaitable `reset`."""
        return await offload(self.reset, name)

    def trigger(self, name: str) -> Job[Any]:
        """Make a job of a schedule now, whatever its state and whether the one before has ended; its next tick comes as ever."""
        store = self._store()
        for _ in range(_TRIES):
            entry, version = self._read(store, name)
            one = row(name, entry.definition, store.now(), ordered=entry.definition.rules.overlap == "queue")
            one.run_at = None
            after = structs.replace(entry, jobs=(*entry.jobs, one.id)[-REMEMBERED:])
            (answer,) = store.tick([Tick(name, version, encode(after), (one,))])
            if answer is not None:
                if (right := settled(entry, after, (one,), answer)) != after:
                    right = structs.replace(right, refused=entry.refused)  # the caller is told
                    store.write(KIND, name, encode(right), expected=version + 1)
                store.write(*REVISION, b"")
                if answer[0].error is not None:
                    raise answer[0].error
                store.notify("work", one.queue.encode())
                return self._jobs.get(answer[0].id or one.id)
        raise _contested(name)

    async def atrigger(self, name: str) -> Job[Any]:
        """Awaitable `trigger`."""
        return await offload(self.trigger, name)

    def delete(self, name: str) -> bool:
        """Delete a schedule; its jobs stay. False: there was none.

        Raises:
            ConfigError: living code declares it: it would come back with the next worker.
        """
        store = self._store()
        for _ in range(_TRIES):
            record = store.read(KIND, check_name("schedule", name))
            if record is None or record.value == DELETED:
                return False
            try:
                entry = entry_of(record)
            except ValueError:
                entry = None
            if entry is not None and entry.code is not None and name in (self._living(store) or self.declared()):
                raise ConfigError(
                    f"schedule {name!r} is declared at {entry.where} and would come back: remove it there, or pause it"
                )
            if store.write(KIND, name, DELETED, expected=record.version, ttl=REMAINS) is not None:
                store.write(*REVISION, b"")
                return True
        raise _contested(name)

    async def adelete(self, name: str) -> bool:
        """Awaitable `delete`."""
        return await offload(self.delete, name)

    # -- what code declares ------------------------------------------------------------------------------------------

    def declared(self) -> dict[str, tuple[Definition, str]]:
        """What the app's code declares, by name, with its place; for workers, which store it.

        Raises:
            ConfigError: a name is given twice, or a job cannot be made; both places are named.
        """
        found: dict[str, tuple[Definition, str]] = {}
        registry = self._registry()
        for task in registry:
            for one in task.schedules:
                if one.name in found:
                    raise ConfigError(
                        f"the schedule name {one.name!r} is taken by {found[one.name][1]}, and again by {task.where}: give one "
                        "of them another, name=..."
                    )
                new = task.new(task.signature.encode_json(one.args, registry.settings.max_payload))
                found[one.name] = (
                    Definition.made(Template.of(self._template(new)), one.when, one.rules),
                    task.where,
                )
        return found

    # -- inside ------------------------------------------------------------------------------------------------------

    def _shown(self, name: str, entry: Entry) -> Schedule:
        store = self._store()
        return _schedule(name, entry, self._living(store), store.now())

    def _living(self, store: Store) -> frozenset[str] | None:
        return announced(store.list(CODE))

    def _read(self, store: Store, name: str) -> tuple[Entry, int]:
        record = store.read(KIND, check_name("schedule", name))
        if record is None or record.value == DELETED:
            known = (one.key for one in store.list(KIND) if one.value != DELETED)
            raise ScheduleNotFound(name, tuple(nearest(name, known, 3)))
        try:
            return entry_of(record), record.version
        except ValueError as error:
            raise StoreError(str(error)) from error

    def _change(self, name: str, change: Callable[[Entry | None, int], Entry], *, new: bool = False) -> Entry:
        """Write what *change* makes of the entry, over nobody's change but its own; with *new* there need be none."""
        store = self._store()
        for _ in range(_TRIES):
            record = store.read(KIND, name) if new else None
            entry, version = None, 0 if record is None else record.version
            if not new or (record is not None and record.value != DELETED):
                entry, version = self._read(store, name)
            after = change(entry, store.now())
            if after == entry:
                return after
            if store.write(KIND, name, encode(after), expected=version) is not None:
                store.write(*REVISION, b"")
                return after
        raise _contested(name)

    def _tap(self, name: str, *, paused: bool) -> bool:
        changed = False

        def change(entry: Entry | None, now: int) -> Entry:
            nonlocal changed
            assert entry is not None
            changed = entry.paused != paused
            if not changed:
                return entry
            return structs.replace(entry, paused=paused, cursor=entry.cursor if paused else now)

        self._change(name, change)
        return changed


def _defined(
    name: str, before: Definition | None, job: Template | None, when: When | None, policies: dict[str, Any]
) -> Definition:
    """*before* with what was given."""
    if before is None and (job is None or when is None):
        lacks = "its job, task.job(...)" if job is None else "its times, Cron(...) or Every(...)"
        raise ConfigError(f"there is no schedule {name!r} yet: a new one needs {lacks}")
    if before is not None:
        kept = before.rules
        start, end = (None if at is None else from_stamp(at) for at in (kept.start, kept.end))
        known: dict[str, Any] = {"overlap": kept.overlap, "catch_up": kept.catch_up, "jitter": kept.jitter}
        policies = {**known, "start": start, "end": end, **policies}
        job, when = job or before.job, when or before.when
    assert job is not None
    assert when is not None
    return Definition.made(job, when, rules(**policies))


def _schedule(name: str, entry: Entry, living: frozenset[str] | None, now: int) -> Schedule:
    definition = entry.definition
    kept, at = definition.rules, entry.next_stamp
    state: ScheduleState = "active"
    if entry.code is not None and living is not None and name not in living:
        state = "orphaned"
    elif entry.paused:
        state = "paused"
    elif at is None:
        state = "ended"
    return Schedule(
        name=name,
        when=definition.when,
        words=definition.when.words,
        task=definition.job.task,
        queue=definition.job.queue,
        origin="run" if entry.code is None else "code",
        edited=entry.code is not None and entry.run is not None,
        where=entry.where if entry.code is not None else "",
        state=state,
        next_run=from_stamp(at) if state == "active" and at is not None else None,
        last_run=None if entry.last is None else from_stamp(entry.last),
        last_job=entry.jobs[-1] if entry.jobs else None,
        overlap=kept.overlap,
        catch_up=kept.catch_up,
        jitter=kept.jitter,
        start=None if kept.start is None else from_stamp(kept.start),
        end=None if kept.end is None else from_stamp(kept.end),
        skipped=entry.skipped,
        missed=entry.missed,
        refused=entry.refused,
        read_at=from_stamp(now),
    )


def _contested(name: str) -> StoreError:
    return StoreError(f"schedule {name!r} is being changed by others without a pause: try again")
