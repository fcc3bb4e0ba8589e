"""The one vocabulary of options: for a group of tasks, a task, a queue, one job, and an enqueue by name.

    using(...)  >  @task(...)  >  Tasks(...)  >  app.queue(defaults=...)  >  Settings          the nearer wins

What is given is checked at once and kept in its normal form in `Options`; UNSET means that nothing was said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypedDict
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType, structs

from dayjob.clock import seconds, to_stamp
from dayjob.codec import encode_meta
from dayjob.errors import ConfigError, NotSupported, shown
from dayjob.gating import Breaker, Concurrency, Debounce, Declared, Lane, RateLimit, Throttle, Unique
from dayjob.gating.declared import (
    breaker_numbers,
    check_breaker,
    check_concurrency,
    check_lane,
    check_rate_limit,
    check_unique,
)
from dayjob.ids import check_id
from dayjob.policies import (
    Overrides,
    Retention,
    Retry,
    RetryNumbers,
    check_name,
    check_priority,
    check_timeout,
    nearest,
)
from dayjob.states import State

Seconds = float | timedelta


class QueueDefaults(TypedDict, total=False):
    """What `app.queue(name, defaults=...)` may say for the jobs of a queue.

    priority: -100 to 100, higher first. retry: a `Retry`, attempts in all, or False for one. timeout: seconds an
    attempt may take, None for no limit. retention: how long finished jobs are kept. delay, expires: seconds.
    tags: names to find the job by. meta: plain data that travels with it.
    unique: one job per key: `Unique`, `Debounce`, `Throttle`, or a literal key. rate_limit, concurrency: one or several. lane: a
    `Lane` or the template of its key. breaker: a `Breaker`. Of these five False means none, whatever is said farther away.
    """

    priority: int | None
    retry: Retry | int | bool | None
    timeout: Seconds | None
    retention: Retention | None
    delay: Seconds | None
    expires: Seconds | None
    tags: Sequence[str] | None
    meta: Mapping[str, Any] | None
    unique: Unique | Debounce | Throttle | str | Literal[False] | None
    rate_limit: RateLimit | Sequence[RateLimit] | Literal[False] | None
    concurrency: Concurrency | Sequence[Concurrency] | Literal[False] | None
    lane: Lane | str | Literal[False] | None
    breaker: Breaker | Literal[False] | None


class GroupOptions(QueueDefaults, total=False):
    """What `Tasks(...)` may say for its tasks: the above, the queue, and how the function is executed."""

    queue: str | None
    executor: Literal["async", "thread", "process"] | None
    durable: bool


class TaskOptions(GroupOptions, total=False):
    """What `@task(...)` may say: the above and what is the task's own.

    version: of the payload's shape, from 1; see `Task.upcast`. aliases: earlier names of the task.
    """

    version: int
    aliases: Sequence[str]


class JobOptions(QueueDefaults, total=False):
    """What `using(...)` may say for one job. run_at: an aware datetime. id: a UUID that makes the enqueue repeatable.
    conn: a connection or session, whose transaction the enqueue joins. outbox: the same for a queue in another store:
    the job goes into the outbox there, and a relay delivers it.
    """

    queue: str | None
    run_at: datetime | None
    id: str | UUID | None
    conn: Any
    outbox: Any


class Options(Struct, frozen=True, kw_only=True):
    """Options in their normal form; UNSET where nothing was said."""

    queue: str | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    retry: Retry | UnsetType = UNSET
    timeout: float | UnsetType | None = UNSET
    retention: Retention | UnsetType = UNSET
    delay: float | UnsetType = UNSET
    run_at: int | UnsetType = UNSET
    expires: float | UnsetType | None = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET
    meta: dict[str, Any] | UnsetType = UNSET
    id: str | UnsetType = UNSET
    conn: Any = UNSET
    outbox: Any = UNSET
    unique: Unique | Debounce | Throttle | bool | UnsetType = UNSET
    rate_limit: tuple[RateLimit, ...] | UnsetType = UNSET
    concurrency: tuple[Concurrency, ...] | UnsetType = UNSET
    lane: Lane | bool | UnsetType = UNSET
    breaker: Breaker | bool | UnsetType = UNSET

    def over(self, farther: Options) -> Options:
        """These options, and *farther* where they say nothing. `meta` is joined key by key."""
        said = {name: value for name in FIELDS if (value := getattr(self, name)) is not UNSET}
        if not said:
            return farther
        if "delay" in said or "run_at" in said or isinstance(self.unique, Debounce):
            farther = structs.replace(farther, delay=UNSET, run_at=UNSET)
        if "conn" in said or "outbox" in said:
            farther = structs.replace(farther, conn=UNSET, outbox=UNSET)
        if "meta" in said and farther.meta is not UNSET:
            said["meta"] = {**farther.meta, **said["meta"]}
        return structs.replace(farther, **said)

    def overrides(self) -> Overrides:
        """What a worker must know of them when they were said for one job."""
        ages: Any = UNSET
        if isinstance(self.retention, Retention):
            ages = tuple(self.retention.age(state) for state in (State.COMPLETED, State.CANCELLED, State.DEAD))
        return Overrides(
            retry=RetryNumbers.of(self.retry) if isinstance(self.retry, Retry) else UNSET,
            timeout=self.timeout,
            keep=ages,
            breaker=UNSET if self.breaker is UNSET else breaker_numbers(self.breaker),
        )

    def declared(self) -> Declared | None:
        """What they say that a job has to wait for; None when that is nothing."""
        if (
            self.unique is UNSET
            and self.rate_limit is UNSET
            and self.concurrency is UNSET
            and self.lane is UNSET
            and self.breaker is UNSET
        ):
            return None
        found = Declared(
            self.unique or None,  # type: ignore[arg-type]  # UNSET and False are nothing
            self.lane or None,  # type: ignore[arg-type]
            (*(self.concurrency or ()), *(self.rate_limit or ())),
            self.breaker or None,  # type: ignore[arg-type]
        )
        return found if found.unique or found.lane or found.limits or found.breaker else None


FIELDS: Final = Options.__struct_fields__
NOTHING: Final = Options()

LATER: Final = frozenset({"durable"})
"""Options of later releases: named, typed, and refused."""

TASKS_OWN: Final = frozenset({"version", "aliases", "executor"})
"""Options of the task itself, which `Task` reads."""

_NOT_STORED: Final = LATER | TASKS_OWN

QUEUE_KEYS: Final = frozenset(QueueDefaults.__annotations__)
GROUP_KEYS: Final = frozenset(GroupOptions.__annotations__)
TASK_KEYS: Final = frozenset(TaskOptions.__annotations__)
JOB_KEYS: Final = frozenset(JobOptions.__annotations__)


def normal(given: Mapping[str, Any], allowed: frozenset[str], where: str) -> Options:
    """*given* options in their normal form.

    Raises:
        ConfigError: an option is unknown at this place, or its value makes no sense; *where* is named.
        NotSupported: it belongs to a later release.
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name in LATER and value is not None and value is not False:
            raise NotSupported(f"{name}=")  # wherever it is said: to name other options would mislead
        if name not in allowed:
            near = nearest(name, allowed)
            hint = f"did you mean {near[0]}=?" if near else f"it takes {', '.join(sorted(allowed - LATER))}"
            raise ConfigError(f"{where} has no option {name!r}; {hint}")
        if name not in _NOT_STORED and (value is not None or name in ("timeout", "expires")):
            found[name] = _CHECKS[name](value)
    if "delay" in found and "run_at" in found:
        raise ConfigError(f"{where}: delay= and run_at= both say when; give one of them")
    if "conn" in found and "outbox" in found:
        raise ConfigError(f"{where}: conn= and outbox= both say where the job is written; give one of them")
    if isinstance(found.get("unique"), Debounce) and ("delay" in found or "run_at" in found):
        raise ConfigError(f"{where}: Debounce(wait=...) says when; leave delay= and run_at= out")
    return Options(**found)


def _tags(tags: Any) -> tuple[str, ...]:
    if isinstance(tags, str) or not isinstance(tags, (list, tuple, set, frozenset)):
        raise ConfigError(f"tags={shown(tags)} must be a list of names, as in tags=['vip']")
    if len(tags) > 100:
        raise ConfigError(f"a job can have 100 tags, not {len(tags):,}")
    return tuple(dict.fromkeys(check_name("tag", tag) for tag in tags))


def _meta(meta: Any) -> dict[str, Any]:
    encode_meta(meta)
    return dict(meta)


def _retention(retention: Any) -> Retention:
    if not isinstance(retention, Retention):
        raise ConfigError(f"retention must be a Retention, not {type(retention).__name__} {shown(retention)}")
    return retention


def _run_at(moment: Any) -> int:
    if not isinstance(moment, datetime):
        raise ConfigError(
            f"run_at must be an aware datetime, not {type(moment).__name__} {shown(moment)}; delay= takes seconds"
        )
    return to_stamp(moment)


def _id(id: Any) -> str:
    if not isinstance(id, (str, UUID)):
        raise ConfigError(
            f"id must be a UUID, not {type(id).__name__} {shown(id)}: uuid.uuid5(namespace, your_key) makes one"
        )
    return check_id(id)


def _expires(expires: Any) -> float | None:
    return None if expires is None else seconds(expires, "expires", least=0.001)


_CHECKS: dict[str, Any] = {
    "queue": lambda value: check_name("queue", value),
    "priority": check_priority,
    "retry": Retry.coerce,
    "timeout": check_timeout,
    "retention": _retention,
    "delay": lambda value: seconds(value, "delay"),
    "run_at": _run_at,
    "expires": _expires,
    "tags": _tags,
    "meta": _meta,
    "id": _id,
    "conn": lambda value: value,  # looked at when it is used: a connection belongs to a moment
    "outbox": lambda value: value,  # the same
    "unique": check_unique,
    "rate_limit": check_rate_limit,
    "concurrency": check_concurrency,
    "lane": check_lane,
    "breaker": check_breaker,
}
