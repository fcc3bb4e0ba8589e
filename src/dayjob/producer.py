"""The enqueue path: calls are stamped, become rows, are sent, and come back as jobs.

NewJob ─▶ on_enqueue hooks ─▶ NewRow ─▶ combiner ─▶ store          one by one, many at once, from threads and loops
                                  └──▶ joiner ─▶ the caller's own connection
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from msgspec import UNSET
from msgspec.json import encode

from dayjob.backpressure import Backpressure
from dayjob.codec import encode_meta, encode_untyped
from dayjob.combiner import Combiner
from dayjob.config import Settings
from dayjob.errors import ConfigError, StoreError, shown
from dayjob.events import Bus, JobEnqueued
from dayjob.gatekeeper import gating_of
from dayjob.ids import new_id, new_ids
from dayjob.job import Job
from dayjob.jobs import JobsManager
from dayjob.merging import merged, merges, refuse_joined
from dayjob.offload import offload
from dayjob.policies import check_name, check_priority
from dayjob.store.records import Enqueued, NewRow
from dayjob.task import NewJob, unknown_job
from dayjob.transactions import Joiner, joins

if TYPE_CHECKING:
    from dayjob.app import App
    from dayjob.options import JobOptions
    from dayjob.registry import Registry
    from dayjob.store.callers import Caller
    from dayjob.store.contract import Store

R = TypeVar("R")

MAX_PER_CALL = 1_000_000
"""Jobs in one `enqueue_many`: past it the call should be several, whose progress can be seen."""

Hook = Callable[[NewJob[Any]], object]


class Producer:
    """Stores calls; the host of the app's tasks.

    Args:
        combiner: the way to the store. joiner: the way into a caller's transaction. jobs: what the handles act through. registry: gives the tasks by name.
        store: gives the store, to look at the holder of a key.
    Attributes:
        app: the app whose producer it is; what a detached context shows.
        hooks: called with each `NewJob` before it is stored (`app.on_enqueue`).
        stored: called with the jobs of a call after they were stored; the inline mode of tests runs them there.
    """

    def __init__(
        self,
        combiner: Combiner,
        joiner: Joiner,
        jobs: JobsManager,
        registry: Callable[[], Registry],
        settings: Settings,
        bus: Bus,
        store: Callable[[], Store],
    ) -> None:
        self._store = store
        self.app: App | None = None
        self.settings = settings
        self.hooks: list[Hook] = []
        self.stored: Callable[[Sequence[Job[Any]]], None] | None = None
        self._combiner, self._joiner = combiner, joiner
        self._pressure = Backpressure(combiner, store, settings.full_timeout)
        self._jobs = jobs
        self._registry = registry
        self._bus = bus

    # -- one (task.TaskHost) -----------------------------------------------------------------------------------------

    def store(self, new: NewJob[R]) -> Job[R]:
        """Store *new* durably; blocks, also in a running loop."""
        row, chosen = self._row(new, new.id or new_id()), new.id is not None
        if joins(new) and (caller := self._joiner.caller((new,), awaits=False)) is not None:
            refuse_joined(row, outbox=caller.outbox)
            return self._job(row, self._joiner.send(caller, (row,), chosen=chosen)[0], joined=True)
        (outcome,) = self._combiner.send((row,), chosen=chosen)
        if outcome.error is not None:
            (outcome,) = self._pressure.again((row,), [outcome], chosen=chosen)
        if row.gating is not None:
            outcome = self._merged(row, outcome)
        job = self._job(row, outcome)
        if self.stored is not None:
            self.stored([job])
        return job

    async def astore(self, new: NewJob[R]) -> Job[R]:
        """Awaitable `store`: never blocks the loop, and shares its commit with other calls of the same iteration."""
        row, chosen = self._row(new, new.id or new_id()), new.id is not None
        if joins(new) and (caller := self._joiner.caller((new,), awaits=True)) is not None:
            refuse_joined(row, outbox=caller.outbox)
            return self._job(row, (await self._joiner.asend(caller, (row,), chosen=chosen))[0], joined=True)
        outcome = await self._combiner.asend(row, chosen=chosen)
        if outcome.error is not None:
            outcome = await self._pressure.aagain(row, outcome, chosen=chosen)
        if row.gating is not None and merges(row):
            outcome = await offload(self._merged, row, outcome)
        job: Job[R] = self._job(row, outcome)
        if self.stored is not None:
            await offload(self.stored, [job])
        return job

    # -- many --------------------------------------------------------------------------------------------------------

    def store_many(self, news: Iterable[NewJob[Any]]) -> list[Job[Any]]:
        """Store calls of any tasks in their order; each 1,000 are all or none.

        Raises:
            ConfigError: there is none, or one is no call; nothing was written.
        """
        rows, chosen, caller = self._rows(news, awaits=False)
        if caller is not None:
            return self._handles(rows, self._joiner.send(caller, rows, chosen=chosen), joined=True)
        return self._send_many(rows, chosen)

    async def astore_many(self, news: Iterable[NewJob[Any]]) -> list[Job[Any]]:
        """Awaitable `store_many`."""
        rows, chosen, caller = self._rows(news, awaits=True)
        if caller is not None:
            return self._handles(rows, await self._joiner.asend(caller, rows, chosen=chosen), joined=True)
        outcomes = await offload(self._combiner.send, rows, chosen=chosen)
        if any(outcome.error is not None for outcome in outcomes):
            outcomes = await self._pressure.aagain_many(rows, outcomes, chosen=chosen)
        return await offload(self._sent_many, rows, outcomes)

    def _send_many(self, rows: list[NewRow], chosen: bool) -> list[Job[Any]]:
        outcomes = self._combiner.send(rows, chosen=chosen)
        if any(outcome.error is not None for outcome in outcomes):
            outcomes = self._pressure.again(rows, outcomes, chosen=chosen)
        return self._sent_many(rows, outcomes)

    def _sent_many(self, rows: list[NewRow], outcomes: list[Enqueued]) -> list[Job[Any]]:
        for place, row in enumerate(rows):
            if row.gating is not None:
                outcomes[place] = self._merged(row, outcomes[place])
        jobs = self._handles(rows, outcomes)
        if self.stored is not None:
            self.stored(jobs)
        return jobs

    def _handles(self, rows: list[NewRow], outcomes: list[Enqueued], *, joined: bool = False) -> list[Job[Any]]:
        refused = [outcome.error for outcome in outcomes if outcome.error is not None]
        if refused:
            refused[0].add_note(f"{len(refused):,} of {len(rows):,} jobs were refused; the others are stored")
            raise refused[0]
        host = self._jobs
        jobs: list[Job[Any]] = [
            Job(host, outcome.id or row.id, None, row, outcome.outcome)  # type: ignore[arg-type]  # refused ones were raised above
            for row, outcome in zip(rows, outcomes, strict=True)
        ]
        if self._bus.wants("job.enqueued"):
            for job in jobs:
                self._tell(job, joined)
        return jobs

    def _rows(self, news: Iterable[NewJob[Any]], *, awaits: bool) -> tuple[list[NewRow], bool, Caller | None]:
        """All rows of a call before the first is sent, so that a call with a mistake in it writes nothing."""
        given: object = news
        if isinstance(given, (NewJob, str, bytes, Mapping)) or not isinstance(given, Iterable):
            raise ConfigError(f"enqueue_many takes a list of calls, [task.job(...), ...], not {shown(given)}")
        calls = list(news)
        if not calls:
            raise ConfigError("enqueue_many was given no calls; guard it with an if where that may happen")
        if len(calls) > MAX_PER_CALL:
            raise ConfigError(f"enqueue_many was given {len(calls):,} calls, {MAX_PER_CALL:,} are allowed: split them")
        made = new_ids(len(calls))
        try:
            rows = [self._row(new, new.id or id) for new, id in zip(calls, made, strict=True)]
        except AttributeError:
            things: list[object] = [*calls]
            for place, one in enumerate(things):
                if not isinstance(one, NewJob):
                    raise ConfigError(
                        f"enqueue_many: number {place} is no call (task.job(...)) but {shown(one)}"
                    ) from None
            raise
        caller = None
        if any(map(joins, calls)):
            caller = self._joiner.caller(calls, awaits=awaits, verb="enqueue_many")
            if caller is not None:
                for row in rows:
                    refuse_joined(row, outbox=caller.outbox)
        return rows, any(new.id is not None for new in calls), caller

    # -- by name -----------------------------------------------------------------------------------------------------

    def named(self, name: str, args: Mapping[str, Any] | None, **options: Unpack[JobOptions]) -> NewJob[Any]:
        """A call by the task's name; checked against its signature where its code is here, else stored as it is."""
        check_name("task", name)
        args = {} if args is None else args
        registry = self._registry()
        if name in registry:
            task = registry.get(name)
            payload = task.signature.encode_json(args, self.settings.max_payload)
            return (task.using(**options) if options else task).new(payload)
        return unknown_job(
            name, encode_untyped(name, args, self.settings.max_payload), registry.queue_options, **options
        )

    def template(self, new: NewJob[Any]) -> NewRow:
        """The row that stands for the jobs that a schedule makes of *new*. Its id and times count for nothing.

        Raises:
            ConfigError: *new* says when it is due, or where it is written.
        """
        for what in ("run_at", "id", "conn", "outbox"):
            if getattr(new.said, what) is not UNSET:
                raise ConfigError(
                    f"{what}= of {new.task_name!r} cannot be said for a schedule, which makes a job at each of its times"
                )
        return self._row(new, "")

    # -- from call to row to job -------------------------------------------------------------------------------------

    def _row(self, new: NewJob[Any], id: str) -> NewRow:
        if self.hooks:
            self._stamp(new)
        return NewRow(
            id,
            new.task_name,
            new.queue,
            new.payload,
            new.priority,
            new.delay,
            new.run_at,
            new.expires,
            new.max_attempts,
            _tags(new.tags) if new.tags else None,
            encode(new.meta).decode() if new.meta else None,
            new.overrides.to_bytes() if new.overrides is not None else None,
            None if new.gating is None else gating_of(new),
        )

    def _merged(self, row: NewRow, outcome: Enqueued) -> Enqueued:
        """What became of *row*, which is merged into the holder of its key if it says so."""
        if outcome.outcome != "existing" or not merges(row):
            return outcome
        return merged(
            self._store(),
            row,
            outcome,
            lambda row: self._combiner.send((row,))[0],
            self._jobs,
            self.settings.max_payload,
        )

    def _stamp(self, new: NewJob[Any]) -> None:
        """Let the hooks write into *new*, and check what they may have changed."""
        for hook in self.hooks:
            hook(new)
        encode_meta(new.meta)
        check_priority(new.priority)
        check_name("queue", new.queue)

    def _job(self, row: NewRow, outcome: Enqueued, *, joined: bool = False) -> Job[Any]:
        if outcome.error is not None:
            raise outcome.error
        if outcome.outcome == "refused":
            raise StoreError(f"the store refused job {row.id} and does not say why")
        job: Job[Any] = Job(self._jobs, outcome.id or row.id, None, row, outcome.outcome)
        if self._bus.wants("job.enqueued"):
            self._tell(job, joined)
        return job

    def _tell(self, job: Job[Any], joined: bool) -> None:
        outcome = job.outcome or "inserted"
        self._bus.emit(JobEnqueued(id=job.id, task=job.task, queue=job.queue, outcome=outcome, joined=joined))


@lru_cache(maxsize=1_000)
def _tags(tags: tuple[str, ...]) -> str:
    return encode(tags).decode()


def check_hook(hook: object) -> Hook:
    """*hook* when `on_enqueue` can call it: a plain function of one argument."""
    if not callable(hook) or iscoroutinefunction(hook):
        raise ConfigError(
            f"@app.on_enqueue takes a plain function (new_job), not {shown(hook)}: it runs wherever jobs are enqueued"
        )
    return hook
