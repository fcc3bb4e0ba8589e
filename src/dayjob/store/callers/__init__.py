"""Connections and sessions that callers hand over, so that dayjob writes in their transactions.

They are recognised by the names of their types: nothing is imported that the caller has not imported already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dayjob.errors import ConfigError
from dayjob.store.callers.caller import Caller, Lent, aperform, perform

if TYPE_CHECKING:
    from dayjob.store.contract import Joining

_DRIVERS, _LIBRARIES = "dayjob.store.callers.drivers", "dayjob.store.callers.libraries"

_KINDS: dict[str, tuple[str, str]] = {
    "sqlite3.Connection": (_DRIVERS, "Sqlite"),
    "aiosqlite.Connection": (_DRIVERS, "Aiosqlite"),
    "psycopg.Connection": (_DRIVERS, "Psycopg"),
    "psycopg.AsyncConnection": (_DRIVERS, "AsyncPsycopg"),
    "asyncpg.Connection": (_DRIVERS, "Asyncpg"),
    "asyncpg.PoolConnectionProxy": (_DRIVERS, "Asyncpg"),
    "sqlalchemy.Connection": (_LIBRARIES, "SqlalchemyConnection"),
    "sqlalchemy.Session": (_LIBRARIES, "SqlalchemySession"),
    "sqlalchemy.scoped_session": (_LIBRARIES, "SqlalchemySession"),
    "sqlalchemy.AsyncConnection": (_LIBRARIES, "SqlalchemyAsyncConnection"),
    "sqlalchemy.AsyncSession": (_LIBRARIES, "SqlalchemyAsyncSession"),
    "sqlalchemy.async_scoped_session": (_LIBRARIES, "SqlalchemyAsyncSession"),
    "django.BaseDatabaseWrapper": (_LIBRARIES, "Django"),
    "django.ConnectionProxy": (_LIBRARIES, "Django"),
}
"""Package and class -> the adapter, which is imported when the first such connection comes."""

_KNOWN = "a connection or session of psycopg, asyncpg, sqlite3, SQLAlchemy or Django"


def adapt(connection: Any) -> Caller:
    """The `Caller` for *connection*; `ConfigError` when it is nothing that dayjob knows."""
    for kind in type(connection).__mro__:
        found = _KINDS.get(f"{kind.__module__.partition('.')[0]}.{kind.__name__}")
        if found is not None:
            from importlib import import_module

            try:
                caller: Caller = getattr(import_module(found[0]), found[1])(connection)
            except Exception as error:  # a session without a bind, a proxy without a session
                raise ConfigError(f"this {kind.__name__} leads to no database: {error}") from error
            return caller
    name = f"{type(connection).__module__}.{type(connection).__qualname__}"
    hint = ""
    if "ursor" in name:
        hint = ": a cursor has no transaction of its own, give its connection"
    elif any(word in name for word in ("Pool", "Engine", "maker")):
        hint = ": a transaction belongs to one connection, give that"
    raise ConfigError(f"this takes {_KNOWN}, not {name}{hint}")


def admit(connection: Any, store: Joining, *, awaits: bool, verb: str) -> Caller:
    """The `Caller` for *connection*, which must lead to the database system in which *store* is.

    Args:
        awaits: the caller awaits. verb: what it called, for messages.
    Raises:
        ConfigError: it is no connection, leads elsewhere, or can only be awaited; nothing touched it.
    """
    caller = adapt(connection)
    if caller.system != store.system:
        raise ConfigError(
            f"{caller.what} to {caller.system} cannot take jobs along that are in {store.url}: one transaction does not "
            "span two databases. Keep the jobs in the application's database, or use app.outbox(...), which carries "
            "them over"
        )
    if caller.awaited and not awaits:
        raise ConfigError(f"{caller.what} can only be awaited: use `await ...a{verb}(...)` instead of {verb}(...)")
    return caller


__all__ = ["Caller", "Lent", "adapt", "admit", "aperform", "perform"]
