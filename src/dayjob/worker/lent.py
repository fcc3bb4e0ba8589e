"""`ctx.transaction()`: a transaction on a connection of dayjob's own, whose last statement completes the job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from dayjob.errors import ConfigError, TransactionExpired
from dayjob.store.callers import Lent, perform
from dayjob.store.callers.blocks import Block
from dayjob.store.records import Rows, Statement
from dayjob.worker import completions

if TYPE_CHECKING:
    from dayjob.store.contract import Joining, Transaction
    from dayjob.worker.run import Completion, Run

T = TypeVar("T")


class JobTransaction:
    """What `ctx.transaction()` returns; `with` or `async with`, once.

    At the end of the block the job completes and everything is committed in one; an error in it, or a lost lease, rolls
    everything back. Enqueues inside join it. In `async with` it has a thread of its own, so that no loop waits.

    Args:
        app: whose enqueues join. limit: see `Joining.begin`. run: the job; None completes nothing (a direct call).
    Attributes:
        result: what the job's result shall be. connection: the driver's own, for more than `execute`.
    """

    def __init__(self, store: Joining, app: Any, limit: float | None, run: Run | None) -> None:
        self.result: Any = None
        self._store, self._app, self._limit, self._run = store, app, limit, run
        self._transaction: Transaction | None = None
        self._over = False
        self._block: Block | None = None
        self._thread: ThreadPoolExecutor | None = None

    @property
    def connection(self) -> Any:
        return self._open.connection

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """Run *sql* with the driver's own placeholders; returns its cursor.

        Raises:
            TransactionExpired: it was open too long, and everything in it is undone. ConfigError: its block was left.
            Else what the driver raises.
        """
        transaction = self._open
        try:
            return transaction.connection.execute(sql, parameters)
        except Exception as error:
            if transaction.expired:
                raise TransactionExpired(transaction.limit) from error
            raise

    async def aexecute(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Awaitable `execute`; returns the rows, which are fetched already.

        Cancelled meanwhile, the statement is broken off, and the whole transaction with it.
        """

        def run() -> list[Any]:
            cursor = self.execute(sql, parameters)
            return list(cursor.fetchall()) if cursor.description else []

        return await self._finished(run)

    # -- with --------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._begin()
        self._join(Lent(self._open, self._store.system))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._leave()
        self._end(error)

    async def __aenter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dayjob-transaction")
        begin = self._submit(self._begin)
        try:
            await asyncio.wrap_future(begin)
        except BaseException:  # it may be waiting for its turn, and nobody waits for it any more
            begin.add_done_callback(lambda _: self._roll_back())
            self._thread.shutdown(wait=False)
            raise
        self._join(_Threaded(self._open, self._store.system, self))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        assert self._thread is not None
        self._leave()
        try:
            await self._finished(lambda: self._end(error))
        finally:
            self._thread.shutdown(wait=False)

    # -- its life ----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        run = self._run
        if self._transaction is not None:
            raise ConfigError("a ctx.transaction() is entered once: call ctx.transaction() again")
        if run is not None:
            run.check_lease()
            if run.lent is not None:
                raise ConfigError("ctx.transaction() inside ctx.transaction(): the job can complete in one of them")
            if run.completion is not None and run.completion.committed:
                raise ConfigError(f"job {run.job.id} has completed in an earlier transaction: it can complete once")
        self._transaction = self._store.begin(limit=self._limit)
        if run is not None:
            run.lent = self

    def _join(self, caller: Lent) -> None:
        if self._app is not None:
            self._block = Block(self._app, caller)
            self._block.__enter__()

    def _leave(self) -> None:
        if self._block is not None:
            self._block.__exit__(None, None, None)

    def _end(self, error: BaseException | None) -> None:
        """Complete and commit, or roll back after *error*."""
        transaction = self._open
        if error is not None:
            expired = transaction.expired
            self._roll_back()
            if expired and isinstance(error, Exception) and not isinstance(error, TransactionExpired):
                raise TransactionExpired(transaction.limit) from error
            return
        try:
            completion = self._complete()
            self._over = True
            transaction.commit()
        except BaseException:
            self._roll_back()
            raise
        self._returned()
        if completion is not None:
            completion.committed = True

    def _complete(self) -> Completion | None:
        run = self._run
        completion = None if run is None else completions.prepare(run, self.result)
        if run is None or completion is None:
            return None
        script = self._store.completion_script(run.lease, completion.settlement, completion.logs)
        if not perform(self._store, Lent(self._open, self._store.system), script):
            raise completions.refusal(run)
        return completion

    def _roll_back(self) -> None:
        self._over = True
        if self._transaction is not None:
            self._transaction.rollback()
            self._returned()

    def _returned(self) -> None:
        if self._run is not None:
            self._run.lent = None

    def break_off(self) -> None:
        """The job is told to stop: its statement ends with an error, and nothing can be committed. From any thread."""
        if self._transaction is not None and not self._over:
            # A server may take seconds to answer, and who is told by us has others to tell.
            Thread(target=self._transaction.break_off, name="dayjob-break-off", daemon=True).start()

    def call_off(self) -> None:
        """Undo it for a job that has ended without leaving it, whatever still goes on in it."""
        if self._transaction is not None:
            self._transaction.break_off()
        self._roll_back()
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    @property
    def _open(self) -> Transaction:
        if self._transaction is None:
            raise ConfigError("ctx.transaction() is used with `with` or `async with`")
        self._require_not_over()
        return self._transaction

    def _require_not_over(self) -> None:
        if self._over:
            raise ConfigError(
                "this ctx.transaction() is over: what is to be written with the job belongs into its block"
            )

    def _submit(self, fn: Callable[[], T]) -> Future[T]:
        self._require_not_over()
        if self._thread is None:
            raise ConfigError("tx.aexecute() belongs into `async with ctx.transaction()`; in `with` it is tx.execute()")
        return self._thread.submit(fn)

    async def _finished(self, fn: Callable[[], T]) -> T:
        """Await *fn* in the thread to its end, also when cancelled meanwhile: then it is told to end at once."""
        waiter = asyncio.wrap_future(self._submit(fn))
        cancelled: asyncio.CancelledError | None = None
        while not waiter.done():
            try:
                await asyncio.wait([waiter])
            except asyncio.CancelledError as error:
                cancelled = error
                self.break_off()
        if cancelled is not None:
            waiter.exception()
            raise cancelled
        return waiter.result()


class _Threaded(Lent):
    """The same, run in the thread of an `async with`."""

    def __init__(self, transaction: Transaction, system: str, owner: JobTransaction) -> None:
        super().__init__(transaction, system)
        self._owner = owner

    async def arun(self, statement: Statement) -> Rows:
        return await self._owner._finished(lambda: self.run(statement))
