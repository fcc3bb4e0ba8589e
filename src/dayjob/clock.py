"""Time, as dayjob writes it down.

Below the facade a point in time is a *stamp*: an int, microseconds since the Unix epoch, UTC. A double holds it
exactly (Redis scores) until the year 2255. Durations are float seconds. Above the line times are aware datetimes.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from dayjob.errors import ConfigError, shown

SECOND = 1_000_000
LONGEST = 100 * 366 * 86_400.0
"""The longest delay in seconds (a hundred years): past it a number is a mistake, and doubles lose microseconds."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST, _LATEST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def wall() -> int:
    """The wall clock of this process as a stamp. Only for show: what is due is the store's to say (P6)."""
    return time.time_ns() // 1000


def to_stamp(moment: datetime, what: str = "run_at") -> int:
    """*moment* as a stamp; a naive datetime is refused with `ConfigError` naming *what*."""
    if not isinstance(moment, datetime):
        raise ConfigError(f"{what} must be an aware datetime, not {type(moment).__name__} {shown(moment)}")
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise ConfigError(f"{what}={moment.isoformat()} has no time zone: use datetime.now(timezone.utc) or a ZoneInfo")
    stamp = (moment - _EPOCH) // _MICROSECOND
    if stamp > wall() + LONGEST * SECOND:
        raise ConfigError(f"{what}={moment.isoformat()} is more than 100 years away")
    return stamp


def from_stamp(stamp: int) -> datetime:
    """The aware UTC datetime of *stamp*; of one that no datetime holds (somebody wrote it by hand), the nearest."""
    try:
        return _EPOCH + timedelta(microseconds=stamp)
    except OverflowError:
        return _LATEST if stamp > 0 else _EARLIEST


def seconds(value: object, what: str, *, least: float = 0.0, most: float = LONGEST) -> float:
    """*value* (a number or a timedelta) as float seconds between *least* and *most*, else `ConfigError`."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{what} must be seconds or a timedelta, not {type(value).__name__} {shown(value)}")
    # Compared before it is converted: float() of a huge int raises. NaN fails every comparison.
    if not least <= value <= most:
        raise ConfigError(f"{what}={shown(value)} must be between {least:g} and {most:,.0f} seconds")
    return float(value)
