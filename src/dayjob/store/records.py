"""The plain rows that cross the line between the engines and the rest.

Payloads, results, errors, options and recorded values are bytes that no engine looks into. Points in time are
stamps (`dayjob.clock`: int microseconds, UTC, the store's clock); durations are float seconds.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Literal, TypeVar

from msgspec import Struct

from dayjob.errors import DayjobError
from dayjob.states import Outcome, State
from dayjob.store.gating import Gating

# -- producing ---------------------------------------------------------------------------------------------------


class NewRow(Struct, gc=False):
    """A job to store. Everything was checked above the line.

    Attributes:
        id: UUID text made by the producer (UUIDv7 unless the caller chose it).
        delay: seconds from the store's now until it is due; None with `run_at` None means at once.
        run_at: the stamp at which it is due; wins over `delay`.
        expires: seconds from the store's now; a job not started by then is cancelled with reason `expired`.
        max_attempts: None leaves it to the task's own definition in the worker.
        tags: JSON array text, or None. meta: JSON object text, or None.
        options: opaque per-job overrides (retry, timeout, retention), or None.
        gating: its key, lane and gates, or None.
    """

    id: str
    task: str
    queue: str
    payload: bytes
    priority: int = 0
    delay: float | None = None
    run_at: int | None = None
    expires: float | None = None
    max_attempts: int | None = None
    tags: str | None = None
    meta: str | None = None
    options: bytes | None = None
    gating: Gating | None = None


class Enqueued(Struct, frozen=True):
    """What became of one `NewRow`, in the order given.

    Attributes:
        outcome: `inserted`; `existing` when the id was stored before (also when it is finished or pruned);
            the other words belong to unique keys.
        error: why this one row was refused while its neighbours were stored, else None.
        id: the id of the job that stands for the row, when that is another one.
    """

    outcome: Literal["inserted", "existing", "replaced", "extended", "merged", "refused"]
    error: DayjobError | None = None
    id: str | None = None


INSERTED = Enqueued("inserted")
EXISTING = Enqueued("existing")


class Tick(Struct, frozen=True):
    """What became due of one schedule.

    Attributes:
        key: of its record (kind `schedule`). expected: the version it was read at, at least 1. value: the record's next value.
        jobs: what it makes, perhaps nothing.
    """

    key: str
    expected: int
    value: bytes
    jobs: tuple[NewRow, ...] = ()


# -- running -----------------------------------------------------------------------------------------------------


class Want(Struct, frozen=True):
    """A wish for up to *limit* jobs.

    Attributes:
        queues: names to take from; None means all queues but *exclude*. Over several queues the higher
            priority goes first, then the older place.
        suspects: True takes only suspects (jobs that were in a process which crashed), False only the others.
        id: take this one job if it is available, whatever its queue, also from a paused one and when it is a suspect;
            the other wishes are void then. For a person who runs one job by hand.
    """

    queues: tuple[str, ...] | None
    limit: int
    exclude: tuple[str, ...] = ()
    suspects: bool = False
    id: str | None = None


class Claimed(Struct, array_like=True, gc=False):
    """A job that this worker now holds; what an executor needs and nothing else.

    Attributes:
        entry: the fence: every late write names id and entry.
        attempt: attempts spent before this claim. crashes: crashes alone, before this claim.
        round: how often the job was put back by hand after it had finished (0: never).
        parked: how often it was parked in a row.
        recorded: True when the job has a checkpoint to read back.
    """

    entry: int
    id: str
    task: str
    queue: str
    priority: int
    attempt: int
    crashes: int
    round: int
    parked: int
    max_attempts: int | None
    created_at: int
    run_at: int
    expires_at: int | None
    tags: str | None
    meta: str | None
    options: bytes | None
    recorded: bool
    suspect: bool
    payload: bytes


class Settlement(Struct, gc=False):
    """How a claim ended: made by the executor, carried by the pump, applied by the store (`states.EFFECTS`).

    Attributes:
        started_at, finished_at: stamps; started_at is 0 when the job never started.
        delay: seconds until it is due again (failed, snoozed, parked).
        result: the encoded return value (completed).
        error: the encoded error; kept with the attempt and, when the job is dead, with the job.
        reason: a word or short text why (dead, cancelled, parked, crashed).
        keep: seconds the finished job is kept; None: for ever; 0: its id only. Ignored unless terminal.
        claim_no: the claim it came with, which tells the store where to look; None: unknown.
    """

    id: str
    entry: int
    outcome: Outcome
    started_at: int
    finished_at: int
    delay: float = 0.0
    result: bytes | None = None
    error: bytes | None = None
    reason: str | None = None
    keep: float | None = None
    claim_no: int | None = None


class Turn(Struct):
    """The reply to a turn.

    Attributes:
        now: the store's clock.
        claimed: the jobs of this claim number, want by want, most urgent first within each.
        refused: (id, entry) of settlements that came too late; nothing of them was written.
        settled: (id, entry, state) where the store decided otherwise than the settlement's outcome says
            (a crashed job that is now dead, a cancel asked for while it failed).
        control: changes whenever a cancel, a pause or a setting changed: beat to learn what.
        next_due: the stamp of the earliest scheduled job in the store, None when there is none.
        suspects: True when suspects wait in the queues of the wants for a solo worker; False in a turn without wants.
    """

    now: int
    claimed: list[Claimed]
    refused: list[tuple[str, int]]
    settled: list[tuple[str, int, State]]
    control: int
    next_due: int | None
    suspects: bool


class Progress(Struct, frozen=True, tag=True):
    """How far a running job is."""

    done: float
    total: float | None
    note: str = ""


class Log(Struct, frozen=True, tag=True):
    """A line that the job wrote; kept with it."""

    at: int
    level: str
    message: str


class Checkpoint(Struct, frozen=True, tag=True):
    """A value the job wants back after a crash or a failure; the last one counts."""

    value: bytes


Write = Progress | Log | Checkpoint


class Lease(Struct, frozen=True):
    """What a fenced write must name."""

    worker: str
    id: str
    entry: int


# -- in a caller's transaction ------------------------------------------------------------------------------------

T = TypeVar("T")


class Statement(Struct, frozen=True):
    """One statement for a connection that is not ours. Its placeholders are `$1`, `$2` …, each of them in order."""

    sql: str
    parameters: tuple[Any, ...] = ()


Rows = list[tuple[Any, ...]]

Script = Generator[Statement, Rows, T]
"""An operation of the engine on somebody else's connection: yields statements, is sent the rows of each, returns its answer.

So the engine writes it once, and it runs on sync and async connections alike.
"""

Standing = Literal["completed", "open", "held", "lost"]
"""How a job stands that tried to complete in a transaction; see `Joining.standing`."""


# -- the cluster -------------------------------------------------------------------------------------------------


class WorkerInfo(Struct, frozen=True):
    """One incarnation of a worker process.

    Attributes:
        id: UUID text; a worker that was given up comes back under a new one.
        queues: as configured, for show. solo: runs suspects, one at a time, in a process of its own.
        expiry: seconds without a beat after which it is given up.
        running: jobs running at this beat, for show.
    """

    id: str
    name: str
    host: str
    pid: int
    queues: str = "*"
    concurrency: int = 0
    solo: bool = False
    expiry: float = 20.0
    version: str = ""
    running: int = 0


class Beat(Struct, frozen=True):
    """What a worker learns from its beat.

    Attributes:
        now: the store's clock.
        lost: True when the worker was given up: stop its jobs, take a new id, begin again. All else is empty then.
        cancelled: (id, entry) of held jobs that someone wants cancelled.
        paused: names of all paused queues.
        control: the version these answers belong to.
        term: the leader's term when this worker leads, else None.
    """

    now: int
    lost: bool = False
    cancelled: tuple[tuple[str, int], ...] = ()
    paused: frozenset[str] = frozenset()
    control: int = 0
    term: int | None = None


class Tally(Struct, frozen=True):
    """How often something happened to a queue since the last beat: rates, and the counts that P8 asks for.

    Attributes:
        name: an `Outcome`, or `retried`, `refused`, `trimmed` ….
        busy: seconds of execution behind it.
    """

    queue: str
    name: str
    count: int
    busy: float = 0.0


class Rescued(Struct, frozen=True):
    """A job taken from a worker that is gone; *worker* is its id."""

    id: str
    entry: int
    task: str
    queue: str
    worker: str
    state: State
    crashes: int
    reason: str | None = None


class Gone(Struct, frozen=True):
    """A worker that was given up, and what was taken from it."""

    worker: WorkerInfo
    last_beat: int
    jobs: list[Rescued]


class Bound(Struct, frozen=True):
    """A count bound of retention: of finished jobs in *state* (of *queue*, of *task*) keep the newest *count*.

    Without a queue or task it holds for each queue apart, but for those in *exclude*: they have a bound of their own.
    """

    state: State
    count: int
    queue: str | None = None
    task: str | None = None
    exclude: tuple[str, ...] = ()


# -- looking and acting ------------------------------------------------------------------------------------------


class Filter(Struct, frozen=True):
    """Which jobs; all conditions given must hold. Nothing given means every job, where the caller allows that.

    Attributes:
        since: created at or after this stamp. text: a substring of id, task name, tags or meta (not of payloads).
        entry: waiting under this entry still: whatever changed the job since has given it another. Beside one id, for an `Edit`.
    """

    ids: tuple[str, ...] | None = None
    states: tuple[State, ...] | None = None
    queue: str | None = None
    task: str | None = None
    tag: str | None = None
    since: int | None = None
    text: str | None = None
    entry: int | None = None

    @property
    def empty(self) -> bool:
        return self == Filter()


class AttemptRow(Struct, frozen=True):
    """One ended claim of a job, in the order of happening.

    Attributes:
        number: the attempt it was (1 = first) in its round; a claim that spent none carries the number it would have had.
        started_at: None when it never started or nobody lived to say. worker: its name.
    """

    number: int
    round: int
    outcome: Outcome
    started_at: int | None
    finished_at: int
    worker: str | None
    error: bytes | None = None
    reason: str | None = None


class JobRow(Struct):
    """All that the store knows of one job; *worker* is the name of the one that runs or finished it, *place* where it stands
    in its queue (0 when finished)."""

    id: str
    entry: int
    task: str
    queue: str
    state: State
    payload: bytes
    priority: int = 0
    attempt: int = 0
    crashes: int = 0
    round: int = 0
    max_attempts: int | None = None
    reason: str | None = None
    created_at: int = 0
    run_at: int = 0
    expires_at: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    keep_until: int | None = None
    worker: str | None = None
    suspect: bool = False
    cancelling: bool = False
    progress: Progress | None = None
    result: bytes | None = None
    error: bytes | None = None
    tags: str | None = None
    meta: str | None = None
    options: bytes | None = None
    place: int = 0
    gating: Gating | None = None
    attempts: list[AttemptRow] = []


class Whole(Struct):
    """A job with all that was kept with it: its attempts, what it logged, its checkpoint."""

    job: JobRow
    logs: list[Log] = []
    checkpoint: bytes | None = None


class Page(Struct, frozen=True):
    """A page of `find`, newest id first; `after` is the key of the next page, None at the end."""

    jobs: list[JobRow]
    after: str | None


class QueueRow(Struct, frozen=True):
    """A queue as it stands.

    Attributes:
        counts: jobs by state (absent: 0). oldest: stamp since which the oldest available job waits, or None.
        rates: per second over the last full minute by tally name.
    """

    name: str
    paused: bool
    counts: dict[str, int]
    oldest: int | None
    rates: dict[str, float]


class WorkerRow(Struct, frozen=True):
    """A worker as its last beat told it."""

    info: WorkerInfo
    started_at: int
    last_beat: int
    leader: bool
    held: int


class Sample(Struct, frozen=True):
    """What the sampler or the tallies wrote down for one queue and one minute."""

    at: int
    queue: str
    name: str
    value: float


class Cancel(Struct, frozen=True):
    """Waiting jobs become cancelled and are kept *keep* seconds; running ones are asked to stop, within a second."""

    reason: str | None = None
    keep: float | None = 86_400.0


class Retry(Struct, frozen=True):
    """Terminal jobs become available again: a new round, attempt and crashes 0, history kept; waiting ones run now."""


class Delete(Struct, frozen=True):
    """Terminal and waiting jobs go, with all that was recorded; running ones are left alone."""


class Edit(Struct, frozen=True):
    """Change what is given of waiting jobs. `run_at`: a stamp, or 0 for now (promotion). `gating`: lane, weight and gates
    from now on (`Gating()`: none); its `unique` does not count: a key stays whose it is."""

    run_at: int | None = None
    priority: int | None = None
    queue: str | None = None
    payload: bytes | None = None
    gating: Gating | None = None


Action = Cancel | Retry | Delete | Edit

FITS: dict[type[Action], tuple[tuple[str, ...], tuple[str, ...]]] = {
    Cancel: (("scheduled", "blocked", "available", "running"), ()),
    Retry: (("scheduled",), ("completed", "cancelled", "dead")),
    Delete: (("scheduled", "blocked", "available"), ("completed", "cancelled", "dead")),
    Edit: (("scheduled", "blocked", "available"), ()),
}
"""Action -> the live and the finished states it fits."""


class Record(Struct, frozen=True):
    """A small versioned value of the store (settings, schedules, guards)."""

    kind: str
    key: str
    value: bytes
    version: int
    expires_at: int | None = None


class Health(Struct, frozen=True):
    """The answer of `check`.

    Attributes:
        engine: name and version of what is behind the URL. schema: its version; wanted: the code's.
        facts: things worth knowing, by name. warnings: what is wrong, each with its remedy.
    """

    engine: str
    schema: int
    wanted: int
    facts: dict[str, str]
    warnings: list[str]


class Durability(Struct, frozen=True):
    """What a store keeps. `crash_costs`: what a crash of it loses; warnings: what may lose more, each with its remedy."""

    engine: str
    crash_costs: str
    warnings: list[str]
