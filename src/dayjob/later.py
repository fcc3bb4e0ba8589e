"""What the public surface names and a later release brings: each is there, and refuses by name."""

from __future__ import annotations

from typing import Any, NoReturn

from dayjob.errors import NotSupported


class Unavailable:
    """A manager of a later release; every verb of it raises `NotSupported` with its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, verb: str) -> Any:
        if verb.startswith("_"):
            raise AttributeError(verb)
        raise NotSupported(f"{self._name}.{verb}")


class Later:
    """The part of `App` that a later release brings."""

    schedules = Unavailable("app.schedules")

    def cron(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Schedules by calendar."""
        raise NotSupported("app.cron", "schedules are not part of this release")

    def every(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Schedules by interval."""
        raise NotSupported("app.every", "schedules are not part of this release")

    def flow(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Jobs that depend on each other."""
        raise NotSupported("app.flow", "flows are not part of this release; enqueue the next job from the one before")

    def signal(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Tell a waiting job something."""
        raise NotSupported("app.signal", "durable jobs are not part of this release")

    def once(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Guard an effect so that it happens once."""
        raise NotSupported("app.once", "not part of this release; hand ctx.idempotency_key to the other side")

    def limit(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Hold a limit around one call."""
        raise NotSupported("app.limit", "limits are not part of this release")

    def transaction(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Let enqueues join the caller's transaction."""
        raise NotSupported("app.transaction", "not part of this release; enqueue after your commit")

    def outbox(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Enqueue through a table of the caller's own database."""
        raise NotSupported("app.outbox", "not part of this release; enqueue after your commit")

    def asgi(self, *args: Any, **kwargs: Any) -> NoReturn:
        """The dashboard, to mount in a web application."""
        raise NotSupported("app.asgi", "the dashboard is not part of this release; see the command line")
