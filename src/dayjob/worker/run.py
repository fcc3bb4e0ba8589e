"""One claim of one job inside a worker, the batch it came with, and the places in which jobs run."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from dayjob.context import JobContext
from dayjob.errors import ConfigError, LeaseLost
from dayjob.store.records import Checkpoint, Claimed, Lease, Log, Progress, Settlement, Write

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from dayjob.config import Settings
    from dayjob.gating import Breaker
    from dayjob.registry import Plan
    from dayjob.store.contract import Joining
    from dayjob.worker.lent import JobTransaction
    from dayjob.worker.parcels import Parcel

# Why a running job is told to stop; also what `ctx.raise_if_cancelled` says.
TIMEOUT = "timeout"
CANCEL = "cancel"
SHUTDOWN = "shutdown"
LOST = "lost"


def monotonic() -> int:
    """This process's monotonic clock in microseconds."""
    return time.monotonic_ns() // 1000


class Home(Protocol):
    """What a run needs of the executor that runs it, or of the pool child."""

    state: Any
    app: Any

    @property
    def settings(self) -> Settings: ...
    @property
    def store(self) -> Joining: ...

    def completing(self, run: Run, completion: Completion) -> Completion | None:
        """*run* is about to complete inside a transaction: remember it. None: this run settles nothing."""

    def note(self, run: Run) -> None:
        """*run* has something to record soon."""

    def record(self, run: Run, writes: list[Write]) -> bool:
        """Write now, fenced; False: refused."""

    def recorded(self, run: Run) -> bytes | None:
        """The checkpoint of the run's job."""

    def stamp(self) -> int:
        """The store's time by this process's monotonic clock."""

    def undisturbed(self, run: Run) -> AbstractContextManager[None]:
        """A block in which nobody raises anything inside *run*."""


class Batch:
    """What one claim brought. The beat names it as long as anything of it is unsettled.

    Attributes:
        no: the claim's number. worker: the incarnation that claimed it. at: monotonic microseconds of the claim.
        runs: unsettled runs by entry.
    """

    __slots__ = ("at", "no", "runs", "worker")

    def __init__(self, no: int, worker: str, at: int) -> None:
        self.no, self.worker, self.at = no, worker, at
        self.runs: dict[int, Run] = {}


class Completion:
    """How a run completes inside a transaction.

    Attributes:
        settlement: as the store gets it. said: a result was given.
        logs: lines of the job that go along with it.
        committed: our own commit has returned, or the store has confirmed it. adopted: a test's store, to which no
            connection of the task leads: it is settled when the function has returned.
    """

    __slots__ = ("adopted", "committed", "logs", "said", "settlement")

    def __init__(self, settlement: Settlement, *, said: bool = True) -> None:
        self.settlement, self.said = settlement, said
        self.logs: list[Log] = []
        self.committed = self.adopted = False


class Run:
    """One claim of one job, from claim to settlement; also the host of its context.

    Most runs are over within microseconds: what they rarely need has a default on the class and costs them nothing.

    Attributes:
        job, plan, batch, slots: what was claimed, how it runs, the claim, the place it takes.
        started: monotonic microseconds, 0 before.
        task: the asyncio task, once there is one. thread: the ident of the thread that runs it.
        stopping: why it was told to stop. told: how often. told_at: monotonic microseconds of the first time.
        abandoned: it did not stop; its process must go before it may run again. replaced: its place was given away.
        settlement: how it ended; None with `over` True: nothing may be written for it any more.
        error: the exception behind the settlement.
        spoke: the job has said something that may not be written yet. dirty: the recorder knows. writing: what it is
            writing at this moment.
        parcel: in which it runs, when it is a call of a batch task. members: the runs of a parcel.
        failing: whether its error counts for its task's breaker; None: it says nothing. pauses: limits to be paused, (kind,
            key, seconds) each.
        lent: the `ctx.transaction()` it is inside. completion: how it completed, or tried to, in a transaction.
    """

    started = 0
    task: Any = None
    thread: int | None = None
    stopping: str | None = None
    told = 0
    told_at = 0
    abandoned = False
    replaced = False
    settlement: Settlement | None = None
    over = False
    error: BaseException | None = None
    failing: bool | None = None
    pauses: list[tuple[str, str, float]] | None = None
    _context: JobContext[Any] | None = None
    _logs: deque[Write] | None = None
    _progress: Progress | None = None
    _saved = False
    dirty = False
    spoke = False
    writing: list[Write] | None = None
    lent: JobTransaction | None = None
    completion: Completion | None = None
    parcel: Parcel | None = None
    members: Sequence[Run] = ()

    def __init__(self, job: Claimed, plan: Plan, batch: Batch, slots: Slots, home: Home) -> None:
        self.job = job
        self.plan = plan
        self.batch = batch
        self.slots = slots
        self.home = home

    def completes(self) -> bool:
        """True once it has completed in a transaction, or is trying to."""
        return self.completion is not None

    @property
    def max_attempts(self) -> int:
        own = self.job.max_attempts
        return self.plan.retry.max_attempts if own is None else own

    # -- the host of the context ---------------------------------------------------------------------------------

    @property
    def state(self) -> Any:
        return self.home.state

    @property
    def app(self) -> Any:
        return self.home.app

    def context(self) -> JobContext[Any]:
        if self._context is None:
            self._context = JobContext(self)
        return self._context

    def progress(self, done: float, total: float | None, note: str) -> None:
        self.check_lease()
        self._progress = Progress(done, total, note)
        self.spoke = True
        self.home.note(self)

    def log(self, level: str, message: str) -> None:
        self.check_lease()
        if self._logs is None:
            self._logs = deque()
        self._logs.append(Log(self.home.stamp(), level, message))
        self.spoke = True
        self.home.note(self)

    def save_checkpoint(self, value: bytes) -> None:
        self.check_lease()
        if self.lent is not None or self.completion is not None:
            raise ConfigError(
                "a checkpoint is saved before the transaction in which the job completes, not in it or after"
            )
        if not self.home.record(self, [Checkpoint(value)]):
            self.stopping = LOST
            self.check_lease()
        self._saved = True

    def read_checkpoint(self) -> bytes | None:
        return self.home.recorded(self) if self.job.recorded or self._saved else None

    def transaction(self, limit: float | None) -> JobTransaction:
        from dayjob.worker.lent import JobTransaction

        return JobTransaction(self.home.store, self.app, limit, self)

    def complete_in(self, connection: Any, result: Any) -> None:
        from dayjob.worker.completions import complete_in

        complete_in(self, connection, result)

    async def acomplete_in(self, connection: Any, result: Any) -> None:
        from dayjob.worker.completions import acomplete_in

        await acomplete_in(self, connection, result)

    @property
    def breaker(self) -> Breaker | None:
        return self.plan.breaker

    def undisturbed(self) -> AbstractContextManager[None]:
        return self.home.undisturbed(self)

    # -- writes that may wait ------------------------------------------------------------------------------------

    def check_lease(self) -> None:
        if self.stopping == LOST:
            raise LeaseLost(self.job.id, self.job.entry)

    @property
    def lease(self) -> Lease:
        return Lease(self.batch.worker, self.job.id, self.job.entry)

    def take_writes(self, *, finished: bool = False) -> list[Write]:
        """Logs in order, then the newest progress; of a *finished* run only the logs: its end says the rest."""
        writes: list[Write] = []
        if self._logs:
            while self._logs and len(writes) < 1000:
                writes.append(self._logs.popleft())
        progress, self._progress = self._progress, None
        if progress is not None and not finished:
            writes.append(progress)
        return writes

    def give_back(self, writes: list[Write]) -> int:
        """Keep *writes* for the next try; returns how many of the oldest lines had to go."""
        logs = deque(write for write in writes if isinstance(write, Log))
        if self._progress is None:
            self._progress = next((write for write in writes if isinstance(write, Progress)), None)
        if self._logs is None:
            self._logs = deque()
        self._logs.extendleft(reversed(logs))
        trimmed = 0
        while len(self._logs) > 1000:
            self._logs.popleft()
            trimmed += 1
        return trimmed


class Slots:
    """The places of one group of queues: at most *limit* of its jobs run at once, of whatever kind.

    A place is a token in `free`; who starts a job takes one and gives it back at its end. Both are single operations
    of a deque, atomic under the GIL: a lock here would be taken twice a job by every thread. `ready` holds the jobs
    claimed ahead, most urgent first; whoever is done with a job takes the next from it, so no thread is woken for it.

    Attributes:
        queues: names, None for all but *exclude*. held: jobs claimed and not settled; the pump's own count.
        hung: those of them that will not end and have lost their place; the others go on without them.
        rate: jobs per second, as last observed; recent: how many that was learned from. since: when the count for it began (monotonic microseconds).
    """

    __slots__ = ("exclude", "free", "held", "hung", "limit", "queues", "rate", "ready", "recent", "since")

    def __init__(self, queues: tuple[str, ...] | None, limit: int, exclude: tuple[str, ...] = ()) -> None:
        self.queues, self.exclude, self.limit = queues, exclude, limit
        self.free: deque[None] = deque([None] * limit)
        self.ready: deque[Run] = deque()
        self.held = 0
        self.hung: set[Run] = set()
        self.rate = 0.0
        self.recent = 0
        self.since = 0

    def take(self) -> Run | None:
        """A place together with the next job for it; None when either is missing."""
        while True:
            try:
                self.free.pop()
            except IndexError:
                return None
            try:
                return self.ready.popleft()
            except IndexError:
                self.free.append(None)
            if not self.ready:  # else one came after we looked, and its bringer may have seen no free place
                return None

    def give(self) -> None:
        """A place is free again; the caller goes on with `take`."""
        self.free.append(None)

    @property
    def busy(self) -> bool:
        """True when a job runs or stands ready."""
        return len(self.free) < self.limit or bool(self.ready)
