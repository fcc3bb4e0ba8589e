"""`app.limits` and `app.breakers`: how they stand, and the ways to change them while everything runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from dayjob.clock import SECOND, from_stamp
from dayjob.errors import ConfigError, shown
from dayjob.events import Bus
from dayjob.gating import Concurrency, RateLimit
from dayjob.gating.keys import check_key, template
from dayjob.job import Job
from dayjob.offload import offload
from dayjob.store.gating import BreakerRow, GateRow
from dayjob.telemetry.breakers import tell

if TYPE_CHECKING:
    from dayjob.store.contract import Store

LimitKind = Literal["concurrency", "rate"]
KINDS = ("concurrency", "rate")


class LimitStats(Struct, frozen=True):
    """A limit as it stands.

    Attributes:
        kind: `concurrency`, `rate`, `order` (a strict lane) or `breaker`. key: its name.
        limit: how many may pass (at once, or in `per` seconds). per: seconds of a rate, else 0.
        taken: how many have. waiting: jobs that wait for it, counted up to 10,000.
        opens: seconds until a rate lets the next one pass; None: at once, or not a matter of time.
    """

    kind: str
    key: str
    limit: int
    per: float
    taken: int
    waiting: int
    opens: float | None


class BreakerStats(Struct, frozen=True):
    """A breaker as it stands.

    Attributes:
        state: `closed`, `open` or `probing`: one job is let through to try. since: when that began.
        opens: seconds until an open one lets a job through to try; None: it was opened by hand, or is not open.
        failures: those in its window.
    """

    key: str
    state: str
    since: datetime
    opens: float | None
    failures: int


LimitRows = list[LimitStats]
BreakerRows = list[BreakerStats]


class LimitsManager:
    """The limits. Every verb has an awaitable twin that never blocks the loop."""

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store

    def list(self) -> LimitRows:
        """The limits that are taken or waited for, by kind and key, the first 1,000."""
        return self._read(None)

    async def alist(self) -> LimitRows:
        """Awaitable `list`."""
        return await offload(self.list)

    def of(self, job: Job[Any]) -> LimitRows:
        """The limits that *job* has to pass, as they stand; what is not listed is free."""
        gates = () if job.gating is None else job.gating.gates
        wanted = {(gate.kind, gate.key) for gate in gates}
        if not wanted:
            return []
        return [row for row in self._read([gate.key for gate in gates]) if (row.kind, row.key) in wanted]

    async def aof(self, job: Job[Any]) -> LimitRows:
        """Awaitable `of`."""
        return await offload(self.of, job)

    def set(
        self, kind: LimitKind | RateLimit | Concurrency, key: str | None = None, limit: int | None = None,
        per: float | timedelta | None = None,
    ) -> None:  # fmt: skip
        """Change a limit for everybody, within a second: from now on this counts, whatever code and jobs say.

        Args:
            kind: `concurrency` or `rate`, with the rest; or a value as in code, `RateLimit(5, per=1, key="stripe")`, whose key is literal.
            key: as it is shown. limit: at least 1. per: seconds of a rate, by default 1.
        Raises:
            ConfigError: a value makes no sense; nothing was changed.
        """
        said = self._said(kind, key, limit, per)
        assert said.key is not None
        text = check_key("app.limits.set", str(key) if isinstance(kind, str) else _literal(said.key))
        rate = isinstance(said, RateLimit)
        lasts = float(said.per) if isinstance(said, RateLimit) else 0.0  # type: ignore[arg-type]
        self._change("rate" if rate else "concurrency", text, said.limit, lasts)

    async def aset(
        self, kind: LimitKind | RateLimit | Concurrency, key: str | None = None, limit: int | None = None,
        per: float | timedelta | None = None,
    ) -> None:  # fmt: skip
        """Awaitable `set`."""
        await offload(self.set, kind, key, limit, per)

    def reset(self, kind: LimitKind, key: str) -> None:
        """Let what code says hold again."""
        self._change(_kind(kind), check_key("app.limits.reset", key), None, 0.0)

    async def areset(self, kind: LimitKind, key: str) -> None:
        """Awaitable `reset`."""
        await offload(self.reset, kind, key)

    def _said(self, kind: Any, key: Any, limit: Any, per: Any) -> RateLimit | Concurrency:
        if isinstance(kind, (RateLimit, Concurrency)):
            if key is not None or limit is not None or per is not None:
                raise ConfigError("app.limits.set takes a limit, or kind, key and numbers; not both")
            if kind.key is None:
                raise ConfigError(f"app.limits.set: {shown(kind)} has no key; the limit of a task is 'task:<its name>'")
            return kind
        if not isinstance(key, str):
            raise ConfigError(f"app.limits.set: key={shown(key)} must be the key as `app.limits.list()` shows it")
        if limit is None:
            raise ConfigError("app.limits.set: limit= is missing; `reset` lets what code says hold again")
        if _kind(kind) == "rate":
            return RateLimit(limit, 1.0 if per is None else per, "x")
        if per is not None:
            raise ConfigError("app.limits.set: per= belongs to a rate; a concurrency has no stretch of time")
        return Concurrency(limit, "x")

    def _change(self, kind: LimitKind, key: str, limit: int | None, per: float) -> None:
        store = self._store()
        store.set_limit(kind, key, limit, per)
        store.notify("control")
        store.notify("work")

    def _read(self, keys: Sequence[str] | None) -> LimitRows:
        store = self._store()
        now = store.now()
        return [_limit(row, now) for row in store.gates(keys)]


class BreakersManager:
    """The breakers. Every verb has an awaitable twin that never blocks the loop."""

    def __init__(self, store: Callable[[], Store], bus: Bus) -> None:
        self._store, self._bus = store, bus

    def list(self) -> BreakerRows:
        """The breakers that are not closed, or have failures in their window, by key."""
        store = self._store()
        now = store.now()
        return [_breaker(row, now) for row in store.breakers()]

    async def alist(self) -> BreakerRows:
        """Awaitable `list`."""
        return await offload(self.list)

    def open(self, key: str) -> None:
        """Hold back all jobs behind it, everywhere within a second, until it is closed by hand. What runs goes on."""
        self._set(key, "open")

    async def aopen(self, key: str) -> None:
        """Awaitable `open`."""
        await offload(self.open, key)

    def close(self, key: str) -> None:
        """Let jobs through again, and forget the failures."""
        self._set(key, "closed")

    async def aclose(self, key: str) -> None:
        """Awaitable `close`."""
        await offload(self.close, key)

    def _set(self, key: str, state: Literal["closed", "open"]) -> None:
        store = self._store()
        store.set_breaker(check_key("app.breakers", _text(key)), state)
        store.notify("control")
        store.notify("work")
        tell(self._bus, [BreakerRow(key, state, store.now())])


def _kind(kind: object) -> LimitKind:
    if kind == "concurrency":
        return "concurrency"
    if kind == "rate":
        return "rate"
    raise ConfigError(f"a limit is of the kind {' or '.join(map(repr, KINDS))}, not {shown(kind)}")


def _literal(key: str) -> str:
    literal = template(key).literal
    if literal is None:
        raise ConfigError(f"app.limits.set: {shown(key)} is a template; name one key, as `app.limits.list()` shows it")
    return literal


def _text(key: object) -> str:
    if not isinstance(key, str):
        raise ConfigError(f"a breaker's key is a str, not {type(key).__name__} {shown(key)}")
    return key


def _limit(row: GateRow, now: int) -> LimitStats:
    gate = row.gate
    opens = None if row.opens is None or row.opens <= now else (row.opens - now) / SECOND
    return LimitStats(gate.kind, gate.key, gate.limit, gate.per, row.taken, row.waiting, opens)


def _breaker(row: BreakerRow, now: int) -> BreakerStats:
    opens = None if row.until is None or row.state != "open" else max(0.0, (row.until - now) / SECOND)
    return BreakerStats(row.key, row.state, from_stamp(row.since), opens, row.failures)
