"""What an app adds around its jobs, as the worker needs it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any

from dayjob.errors import ConfigError

if TYPE_CHECKING:
    from dayjob.context import JobContext

Around = Callable[["JobContext[Any]"], Any]


class Hooks:
    """An app's hooks.

    Args:
        lifespan: called once per process; returns a context manager, async or not; what it yields is `ctx.state`.
        arounds: each called with the context of an attempt, returns a context manager, async or not; the first is
            the outermost.
        job: makes the handle that `on_dead` hooks get, from an id.
    """

    def __init__(
        self,
        lifespan: Callable[[], Any] | None = None,
        arounds: Sequence[Around] = (),
        job: Callable[[str], Any] | None = None,
    ) -> None:
        self.lifespan = lifespan
        self.arounds = tuple(arounds)
        self.job = job

    @property
    def needs_loop(self) -> bool:
        """True when an around is async: then attempts in threads run inside a loop of their thread, too."""
        return any(inspect.isasyncgenfunction(inspect.unwrap(around)) for around in self.arounds)


async def attempt_async(arounds: Sequence[Around], context: JobContext[Any], call: Callable[[], Any]) -> Any:
    """Enter *arounds*, call, and await what comes back if it is awaitable."""
    value: Any = None  # an around that swallows the error: the attempt counts as done
    async with AsyncExitStack() as stack:
        for around in arounds:
            manager = around(context)
            if hasattr(manager, "__aenter__"):
                await stack.enter_async_context(manager)
            else:
                stack.enter_context(manager)
        returned = call()
        value = await returned if inspect.isawaitable(returned) else returned
    return value  # noqa: RET504  # a return inside `with` would hide that an around may swallow the error


def attempt_sync(arounds: Sequence[Around], context: JobContext[Any], call: Callable[[], Any]) -> Any:
    """Enter *arounds* and call."""
    value: Any = None
    with ExitStack() as stack:
        for around in arounds:
            manager = around(context)
            if not hasattr(manager, "__enter__"):
                raise ConfigError(f"around hook {around!r} returned {type(manager).__name__}, no context manager")
            stack.enter_context(manager)
        value = call()
    return value  # noqa: RET504  # a return inside `with` would hide that an around may swallow the error
