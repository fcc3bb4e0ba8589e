"""The few threads in which awaitable twins do their blocking work, so that no caller's loop waits for a store.

They are dayjob's own: the loop's default executor belongs to the application, which may fill it with work that takes
minutes. Threads start when needed and an idle process has none.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 8
"""Store calls of loops in flight at once; what they wait for is mostly one lock, so more would not help."""

_pool: ThreadPoolExecutor | None = None


def submit(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Start *fn* in a thread."""
    global _pool
    if _pool is None:
        # Imported here: programs that never await would pay for it with every start.
        from concurrent.futures import ThreadPoolExecutor

        _pool = ThreadPoolExecutor(THREADS, thread_name_prefix="dayjob-offload")
    return _pool.submit(fn, *args, **kwargs)


async def offload(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Await the outcome of *fn*, run in a thread. Cancelling stops the waiting, not *fn*."""
    import asyncio

    return await asyncio.wrap_future(submit(partial(fn, *args, **kwargs)))


def _forget() -> None:
    """After a fork: the pool's threads exist only in the parent."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
