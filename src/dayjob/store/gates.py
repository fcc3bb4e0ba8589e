"""What an engine does about keys, lanes, gates and schedules: two protocols of the line; `gating` has the ideas and the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from dayjob.store.gating import BreakerRow, Gate, GateKind, GateRow, QueueLimits, Report
from dayjob.store.records import Enqueued, Tick


class Gates(Protocol):
    """Keys, lanes, gates, the limits of queues. Used by producer, worker, leader and faces.

    What else the engine does for them is said here, once:

    * `Jobs.enqueue` (and its script) takes a row's key before anything of the row is stored. A row whose key is held is answered as
      `Unique.on_conflict` says, with the holder's id: `existing`, `replaced`, `extended`, or `refused` with `JobExists`. A row
      with gates is stored `blocked` (`scheduled`, if it has a time ahead). Rows of one call see those before them. A row of a full
      queue is `refused` with `QueueFull`, one of a closed queue with `QueueClosed`; the other rows are stored.
    * A `replace`, and an `Edit` with another gating, take the job out of its lines and lanes and give its tokens back; it stands where
      a row with the new gating would stand that came now (`blocked`, `available`, or `scheduled` as its time says; `held` as it
      was), and the numbers of its gates hold as at an enqueue. An `Edit` whose gating equals the stored one, but for `unique`, is an
      edit without: if nothing else is given, the job is named and not touched.
    * A strict lane keeps its order: who stands in it is given no new place by an edit (of the queue, too), a `replace`, an
      `extend`, a promotion, nor by being put off, as long as its gates name that lane. Put off without its turn it lets others
      pass until it is due, and then stands where it stood; with its turn nobody passes. What was stored with a time ahead has no
      place before it stands there for the first time: when it is due, or told to run now.
    * A row with a lane and no gates gets its place by its turn: `TURN / weight` behind the last waiting job of its lane, but
      not before the first of the queue at its priority. Rows without a lane keep the order of arrival.
    * `Jobs.turn` admits between stage and claim: whatever its settlements freed, whatever is new, whatever has a time that has come;
      so a token that comes free is used by the same turn; beyond what it claims it may leave the rest to the turns that come.
      `Turn.next_due` knows of the next such time.
    * A claim stamps the rate tokens of what it takes, and frees the keys that are held until `started`.
    * Every way in which a job becomes available again (stage, release, rescue, retry, edit, promote) leads a job with gates to
      `blocked`. A retry of a finished job whose key is held by another touches nothing.
    """

    def admit(self, term: int, *, limit: int = 1000, now: int | None = None) -> tuple[int, int | None] | None:
        """The leader's sweep, each second: admit what can be, and take back what is admitted to no use: from paused
        queues, and (where another waits at a gate of its) what is less urgent than that one, or unclaimed for `UNCLAIMED`.

        Order: at each gate the most urgent first, then by place. No job is admitted before all its gates have a token for it.
        Returns: (jobs admitted, the stamp at which time opens the next gate, or None); None for a stale term.
        """

    def gates(self, keys: Sequence[str] | None = None, *, limit: int = 1000, now: int | None = None) -> list[GateRow]:
        """Gates of which a token is taken or at which jobs wait, by kind and key; only those of *keys*, if given."""

    def set_limit(
        self, kind: GateKind, key: str, limit: int | None, per: float = 0.0, *, now: int | None = None
    ) -> None:
        """Say how many tokens a gate has, over whatever its jobs say; None: what they say holds again. Acts at once."""

    def take(self, gates: Sequence[Gate], holder: str, ttl: float, *, now: int | None = None) -> float | None:
        """A token of each of *gates* for *holder*, which is no job; all or none. They end with `give`, or after *ttl* seconds.

        A rate's token is stamped at once. Jobs that wait longer do not go first. Repeating with the same holder takes nothing more, and counts
        its *ttl* anew.
        Returns: None when it has them; else the seconds after which to ask again (at least 0.001).
        """

    def give(self, holder: str, *, now: int | None = None) -> bool:
        """Give back what `take` took (a rate's token stays until its time). False: the holder had nothing any more."""

    def delay_gate(self, kind: GateKind, key: str, seconds: float, *, now: int | None = None) -> None:
        """Let nobody through a gate for so many seconds: what a downstream asked for by `Retry-After`. A later end wins."""

    def report(self, reports: Sequence[Report], *, now: int | None = None) -> list[BreakerRow]:
        """Count how calls behind breakers went, and open and close them by it; the breakers after that, those that changed.

        A failure while probing opens again for the cooldown, a success closes and forgets the failures. When `cooldown` is over
        an open breaker is `probing`. Opening parks what is available behind it and changes `control`.
        """

    def breakers(self, *, now: int | None = None) -> list[BreakerRow]:
        """Breakers that are not closed, or have failures in their window, by key."""

    def set_breaker(self, key: str, state: Literal["closed", "open"], *, now: int | None = None) -> None:
        """Open a breaker by hand, until it is closed by hand; or close it and forget its failures."""

    def limit_queue(
        self, queue: str, limits: QueueLimits | None, *, origin: Literal["code", "run"] = "run", now: int | None = None
    ) -> None:
        """Set what holds for a whole queue, at once and for everybody. What was said at run time wins over code; None takes it back."""

    def queue_limits(
        self, *, origin: Literal["code", "run"] | None = None, now: int | None = None
    ) -> dict[str, tuple[QueueLimits, Literal["code", "run"]]]:
        """The limits in force, by queue, and who said them; with *origin* what it said, in force or not."""


class Ticks(Protocol):
    """Schedules make jobs exactly once per tick, however many leaders believe in themselves."""

    def tick(self, ticks: Sequence[Tick], *, now: int | None = None) -> list[list[Enqueued] | None]:
        """Of each tick write the record over the version expected and store the jobs (with their keys and gates): both or neither.

        All in one transaction; a tick that comes too late does not keep its neighbours back.

        Args:
            ticks: of different schedules, with at most 1,000 jobs together.
        Returns:
            for each tick, in order, as `Jobs.enqueue`; None when the version was another: somebody else did it, nothing of it was
            written.
        Raises:
            StoreUnavailable: the outcome is unknown; repeat: a version that is now another tells that it was done.
            BadRow: one of the rows can never be stored; nothing was.
        """
