"""What holds for a whole queue: depth, rate, concurrency, closed or not. From the words of a program to `QueueLimits`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from msgspec import structs

from dayjob.errors import ConfigError, shown
from dayjob.gating import Concurrency, RateLimit
from dayjob.policies import MAX_COUNT, check_int, check_name
from dayjob.store.gating import QueueLimits

if TYPE_CHECKING:
    from dayjob.store.contract import Store

WhenFull = Literal["raise", "wait", "drop_oldest"]
Origin = Literal["code", "run"]

_WHEN_FULL: Final = ("raise", "wait", "drop_oldest")


class Bounds(TypedDict, total=False):
    """What may be said of a queue; None takes a limit away.

    max_depth: waiting jobs it takes. when_full: what becomes of those beyond. rate_limit: `RateLimit(10, per=1)`: claims in any
    `per` seconds. concurrency: jobs that run at once, in all workers.
    """

    max_depth: int | None
    when_full: WhenFull | None
    rate_limit: RateLimit | None
    concurrency: Concurrency | int | None


def bounded(queue: str, said: Mapping[str, Any], before: QueueLimits | None = None) -> QueueLimits:
    """*before* (by default no limits), changed by what is *said*.

    Raises:
        ConfigError: a value makes no sense; the queue and the value are named.
    """
    check_name("queue", queue)
    fields: dict[str, Any] = {}
    for name, value in said.items():
        if name not in _READERS:
            raise ConfigError(f"queue {queue!r}: there is no limit {shown(name)}; there are {', '.join(_READERS)}")
        fields |= _READERS[name](f"queue {queue!r}: {name}", value)
    limits = structs.replace(before or QueueLimits(), **fields)
    if fields.get("when_full") and limits.max_depth is None:
        raise ConfigError(f"queue {queue!r}: when_full= belongs to max_depth=, which says when the queue is full")
    return structs.replace(limits, when_full="raise") if limits.max_depth is None else limits


def _depth(what: str, value: Any) -> dict[str, Any]:
    return {"max_depth": None if value is None else check_int(what, value, 1, MAX_COUNT)}


def _when_full(what: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {"when_full": "raise"}
    if value not in _WHEN_FULL:
        raise ConfigError(f'{what}={shown(value)} must be "raise", "wait" or "drop_oldest"')
    return {"when_full": value}


def _concurrency(what: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {"concurrency": None}
    if isinstance(value, Concurrency):
        _refuse_key(what, value.key)
        return {"concurrency": value.limit}
    return {"concurrency": check_int(what, value, 1, MAX_COUNT)}


def _rate(what: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {"rate": None, "per": 1.0}
    if not isinstance(value, RateLimit):
        raise ConfigError(f"{what}={shown(value)} must be RateLimit(10, per=1)")
    _refuse_key(what, value.key)
    return {"rate": value.limit, "per": float(value.per)}  # type: ignore[arg-type]  # seconds since it was made


def _refuse_key(what: str, key: str | None) -> None:
    if key is not None:
        raise ConfigError(f"{what}: the limit of a queue is the queue's, key={shown(key)} has no place there")


_READERS: Final[dict[str, Any]] = {
    "max_depth": _depth,
    "when_full": _when_full,
    "rate_limit": _rate,
    "concurrency": _concurrency,
}


class Declared:
    """The limits that the code of an app declares; whoever opens the app tells the store."""

    def __init__(self) -> None:
        self._limits: dict[str, QueueLimits | None] = {}

    def declare(self, queue: str, said: Mapping[str, Any]) -> None:
        """From now on *said* holds for *queue*; nothing said: no limits of code."""
        given = {name: value for name, value in said.items() if value is not None}
        self._limits[check_name("queue", queue)] = bounded(queue, given) if given else None

    def tell(self, store: Store) -> None:
        """Make the store hold what is declared. What was said at run time still wins there."""
        if not self._limits:
            return
        known = store.queue_limits()
        for queue, limits in self._limits.items():
            found, origin = known.get(queue, (None, "code"))
            if origin == "run" or found != limits:
                store.limit_queue(queue, limits, origin="code")
