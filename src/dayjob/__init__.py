"""dayjob: background jobs for Python.

    from dayjob import App

    app = App()

    @app.task
    async def greet(name: str) -> str:
        return f"Hello, {name}"

    greet.enqueue("Ada")          # and in a worker: dayjob worker module:app

Names are loaded when they are first used, so that `import dayjob` stays fast in every process that only enqueues.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dayjob.app import App
    from dayjob.clock import from_stamp, to_stamp
    from dayjob.codec import Private
    from dayjob.config import Settings
    from dayjob.context import JobContext, current_job
    from dayjob.declare import Tasks
    from dayjob.directives import CancelJob, RetryAfter, Snooze, Unrecoverable
    from dayjob.errors import (
        ConfigError,
        DayjobError,
        JobCancelled,
        JobFailed,
        JobNotFound,
        JobTimeout,
        LeaseLost,
        NotSupported,
        PayloadError,
        PayloadInvalid,
        PayloadNotSerializable,
        PayloadTooLarge,
        QueueFull,
        SchemaMismatch,
        StoreError,
        StoreUnavailable,
        UnknownTask,
        WaitTimeout,
    )
    from dayjob.job import Attempt, Job
    from dayjob.later import (
        Breaker,
        Concurrency,
        Cron,
        Debounce,
        Lane,
        RateLimit,
        Throttle,
        Unique,
        chain,
        group,
        previous,
    )
    from dayjob.policies import Retention, Retry
    from dayjob.states import Outcome, State
    from dayjob.task import NewJob, Task

_ROOMS = {
    "app": ("App",),
    "clock": ("from_stamp", "to_stamp"),
    "codec": ("Private",),
    "config": ("Settings",),
    "context": ("JobContext", "current_job"),
    "directives": ("CancelJob", "RetryAfter", "Snooze", "Unrecoverable"),
    "errors": (
        "ConfigError",
        "DayjobError",
        "JobCancelled",
        "JobFailed",
        "JobNotFound",
        "JobTimeout",
        "LeaseLost",
        "NotSupported",
        "PayloadError",
        "PayloadInvalid",
        "PayloadNotSerializable",
        "PayloadTooLarge",
        "QueueFull",
        "SchemaMismatch",
        "StoreError",
        "StoreUnavailable",
        "UnknownTask",
        "WaitTimeout",
    ),
    "job": ("Attempt", "Job"),
    "later": (
        "Breaker",
        "Concurrency",
        "Cron",
        "Debounce",
        "Lane",
        "RateLimit",
        "Throttle",
        "Unique",
        "chain",
        "group",
        "previous",
    ),
    "policies": ("Retention", "Retry"),
    "states": ("Outcome", "State"),
    "declare": ("Tasks",),
    "task": ("NewJob", "Task"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("dayjob")
    room = _HOME.get(name)
    if room is None:
        raise AttributeError(f"module 'dayjob' has no attribute {name!r}")
    value = getattr(import_module(f"dayjob.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


__all__ = [
    "App",
    "Tasks",
    "Task",
    "NewJob",
    "Job",
    "Attempt",
    "JobContext",
    "current_job",
    "Retry",
    "Retention",
    "Settings",
    "State",
    "Outcome",
    "Snooze",
    "RetryAfter",
    "CancelJob",
    "Unrecoverable",
    "Private",
    "Unique",
    "Debounce",
    "Throttle",
    "RateLimit",
    "Concurrency",
    "Lane",
    "Breaker",
    "Cron",
    "chain",
    "group",
    "previous",
    "from_stamp",
    "to_stamp",
    "DayjobError",
    "ConfigError",
    "PayloadError",
    "PayloadInvalid",
    "PayloadTooLarge",
    "PayloadNotSerializable",
    "UnknownTask",
    "JobNotFound",
    "JobFailed",
    "JobCancelled",
    "JobTimeout",
    "WaitTimeout",
    "QueueFull",
    "StoreError",
    "StoreUnavailable",
    "SchemaMismatch",
    "NotSupported",
    "LeaseLost",
]
