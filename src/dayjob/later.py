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

    async def asignal(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Awaitable `signal`."""
        raise NotSupported("app.asignal", "durable jobs are not part of this release")

    def once(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Guard an effect so that it happens once."""
        raise NotSupported("app.once", "not part of this release; hand ctx.idempotency_key to the other side")

    async def aonce(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Awaitable `once`."""
        raise NotSupported("app.aonce", "not part of this release; hand ctx.idempotency_key to the other side")

    def limit(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Hold a limit around one call."""
        raise NotSupported("app.limit", "limits are not part of this release")

    def asgi(self, *args: Any, **kwargs: Any) -> NoReturn:
        """The dashboard, to mount in a web application."""
        raise NotSupported("app.asgi", "the dashboard is not part of this release; see the command line")


class _Absent:
    """A value of a later release: to make one is refused."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotSupported(type(self).__name__)


class Unique(_Absent):
    """One job per key."""


class Debounce(_Absent):
    """One job for a burst of enqueues."""


class Throttle(_Absent):
    """One job per stretch of time."""


class RateLimit(_Absent):
    """So many starts per stretch of time, over all workers."""


class Concurrency(_Absent):
    """So many at once, over all workers."""


class Lane(_Absent):
    """Fair turns, or strict order, by key."""


class Breaker(_Absent):
    """Stops a task while what it depends on is failing."""


class Cron(_Absent):
    """A schedule by calendar."""


def chain(*jobs: Any) -> NoReturn:
    """Jobs one after the other."""
    raise NotSupported("chain", "flows are not part of this release; enqueue the next job from the one before")


def group(*jobs: Any) -> NoReturn:
    """Jobs beside each other."""
    raise NotSupported("group", "flows are not part of this release; app.enqueue_many stores many at once")


def previous(node: str | None = None) -> Any:
    """What an earlier job of the flow returned."""
    raise NotSupported("previous", "flows are not part of this release")
