"""`app.jobs`: looking at jobs and acting on them, one, many, or by filter."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

from msgspec.json import decode
from msgspec.structs import replace

from dayjob.clock import to_stamp, wall
from dayjob.codec import decode_untyped, encode_untyped
from dayjob.errors import ConfigError, JobNotFound, PayloadError, StoreUnavailable, UnknownTask, shown
from dayjob.gatekeeper import regated
from dayjob.ids import check_id
from dayjob.job import Changes, Job, LogLine, log_line
from dayjob.merging import TRIES
from dayjob.offload import offload
from dayjob.policies import check_int, check_name, check_priority
from dayjob.states import WAITING, State
from dayjob.store.records import Action, Cancel, Delete, Edit, Filter, JobRow, NewRow, Retry
from dayjob.waiting import Waiting

if TYPE_CHECKING:
    from dayjob.config import Settings
    from dayjob.registry import Registry
    from dayjob.store.contract import Store
    from dayjob.store.gating import Gating
    from dayjob.task import Task

Ids = str | Job[Any] | Iterable[str | Job[Any]] | None
States = State | str | Iterable[State | str]

_BATCH = 1_000
_PAGE = 100_000
_PATIENCE = 2.0
"""Seconds for which `find` goes on looking for few jobs among very many, before it hands over what it has."""


class Conditions(TypedDict, total=False):
    """Which jobs; all that are given must hold.

    state: one or several states. queue, task, tag: their names. since: created at or after this aware datetime.
    text: a substring of id, task name, tags or meta (not of arguments).
    """

    state: States | None
    queue: str | None
    task: str | None
    tag: str | None
    since: datetime | None
    text: str | None


class JobPage(list[Job[Any]]):
    """A page of jobs, newest first.

    Attributes:
        after: pass it to `find(after=...)` for the next page; None on the last.
    """

    def __init__(self, jobs: Iterable[Job[Any]], after: str | None) -> None:
        super().__init__(jobs)
        self.after = after


class JobsManager:
    """Looking and acting. Every verb has an awaitable twin that never blocks the loop."""

    def __init__(self, store: Callable[[], Store], registry: Callable[[], Registry], settings: Settings) -> None:
        self._store = store
        self._registry = registry
        self._settings = settings
        self.waiting = Waiting(store)

    # -- looking -----------------------------------------------------------------------------------------------------

    def get(self, id: str) -> Job[Any]:
        """The job with all its attempts; `JobNotFound` when there is none."""
        return Job(self, id, row=self.load(id), full=True)

    async def aget(self, id: str) -> Job[Any]:
        """Awaitable `get`."""
        return await offload(self.get, id)

    def find(self, *, limit: int = 50, after: str | None = None, **conditions: Unpack[Conditions]) -> JobPage:
        """A page of the jobs that match, waiting, running and finished, newest first.

        Pages neither repeat nor leave out jobs that move between states meanwhile. Where few of millions match, a page may
        come back short or empty after 2 s, with an `after` that is not None: ask again from there.

        Args:
            limit: jobs on the page, at most 100,000. after: the previous page's `after`.
        """
        check_int("limit", limit, 1, _PAGE)
        store, which, give_up = self._store(), _filter(conditions), time.monotonic() + _PATIENCE
        page = store.find(which, limit=limit, after=None if after is None else _key(after))
        rows = page.jobs
        while len(rows) < limit and page.after is not None and time.monotonic() < give_up:
            page = store.find(which, limit=limit - len(rows), after=page.after)
            rows += page.jobs
        return JobPage((Job(self, row.id, row=row) for row in rows), page.after)

    async def afind(self, *, limit: int = 50, after: str | None = None, **conditions: Unpack[Conditions]) -> JobPage:
        """Awaitable `find`."""
        return await offload(self.find, limit=limit, after=after, **conditions)

    def count(self, **conditions: Unpack[Conditions]) -> int:
        """How many jobs match; all of them when no condition is given."""
        return self._store().count(_filter(conditions))

    async def acount(self, **conditions: Unpack[Conditions]) -> int:
        """Awaitable `count`."""
        return await offload(self.count, **conditions)

    # -- acting ------------------------------------------------------------------------------------------------------

    def cancel(
        self, ids: Ids = None, /, *, all: bool = False, reason: str | None = None, **conditions: Unpack[Conditions]
    ) -> int:
        """Cancel waiting jobs at once and running ones within a second; returns how many.

        Args:
            ids: an id, a job, or several; or none and *conditions*. all: with neither, every job there is.
            reason: kept with the jobs, and shown.
        """
        action = Cancel(
            None if reason is None else _text("reason", reason), self._settings.retention.age(State.CANCELLED)
        )
        touched = self._act(_chosen("cancel", ids, conditions, all), action)
        store = self._store()
        store.notify("control")
        for start in range(0, len(touched), 100):
            store.notify("done", ",".join(touched[start : start + 100]).encode())
        return len(touched)

    async def acancel(
        self, ids: Ids = None, /, *, all: bool = False, reason: str | None = None, **conditions: Unpack[Conditions]
    ) -> int:
        """Awaitable `cancel`."""
        return await offload(self.cancel, ids, all=all, reason=reason, **conditions)

    def retry(self, ids: Ids = None, /, *, all: bool = False, **conditions: Unpack[Conditions]) -> int:
        """Put finished jobs back, with fresh attempts and their history kept; scheduled ones run now. Returns how many.

        Args:
            ids: an id, a job, or several, in any finished state; or none and *conditions*, which without `state=`
                mean dead jobs. all: with neither, every dead job there is.
        """
        which = _chosen("retry", ids, conditions, all)
        if ids is None and which.states is None:
            which = Filter(None, (State.DEAD,), which.queue, which.task, which.tag, which.since, which.text)
        touched = self._act(which, Retry())
        self._store().notify("work")
        return len(touched)

    async def aretry(self, ids: Ids = None, /, *, all: bool = False, **conditions: Unpack[Conditions]) -> int:
        """Awaitable `retry`."""
        return await offload(self.retry, ids, all=all, **conditions)

    def delete(self, ids: Ids = None, /, *, all: bool = False, **conditions: Unpack[Conditions]) -> int:
        """Delete waiting and finished jobs with all that was recorded of them; returns how many. Running ones stay.

        Args:
            ids: an id, a job, or several; or none and *conditions*. all: with neither, every job there is.
        """
        return len(self._act(_chosen("delete", ids, conditions, all), Delete()))

    async def adelete(self, ids: Ids = None, /, *, all: bool = False, **conditions: Unpack[Conditions]) -> int:
        """Awaitable `delete`."""
        return await offload(self.delete, ids, all=all, **conditions)

    def edit(self, id: str, /, **changes: Unpack[Changes]) -> bool:
        """Change what is given of a waiting job; `args` replaces all its arguments. False: it runs or has finished."""
        given = {name: value for name, value in changes.items() if value is not None}
        if not given or given.keys() - Changes.__annotations__.keys():
            raise ConfigError(
                f"an edit changes {', '.join(Changes.__annotations__)}; given: {', '.join(given) or 'nothing'}"
            )
        run_at, priority, queue, args = (changes.get(name) for name in ("run_at", "priority", "queue", "args"))
        change = Edit(
            run_at=None if run_at is None else 0 if run_at == "now" else max(1, to_stamp(cast("datetime", run_at))),
            priority=None if priority is None else check_priority(priority),
            queue=None if queue is None else check_name("queue", queue),
        )
        row = self.load(id)
        if args is None:
            touched = bool(self._store().act(Filter(ids=(row.id,)), change))
        else:
            row, touched = self._edit_args(row, self.payload(row.task, cast("Mapping[str, Any]", args)), change)
        self._store().notify("work", (change.queue or row.queue).encode())
        return touched

    def _edit_args(self, row: JobRow, payload: bytes, change: Edit) -> tuple[JobRow, bool]:
        """Its keys are made of its arguments, so both change together, unless somebody else has changed the job.

        Returns: the job as it was before, and whether it was changed.
        """
        for _ in range(TRIES):
            change = replace(change, payload=payload, gating=self.regated(row, payload))
            if self._store().act(Filter(ids=(row.id,), entry=row.entry), change):
                return row, True
            row = self.load(row.id)
            if row.state not in WAITING:
                return row, False
        raise StoreUnavailable(f"job {row.id} changed {TRIES:,} times while it was to be edited")

    async def aedit(self, id: str, /, **changes: Unpack[Changes]) -> bool:
        """Awaitable `edit`."""
        return await offload(self.edit, id, **changes)

    def logs(self, id: str, /) -> list[LogLine]:
        """What a job wrote with `ctx.log`, oldest first."""
        return [log_line(row) for row in self._store().logs(check_id(id))]

    async def alogs(self, id: str, /) -> list[LogLine]:
        """Awaitable `logs`."""
        return await offload(self.logs, id)

    def _act(self, which: Filter, action: Action) -> list[str]:
        """Act on all that match, a thousand per transaction; the ids touched.

        A job that is retried may fail and match again while we are at it: each counts once, and a round that
        brings no new one is the last.
        """
        store = self._store()
        if which.ids is not None:
            return [
                id
                for start in range(0, len(which.ids), _BATCH)
                for id in store.act(Filter(ids=which.ids[start : start + _BATCH]), action, limit=_BATCH)
            ]
        touched: dict[str, None] = {}
        while True:
            before = len(touched)
            batch = store.act(which, action, limit=_BATCH)
            touched.update(dict.fromkeys(batch))
            if len(batch) < _BATCH or len(touched) == before:
                return list(touched)

    # -- for the handles (job.JobHost) -------------------------------------------------------------------------------

    def load(self, id: str) -> JobRow:
        """The whole row; `JobNotFound` when there is none."""
        try:
            row = self._store().get(check_id(id))
        except ConfigError:
            row = None
        if row is None:
            raise JobNotFound(id)
        return row

    async def aload(self, id: str) -> JobRow:
        """Awaitable `load`."""
        return await offload(self.load, id)

    def made(self, new: NewRow, /) -> JobRow:
        """What an enqueue knows of the job it stored; the store's own times stay 0."""
        later = new.run_at > wall() if new.run_at is not None else bool(new.delay)
        waits = State.BLOCKED if new.gating is not None and new.gating.gates else State.AVAILABLE
        return JobRow(
            new.id,
            0,
            new.task,
            new.queue,
            State.SCHEDULED if later else waits,
            new.payload,
            priority=new.priority,
            max_attempts=new.max_attempts,
            tags=new.tags,
            meta=new.meta,
            options=new.options,
            gating=new.gating,
        )

    def task(self, name: str) -> Task[Any, Any] | None:
        """The task of this name, where its code is here."""
        try:
            return self._registry().get(name)
        except UnknownTask:
            return None

    def payload(self, name: str, args: Mapping[str, Any]) -> bytes:
        """*args* in their JSON forms as a payload of task *name*, checked where its code is here."""
        task, limit = self.task(name), self._settings.max_payload
        return encode_untyped(name, args, limit) if task is None else task.signature.encode_json(args, limit)

    def regated(self, row: JobRow, payload: bytes) -> Gating | None:
        """The lane and gates of *row* with the arguments in *payload*; None where they do not depend on them, or the code
        that could tell is not here."""
        task = self.task(row.task)
        declared = None if task is None else task.using(queue=row.queue).new(row.payload).gating
        if row.gating is None or declared is None or not declared.reads:
            return None
        meta = {} if row.meta is None else decode(row.meta)
        old, new = self.arguments(row.task, row.payload), self.arguments(row.task, payload)
        return regated(row.gating, declared, row.task, meta, old, new)

    def arguments(self, task: str, payload: bytes) -> dict[str, Any]:
        """The arguments by name; plain JSON values where the task is not here or its signature has changed."""
        found = self.task(task)
        if found is not None:
            try:
                return found.signature.arguments(payload)
            except PayloadError:
                pass
        plain = decode_untyped(payload)
        return plain if isinstance(plain, dict) else {}

    def value(self, task: str, result: bytes | None) -> Any:
        """What the job returned; plain JSON values where its task is not here."""
        if result is None:
            return None
        found = self.task(task)
        return decode_untyped(result) if found is None else found.signature.decode_result(result)

    def attempts_of(self, task: str, queue: str) -> int | None:
        """The number of attempts that jobs of the task have in *queue*, where they say none themselves."""
        found = self.task(task)
        return None if found is None else self._registry().plan(found.name, queue, None).retry.max_attempts

    def wait(self, id: str, timeout: float | timedelta | None) -> JobRow:
        """Block until the job has finished."""
        return self.waiting.wait(id, timeout)

    async def await_(self, id: str, timeout: float | timedelta | None) -> JobRow:
        """Awaitable `wait`."""
        return await self.waiting.await_(id, timeout)


def _chosen(verb: str, ids: Ids, conditions: Conditions, all: bool) -> Filter:
    """The filter of a destructive verb; nothing chosen is refused, it never means everything."""
    which = _filter(conditions)
    if ids is not None:
        if all or not which.empty:
            raise ConfigError(f"{verb}: give ids or conditions, not both")
        several = [ids] if isinstance(ids, (str, Job)) else ids
        if isinstance(several, Mapping) or not isinstance(several, Iterable):
            raise ConfigError(f"{verb}: ids must be an id, a job or several of them, not {shown(ids)}")
        return Filter(ids=tuple(dict.fromkeys(_job_id(verb, one) for one in several)))
    if which.empty and all is not True:
        raise ConfigError(f"{verb}: no ids and no conditions; to {verb} every job there is, say all=True")
    return which


def _job_id(verb: str, given: object) -> str:
    try:
        return check_id(given.id if isinstance(given, Job) else given)
    except ConfigError:
        raise ConfigError(f"{verb}: {shown(given)} is no job's id: pass job.id, or the UUID that is shown") from None


def _filter(conditions: Conditions) -> Filter:
    unknown = conditions.keys() - Conditions.__annotations__.keys()
    if unknown:
        raise ConfigError(f"no such condition: {min(unknown)}; there are {', '.join(Conditions.__annotations__)}")
    since = conditions.get("since")
    return Filter(
        states=_states(conditions.get("state")),
        queue=_text("queue", conditions.get("queue")),
        task=_text("task", conditions.get("task")),
        tag=_text("tag", conditions.get("tag")),
        since=None if since is None else to_stamp(since, "since"),
        text=_text("text", conditions.get("text")),
    )


def _states(given: States | None) -> tuple[State, ...] | None:
    if given is None:
        return None
    try:
        several = (given,) if isinstance(given, str) else tuple(given)
        states = tuple(dict.fromkeys(State(one) for one in several))
    except (TypeError, ValueError):
        raise ConfigError(f"state={shown(given)}: the states are {', '.join(State)}") from None
    if not states:
        raise ConfigError("state= names no state; leave it out for all")
    return states


def _text(what: str, value: object) -> Any:
    """*value* when it is text that a store can compare with, or None."""
    if value is None:
        return None
    if not isinstance(value, str) or not value or len(value) > 1_000 or "\0" in value or not _encodes(value):
        raise ConfigError(f"{what}={shown(value)} must be a text of 1 to 1,000 characters without NUL and surrogates")
    return value


def _key(after: object) -> str:
    return str(_text("after", after))


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
