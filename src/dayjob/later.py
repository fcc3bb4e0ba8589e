"""What the public surface names and a later release brings: each is there, and refuses by name."""

from __future__ import annotations

from typing import Any, NoReturn

from dayjob.errors import NotSupported


class Later:
    """The part of `App` that a later release brings."""

    def flow(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Jobs that depend on each other."""
        raise NotSupported("app.flow", "flows are not part of this release; enqueue the next job from the one before")

    def signal(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Tell a waiting job something."""
        raise NotSupported("app.signal", "durable jobs are not part of this release")

    async def asignal(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Awaitable `signal`."""
        raise NotSupported("app.asignal", "durable jobs are not part of this release")

    def once(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Guard an effect so that it happens once."""
        raise NotSupported("app.once", "not part of this release; hand ctx.idempotency_key to the other side")

    async def aonce(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Awaitable `once`."""
        raise NotSupported("app.aonce", "not part of this release; hand ctx.idempotency_key to the other side")

    def asgi(self, *args: Any, **kwargs: Any) -> NoReturn:
        """The dashboard, to mount in a web application."""
        raise NotSupported("app.asgi", "the dashboard is not part of this release; see the command line")


def chain(*jobs: Any) -> NoReturn:
    """Jobs one after the other."""
    raise NotSupported("chain", "flows are not part of this release; enqueue the next job from the one before")


def group(*jobs: Any) -> NoReturn:
    """Jobs beside each other."""
    raise NotSupported("group", "flows are not part of this release; app.enqueue_many stores many at once")


def previous(node: str | None = None) -> Any:
    """What an earlier job of the flow returned."""
    raise NotSupported("previous", "flows are not part of this release")
