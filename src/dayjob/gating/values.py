"""`Unique`, `Debounce`, `Throttle`, `RateLimit`, `Concurrency`, `Lane`, `Breaker`: what a program says.

Plain immutable values: equal when they say the same, checked when they are made. What they mean for one job is worked out at its
enqueue (`Declared`); what a store makes of it is said in `store.gates`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final, Literal

from msgspec import Struct
from msgspec.structs import force_setattr

from dayjob.clock import seconds
from dayjob.errors import ConfigError, shown
from dayjob.gating.keys import template
from dayjob.policies import check_int, check_name, matcher, matches

MOST: Final = 1_000_000_000
"""The largest limit: past it a number is a mistake."""
SHORTEST: Final = 0.001
"""Seconds: the shortest stretch of a rate."""

Seconds = float | timedelta
Until = Literal["done", "started", "expired"]
OnConflict = Literal["existing", "replace", "extend", "merge", "raise"]
Order = Literal["fair", "strict"]

UNTIL: Final = ("done", "started", "expired")
ON_CONFLICT: Final = ("existing", "replace", "extend", "merge", "raise")
ORDERS: Final = ("fair", "strict")


class Value(Struct, frozen=True, repr_omit_defaults=True):
    """The root of the values: frozen, comparable, hashable."""

    def _set(self, name: str, value: Any) -> None:
        force_setattr(self, name, value)


class Unique(Value, frozen=True):
    """One job of the task per key at a time. Without `key` and `args`, one per set of arguments.

    Args:
        key: a template: `"order:{order_id}"`. Keys belong to the task: two tasks never meet at one.
        until: the job has the key until it is `done` (completed, cancelled, dead or deleted), until it `started` first, or until
            `ttl` is over, whatever becomes of it (`expired`).
        ttl: seconds from the enqueue after which the key is free in any case.
        on_conflict: what an enqueue does that finds the key held. `existing`: nothing, the handle is the holder's. `replace`:
            the holder, while it waits, gets the new arguments, time and options. `extend`: its time. `merge`: the new
            arguments are merged into its own (lists joined, mappings updated, else the newer). `raise`: `JobExists`.
            What runs or has ended is left as it is.
        args: names of the arguments that tell jobs apart, instead of a template: any values, of any length.
    """

    key: str | None = None
    until: Until = "done"
    ttl: Seconds | None = None
    on_conflict: OnConflict = "existing"
    args: Sequence[str] | None = None

    def __post_init__(self) -> None:
        _check_keyed(self)
        _one_of("Unique: until", self.until, UNTIL)
        _one_of("Unique: on_conflict", self.on_conflict, ON_CONFLICT)
        if self.ttl is not None:
            self._set("ttl", seconds(self.ttl, "Unique: ttl", least=SHORTEST))
        elif self.until == "expired":
            raise ConfigError('Unique: until="expired" needs to know when: give ttl= seconds')


class Debounce(Value, frozen=True):
    """One job for a burst of enqueues: it runs when none came for `wait` seconds, with the arguments of the last.

    Args:
        key, args: as for `Unique`. wait: seconds. max_wait: seconds after the first enqueue beyond which the job is not put off; None: for ever.
    """

    key: str | None = None
    wait: Seconds = 5.0
    max_wait: Seconds | None = 60.0
    args: Sequence[str] | None = None

    def __post_init__(self) -> None:
        _check_keyed(self)
        self._set("wait", seconds(self.wait, "Debounce: wait", least=SHORTEST))
        if self.max_wait is not None:
            self._set("max_wait", seconds(self.max_wait, "Debounce: max_wait", least=SHORTEST))
            if self.max_wait < self.wait:  # type: ignore[operator]  # both are floats by now
                raise ConfigError(
                    f"Debounce: max_wait={self.max_wait:g} is shorter than wait={self.wait:g}; "
                    "it is the longest that a burst may put a job off"
                )


class Throttle(Value, frozen=True):
    """One job per stretch of time: the first enqueue counts, those within `every` seconds after it give its handle.

    Args:
        key, args: as for `Unique`. every: seconds.
    """

    key: str | None = None
    every: Seconds = 60.0
    args: Sequence[str] | None = None

    def __post_init__(self) -> None:
        _check_keyed(self)
        self._set("every", seconds(self.every, "Throttle: every", least=SHORTEST))


class Limit(Value, frozen=True):
    """What lets so many pass, over all workers."""

    limit: int

    def _check_limit(self, hint: str) -> None:
        what = type(self).__name__
        if isinstance(self.limit, float):
            raise ConfigError(f"{what}: limit={shown(self.limit)} must be a whole number{hint}")
        self._set("limit", check_int(f"{what}: limit", self.limit, 1, MOST))


class RateLimit(Limit, frozen=True):
    """At most `limit` starts in any `per` seconds, over all workers, by the store's clock.

    Args:
        key: a template; the limit holds for each key. Keys belong to the app: limits of the same key are one, whichever
            task has them. None: the task is the key (outside of a job there is none).
    """

    per: Seconds = 1.0
    key: str | None = None

    def __post_init__(self) -> None:
        self._check_limit(": one in two seconds is RateLimit(1, per=2)")
        self._set("per", seconds(self.per, "RateLimit: per", least=SHORTEST))
        _check_key(self.key)


class Concurrency(Limit, frozen=True):
    """At most `limit` at once, over all workers. A crashed worker's come free with its jobs.

    Args:
        key: a template, as for `RateLimit`.
    """

    key: str | None = None

    def __post_init__(self) -> None:
        self._check_limit("")
        _check_key(self.key)


class Lane(Value, frozen=True):
    """Fair turns: the jobs of a queue (and priority) are taken from its lanes in turn, however many each has.

    Args:
        key: a template; each key is a lane. None: the task is the lane.
        order: `fair`, or `strict`: the jobs of the lane run one at a time and in order, also across retries.
        weight: turns of this lane for one of a lane of weight 1, up to 100.
    """

    key: str | None = None
    order: Order = "fair"
    weight: int = 1

    def __post_init__(self) -> None:
        _check_key(self.key)
        _one_of("Lane: order", self.order, ORDERS)
        self._set("weight", check_int("Lane: weight", self.weight, 1, 100))


class Breaker(Value, frozen=True):
    """Holds jobs back while what they depend on is failing; they wait, and spend no attempts.

    `failures` within `within` seconds open it, for all workers. After `cooldown` seconds one job is let through: if that
    succeeds all are, if it fails it stays open so long again.

    Args:
        key: a template, as for `RateLimit`. on: which errors count: types, or a predicate (exc) -> bool. Any other end counts
            as a success.
    """

    key: str | None = None
    failures: int = 5
    within: Seconds = 60.0
    cooldown: Seconds = 30.0
    on: tuple[type[BaseException], ...] | Callable[[BaseException], bool] = (Exception,)

    def __post_init__(self) -> None:
        _check_key(self.key)
        self._set("failures", check_int("Breaker: failures", self.failures, 1, 100_000))
        self._set("within", seconds(self.within, "Breaker: within", least=SHORTEST))
        self._set("cooldown", seconds(self.cooldown, "Breaker: cooldown", least=SHORTEST))
        self._set("on", matcher("Breaker: on", self.on))

    def counts(self, error: BaseException) -> bool:
        """True when *error* is one of those it is there for."""
        return matches(self.on, error, "on", True)


def _check_keyed(value: Any) -> None:
    what = type(value).__name__
    if value.key is not None and value.args is not None:
        raise ConfigError(f"{what}: key= and args= both say what tells jobs apart; give one of them")
    _check_key(value.key)
    if value.args is not None:
        force_setattr(value, "args", _names(what, value.args))


def _check_key(key: str | None) -> None:
    if key is not None:
        template(key)


def _one_of(what: str, value: object, words: tuple[str, ...]) -> None:
    if value not in words:
        raise ConfigError(f"{what}={shown(value)} must be one of {', '.join(map(repr, words))}")


def _names(what: str, args: Any) -> tuple[str, ...]:
    if isinstance(args, str) or not isinstance(args, (list, tuple, set, frozenset)) or not args:
        raise ConfigError(f"{what}: args={shown(args)} must list names of arguments, as in args=['order_id']")
    return tuple(sorted({check_name("argument", name) for name in args}))
