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
    from dayjob.calls import Call
    from dayjob.clock import from_stamp, to_stamp
    from dayjob.codec import Private
    from dayjob.config import Settings
    from dayjob.context import JobContext, current_job
    from dayjob.declare import Tasks
    from dayjob.directives import CancelJob, RetryAfter, Snooze, Unrecoverable
    from dayjob.errors import (
        BreakerOpen,
        ConfigError,
        DayjobError,
        JobCancelled,
        JobExists,
        JobFailed,
        JobNotFound,
        JobTimeout,
        LeaseLost,
        LimitTimeout,
        NotSupported,
        PayloadError,
        PayloadInvalid,
        PayloadNotSerializable,
        PayloadTooLarge,
        QueueClosed,
        QueueFull,
        ScheduleNotFound,
        SchemaMismatch,
        StoreError,
        StoreUnavailable,
        UnknownTask,
        WaitTimeout,
    )
    from dayjob.gating import Breaker, Concurrency, Debounce, Lane, RateLimit, Throttle, Unique
    from dayjob.job import Attempt, Job
    from dayjob.later import chain, group, previous
    from dayjob.policies import Retention, Retry
    from dayjob.schedule import Cron, Every
    from dayjob.schedules import Schedule
    from dayjob.states import Outcome, State
    from dayjob.task import NewJob, Task

_ROOMS = {
    "app": ("App",),
    "calls": ("Call",),
    "clock": ("from_stamp", "to_stamp"),
    "codec": ("Private",),
    "config": ("Settings",),
    "context": ("JobContext", "current_job"),
    "directives": ("CancelJob", "RetryAfter", "Snooze", "Unrecoverable"),
    "errors": (
        "BreakerOpen",
        "ConfigError",
        "DayjobError",
        "JobCancelled",
        "JobExists",
        "JobFailed",
        "JobNotFound",
        "JobTimeout",
        "LeaseLost",
        "LimitTimeout",
        "NotSupported",
        "PayloadError",
        "PayloadInvalid",
        "PayloadNotSerializable",
        "PayloadTooLarge",
        "QueueClosed",
        "QueueFull",
        "ScheduleNotFound",
        "SchemaMismatch",
        "StoreError",
        "StoreUnavailable",
        "UnknownTask",
        "WaitTimeout",
    ),
    "job": ("Attempt", "Job"),
    "gating": ("Breaker", "Concurrency", "Debounce", "Lane", "RateLimit", "Throttle", "Unique"),
    "later": ("chain", "group", "previous"),
    "policies": ("Retention", "Retry"),
    "schedule": ("Cron", "Every"),
    "schedules": ("Schedule",),
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
    "Call",
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
    "Every",
    "Schedule",
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
    "ScheduleNotFound",
    "JobFailed",
    "JobCancelled",
    "JobExists",
    "JobTimeout",
    "WaitTimeout",
    "LimitTimeout",
    "BreakerOpen",
    "QueueClosed",
    "QueueFull",
    "StoreError",
    "StoreUnavailable",
    "SchemaMismatch",
    "NotSupported",
    "LeaseLost",
]
