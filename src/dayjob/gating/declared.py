"""What is declared for a job, from all levels of options: checked against its task once, and turned into keys for each job."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from dayjob.codec.alike import write_equal
from dayjob.errors import ConfigError, shown
from dayjob.gating.keys import META, check_key, escape, template
from dayjob.gating.values import Breaker, Concurrency, Debounce, Lane, RateLimit, Throttle, Unique
from dayjob.policies import BreakerNumbers

if TYPE_CHECKING:
    from dayjob.codec import Signature

Key = Unique | Debounce | Throttle
SHOWN: Final = 200
"""Characters of a unique key that are kept to be shown; what is compared is its hash."""

_LOOKS_LIKE = re.compile(r"\{([^\W\d]\w*)(?:\.\w+)*\}")


class Declared(Struct, eq=False):
    """What one job is declared to wait for, before its arguments are known.

    Attributes:
        unique: its key. lane: its lane. limits: concurrency and rates. breaker: what it depends on.
        reads: True when the arguments are needed, as by a template of `meta` where that is an argument. fixed: True when all jobs of a task get the same keys.
        made: what was made of it for the task named last, while that is `fixed`; kept by who makes it.
    """

    unique: Key | None = None
    lane: Lane | None = None
    limits: tuple[Concurrency | RateLimit, ...] = ()
    breaker: Breaker | None = None
    reads: bool = False
    fixed: bool = False
    made: tuple[str, Any] | None = None

    def __post_init__(self) -> None:
        keys = [template(one.key) for one in (*self.limits, self.lane, self.breaker) if one is not None and one.key]
        if self.unique is not None and self.unique.key is not None:
            keys.append(template(self.unique.key))
        whole = self.unique is not None and self.unique.key is None
        self.reads = whole or any(key.args for key in keys)
        self.fixed = not whole and all(key.literal is not None for key in keys)

    def check(self, task: str, signature: Signature) -> None:
        """Refuse it for *task* when it names arguments that this does not have.

        Raises:
            ConfigError: naming the option, the template and the arguments that exist.
        """
        for one in (self.unique, self.lane, *self.limits, self.breaker):
            if one is None:
                continue
            where = f"task {task!r}: {type(one).__name__}"
            if one.key is not None:
                template(one.key).check(where, signature.params, signature.hints)
            for name in getattr(one, "args", None) or ():
                if name not in signature.params:
                    exist = ", ".join(signature.params) or "none"
                    raise ConfigError(f"{where}: args= names {name!r}, which is no argument; there are {exist}")
        if self.unique is not None and self.unique.key is not None:
            _check_literal(task, template(self.unique.key).literal, signature)
        self.reads = self.reads or (not self.fixed and META in signature.params)

    def wait(self) -> float | None:
        """Seconds that it puts a job off which says no time of its own."""
        return float(self.unique.wait) if isinstance(self.unique, Debounce) else None  # type: ignore[arg-type]  # checked

    def unique_key(self, task: str, args: Mapping[str, Any], meta: Mapping[str, Any]) -> tuple[str, str]:
        """The hash of the job's key and the key as people see it; it must have one."""
        unique = self.unique
        assert unique is not None
        what = f"task {task!r}: {type(unique).__name__}"
        if unique.key is not None:
            key = template(unique.key).render(what, args, meta)
            return digest(task, b"key", key.encode()), key[:SHOWN]
        chosen = args if unique.args is None else {name: _argument(what, name, args) for name in unique.args}
        encoded = write_equal(chosen)
        return digest(task, b"args", encoded), _readable(encoded)


def key_of(
    one: Lane | Concurrency | RateLimit | Breaker, task: str | None, args: Mapping[str, Any], meta: Mapping[str, Any]
) -> str:
    """The key of *one* for a job of *task* with *args* and *meta*: without a template of its own, the task's.

    Raises:
        ConfigError: a value of the template is missing, or there is neither a template nor a task.
    """
    what = type(one).__name__
    if one.key is None:
        if task is None:
            raise ConfigError(f"{what} has no key: outside of a job it needs one, {what}(..., key='stripe')")
        return f"task:{task}"
    where = what if task is None else f"task {task!r}: {what}"
    return template(one.key).render(where, args, meta)


def digest(task: str, kind: bytes, key: bytes) -> str:
    """What the constraint is on: 128 bits of *task* and *key*, as 32 hexadecimal digits."""
    return blake2b(b"\0".join((task.encode(), kind, key)), digest_size=16).hexdigest()


def _argument(what: str, name: str, args: Mapping[str, Any]) -> Any:
    if name not in args:
        raise ConfigError(f"{what}: args= names {name!r}, which this job does not have")
    return args[name]


def _readable(encoded: bytes) -> str:
    """*encoded* JSON as it is shown: what no store could keep is not in it, as JSON escapes it."""
    return encoded[: SHOWN * 4].decode("utf-8", "ignore")[:SHOWN]


def _check_literal(task: str, literal: str | None, signature: Signature) -> None:
    """A literal key that names an argument in braces is a template that was not said to be one: all jobs would be the same."""
    for found in _LOOKS_LIKE.finditer(literal or ""):
        if found[1] in signature.params or found[1] == META:
            raise ConfigError(
                f"task {task!r}: unique={shown(literal)} is a literal key, the same for all jobs; "
                f"a template is unique=Unique(key={shown(literal)})"
            )


# -- the options as they are given -------------------------------------------------------------------------------------


def check_unique(value: Any) -> Key | bool:
    """`unique=`: a value, a literal key, or False for none."""
    if value is False or isinstance(value, (Unique, Debounce, Throttle)):
        return value
    if isinstance(value, str):
        check_key("unique=", value)
        return Unique(key=escape(value))
    raise ConfigError(
        f"unique={shown(value)} must be Unique(...), Debounce(...), Throttle(...), a literal key, or False for none"
    )


def check_rate_limit(value: Any) -> tuple[RateLimit, ...]:
    """`rate_limit=`: one or several, or False for none."""
    return _several("rate_limit", value, RateLimit, "RateLimit(10, per=1)")


def check_concurrency(value: Any) -> tuple[Concurrency, ...]:
    """`concurrency=`: one or several, or False for none."""
    return _several("concurrency", value, Concurrency, "Concurrency(3)")


def _several(option: str, value: Any, kind: type[Any], example: str) -> tuple[Any, ...]:
    if value is False:
        return ()
    several = value if isinstance(value, (list, tuple)) else (value,)
    for one in several:
        if not isinstance(one, kind):
            raise ConfigError(f"{option}={shown(value)} must be {example}, several in a list, or False for none")
    if len(several) > 8:
        raise ConfigError(f"{option}= lists {len(several):,} limits; a job can have 8")
    keys = [one.key for one in several]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(
                f"{option}= lists {keys.count(key)} limits with the key {shown(key)}: limits of one key are one limit; "
                "give each a key of its own, as in 'stripe/second' and 'stripe/hour'"
            )
    return tuple(several)


def check_lane(value: Any) -> Lane | bool:
    """`lane=`: a `Lane`, the template of its key, or False for none."""
    if value is False or isinstance(value, Lane):
        return value
    if isinstance(value, str):
        return Lane(value)
    raise ConfigError(f"lane={shown(value)} must be a key as in 'tenant:{{tenant_id}}', Lane(...), or False for none")


def check_breaker(value: Any) -> Breaker | bool:
    """`breaker=`: a `Breaker`, or False for none."""
    if value is False or isinstance(value, Breaker):
        return value
    raise ConfigError(f"breaker={shown(value)} must be Breaker(...), or False for none")


def breaker_numbers(breaker: Breaker | bool) -> BreakerNumbers | None:
    """What of a breaker that was said for one job travels with it; `ConfigError` when it holds what cannot."""
    if isinstance(breaker, bool):
        return None
    if breaker.on != (Exception,):
        raise ConfigError("on= cannot be stored with a job: declare the breaker on the task, its on= is inherited")
    return BreakerNumbers(breaker.key, breaker.failures, float(breaker.within), float(breaker.cooldown))  # type: ignore[arg-type]


def breaker_of(numbers: BreakerNumbers | None, declared: Breaker | bool | None) -> Breaker | None:
    """The breaker of *numbers*, which counts the errors that the one *declared* counts."""
    if numbers is None:
        return None
    on = declared.on if isinstance(declared, Breaker) else (Exception,)
    return Breaker(numbers.key, numbers.failures, numbers.within, numbers.cooldown, on)
