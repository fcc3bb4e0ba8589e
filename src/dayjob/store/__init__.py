"""Engines, by URL. `contract` says what an engine is; `records` are the rows that cross the line."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from dayjob.errors import ConfigError

if TYPE_CHECKING:
    from dayjob.store.contract import Store

ENGINES: dict[str, str] = {
    "sqlite": "dayjob.store.sqlite:SQLiteStore",
    "postgresql": "dayjob.store.postgres:PostgresStore",
    "postgres": "dayjob.store.postgres:PostgresStore",
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys", "unix"), "dayjob.store.redis:RedisStore"),
}
"""Scheme -> "module:class"; strings, so that an engine's driver is imported only when its URL is used."""


def open_store(
    url: str, *, clock: Callable[[], int] | None = None, lease: float = 20.0, namespace: str = "dayjob"
) -> Store:
    """The engine behind *url*; nothing is opened before its first use.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db`, `sqlite:///:memory:`, `postgresql://user@host/database`,
            `redis://host:6379/0`, `valkey://host:6379/0`.
        clock: a virtual clock for tests: returns a stamp. None is the store's own clock.
        lease: seconds of live time without a beat after which a worker is given up.
        namespace: prefix of all that dayjob keeps there.
    Raises:
        ConfigError: the URL names no engine.
    """
    scheme = url.partition(":")[0].lower()
    target = ENGINES.get(scheme.partition("+")[0])
    if target is None:
        raise ConfigError(f"no engine for {scheme!r} in the store URL; known: {', '.join(sorted(ENGINES))}")
    module, _, name = target.partition(":")
    store: Store = getattr(import_module(module), name)(url, clock=clock, lease=lease, namespace=namespace)
    return store
