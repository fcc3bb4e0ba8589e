"""How a job is treated: names, priorities, retries, retention, and what one job may change of it.

Everything given by a user is checked here, once, when it is given; what is built from it needs no check later.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, Final

from msgspec import UNSET, DecodeError, Struct, UnsetType, ValidationError
from msgspec.json import Decoder, Encoder

from dayjob.clock import LONGEST, seconds
from dayjob.errors import ConfigError, shown
from dayjob.states import State

MAX_ATTEMPTS: Final = 1_000_000
MAX_COUNT: Final = 2**53
DEFAULT_QUEUE: Final = "default"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:\-]*", re.ASCII)
_NAME_LENGTH = 200


def nearest(word: object, known: Iterable[str], count: int = 1) -> list[str]:
    """The names among *known* that *word* was perhaps meant to be, best first."""
    from difflib import get_close_matches  # only errors need it, and it takes milliseconds to import

    return get_close_matches(str(word)[:_NAME_LENGTH], list(known), count)


def check_name(what: str, name: object) -> str:
    """*name* when it is fit to be the *what* ("task", "queue", "tag") of something, else `ConfigError`."""
    if not isinstance(name, str):
        raise ConfigError(f"a {what} name must be a str, not {type(name).__name__} {shown(name)}")
    if not name:
        raise ConfigError(f"a {what} name must not be empty")
    if len(name) > _NAME_LENGTH:
        raise ConfigError(f"the {what} name {shown(name, 40)} has {len(name):,} characters, {_NAME_LENGTH} are allowed")
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"the {what} name {shown(name)} is not allowed: "
            "use A-Z a-z 0-9 _ . : - and begin with a letter, a digit or _"
        )
    return str(name)


def check_int(what: str, value: object, least: int, most: int) -> int:
    """*value* when it is an int (no bool) between *least* and *most*, else `ConfigError` naming *what*."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{what} must be an int, not {type(value).__name__} {shown(value)}")
    if not least <= value <= most:
        raise ConfigError(f"{what}={shown(value)} must be between {least:,} and {most:,}")
    return int(value)


def check_priority(priority: object) -> int:
    """*priority* when it is an int from -100 to 100 (higher first), else `ConfigError`."""
    return check_int("priority", priority, -100, 100)


def check_max_attempts(max_attempts: object) -> int:
    """*max_attempts* when it is an int from 1 (no retry) to 1,000,000, else `ConfigError`."""
    return check_int("max_attempts", max_attempts, 1, MAX_ATTEMPTS)


def check_timeout(timeout: float | timedelta | None) -> float | None:
    """*timeout* as seconds, or None for no limit; else `ConfigError`."""
    if timeout is None:
        return None
    if timeout == 0:
        raise ConfigError("timeout=0 would end every attempt before it starts; use None for no limit")
    return seconds(timeout, "timeout", least=0.001)


# -- retries -----------------------------------------------------------------------------------------------------

Backoff = str | Sequence[float | timedelta] | Callable[[int, BaseException], float]
Matcher = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]


class Retry:
    """When a failed job runs again. Immutable.

    Args:
        max_attempts: attempts in all, the first included: 1 to 1,000,000.
        backoff: `"exponential"` (base, base × factor, base × factor² … up to cap), `"fixed"` (base each time), a list
            of seconds (its last entry repeats), or a function `(attempt, exc) -> seconds`; attempt is 1 after the first.
        base, cap: seconds or timedeltas. factor: at least 1.
        jitter: up to this share of the delay is added at random, 0 to 10; it only lengthens.
        retry_on: exception types that are worth another attempt, or a predicate `(exc) -> bool`.
        give_up_on: types, or a predicate, that are not; wins over `retry_on`.
    Raises:
        ConfigError: an argument makes no sense; it is named.
    """

    __slots__ = ("backoff", "base", "cap", "factor", "give_up_on", "jitter", "max_attempts", "retry_on")

    max_attempts: int
    backoff: str | tuple[float, ...] | Callable[[int, BaseException], float]
    base: float
    factor: float
    cap: float
    jitter: float
    retry_on: tuple[type[BaseException], ...] | Callable[[BaseException], bool]
    give_up_on: tuple[type[BaseException], ...] | Callable[[BaseException], bool]

    def __init__(
        self,
        max_attempts: int = 5,
        backoff: Backoff = "exponential",
        base: float | timedelta = 1.0,
        factor: float = 2.0,
        cap: float | timedelta = 3600.0,
        jitter: float = 0.2,
        retry_on: Matcher = (Exception,),
        give_up_on: Matcher = (),
    ) -> None:
        set_ = object.__setattr__
        set_(self, "max_attempts", check_max_attempts(max_attempts))
        set_(self, "backoff", _backoff(backoff))
        set_(self, "base", seconds(base, "base"))
        set_(self, "factor", _number("factor", factor, 1.0, 1e6))
        set_(self, "cap", seconds(cap, "cap"))
        set_(self, "jitter", _number("jitter", jitter, 0.0, 10.0))
        set_(self, "retry_on", matcher("retry_on", retry_on))
        set_(self, "give_up_on", matcher("give_up_on", give_up_on))

    @classmethod
    def coerce(cls, value: Retry | int | bool) -> Retry:
        """`Retry` as it is; an int means that many attempts in all; False one; True the default."""
        if isinstance(value, Retry):
            return value
        if value is True:
            return cls()
        if value is False:
            return cls(max_attempts=1)
        if isinstance(value, int):
            return cls(max_attempts=value)
        raise ConfigError(f"retry must be a Retry, an int or a bool, not {type(value).__name__} {shown(value)}")

    def next(
        self, attempt: int, exc: BaseException, rng: random.Random, max_attempts: int | None = None
    ) -> float | None:
        """Seconds until the next attempt when *attempt* attempts are spent and the last raised *exc*; None: dead.

        Never raises: a predicate or backoff function that fails is noted on *exc* (so the record of the attempt shows
        it); the job is then retried, by the exponential rule.

        Args:
            max_attempts: the job's own number, when it has one.
        """
        if attempt >= (self.max_attempts if max_attempts is None else max_attempts):
            return None
        if matches(self.give_up_on, exc, "give_up_on", False) or not matches(self.retry_on, exc, "retry_on", True):
            return None
        delay = self._delay(attempt, exc)
        return min(delay * (1.0 + self.jitter * rng.random()), LONGEST)

    def _delay(self, attempt: int, exc: BaseException) -> float:
        backoff = self.backoff
        if callable(backoff):
            try:
                return seconds(backoff(attempt, exc), "the result of backoff")
            except Exception as failure:  # noqa: BLE001  # user code; noted on the error that is recorded
                exc.add_note(f"dayjob: retry={shown(self, 200)}: its backoff function failed: {_brief(failure)}")
        elif isinstance(backoff, tuple):
            return backoff[min(attempt, len(backoff)) - 1]
        elif backoff == "fixed":
            return self.base
        try:
            return float(min(self.cap, self.base * self.factor ** (attempt - 1)))
        except OverflowError:
            return self.cap

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a Retry cannot be changed: make a new one")

    def __reduce__(self) -> tuple[Any, ...]:
        order = ("max_attempts", "backoff", "base", "factor", "cap", "jitter", "retry_on", "give_up_on")
        return Retry, tuple(getattr(self, name) for name in order)

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if isinstance(other, Retry) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        changed = (
            f"{name}={shown(getattr(self, name))}"
            for name in ("max_attempts", "backoff", "base", "factor", "cap", "jitter", "retry_on", "give_up_on")
            if getattr(self, name) != getattr(_DEFAULT, name)
        )
        return f"Retry({', '.join(changed)})"


def _brief(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {shown(exc)}"


def _number(what: str, value: object, least: float, most: float, kind: str = "a number") -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{what} must be {kind}, not {type(value).__name__} {shown(value)}")
    if not least <= value <= most:  # compared before any conversion: an int may be too large for a float
        raise ConfigError(f"{what}={shown(value)} must be between {least:g} and {most:,g}")
    return float(value)


def _backoff(value: Any) -> str | tuple[float, ...] | Callable[[int, BaseException], float]:
    if callable(value) or value in ("exponential", "fixed"):
        return value  # type: ignore[no-any-return]  # one of the three by the line above
    if isinstance(value, (list, tuple)):
        if not 1 <= len(value) <= 1000:
            raise ConfigError(f"backoff must list 1 to 1,000 delays, not {len(value):,}")
        return tuple(seconds(delay, f"backoff[{place}]") for place, delay in enumerate(value))
    raise ConfigError(
        f'backoff={shown(value)} must be "exponential", "fixed", a list of seconds, or a function (attempt, exc) -> seconds'
    )


def matcher(what: str, value: Any) -> tuple[type[BaseException], ...] | Callable[[BaseException], bool]:
    """*value* when it says which exceptions: types, or a predicate; else `ConfigError` naming *what*."""
    if isinstance(value, type):
        value = (value,)
    if isinstance(value, (list, tuple)):
        for entry in value:
            if not (isinstance(entry, type) and issubclass(entry, BaseException)):
                raise ConfigError(f"{what} must hold exception types, not {shown(entry)}")
        return tuple(value)
    if callable(value):
        return value  # type: ignore[no-any-return]  # a predicate; its result is taken as a truth value
    raise ConfigError(f"{what}={shown(value)} must be exception types or a predicate (exc) -> bool")


def matches(matcher: Any, exc: BaseException, what: str, on_failure: bool) -> bool:
    """True when *exc* is one of those; *on_failure* when the predicate *what* itself fails, which is noted on *exc*."""
    if isinstance(matcher, tuple):
        return isinstance(exc, matcher)
    try:
        return bool(matcher(exc))
    except Exception as failure:  # noqa: BLE001  # user code; noted on the error that is recorded
        exc.add_note(f"dayjob: the predicate {what}= failed: {_brief(failure)}")
        return on_failure


_DEFAULT = Retry()

# -- retention ---------------------------------------------------------------------------------------------------

Bounds = tuple[float | timedelta | None, int | None] | float | timedelta | None
_DAY: Final = 86_400.0


class Retention:
    """How long finished jobs are kept: by age, and by count for each queue. Immutable.

    Each is `(age, count)`, either of them None for no bound; an age alone; or None to keep for ever.
    Age 0 keeps only the id (an hour, so that a repeated enqueue is noticed).
    """

    __slots__ = ("_cancelled", "_completed", "_dead")

    _completed: tuple[float | None, int | None]
    _cancelled: tuple[float | None, int | None]
    _dead: tuple[float | None, int | None]

    def __init__(
        self,
        completed: Bounds = (_DAY, 100_000),
        cancelled: Bounds = (_DAY, 100_000),
        dead: Bounds = None,
    ) -> None:
        object.__setattr__(self, "_completed", _bounds("completed", completed))
        object.__setattr__(self, "_cancelled", _bounds("cancelled", cancelled))
        object.__setattr__(self, "_dead", _bounds("dead", dead))

    @property
    def completed(self) -> tuple[float | None, int | None]:
        """(age in seconds, count) of completed jobs; None: no bound."""
        return self._completed

    @property
    def cancelled(self) -> tuple[float | None, int | None]:
        """(age in seconds, count) of cancelled jobs; None: no bound."""
        return self._cancelled

    @property
    def dead(self) -> tuple[float | None, int | None]:
        """(age in seconds, count) of dead jobs; None: no bound."""
        return self._dead

    def age(self, state: State) -> float | None:
        """Seconds that a job which ended in *state* is kept; None: for ever."""
        return self._of(state)[0]

    def count(self, state: State) -> int | None:
        """How many jobs that ended in *state* are kept; None: all."""
        return self._of(state)[1]

    def _of(self, state: State) -> tuple[float | None, int | None]:
        if state is State.COMPLETED:
            return self._completed
        if state is State.CANCELLED:
            return self._cancelled
        if state is State.DEAD:
            return self._dead
        raise ValueError(f"{state} is no terminal state")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a Retention cannot be changed: make a new one")

    def __reduce__(self) -> tuple[Any, ...]:
        return Retention, (self._completed, self._cancelled, self._dead)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Retention):
            return NotImplemented
        return self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash((self._completed, self._cancelled, self._dead))

    def __repr__(self) -> str:
        return f"Retention(completed={self._completed}, cancelled={self._cancelled}, dead={self._dead})"


def _bounds(what: str, value: Any) -> tuple[float | None, int | None]:
    if value is None:
        return (None, None)
    age, count = value, None
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ConfigError(f"Retention({what}=...) must be (age, count), an age or None, not {shown(value)}")
        age, count = value
    return (
        None if age is None else seconds(age, f"the age in Retention({what}=...)"),
        None if count is None else check_int(f"the count in Retention({what}=...)", count, 0, MAX_COUNT),
    )


# -- what one job changes ----------------------------------------------------------------------------------------


class RetryNumbers(Struct, frozen=True, omit_defaults=True):
    """The storable part of a `Retry`: numbers. Types, predicates and functions stay with the task's code."""

    max_attempts: int = 5
    backoff: str | tuple[float, ...] = "exponential"
    base: float = 1.0
    factor: float = 2.0
    cap: float = 3600.0
    jitter: float = 0.2

    @classmethod
    def of(cls, retry: Retry) -> RetryNumbers:
        """The numbers of *retry*; `ConfigError` when it holds what cannot be stored."""
        if callable(retry.backoff):
            raise ConfigError("a backoff function cannot be stored with a job: declare it on the task, or use a list")
        for what in ("retry_on", "give_up_on"):
            if getattr(retry, what) != getattr(_DEFAULT, what):
                raise ConfigError(f"{what}= cannot be stored with a job: declare it on the task, it is inherited")
        return cls(retry.max_attempts, retry.backoff, retry.base, retry.factor, retry.cap, retry.jitter)

    def over(self, declared: Retry) -> Retry:
        """A `Retry` of these numbers that keeps what *declared* retries and gives up on."""
        return Retry(
            self.max_attempts,
            self.backoff,
            self.base,
            self.factor,
            self.cap,
            self.jitter,
            declared.retry_on,
            declared.give_up_on,
        )


class BreakerNumbers(Struct, frozen=True, omit_defaults=True):
    """The storable part of a `Breaker`. Which errors count stays with the task's code."""

    key: str | None = None
    failures: int = 5
    within: float = 60.0
    cooldown: float = 30.0


class Overrides(Struct, frozen=True, omit_defaults=True):
    """What `using()` changed for one job and its worker must know. UNSET: as the task declares.

    Attributes:
        timeout: seconds, or None for no limit. breaker: its numbers, or None for none.
        keep: seconds the finished job is kept when completed, cancelled, dead; None: for ever. How many finished jobs
            are kept cannot be a matter of one job, so counts are not stored.
    """

    retry: RetryNumbers | UnsetType = UNSET
    timeout: float | UnsetType | None = UNSET
    keep: tuple[float | None, float | None, float | None] | UnsetType = UNSET
    breaker: BreakerNumbers | UnsetType | None = UNSET

    def to_bytes(self) -> bytes | None:
        """The stored form (`NewRow.options`), None when nothing was changed."""
        return None if self == _NOTHING else _encode(self)

    @classmethod
    def from_bytes(cls, options: bytes) -> Overrides:
        """Read `to_bytes` back; `ValueError` when *options* is something else."""
        try:
            return _decode(options)
        except (DecodeError, ValidationError) as error:
            raise ValueError(f"the stored options of the job cannot be read: {error}") from error


_NOTHING = Overrides()
_encode = Encoder().encode
_decode = Decoder(Overrides).decode
