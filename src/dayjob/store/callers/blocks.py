"""Which transaction the enqueues of this context join: what `app.transaction(...)` and `ctx.transaction()` say.

A block holds for the task or thread that entered it, and for nobody who was started inside: a copy of the context
outlives the block, and a connection serves one at a time.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from contextvars import ContextVar, Token
from threading import get_ident
from types import TracebackType
from typing import Any, Self

from dayjob.store.callers.caller import Caller


class Block:
    """While it is entered, enqueues of *owner* join *caller*. Blocks nest; the inner wins.

    Args:
        owner: the app.
    """

    def __init__(self, owner: object, caller: Caller) -> None:
        self.owner, self.caller = owner, caller
        self.outer: Block | None = None
        self._home: tuple[int, object] | None = None
        self._token: Token[Block | None] | None = None

    @property
    def here(self) -> bool:
        """True in the task or thread that entered it, until it is left."""
        return self._home is not None and self._home == _home()

    def __enter__(self) -> Self:
        self.outer, self._home = INNERMOST.get(), _home()
        self._token = INNERMOST.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._home = None
        if self._token is not None:
            with suppress(ValueError):  # left in another context than it was entered in, as generators may be
                INNERMOST.reset(self._token)


INNERMOST: ContextVar[Block | None] = ContextVar("dayjob.transaction", default=None)
"""The block entered last. Who finds none pays for nothing else."""


def joined(owner: object) -> Caller | None:
    """The caller that enqueues of *owner* join here and now."""
    block = INNERMOST.get()
    while block is not None:
        if block.owner is owner and block.here:
            return block.caller
        block = block.outer
    return None


def _home() -> tuple[int, Any]:
    """This thread, and the task of its event loop that runs."""
    asyncio = sys.modules.get("asyncio")
    task = None
    if asyncio is not None and asyncio._get_running_loop() is not None:
        task = asyncio.current_task()
    return get_ident(), task
