"""Enqueueing in the caller's own transaction: `using(conn=...)` and `app.transaction(...)`, or an outbox there.

    NewJob ─▶ rows ─▶ the caller's connection ─▶ (the caller commits) ─▶ workers
                                                            └─ outbox ─▶ relay ─▶ store ─▶ workers

The combiner has no part in this: there is nothing to combine, and nothing is ever repeated here. A transaction in which
something failed is its owner's to roll back and repeat.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from dayjob.combiner import awake
from dayjob.errors import ConfigError
from dayjob.link import Link
from dayjob.offload import offload
from dayjob.store.callers import Caller, Lent, admit, aperform, perform
from dayjob.store.callers.blocks import INNERMOST, Block, joined
from dayjob.store.records import Enqueued, NewRow

if TYPE_CHECKING:
    from typing import TypeGuard

    from dayjob.outbox.writing import OutboxCaller
    from dayjob.store.contract import Store
    from dayjob.task import NewJob


class Joiner:
    """Finds the transaction that an enqueue is to join, and writes there.

    Args:
        link: the store. namespace: of the app; its outbox is named after it.
    Attributes:
        owner: the app whose blocks count.
        off: nothing joins. In a test that put a store of its own in the place of the app's, no connection leads there.
    """

    def __init__(self, link: Link, namespace: str = "dayjob") -> None:
        self._link = link
        self._namespace = namespace
        self.owner: object = self
        self.off = False

    def caller(self, news: Iterable[NewJob[Any]], *, awaits: bool, verb: str = "enqueue") -> Caller | None:
        """The connection that the calls *news* join; None when they join nothing.

        Raises:
            ConfigError: several connections, or one that cannot be used here; nothing touched it.
        """
        outer = joined(self.owner)
        if self.off:
            return outer if isinstance(outer, Lent) else None
        own = {(id(new.said.conn), id(new.said.outbox)): new.said for new in news}
        if len(own) > 1:
            raise ConfigError(f"{verb} was given calls with different conn= or outbox=: one call takes one connection")
        (said,) = own.values()
        if said.outbox is not UNSET:
            return self._outbox(said.outbox, awaits=awaits, verb=verb)
        if said.conn is not UNSET:
            return self._admitted(said.conn, awaits=awaits, verb=verb)
        if outer is not None and outer.awaited and not awaits:
            raise ConfigError(f"{outer.what} can only be awaited: use `await ...a{verb}(...)` instead of {verb}(...)")
        return outer

    def send(self, caller: Caller, rows: Sequence[NewRow], *, chosen: bool) -> list[Enqueued]:
        """Write *rows* on *caller*; an outcome per row, which counts once the caller commits.

        Raises:
            StoreError: the statement failed; nothing is repeated.
        """
        if _outboxed(caller):
            return caller.write(rows, chosen=chosen)
        store = self._link.migrated()
        outcomes = perform(store, caller, store.enqueue_script(rows, repeat=chosen))
        if caller.alone():
            _wake(store, rows)
        return outcomes

    async def asend(self, caller: Caller, rows: Sequence[NewRow], *, chosen: bool) -> list[Enqueued]:
        """Awaitable `send`."""
        if _outboxed(caller):
            return await caller.awrite(rows, chosen=chosen)
        store = self._link.migrated() if self._link.opened else await offload(self._link.migrated)
        if not store.located:
            await offload(store.locate)
        outcomes = await aperform(store, caller, store.enqueue_script(rows, repeat=chosen))
        if await caller.aalone():
            _wake(store, rows)
        return outcomes

    def block(self, connection: Any) -> TransactionBlock:
        """See `App.transaction`."""
        return TransactionBlock(self, connection)

    def outbox(self, connection: Any) -> TransactionBlock:
        """See `App.outbox`."""
        return TransactionBlock(self, connection, outbox=True)

    def enter(self, connection: Any, *, outbox: bool = False) -> Block | None:
        """Enter a block for *connection*; None when nothing joins."""
        if self.off:
            return None
        admitted = self._outbox if outbox else self._admitted
        return Block(self.owner, admitted(connection, awaits=True, verb="enqueue")).__enter__()

    def _outbox(self, connection: Any, *, awaits: bool, verb: str) -> Caller:
        from dayjob.outbox.tables import table_of  # only who has an outbox pays for it
        from dayjob.outbox.writing import admit_outbox

        return admit_outbox(connection, table_of(self._namespace), awaits=awaits, verb=verb)

    def _admitted(self, connection: Any, *, awaits: bool, verb: str) -> Caller:
        caller = admit(connection, self._link.bare(), awaits=awaits, verb=verb)
        self._link.require_schema()
        return caller


def _outboxed(caller: Caller) -> TypeGuard[OutboxCaller]:
    return caller.outbox


def joins(new: NewJob[Any]) -> bool:
    """False when *new* surely joins no transaction: all that an ordinary enqueue pays."""
    return INNERMOST.get() is not None or new.said.conn is not UNSET or new.said.outbox is not UNSET


def _wake(store: Store, rows: Sequence[NewRow]) -> None:
    """The connection commits each statement by itself: the jobs are there already."""
    for queue in awake(rows):
        store.notify("work", queue.encode())


class TransactionBlock:
    """What `app.transaction(connection)` and `app.outbox(connection)` return: a context manager, sync and async.

    It only says where enqueues go.
    """

    def __init__(self, joiner: Joiner, connection: Any, *, outbox: bool = False) -> None:
        self._joiner, self._connection, self._outbox = joiner, connection, outbox
        self._entered: list[Block | None] = []

    def __enter__(self) -> Any:
        self._entered.append(self._joiner.enter(self._connection, outbox=self._outbox))
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        block = self._entered.pop()
        if block is not None:
            block.__exit__(kind, error, at)

    async def __aenter__(self) -> Any:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, at)
