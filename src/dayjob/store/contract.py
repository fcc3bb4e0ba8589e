"""The line: what an engine is. The docstrings here are the specification; `tests/contract` is its proof.

Every operation is synchronous, thread-safe and batch-shaped. Each is one short transaction (where it says otherwise, a
few): it happens whole or not at all, and repeating it after a lost reply is harmless where the text says so. `now=None` means the store's clock;
tests pass a stamp. Engines raise `StoreUnavailable` (nothing else is known: repeat), `BadRow` (a row that can never be
stored), `SchemaMismatch`, `NotSupported` or `StoreError` (the store's condition: read-only, damaged); a driver's
exception never crosses the line.

**Fencing.** `entry` is a number of the store that only rises. A job gets a new one each time it becomes available
(and each time it changes hands); a claim takes it along. A late write names worker, id and entry, and the write's own
condition requires that the job still runs under that entry and that the worker has not been given up. A late write
that does not match writes nothing, and the caller is told: a refusal is a return value.

**Place.** Within a queue the order of claims is priority (higher first), then place. A job gets its place when it
becomes available by enqueue, by its time, by a retry or by an edit, or has to wait then (at gates, for a closed queue);
released, lost and crashed jobs keep theirs.

**Liveness.** Workers expire in *live time*: the store's time minus all stretches beyond half an expiry in which it
accepted no beat from anyone. So an outage of the store rescues nobody who beats again afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from dayjob.errors import DayjobError
from dayjob.store.gates import Gates, Ticks
from dayjob.store.records import (
    Action,
    Beat,
    Bound,
    Claimed,
    Durability,
    Enqueued,
    Filter,
    Gone,
    Health,
    JobRow,
    Lease,
    Log,
    NewRow,
    Page,
    QueueRow,
    Record,
    Rows,
    Sample,
    Script,
    Settlement,
    Standing,
    Statement,
    Tally,
    Turn,
    Want,
    Whole,
    WorkerInfo,
    WorkerRow,
    Write,
)

MigrationPart = Literal["pre", "post", "roles"]
"""What a new release adds; what the previous one leaves; who may do what."""


class Jobs(Protocol):
    """Jobs in, jobs out. Used by producer, worker and faces."""

    def enqueue(self, jobs: Sequence[NewRow], *, repeat: bool = False, now: int | None = None) -> list[Enqueued]:
        """Store *jobs* durably, in one transaction, in their order.

        A row with a time ahead becomes `scheduled`, any other `available`; `created_at` is now. An id that is stored
        already (waiting, running, finished) is not stored again and answers `existing`.

        Args:
            jobs: at least one, at most 1,000.
            repeat: the ids may have been stored before by a call whose reply was lost, or were chosen by the caller:
                ids that finished and left the live table, or were pruned less than an hour ago, are `existing` too.
                Without it the caller vouches that they are new: an id among finished jobs need not be noticed, and the
                finished one is seen no more when the other ends, or when it is retried.
        Returns:
            one `Enqueued` per row, in order. One refused row does not refuse its neighbours.
        Raises:
            StoreUnavailable: the outcome is unknown; repeat with `repeat=True`.
        """

    def turn(
        self,
        worker: str,
        claim_no: int | None = None,
        settlements: Sequence[Settlement] = (),
        wants: Sequence[Want] = (),
        *,
        now: int | None = None,
    ) -> Turn:
        """Settle, then stage what is due, then claim, in one round trip; any part may be empty.

        Each part is whole or not at all. An engine may commit what is settled before it claims: a crash in between leaves
        the one done and the other not, as if the worker had sent two turns.

        Settle: each settlement moves its job as `EFFECTS` says. Terminal jobs move to history with their result or
        error. Every outcome but `completed` appends an attempt, except the release of what never started. Failed,
        snoozed and parked jobs become `scheduled` at now + delay; released ones become available in their old place
        with a new entry. A job for which a cancel was asked, and which did not complete, becomes cancelled. A crashed
        job becomes a suspect, or dead with reason `crashed` at the third crash; a suspect that is released or parked
        stays one. Repeating a settlement that was applied is a refusal that harms nothing. Of a job's attempts the
        first 10 and the newest 90 are kept, the rest counted as `trimmed`.

        Stage: scheduled jobs that are due become available with a new entry and place, in the order of their time.

        Claim: for each want in order, the first *limit* available jobs of its queues that are not paused become
        running under this worker and claim number. Nothing that cannot run is looked at. A worker that has been given
        up (or never beat) claims nothing.

        Args:
            worker: the incarnation's id.
            claim_no: its own running number for this claim, rising from 1; required with wants. A number under which
                something was claimed before claims nothing new: it returns the jobs of that batch that still run.
        Returns:
            Turn; `refused` names settlements whose fence no longer holds.
        Raises:
            StoreUnavailable: the outcome is unknown; repeat the same call with the same claim number.
        """

    def record(self, lease: Lease, writes: Sequence[Write], *, now: int | None = None) -> bool:
        """Keep *writes* with the running job; fenced. False: the lease is gone and nothing was written.

        Progress and checkpoint replace the earlier one; logs append (the newest 1,000 are kept, the rest counted as
        `trimmed`). A checkpoint survives failures, crashes and snoozes, and goes with a retry by hand.
        """

    def recorded(self, id: str) -> bytes | None:
        """The job's checkpoint, or None."""

    def act(self, which: Filter, action: Action, *, limit: int = 1000, now: int | None = None) -> list[str]:
        """Cancel, retry, delete or edit up to *limit* of the jobs that match, and name those that were touched.

        See the `Action` records for what each does. A job whose state does not fit the action is not touched and not
        counted against the limit, so that a caller repeats until fewer than *limit* come back. An edit of an available job gives it a
        new entry; it keeps its place unless queue, priority, time, lane or gates change (of a strict lane also then, see
        `Gates`). Waiting jobs with their time edited to the past become available at once. A running job asked to cancel counts as touched (once: asking again does not).
        """


class Transaction(Protocol):
    """A write transaction on a connection of the store's own, lent to one job. Sync; from one thread at a time.

    Attributes:
        connection: the driver's. limit: seconds it may stay open, inf for no limit.
        expired: it was open longer, and was rolled back.
    """

    connection: Any
    limit: float
    expired: bool

    def run(self, statement: Statement) -> Rows:
        """Run *statement* and return its rows."""

    def commit(self) -> None:
        """Commit, and let go of the connection.

        Raises:
            TransactionExpired: rolled back. StoreUnavailable: it may have been committed; ask `standing`. StoreError: the
                store refuses (a constraint that was deferred, a conflict), and has rolled back.
        """

    def rollback(self) -> None:
        """Roll back, and let go of the connection. Harmless after either end; never raises."""

    def break_off(self) -> None:
        """Roll back at once, whatever its owner does meanwhile: a statement that runs ends with an error, and so does
        all that is asked of it later, but for `rollback`, which its owner still owes. From any thread. Waits for a
        commit under way; harmless after either end; never raises."""


class Joining(Protocol):
    """Taking part in transactions in which a caller writes, too (P10). Used by producer and worker.

    The scripts run on a connection to this very store, inside whatever transaction is open there. They neither begin
    nor end one: what they wrote counts from the caller's commit on, and never if there is none. On a connection that leads
    elsewhere they write nothing and raise `ConfigError`, also where it leads to another store of the same kind.

    Attributes:
        system: the database system whose connections can take part (`sqlite`, `postgresql`); "" when none can.
        exclusive: True when an open transaction that has written makes everybody else's writes wait.
        located: True when scripts ask this store nothing before their first statement.
        url: where the store is, without secrets.
    """

    system: str
    exclusive: bool
    located: bool
    url: str

    def locate(self) -> None:
        """Learn what scripts need to know of this store, once. They do it by themselves; who must not block does it before.

        Raises:
            StoreUnavailable, SchemaMismatch.
        """

    def enqueue_script(
        self, jobs: Sequence[NewRow], *, repeat: bool = False, now: int | None = None
    ) -> Script[list[Enqueued]]:
        """`Jobs.enqueue` of any number of jobs. An id that is stored already answers `existing` and does not break the
        transaction. Workers are woken by the commit where the system can, else they find the jobs within a second.
        """

    def completion_script(
        self, lease: Lease, settlement: Settlement, logs: Sequence[Log] = (), *, now: int | None = None
    ) -> Script[bool]:
        """Settle the running job as `completed` by *settlement*, and keep *logs* with it; fenced.

        False: the lease is gone and nothing was written; the caller's transaction must not commit then. From here to
        its end nobody else can take the job. A job that is to be kept for no time goes with the next `prune`.
        """

    def standing(self, lease: Lease) -> Standing:
        """What became of a job for which a completion script ran.

        `completed`: that transaction was committed. `open`: it may still be; ask again. `held`: it was not, and the job
        runs under *lease* as before (where a reply to a commit can be lost, only once that cannot be committed any
        more). `lost`: the job is in other hands.
        """

    def begin(self, *, limit: float | None = None) -> Transaction:
        """Begin a transaction on a connection of the store's own.

        Args:
            limit: seconds it may stay open; past that it is rolled back at once, wherever its job is. None leaves it to
                the engine (SQLite: 1 s, as it holds the only write lock; else none).
        Raises:
            StoreUnavailable: it could not begin.
        """

    def joined_error(self, error: Exception) -> DayjobError:
        """What a driver, or a library above one, raised while a script ran, as dayjob says it."""


class Upkeep(Protocol):
    """The leader's work. Each call carries the leader's term; a stale term changes nothing and returns None."""

    def stage(self, term: int, *, limit: int = 1000, now: int | None = None) -> tuple[int, int | None] | None:
        """Make up to *limit* due jobs available, in the order of their time; cancel waiting ones that expired
        before they ever started (counted as `cancelled`).

        Returns: (jobs touched, stamp of the next due time or None).
        """

    def rescue(self, term: int, *, now: int | None = None) -> list[Gone] | None:
        """Give up the workers whose live time ran out, and take their jobs from them.

        Each unsettled job gets a new entry, keeps its place and becomes a suspect. If the worker was solo and held no
        other (a claim that came late may have given it one more), the job ran alone: its crashes rise by one, and the
        third makes it dead, reason `crashed`. A job for which a cancel was asked becomes cancelled. An attempt with
        outcome `lost` or `crashed` is appended to each.
        """

    def prune(self, term: int, bounds: Sequence[Bound], *, limit: int = 1000, now: int | None = None) -> int | None:
        """Delete up to *limit* finished jobs that are past `keep_until` or beyond a bound (oldest first).

        The memory of a job that was moved away (`exits.MOVED`) goes by its time alone: no bound counts or takes it.
        Dead jobs go only by a bound or `keep_until` of their own. Each id stays findable as a repeat for an hour
        after the job finished, whatever the retention. Also drops expired records, old tallies and samples (7 days).
        Each of these is whole or not at all; together they need not be one transaction.
        Returns: how many jobs went; call again while that equals *limit*.
        """

    def sample(self, term: int, *, now: int | None = None) -> bool | None:
        """Write down the depth of each queue (name `depth:<state>`) for this minute. True when written."""


class Cluster(Protocol):
    """Workers among themselves."""

    def beat(
        self,
        worker: WorkerInfo,
        held: Sequence[int],
        tallies: Sequence[Tally] = (),
        *,
        claims: int | None = None,
        now: int | None = None,
    ) -> Beat:
        """Renew *worker*'s lease on all that it holds until `worker.expiry` of live time from now.

        The first beat registers the worker. Leadership rides on it: with no leader, or one whose live time ran out,
        this worker leads with the next term, unless it is solo. Order does not matter; repeating is harmless, but counts tallies twice.

        Args:
            claims: the highest claim number it had sent when it made *held*; a later one (the process may have been
                frozen in between) is not judged. None: all are.
            held: claim numbers of the batches it knows of; others claimed more than 10 s ago are released, in their
                old place (a claim whose reply was lost strands nothing). Empty batches are forgotten.
        Returns:
            Beat; `lost=True` and nothing renewed for a worker that was given up.
        Raises:
            StoreUnavailable: nothing was renewed; repeat before the old expiry.
        """

    def leave(self, worker: str, *, death: str | None = None, now: int | None = None) -> Gone | None:
        """*worker* is over. Its leadership ends and its unsettled jobs go back at once; one that is just being completed
        in somebody's transaction goes back when that is rolled back.

        Args:
            death: None for an orderly end: jobs are released (no crash, old place). Else how its process died
                ("signal 9 (SIGKILL)"), reported by one who saw it die: the jobs are treated as `rescue` treats them.
        Returns: what was taken from it, or None when the store knows no such worker. Repeating is harmless.
        """

    def pause(self, queue: str, paused: bool, *, now: int | None = None) -> bool:
        """Stop or resume claims from *queue* (it need not exist yet). True when that changed something."""


class Inspector(Protocol):
    """Reading. The faces and metrics read nothing else."""

    def get(self, id: str) -> JobRow | None:
        """The whole job, live or finished, with its attempts."""

    def find(self, which: Filter, *, limit: int = 50, after: str | None = None) -> Page:
        """Jobs that match, live and finished, newest id first; *after* is the previous page's key.

        Jobs that move between states while pages are read are neither shown twice nor left out.
        Rows come without attempts.
        A page looks at so many jobs at most: where few of very many match it may come back short, even empty, with an
        `after` at which the search goes on.
        """

    def count(self, which: Filter) -> int:
        """How many jobs match."""

    def queues(self, *, now: int | None = None) -> list[QueueRow]:
        """All queues that hold jobs, are paused or had work within the hour, by name."""

    def workers(self, *, now: int | None = None) -> list[WorkerRow]:
        """The workers that are not given up, by name."""

    def logs(self, id: str) -> list[Log]:
        """What the job logged, oldest first."""

    def history(self, since: int, queue: str | None = None) -> list[Sample]:
        """Samples and tallies at or after *since*, oldest first, one per minute, queue and name."""


class Records(Protocol):
    """Small versioned values: schedules, settings, guards."""

    def read(self, kind: str, key: str, *, now: int | None = None) -> Record | None:
        """The record, or None when absent or expired."""

    def write(
        self,
        kind: str,
        key: str,
        value: bytes,
        *,
        expected: int | None = None,
        ttl: float | None = None,
        now: int | None = None,
    ) -> int | None:
        """Write *value* and return its new version (1 for a new one).

        With *expected* (0: must not exist) it is written only over that version, else None is returned.
        """

    def list(self, kind: str | None, *, now: int | None = None) -> Sequence[Record]:
        """All records of *kind* (None: of every kind) that have not expired, by kind and key."""

    def erase(self, kind: str, key: str, *, expected: int | None = None) -> bool:
        """Delete; True when there was one (of version *expected*, if given)."""


class Copying(Protocol):
    """Jobs as they are, out of one store and into another; engines need not be of one kind. Used by the copier."""

    def export(self, ids: Sequence[str]) -> list[Whole]:
        """The jobs *ids*, live and finished, with all that was kept with them; in this order, unknown ones left out."""

    def adopt(self, jobs: Sequence[Whole], *, now: int | None = None) -> list[Enqueued]:
        """Store *jobs* as another store had them, in their order, each whole with all that was kept with it.

        A job in a terminal state goes to the finished ones, with its result, times and `keep_until`. Any other waits: it is
        `scheduled` when its `run_at` is ahead, else `available`, in a new place, behind those before it; attempts,
        crashes, round, what was recorded and whether it is a suspect stay. Each gets a new entry.

        An id that is stored already, live or finished or pruned less than an hour ago, is `existing` and changes nothing; so
        repeating is harmless. But a cancelled job whose reason says that it was moved away (`exits.MOVED`) gives way:
        it comes back.

        Raises:
            BadRow: one of *jobs* can never be stored here; none was.
            StoreUnavailable: some of them may be stored, the first before the later; repeat.
        """


class Listener(Protocol):
    """One open ear. `wait` from one thread; `wake` and `close` from any."""

    def wait(self, timeout: float) -> list[tuple[str, bytes]]:
        """Signals as (topic, data) since the last call; waits up to *timeout* seconds for the first.

        An empty list means the time is up or someone called `wake`. Signals may be lost or doubled, never invented:
        who waits for something also looks by itself at least once a second.
        """

    def wake(self) -> None:
        """Make a present or the next `wait` return at once."""

    def close(self) -> None:
        """Stop listening; idempotent."""


class Signals(Protocol):
    """Wake-ups between processes; advisory. Topics: `work` (jobs became available or have a near time; data: queue),
    `control` (cancel, pause, setting), `done` (data: job ids, comma-separated), `event` (data: an encoded event)."""

    def notify(self, topic: str, data: bytes = b"") -> None:
        """Tell everyone who listens for *topic*. Never raises, never waits; costs microseconds when nobody listens."""

    def listening(self, topic: str, *, within: float = 0.05) -> bool:
        """False when surely nobody listens for *topic* anywhere (then there is nothing to encode).

        Args:
            within: what the store has told by the way (a turn may) in the last so many seconds will do.
        """

    def listen(self, topics: Sequence[str]) -> Listener:
        """Open an ear for *topics*."""


class Lifecycle(Protocol):
    """Birth and death of the store."""

    def migrate(self, *, dry_run: bool = False, part: MigrationPart | None = None) -> list[str]:
        """Bring the schema to this code's version; returns the names of the migrations applied (or due, if dry).

        Several processes may call it at once: each migration is applied by one of them. A newer schema is
        `SchemaMismatch`.

        Args:
            part: None, all that is missing. Engines whose store outlives a deploy know two halves of it: `pre` only
                adds, so that workers of the previous release go on; `post` takes away what only they needed. Servers
                that know `roles` share out among them who may do what: made or mended whenever it is said, and only
                then; their names are returned. Else `NotSupported`.
        """

    def migration_sql(self, *, part: MigrationPart | None = None) -> str:
        """What `migrate` would do, as SQL for people who run it themselves; empty when nothing is due."""

    def check(self) -> Health:
        """Look at the store's health without changing anything."""

    def durability(self) -> Durability:
        """What is kept of what was acknowledged, when something crashes; a quick look, which each worker takes at its start."""

    def now(self) -> int:
        """The store's clock."""

    def close(self) -> None:
        """Let go of connections; idempotent. A later call opens them again."""

    def drop(self) -> None:
        """Remove the store with everything in it, its schema too; idempotent. For what was made to be thrown away."""


class Store(Jobs, Gates, Ticks, Joining, Upkeep, Cluster, Inspector, Records, Copying, Signals, Lifecycle, Protocol):
    """A whole engine. Consumers take only the protocol they need.

    Attributes:
        url: where it is, without secrets.
        polls: True when other processes' signals cannot reach this one, so that waiters must poll.
        processes: False when only this process can see the store (`:memory:`), so that child processes cannot work on it.
    """

    url: str
    polls: bool
    processes: bool


__all__ = [
    "Claimed",
    "Cluster",
    "Copying",
    "Inspector",
    "Jobs",
    "Joining",
    "Lifecycle",
    "Listener",
    "MigrationPart",
    "Records",
    "Signals",
    "Store",
    "Transaction",
    "Upkeep",
]
