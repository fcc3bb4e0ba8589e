"""`App`: the one object a program holds. It joins the parts and hands calls to them; it decides nothing itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from inspect import isasyncgenfunction, isgeneratorfunction
from pathlib import Path
from threading import RLock
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack

from dayjob.bounds import Declared as Bounds
from dayjob.clock import seconds
from dayjob.combiner import Combiner
from dayjob.config import Settings, resolve_url
from dayjob.declare import Declaring, Tasks
from dayjob.errors import ConfigError, shown
from dayjob.events import Bus
from dayjob.eventstream import EventStream
from dayjob.holding import Limiting
from dayjob.jobs import JobsManager
from dayjob.later import Later
from dayjob.limits import BreakersManager, LimitsManager
from dayjob.link import Link
from dayjob.locate import AppRef, import_included, ref_of
from dayjob.offload import offload
from dayjob.policies import check_int, check_name
from dayjob.producer import Producer, check_hook
from dayjob.queues import QueuesManager, WorkerStats
from dayjob.registry import Registry
from dayjob.schedules import SchedulesManager
from dayjob.store import open_store
from dayjob.task import INCLUDERS, NewJob, Task
from dayjob.transactions import Joiner, TransactionBlock

if TYPE_CHECKING:
    from dayjob.gating import Concurrency, RateLimit
    from dayjob.job import Job
    from dayjob.options import JobOptions, QueueDefaults
    from dayjob.store.contract import Store
    from dayjob.store.records import Health
    from dayjob.testing import Testing, VirtualClock
    from dayjob.worker.lent import JobTransaction
    from dayjob.worker.worker import Worker

F = TypeVar("F", bound=Callable[..., Any])
Queues = Mapping[str, int] | Sequence[str] | str | None
Included = str | Tasks | Task[Any, Any] | ModuleType


class App(Declaring, Limiting, Later):
    """Background jobs of one program: its tasks, its store, and the ways to enqueue, look, act and work.

    Nothing is opened before first use; an app may be used from any thread and event loop, and in forked children.

    Args:
        url: where the jobs are; else `DAYJOB_URL`, else `sqlite:///dayjob.db`. A relative SQLite path is taken beside
            the nearest `pyproject.toml`.
        namespace: keeps several apps apart in one store.
        include: modules with tasks, by name or pattern (`"shop.*.tasks"`), imported when first needed; or `Tasks`.
        lifespan: a function that returns an (async) context manager, entered once per worker process; what it yields
            is `ctx.state`. A generator function will do.
        settings: numbers that hold for the whole app; else from the environment (`DAYJOB_<NAME>`).
    Attributes:
        jobs: looking at jobs and acting on them. queues: the same for queues. limits, breakers: how they stand, and changing them.
        schedules: what runs again and again.
        settings: as given. bus: the events of this process.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str = "dayjob",
        include: Iterable[Included] = (),
        lifespan: Callable[[], Any] | None = None,
        settings: Settings | None = None,
    ) -> None:
        if settings is not None and not isinstance(settings, Settings):
            raise ConfigError(f"settings must be a Settings, not {shown(settings)}")
        self._place(url)
        self._namespace = _checked_namespace(namespace)
        self._lifespan = None if lifespan is None else _manager("lifespan", lifespan)
        self.settings = settings or Settings.from_env(os.environ)
        self.bus = Bus()
        self.ref: AppRef | None = None
        self._arounds: list[Callable[[Any], Any]] = []
        self._bounds = Bounds()
        self._link = Link(self._open_store, self._bounds.tell)
        self._included: list[str] = []
        self._including = RLock()
        self.jobs = JobsManager(self._link, lambda: self.registry, self.settings)
        self.queues = QueuesManager(self._link)
        self.limits = LimitsManager(self._link)
        self.breakers = BreakersManager(self._link, self.bus)
        self._combiner = Combiner(self._link)
        self._joiner = Joiner(self._link, self._namespace)
        self._joiner.owner = self
        self._producer = Producer(
            self._combiner, self._joiner, self.jobs, lambda: self.registry, self.settings, self.bus, self._link
        )
        self._producer.app = self
        self._registry = Registry(self.settings, self._producer)
        self.schedules = SchedulesManager(self._link, lambda: self.registry, self._producer, self.jobs)
        self.include(*([include] if isinstance(include, (str, Tasks)) else include))

    # -- declaring ---------------------------------------------------------------------------------------------------

    def _declared(self, task: Task[Any, Any]) -> None:
        self._registry.add(task)

    def include(self, *tasks: Included) -> None:
        """Make tasks known that were declared without the app: `Tasks`, single tasks, modules, or patterns of names.

        Names and patterns are imported when the tasks are first needed, so that they may import this app's module.
        """
        for one in tasks:
            if isinstance(one, str):
                self._included.append(one)
                INCLUDERS.add(self)
            elif isinstance(one, Task):
                self._registry.add(one)
            elif isinstance(one, Tasks):
                for task in one:
                    self._registry.add(task)
            elif isinstance(one, ModuleType):
                self.include(*dict.fromkeys(found for found in vars(one).values() if isinstance(found, (Tasks, Task))))
            else:
                raise ConfigError(f"include takes names of modules, Tasks and tasks, not {shown(one)}")

    def queue(
        self,
        name: str,
        *,
        defaults: QueueDefaults | None = None,
        max_depth: int | None = None,
        when_full: Literal["raise", "wait", "drop_oldest"] | None = None,
        rate_limit: RateLimit | None = None,
        concurrency: Concurrency | int | None = None,
    ) -> None:
        """Say what holds for a queue. Limits are held in the store, for all workers and producers; whoever opens the app tells it.

        Args:
            defaults: options of its jobs where neither the job nor its task says anything.
            max_depth: waiting jobs it takes. when_full: for those beyond, `raise` (`QueueFull`, the default), `wait` until there is
                room, for `Settings.full_timeout` seconds, or `drop_oldest`: the oldest waiting one is dead, reason `shed`.
            rate_limit: `RateLimit(10, per=1)`: claims in any `per` seconds. concurrency: jobs that run at once.
        Raises:
            ConfigError: a value makes no sense.
        """
        said = {"max_depth": max_depth, "when_full": when_full, "rate_limit": rate_limit, "concurrency": concurrency}
        if defaults is not None and not isinstance(defaults, Mapping):
            raise ConfigError(f"queue {name!r}: defaults must be a mapping of options, not {shown(defaults)}")
        self._bounds.declare(name, said)
        self._registry.queue_defaults(name, **(defaults or {}))
        if self._link.used:
            self._bounds.tell(self._link())

    def on_enqueue(self, hook: F) -> F:
        """Decorator: call *hook* `(new_job)` before each job is stored; it may write into `new_job.meta`."""
        self._producer.hooks.append(check_hook(hook))
        return hook

    def around(self, hook: F) -> F:
        """Decorator: enter the (async) context manager `hook(ctx)` around every attempt, in its thread and context.

        It sees the exception. The first that was registered is the outermost. A generator function will do.
        """
        self._arounds.append(_manager("around", hook))
        return hook

    def on(self, event: str) -> Callable[[F], F]:
        """Decorator: call the function with each event of this name (`"job.dead"`; `"*"`: all) of this process."""

        def subscribe(fn: F) -> F:
            try:
                self.bus.subscribe(event, fn)
            except ValueError as error:
                raise ConfigError(str(error)) from None
            return fn

        return subscribe

    # -- enqueueing --------------------------------------------------------------------------------------------------

    def enqueue(self, task: str, args: Mapping[str, Any] | None = None, **options: Unpack[JobOptions]) -> Job[Any]:
        """Store a job by its task's name, whose code need not be here.

        Args:
            task: the name. args: the arguments in their JSON forms, by parameter name.
            options: as for `task.using(...)`.
        Raises:
            ConfigError, PayloadError: an option or argument makes no sense; nothing was written.
            StoreUnavailable: the store could not be reached for 30 s.
        """
        return self._producer.store(self._producer.named(task, args, **options))

    async def aenqueue(
        self, task: str, args: Mapping[str, Any] | None = None, **options: Unpack[JobOptions]
    ) -> Job[Any]:
        """Awaitable `enqueue`."""
        return await self._producer.astore(self._producer.named(task, args, **options))

    def enqueue_many(self, jobs: Iterable[NewJob[Any]]) -> list[Job[Any]]:
        """Store many calls, `[task.job(...), ...]`, in their order; each 1,000 are all or none.

        Raises:
            ConfigError: no calls, or something that is none. StoreUnavailable: earlier thousands are stored.
        """
        return self._producer.store_many(jobs)

    async def aenqueue_many(self, jobs: Iterable[NewJob[Any]]) -> list[Job[Any]]:
        """Awaitable `enqueue_many`."""
        return await self._producer.astore_many(jobs)

    def transaction(self, connection: Any) -> TransactionBlock:
        """A block (`with`, `async with`) in which every enqueue joins the transaction of *connection*.

        The jobs are there when it commits, and never if it does not. The block only says where enqueues go: it
        neither begins nor ends a transaction. It holds for the task or thread that entered it.

        Args:
            connection: a psycopg, asyncpg, sqlite3, SQLAlchemy or Django connection, or an SQLAlchemy session, to the
                database in which the jobs are.
        Raises:
            ConfigError: on entering: it is none, or leads elsewhere.
        """
        return self._joiner.block(connection)

    def outbox(self, connection: Any) -> TransactionBlock:
        """A block (`with`, `async with`) in which every enqueue is written into the outbox where *connection* leads.

        For a queue that is in another store than the application's data: the job exists when the transaction commits, and
        `dayjob relay` delivers it. The connection may lead to PostgreSQL, SQLite, MySQL or MariaDB; see `transaction`.
        """
        return self._joiner.outbox(connection)

    # -- working -----------------------------------------------------------------------------------------------------

    def worker(
        self,
        queues: Queues = None,
        *,
        concurrency: int | None = None,
        grace: float | timedelta | None = None,
        max_jobs: int | None = None,
        max_memory: int | None = None,
    ) -> Worker:
        """A worker for this process: `.run()`, `await .arun()`, `.run_until_idle()`, `.stop()`.

        Args:
            queues: names, or names with their own concurrency; None: all.
            concurrency: jobs at once in queues without their own. grace: seconds running jobs may go on when told to stop.
            max_jobs: end after so many. max_memory: end, after draining, above so many megabytes.
        """
        from dayjob.worker.worker import Worker

        return Worker(
            self.store,
            self.registry,
            self.settings,
            self.bus,
            self.hooks,
            app=self,
            ref=ref_of(self),
            queues=_checked_queues(queues),
            concurrency=self.settings.concurrency
            if concurrency is None
            else check_int("concurrency", concurrency, 1, 100_000),
            grace=self.settings.grace if grace is None else seconds(grace, "grace"),
            max_jobs=None if max_jobs is None else check_int("max_jobs", max_jobs, 1, 2**53),
            max_memory=None if max_memory is None else check_int("max_memory", max_memory, 1, 2**53),
        )

    def workers(self) -> list[WorkerStats]:
        """The workers that are alive, in all processes."""
        return self.queues.workers()

    async def aworkers(self) -> list[WorkerStats]:
        """Awaitable `workers`."""
        return await offload(self.queues.workers)

    def events(self, *names: str) -> EventStream:
        """A stream of what happens in all processes, from now on: `for event in app.events("job.dead"): ...`

        Args:
            names: only these events, or kinds of events (`"job"`); none: all.
        """
        return EventStream(self._link, names)

    # -- the store ---------------------------------------------------------------------------------------------------

    def migrate(self, *, dry_run: bool = False, part: Literal["pre", "post", "roles"] | None = None) -> list[str]:
        """Bring the store's schema up to date; returns the migrations applied (or due, if *dry_run*).

        Args:
            part: "pre", what a new release adds, before its workers start; "post", what the previous one leaves, when
                its last worker has gone; "roles", who may do what on a server. None: the first two.
        """
        return self.bare_store.migrate(dry_run=dry_run, part=part)

    async def amigrate(
        self, *, dry_run: bool = False, part: Literal["pre", "post", "roles"] | None = None
    ) -> list[str]:
        """Awaitable `migrate`."""
        return await offload(self.migrate, dry_run=dry_run, part=part)

    def check(self) -> Health:
        """Look at the store's health without changing anything."""
        return self.bare_store.check()

    async def acheck(self) -> Health:
        """Awaitable `check`."""
        return await offload(self.check)

    def open(self) -> None:
        """Open the store now instead of at first use."""
        self._link()

    async def aopen(self) -> None:
        """Awaitable `open`."""
        await offload(self._link)

    def close(self) -> None:
        """Let go of the store. A later use opens it again."""
        self.jobs.waiting.close()
        self._link.close()

    async def aclose(self) -> None:
        """Awaitable `close`."""
        await offload(self.close)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await self.aopen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- testing and the parts ---------------------------------------------------------------------------------------

    def testing(
        self,
        mode: Literal["manual", "inline"] = "manual",
        clock: VirtualClock | None = None,
    ) -> Testing:
        """A context manager that puts a private in-memory store in the place of the app's own, for tests.

        Args:
            mode: `manual`: jobs run when `t.drain()` or `t.run(job)` says so; `inline`: at once, where enqueued.
            clock: the time of that store; by default it starts now and stands still until `t.clock.advance(...)`.
        """
        from dayjob.testing import Testing

        return Testing(self, mode, clock)

    @contextmanager
    def substituted(
        self, store: Store, *, stored: Callable[[Sequence[Job[Any]]], None] | None, guard: Callable[[], None]
    ) -> Iterator[None]:
        """Use *store* instead of the app's own while the block runs; for tests.

        Args:
            stored: called with the jobs of each enqueue. guard: called before a wait without end.
        """
        producer, combiner, waiting = self._producer, self._combiner, self.jobs.waiting
        before = (producer.stored, combiner.patience, waiting.guard)
        waiting.close()
        producer.stored, combiner.patience, waiting.guard = stored, 0.0, guard
        off, self._joiner.off = self._joiner.off, True
        try:
            with self._link.exchanged(store):
                yield
                waiting.close()
        finally:
            producer.stored, combiner.patience, waiting.guard = before
            self._joiner.off = off

    @property
    def under_test(self) -> bool:
        """True while another store stands in the place of the app's own, to which no caller's connection leads."""
        return self._joiner.off

    def lend(self, limit: float | None) -> JobTransaction:
        """What `ctx.transaction()` gives where no job runs, in a direct call: nothing is completed at its end."""
        from dayjob.worker.lent import JobTransaction

        return JobTransaction(self.store, self, limit, None)

    @property
    def url(self) -> str:
        """Where the jobs are. May be set as long as the store is not open."""
        return self._url

    @url.setter
    def url(self, url: str) -> None:
        if self._link.opened:
            raise ConfigError(f"the store {self._url} is open: close the app before it gets another URL")
        self._place(url)

    @property
    def namespace(self) -> str:
        """What keeps several apps apart in one store."""
        return self._namespace

    @property
    def store(self) -> Store:
        """The engine behind it all, opened on first use."""
        return self._link()

    @property
    def bare_store(self) -> Store:
        """The engine as it is, nothing opened and nothing migrated: for those who look after it."""
        return self._link.bare()

    @property
    def registry(self) -> Registry:
        """The tasks; what `include` names is imported by now."""
        if self._included:
            self.import_included()
        return self._registry

    @property
    def hooks(self) -> Any:
        """What a worker runs around jobs."""
        from dayjob.worker.hooks import Hooks

        return Hooks(self._lifespan, tuple(self._arounds), self.jobs.get)

    def _open_store(self) -> Store:
        if self._placed:
            import logging

            logging.getLogger("dayjob.store").info("jobs are in %s: a relative path, taken from the project", self._url)
        return open_store(self._url, lease=self.settings.lease, namespace=self._namespace)

    def _place(self, url: str | None) -> None:
        self._url = resolve_url(url, os.environ, Path.cwd())
        self._placed = self._url not in (url, os.environ.get("DAYJOB_URL", "").strip())

    def import_included(self) -> None:
        """Import the modules that `include` names and that were not needed before."""
        with self._including:
            names, self._included = self._included, []
            try:
                self.include(*import_included(names))
            except BaseException:
                self._included = names + self._included
                raise
            if not self._included:
                INCLUDERS.discard(self)

    def __repr__(self) -> str:
        return f"<App {self._url.partition('://')[0]} with {len(self._registry.names())} tasks>"


def _manager(what: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    """*fn*, which returns a context manager; a bare generator function is made one."""
    if isasyncgenfunction(fn):
        return asynccontextmanager(fn)
    if isgeneratorfunction(fn):
        return contextmanager(fn)
    if not callable(fn):
        raise ConfigError(f"{what} must be a function that returns a context manager, not {shown(fn)}")
    return fn


def _checked_queues(queues: Queues) -> Mapping[str, int] | Sequence[str] | None:
    if queues is None:
        return None
    if isinstance(queues, str):
        return [check_name("queue", queues)]
    if not queues:
        raise ConfigError("queues= names no queue: leave it out for all")
    for name in queues:
        check_name("queue", name)
    if isinstance(queues, Mapping):
        return {name: check_int(f"the concurrency of queue {name!r}", n, 1, 100_000) for name, n in queues.items()}
    return list(dict.fromkeys(queues))


def _checked_namespace(namespace: object) -> str:
    if not isinstance(namespace, str) or not namespace.isidentifier() or not namespace.isascii() or len(namespace) > 40:
        raise ConfigError(
            f"namespace={shown(namespace)} must be a word of at most 40 letters, digits and _ that begins with a letter"
        )
    return namespace
