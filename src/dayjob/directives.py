"""What a task raises to say how it wants to go on. Directives are no errors, so they are no `DayjobError`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from dayjob.clock import SECOND, seconds, to_stamp
from dayjob.errors import ConfigError, shown
from dayjob.gating.values import Concurrency, RateLimit

Pause = RateLimit | Concurrency


class Directive(Exception):
    """The root of the directives."""


class RetryAfter(Directive):
    """Fail this attempt and try again after a time; spends an attempt, dead when none are left.

    The recorded error is its `__cause__` (`raise RetryAfter(30) from error`), else the directive itself.

    Args:
        when: seconds, a timedelta, or an aware datetime (HTTP's `Retry-After` knows both).
        pause: a limit, or several: nobody passes them until then, so that other jobs do not meet the same refusal. Templates
            of their keys are filled with this job's arguments and meta.
    Raises:
        ConfigError: *when* is negative, not finite, naive or more than a hundred years away; *pause* is no limit.
    """

    def __init__(self, when: float | timedelta | datetime, pause: Pause | Sequence[Pause] | None = None) -> None:
        super().__init__(when, pause)
        self.pause = _limits(pause)
        self.run_at: int | None = None
        self.seconds: float | None = None
        if isinstance(when, datetime):
            self.run_at = to_stamp(when, "RetryAfter(when)")
        else:
            self.seconds = seconds(when, "RetryAfter(seconds)")

    def delay(self, now: int) -> float:
        """Seconds from the stamp *now* (the store's clock) until the next attempt."""
        if self.seconds is not None:
            return self.seconds
        assert self.run_at is not None
        return max(0.0, (self.run_at - now) / SECOND)

    def __str__(self) -> str:
        return f"retry at {self.args[0]}" if self.seconds is None else f"retry after {self.seconds:g} s"


def _limits(pause: Any) -> tuple[Pause, ...]:
    several = () if pause is None else tuple(pause) if isinstance(pause, (list, tuple)) else (pause,)
    for one in several:
        if not isinstance(one, (RateLimit, Concurrency)):
            raise ConfigError(f"RetryAfter: pause={shown(pause)} must be a RateLimit or a Concurrency, or several")
    return several


class Snooze(Directive):
    """Not now: run again after a time, as if this attempt had not happened; spends none.

    Args:
        delay: seconds or a timedelta.
    """

    def __init__(self, delay: float | timedelta) -> None:
        super().__init__(delay)
        self.seconds = seconds(delay, "Snooze(seconds)")

    def __str__(self) -> str:
        return f"snoozed for {self.seconds:g} s"


class _Reasoned(Directive):
    def __init__(self, reason: str = "") -> None:
        if not isinstance(reason, str):
            raise ConfigError(f"{type(self).__name__}(reason) must be a str, not {type(reason).__name__}")
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason or type(self).__name__


class CancelJob(_Reasoned):
    """End the job as cancelled, with *reason*."""


class Unrecoverable(_Reasoned):
    """End the job as dead at once, with *reason*: no attempt can help. Its `__cause__`, if any, is the recorded error."""
