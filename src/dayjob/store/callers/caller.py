"""What is common to all connections of callers, and how an engine's script runs on one.

    script ──Statement──▶ caller.run / await caller.arun ──rows──▶ script ─ … ─▶ answer

Nothing here begins, commits or rolls back.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, TypeVar

from dayjob.errors import DayjobError
from dayjob.store.records import Rows, Script, Statement

if TYPE_CHECKING:
    from dayjob.store.contract import Transaction

T = TypeVar("T")

_PLACEHOLDER = re.compile(r"\$(\d+)")
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)
"""Comments speak of placeholders, too."""


class Caller:
    """A connection or session of the caller's.

    Attributes:
        what: it, in words. system: the database system it leads to, by the name that engines use.
        awaited: True when it can only be awaited. outbox: True when jobs go into an outbox there (`OutboxCaller`).
    """

    what: str
    system: str
    awaited = False
    outbox = False

    def run(self, statement: Statement) -> Rows:
        """Run *statement* in whatever transaction is open; its rows, [] for none. Raises what the driver raises."""
        raise NotImplementedError

    async def arun(self, statement: Statement) -> Rows:
        """Awaitable `run`. A sync connection blocks the loop here as its owner's own statements do."""
        return self.run(statement)

    def alone(self) -> bool:
        """True when each statement commits by itself: autocommit, and no transaction is open."""
        raise NotImplementedError

    async def aalone(self) -> bool:
        """Awaitable `alone`."""
        return self.alone()


BROKEN = "ctx.transaction() was broken off, as its job was told to stop: nothing of it is stored"
"""What an engine says of a transaction of its own after `Transaction.break_off`."""


class Lent(Caller):
    """A transaction of the store's own (`Joining.begin`)."""

    def __init__(self, transaction: Transaction, system: str) -> None:
        self.what, self.system = "ctx.transaction()", system
        self._transaction = transaction

    def run(self, statement: Statement) -> Rows:
        return self._transaction.run(statement)

    def alone(self) -> bool:
        return False


class Translator(Protocol):
    """Who knows what the errors of a script's statements mean: an engine, or an outbox."""

    def joined_error(self, error: Exception) -> DayjobError:
        """What a driver raised, as dayjob says it."""


def perform(store: Translator, caller: Caller, script: Script[T]) -> T:
    """Run *script*, whose errors *store* translates, on a sync *caller*.

    Raises:
        StoreError: what the driver raised, translated; its transaction may be broken.
    """
    rows: Rows | None = None
    while True:
        try:
            statement = script.send(rows)  # type: ignore[arg-type]  # None starts a generator
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # what the script returns
        try:
            rows = caller.run(statement)
        except DayjobError:
            raise
        except Exception as error:
            raise store.joined_error(error) from error


async def aperform(store: Translator, caller: Caller, script: Script[T]) -> T:
    """Awaitable `perform`."""
    rows: Rows | None = None
    while True:
        try:
            statement = script.send(rows)  # type: ignore[arg-type]  # None starts a generator
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # what the script returns
        try:
            rows = await caller.arun(statement)
        except DayjobError:
            raise
        except Exception as error:
            raise store.joined_error(error) from error


@lru_cache(maxsize=64)
def question_marks(sql: str) -> str:
    """*sql* with `?` for placeholders."""
    return _PLACEHOLDER.sub("?", _COMMENT.sub("", sql))


@lru_cache(maxsize=64)
def percents(sql: str) -> str:
    """*sql* with `%s` for placeholders."""
    return _PLACEHOLDER.sub("%s", _COMMENT.sub("", sql).replace("%", "%%"))


@lru_cache(maxsize=64)
def names(sql: str) -> str:
    """*sql* with `:p1`, `:p2` … for placeholders."""
    return _PLACEHOLDER.sub(r":p\1", _COMMENT.sub("", sql))
