"""What a job may wait for before it is available, and what a queue may refuse: the rows.

Three ideas serve uniqueness, limits, fairness and breakers, and a job without any of them pays for none:

* a **key** lets one job in at a time: taken in the enqueue's own transaction, free again as its `until` says;
* a **lane** gives the place: the jobs of a lane come one turn after the other, so that lanes share a queue fairly and a claim
  still takes the first of the queue;
* a **gate** says when: a job with gates is `blocked` until `admit` finds all of them open, and takes a token of each.

Tokens are rows, never sums: (gate, holder), there as long as their holder is. A job that leaves (settled, cancelled, deleted,
edited, shed, expired, lost, released) loses them in the transaction in which it leaves.

    enqueue ──▶ blocked ──admit: all gates or none──▶ available ──claim──▶ running ──leaves──▶ its tokens are free
                   ▲                                      │  taken back: paused, a more urgent one, 5 s unclaimed
                   └──────────────────────────────────────┘
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

UNCLAIMED = 5.0
"""Seconds after which an admitted job that nobody claims makes room for another that waits at one of its gates."""
TURN = 100
"""Places between two jobs of a lane of weight 1; of weight w it is a w-th of that."""

GateKind = Literal["concurrency", "rate", "order", "breaker"]
Conflict = Literal["existing", "replace", "extend", "merge", "raise"]
Until = Literal["done", "started", "expired"]
WhenFull = Literal["raise", "wait", "drop_oldest"]


class Unique(Struct, frozen=True, omit_defaults=True):
    """A key that one job holds at a time.

    Attributes:
        hash: 32 hexadecimal digits of the task and the key: what the constraint is on. key: as people see it.
        until: the holder has it until it is `done` (terminal, or gone), until it `started` (was claimed once), or until
            `ttl` is over, whatever becomes of it (`expired`).
        ttl: seconds from the enqueue after which the key is free in any case; None: never by time alone.
        on_conflict: what an enqueue does that finds it held. `existing`, `merge`: nothing (the caller merges). `raise`: it is
            refused. `replace`: the holder, if it waits, gets the new row's payload, priority, time, expiry, tags, meta,
            options, lane, weight and gates, and a new entry; its key stays as it is, and it stands where a row like this
            would stand now. `extend`: its time only. A holder that runs, or has ended, is `existing`.
        latest: seconds after the holder was created beyond which `replace` and `extend` do not put it off.
    """

    hash: str
    key: str
    until: Until = "done"
    ttl: float | None = None
    on_conflict: Conflict = "existing"
    latest: float | None = None


class Gate(Struct, frozen=True, array_like=True):
    """Something that lets so many pass.

    Attributes:
        kind: `concurrency`: a token is free when its job leaves. `rate`: free *per* seconds after the claim that followed;
            taken back unused when the job was admitted and never claimed. `order`: a strict lane: one token, kept through
            retries and snoozes until the job is terminal or gone; jobs pass in the order of their first places, whatever
            their priority. A job has its first place from when it first stands in the lane (at the enqueue, or when its
            time has come), and keeps it through whatever changes it, unless it leaves the lane. `breaker`: all pass while it
            is closed, none while it is open, one while it is probed.
        key: names the gate, for all tasks of the store. Gates of the same kind and key are one.
        limit: tokens. The newest row's number counts, unless `Gates.set_limit` said another.
        per: seconds, of a rate.
    """

    kind: GateKind
    key: str
    limit: int = 1
    per: float = 0.0


class Gating(Struct, frozen=True, omit_defaults=True):
    """All that one job may have to wait for; kept with it, live and finished."""

    unique: Unique | None = None
    lane: str | None = None
    weight: int = 1
    gates: tuple[Gate, ...] = ()


class QueueLimits(Struct, frozen=True, omit_defaults=True):
    """What holds for a whole queue.

    Attributes:
        max_depth: waiting jobs (available, scheduled, blocked) it takes; None: any number.
        when_full: `raise` and `wait`: the store refuses the row (whoever waits asks again); `drop_oldest`: the oldest waiting
            job of the lowest priority becomes dead, reason `shed`, be it available, scheduled or blocked; rows of the same
            call that were stored before count, the new row itself does not, and is stored in any case.
        concurrency: jobs running at once, in all workers. rate, per: claims in any `per` seconds. Both are held by the
            claim, so they act on what waits already, too.
        closed: `refuse`: new jobs are refused; `hold`: they are `blocked` until it is opened. What was there goes on.
    """

    max_depth: int | None = None
    when_full: WhenFull = "raise"
    concurrency: int | None = None
    rate: int | None = None
    per: float = 1.0
    closed: Literal["refuse", "hold"] | None = None


class GateRow(Struct, frozen=True):
    """A gate as it stands. `taken`: tokens that are not free. `waiting`: jobs that wait at it, counted up to 10,000.
    `opens`: the stamp at which a rate has a token again, None when that is now or not a matter of time."""

    gate: Gate
    taken: int
    waiting: int
    opens: int | None = None


class Report(Struct, frozen=True):
    """How a call behind a breaker went. `failures` within `within` seconds open it for `cooldown` seconds."""

    key: str
    failed: bool
    failures: int
    within: float
    cooldown: float


class BreakerRow(Struct, frozen=True):
    """A breaker: `closed`, `open` (until the stamp `until`; None: by hand) or `probing`. `failures`: those in its window."""

    key: str
    state: Literal["closed", "open", "probing"]
    since: int
    until: int | None = None
    failures: int = 0
