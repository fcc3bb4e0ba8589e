"""Jobs that complete inside a transaction (P10): their writes and their end are one commit, or none.

    function ── ctx.transaction() / ctx.complete_in(conn) ──▶ completion, the last statement but the commit
        │                                                                 │ committed? only the store knows for sure
        └─ returns or raises ──▶ decide ──▶ standing? ── completed ──▶ told like any end, but never settled
                                               ├─ held ──▶ what the function returned or raised decides, as always
                                               ├─ open ──▶ asked again
                                               └─ lost ──▶ nothing may be written for it

A reply to a commit can be lost, a caller may roll back without a word, a child may die right after its commit: so nobody
concludes from what was seen here. The store is asked when the function has ended, unless our own commit has returned.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from threading import Thread
from typing import TYPE_CHECKING, Any

from dayjob.codec.failure import decode_failure, encode_failure
from dayjob.errors import ConfigError, LeaseLost, NotCommitted, StoreError
from dayjob.events import JobLogged, JobRaisedLate, WritesTrimmed
from dayjob.offload import offload, submit
from dayjob.states import Outcome, State
from dayjob.store.callers import Caller, admit, aperform, perform
from dayjob.store.records import Log, Settlement
from dayjob.worker.run import LOST, Completion, Run, monotonic

if TYPE_CHECKING:
    from dayjob.worker.executor import Executor

IN_FLIGHT, BLOCKED = 1.0, 0.02
"""Seconds to wait for lines that are being written right now; and where they may be waiting for this very transaction."""
ASK_FIRST, ASK_LONGEST = 0.02, 1.0
"""Seconds between two looks at a transaction that is still open."""


def prepare(run: Run, result: Any) -> Completion | None:
    """What is to be written when *run* completes with *result*; None when this run settles nothing (a trial by hand).

    Raises:
        PayloadError: *result* cannot be stored. ConfigError: it has completed. LeaseLost: it is in other hands.
    """
    completion = _remembered(run, result)
    if completion is not None:
        _take_along(run, completion)
    return completion


def _remembered(run: Run, result: Any) -> Completion | None:
    """`prepare`, but for the lines."""
    run.check_lease()
    if run.completion is not None and run.completion.committed:
        raise ConfigError(f"job {run.job.id} has completed in an earlier transaction: it can complete once")
    job, home = run.job, run.home
    encoded = run.plan.encode_result(result, home.settings.max_result)
    now = home.stamp()
    started = now - (monotonic() - run.started)
    keep = run.plan.keep[State.COMPLETED]
    settlement = Settlement(job.id, job.entry, Outcome.COMPLETED, started, now, 0.0, encoded, None, None, keep)
    return home.completing(run, Completion(settlement, said=result is not None))


def announced(run: Run, completion: Completion) -> Completion:
    """*run* is about to complete: from now on its lines wait for how that ends. Those pending go with the completion."""
    run.completion = completion
    _take_along(run, completion)
    return completion


def _take_along(run: Run, completion: Completion) -> None:
    for pause in _lines(run, completion):
        time.sleep(pause)


def _lines(run: Run, completion: Completion) -> Iterator[float]:
    """Give *completion* the lines that are pending. Yields pauses to make, while some are being written right now."""
    give_up = time.monotonic() + (BLOCKED if run.home.store.exclusive else IN_FLIGHT)
    while run.writing is not None and time.monotonic() < give_up:
        yield 0.001
    completion.logs += [write for write in (*(run.writing or ()), *(run._logs or ())) if isinstance(write, Log)]


def complete_in(run: Run, connection: Any, result: Any) -> None:
    """See `JobContext.complete_in`."""
    caller = _admitted(run, connection, awaits=False)
    completion = prepare(run, result)
    if completion is None or _adopted(completion, caller):
        return
    assert caller is not None
    if caller.alone():
        raise _needs_transaction(run, caller)
    store = run.home.store
    if not perform(store, caller, store.completion_script(run.lease, completion.settlement, completion.logs)):
        raise refusal(run)


async def acomplete_in(run: Run, connection: Any, result: Any) -> None:
    """See `JobContext.acomplete_in`."""
    caller = _admitted(run, connection, awaits=True)
    completion = _remembered(run, result)
    if completion is None:
        return
    for pause in _lines(run, completion):
        await asyncio.sleep(pause)
    if _adopted(completion, caller):
        return
    assert caller is not None
    if await caller.aalone():
        raise _needs_transaction(run, caller)
    store = run.home.store
    if not store.located:
        await offload(store.locate)
    if not await aperform(store, caller, store.completion_script(run.lease, completion.settlement, completion.logs)):
        raise refusal(run)


def refusal(run: Run) -> BaseException:
    """Why the store refused to complete *run*."""
    standing = run.home.store.standing(run.lease)
    if standing == "completed":
        return ConfigError(f"job {run.job.id} has completed in an earlier transaction: it can complete once")
    if standing != "lost":  # it is ours, but this transaction sees another state of it
        return ConfigError(
            f"job {run.job.id} cannot complete in this transaction: it has done so there already, or the transaction "
            "(REPEATABLE READ or SERIALIZABLE) began before the job was claimed. Complete it once, in a transaction begun by the task"
        )
    run.stopping = LOST
    return LeaseLost(run.job.id, run.job.entry)


def _admitted(run: Run, connection: Any, *, awaits: bool) -> Caller | None:
    """The connection as dayjob uses it; None in a test, whose store no connection leads to."""
    if run.lent is not None:
        raise ConfigError(
            "ctx.complete_in() inside ctx.transaction(), at whose end the job completes: say tx.result = ..."
        )
    if getattr(run.home.app, "under_test", False):
        return None
    return admit(connection, run.home.store, awaits=awaits, verb="complete_in")


def _adopted(completion: Completion, caller: Caller | None) -> bool:
    completion.adopted = caller is None
    return completion.adopted


def _needs_transaction(run: Run, caller: Caller) -> ConfigError:
    run.completion = None
    return ConfigError(
        f"{caller.what} commits each statement by itself: the job would be completed before your writes. Begin a "
        "transaction first, where a library does it with its driver out of autocommit"
    )


# -- when the function has ended -----------------------------------------------------------------------------------


def decide(
    executor: Executor,
    run: Run,
    otherwise: Callable[[], None],
    error: BaseException | bytes | None = None,
    *,
    returned: bool = False,
) -> None:
    """End *run*, whose function has ended after `ctx.complete_in` or `ctx.transaction()`.

    Args:
        otherwise: ends it when it is not completed. error: what the function raised, encoded by a child; or what was
            wrong with its end although it *returned*.
    """
    completion = run.completion
    assert completion is not None
    if completion.committed:
        _completed(executor, run, completion, error)
    elif completion.adopted:
        run.completion = None
        if returned:
            executor.end(run, completion.settlement)
        else:
            otherwise()
    elif executor.loop.here:
        submit(_ask, executor, run, otherwise, error, False)
    else:
        _ask(executor, run, otherwise, error, True)


def _ask(
    executor: Executor,
    run: Run,
    otherwise: Callable[[], None],
    error: BaseException | bytes | None,
    patient: bool,
) -> None:
    """Ask the store until it knows. Who is not *patient* is in a thread that others need."""
    completion, pause = run.completion, ASK_FIRST
    assert completion is not None
    while True:
        try:
            standing = executor.store.standing(run.lease)
        except StoreError:
            standing = "open"  # nobody knows
        if standing == "completed":
            completion.committed = True
            _completed(executor, run, completion, error)
        elif standing == "held" or executor.stopped:
            run.completion = None
            otherwise()
        elif standing == "lost":
            run.completion = None
            executor.end(run, None)
        elif patient:
            time.sleep(pause)
            pause = min(pause * 2, ASK_LONGEST)
            continue
        else:
            Thread(
                target=_ask, args=(executor, run, otherwise, error, True), name="dayjob-completion", daemon=True
            ).start()
            return
        executor.tray.quiet()
        return


def _completed(executor: Executor, run: Run, completion: Completion, error: BaseException | bytes | None) -> None:
    """The store has it: tell, and let the pump strike it off."""
    job, bus = run.job, executor.bus
    base: dict[str, Any] = {"id": job.id, "task": job.task, "queue": job.queue}
    if bus.wants(JobLogged.name):
        for line in completion.logs:
            bus.emit(JobLogged(**base, level=line.level, message=line.message))
    stored = set(map(id, completion.logs))
    late = sum(1 for write in run._logs or () if id(write) not in stored)
    if late:
        bus.emit(WritesTrimmed(count=late))
    if error is not None:
        encoded = error if isinstance(error, bytes) else encode_failure(error, executor.settings.max_error)
        failure = decode_failure(encoded)
        bus.emit(JobRaisedLate(**base, error_type=failure.type, error=failure.message, traceback=failure.traceback))
    executor.end(run, completion.settlement)


def called_off(executor: Executor, run: Run, then: Callable[[], None]) -> None:
    """*run* has ended inside its `ctx.transaction()`: an interrupt came on the way out, or it never left it.

    It is undone before the run is over by *then*: the next attempt must not meet it.
    """
    lent = run.lent
    assert lent is not None

    def end() -> None:
        lent.call_off()
        then()
        executor.tray.quiet()

    if executor.loop.here:
        Thread(target=end, name="dayjob-call-off", daemon=True).start()
    else:
        end()


def not_committed(run: Run) -> NotCommitted:
    """What a function has done wrong that returned while its completion was rolled back."""
    return NotCommitted(run.job.id)


def ignored(run: Run) -> ConfigError:
    """What a function has done wrong that returned a value after it had completed without one."""
    return ConfigError(
        f"job {run.job.id} returned a value after it had completed in its transaction: nobody gets it. Say it there, "
        "tx.result = ... or ctx.complete_in(connection, result)"
    )
