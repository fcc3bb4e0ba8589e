"""When something happens again and again: `Cron` by calendar and wall clock, `Every` by interval. Pure values.

Daylight saving is as Debian's cron has it. A **fixed** time (neither minute nor hour begins with `*`) that the clock skips
comes once, at the moment after the gap; one that the clock shows twice comes the first time alone. Anything with a `*` in
minute or hour goes by what the clock shows: not at all in the gap, and both times in the overlap.

    wall clock  01:59 │ 03:00      gap:      30 2 * * *  → 03:00          */30 * * * *  → 01:30 03:00
    wall clock  02:59 │ 02:00      overlap:  30 2 * * *  → the first      */30 * * * *  → 02:00 02:30 02:00 02:30
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from msgspec import Struct

from dayjob.clock import LONGEST, SECOND, from_stamp, seconds, to_stamp
from dayjob.errors import ConfigError, shown

Overlap = Literal["skip", "queue", "allow"]
CatchUp = Literal["none", "latest", "all"]

_LONGEST_EXPR: Final = 500
_HORIZON: Final = 45
"""Years without a match after which there is none: a 29 February on a given weekday comes after 40 at most."""
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+\-]*(/[A-Za-z0-9_+\-]+)*", re.ASCII)
_HERE = frozenset({"localtime", "posixrules"})
"""Names that mean another zone on each machine."""
_SECOND, _MICROSECOND = timedelta(seconds=1), timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIELDS = "five fields, minute hour day month weekday, or six with seconds before them, as in '0 6 * * MON-FRI'"


class Cron:
    """A schedule by calendar. Immutable.

    Args:
        expr: `minute hour day month weekday`, or six fields with seconds first. Each is `*`, a number, a name (`MON`, `JAN`),
            a range, a list, or any of them with a step (`*/15`); days also `L` (the last) and `LW` (the last weekday of
            the month), weekdays also `MON#1` (the first Monday) and `5L` (the last Friday). Weekdays count from Sunday, 0 or 7.
        tz: name of the zone whose wall clock counts, as in "Europe/Berlin".
    Raises:
        ConfigError: one of them makes no sense, or the time never comes.
    """

    __slots__ = ("_calendar", "expr", "tz")

    expr: str
    tz: str
    _calendar: Calendar

    def __init__(self, expr: str, tz: str | ZoneInfo = "UTC") -> None:
        zone = tz.key if isinstance(tz, ZoneInfo) else tz
        calendar = _calendar(_checked_expr(expr), _checked_zone(zone))
        set_ = object.__setattr__
        set_(self, "expr", calendar.expr)
        set_(self, "tz", calendar.tz)
        set_(self, "_calendar", calendar)

    def next_after(self, moment: datetime) -> datetime | None:
        """The first time after *moment* (aware), in UTC; None when none comes within 45 years."""
        stamp = self.next_stamp(to_stamp(moment, "moment"))
        return None if stamp is None else from_stamp(stamp)

    def next_stamp(self, after: int) -> int | None:
        """`next_after` in stamps."""
        return _next_stamp(self._calendar, after)

    def count(self, after: int, until: int) -> int:
        """How many times there are after *after* and up to *until*; may be off by those of a day on which clocks change."""
        return self._calendar.count(after, until)

    @property
    def words(self) -> str:
        """The schedule in plain English."""
        return f"{self._calendar.words} ({self.tz})"

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a Cron cannot be changed: make a new one")

    def __reduce__(self) -> tuple[Any, ...]:
        return Cron, (self.expr, self.tz)

    def __eq__(self, other: object) -> bool:
        return (self.expr, self.tz) == (other.expr, other.tz) if isinstance(other, Cron) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.expr, self.tz))

    def __repr__(self) -> str:
        return f"Cron({self.expr!r}, tz={self.tz!r})"


class Every:
    """A schedule by interval, which does not drift: the times are the anchor and whole multiples after it. Immutable.

    Args:
        seconds: between two times, at least 1; or a timedelta.
        anchor: where to count from; by default 1970-01-01 in UTC, so that every 300 seconds is on the five minutes of every hour
            and a restart moves nothing. Times before the anchor count, too.
    """

    __slots__ = ("_origin", "seconds")

    seconds: float
    _origin: int

    def __init__(self, seconds: float | timedelta, anchor: datetime | None = None) -> None:
        object.__setattr__(self, "seconds", _interval(seconds))
        object.__setattr__(self, "_origin", 0 if anchor is None else to_stamp(anchor, "anchor"))

    @property
    def anchor(self) -> datetime:
        """Where it counts from, in UTC."""
        return from_stamp(self._origin)

    def next_after(self, moment: datetime) -> datetime:
        """The first time after *moment* (aware), in UTC."""
        return from_stamp(self.next_stamp(to_stamp(moment, "moment")))

    def next_stamp(self, after: int) -> int:
        """`next_after` in stamps."""
        step = round(self.seconds * SECOND)
        return self._origin + ((after - self._origin) // step + 1) * step

    def count(self, after: int, until: int) -> int:
        """How many times there are after *after* and up to *until*."""
        step = round(self.seconds * SECOND)
        return max(0, (until - self._origin) // step - (after - self._origin) // step)

    @property
    def words(self) -> str:
        """The schedule in plain English."""
        for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
            count, rest = divmod(self.seconds, size)
            if count and not rest:
                return f"Every {unit}" if count == 1 else f"Every {count:,.0f} {unit}s"
        return "Every second" if self.seconds == 1 else f"Every {self.seconds:,.12g} seconds"

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("an Every cannot be changed: make a new one")

    def __reduce__(self) -> tuple[Any, ...]:
        return Every, (self.seconds, self.anchor)

    def __eq__(self, other: object) -> bool:
        return self.__reduce__() == other.__reduce__() if isinstance(other, Every) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.seconds, self._origin))

    def __repr__(self) -> str:
        anchored = f", anchor={self.anchor.isoformat()}" if self._origin else ""
        return f"Every({self.seconds:.15g}{anchored})"


When = Cron | Every


def times(when: When, after: int, until: int | None = None) -> Iterator[int]:
    """The stamps of *when* after *after*, in order; up to *until*, if given."""
    at = when.next_stamp(after)
    while at is not None and (until is None or at <= until):
        yield at
        at = when.next_stamp(at)


def latest(when: When, after: int, until: int, count: int) -> tuple[list[int], int]:
    """The last *count* times in (*after*, *until*], oldest first; and how many there were before them, as `count` has it.

    However long ago *after* is: it looks back from *until* in growing steps.
    """
    span = 64 * SECOND
    while True:
        begin = max(after, until - span)
        found = list(times(when, begin, until))
        if len(found) >= count or begin == after:
            return found[-count:], len(found) - len(found[-count:]) + (when.count(after, begin) if begin > after else 0)
        span *= 8


class Rules(Struct, frozen=True, omit_defaults=True):
    """What holds beside the times: the policies of a schedule, checked.

    Attributes:
        overlap: when the job before has not ended yet: `skip` the tick, `queue` behind it, or `allow` both.
        catch_up: what becomes of ticks for which nobody was there: `none`, the `latest`, or `all`.
        jitter: seconds by which a job starts later at most; by name and time, so not by chance.
        start, end: stamps of the first and the last moment at which it may tick, or None.
    """

    overlap: Overlap = "skip"
    catch_up: CatchUp = "none"
    jitter: float = 0.0
    start: int | None = None
    end: int | None = None


class Declared(Struct, frozen=True):
    """A schedule as code declares it, at a task. `args`: of its jobs, in their JSON forms."""

    name: str
    when: When
    rules: Rules
    args: dict[str, Any]


def rules(
    *,
    overlap: object = "skip",
    catch_up: object = "none",
    jitter: float | timedelta = 0.0,
    start: datetime | None = None,
    end: datetime | None = None,
) -> Rules:
    """`Rules` from what a program says; `ConfigError` names what makes no sense."""
    _one_of("overlap", overlap, ("skip", "queue", "allow"))
    _one_of("catch_up", catch_up, ("none", "latest", "all"))
    first = None if start is None else to_stamp(start, "start")
    last = None if end is None else to_stamp(end, "end")
    if first is not None and last is not None and last < first:
        raise ConfigError(f"end={end} is before start={start}: the schedule would never tick")
    return Rules(overlap, catch_up, seconds(jitter, "jitter", most=86_400.0), first, last)  # type: ignore[arg-type]


def check_when(when: object) -> When:
    """*when* if it is a `Cron` or an `Every`, else `ConfigError`."""
    if not isinstance(when, (Cron, Every)):
        raise ConfigError(f'a schedule is Cron("0 6 * * *") or Every(300), not {shown(when)}')
    return when


def _one_of(what: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{what}={shown(value)} must be one of {', '.join(known)}")


def _interval(value: float | timedelta) -> float:
    try:
        return seconds(value, "every", least=1.0, most=LONGEST)
    except ConfigError as error:
        raise ConfigError(f"{error}; within one job a loop does more often than once a second") from None


# -- the calendar ------------------------------------------------------------------------------------------------------


def _checked_expr(expr: object) -> str:
    if not isinstance(expr, str):
        raise ConfigError(f"a cron expression must be a str, not {type(expr).__name__} {shown(expr)}: {_FIELDS}")
    if len(expr) > _LONGEST_EXPR or not expr.isascii():
        what = "has characters that none needs" if len(expr) <= _LONGEST_EXPR else f"has {len(expr):,} characters"
        raise ConfigError(f"the cron expression {shown(expr, 60)} {what}: {_FIELDS}")
    return " ".join(expr.upper().split())


def _checked_zone(tz: object) -> str:
    if not isinstance(tz, str) or len(tz) > 100 or not _ZONE.fullmatch(tz) or tz in _HERE:
        raise ConfigError(f"tz={shown(tz)} is no name of a time zone; write it as in 'Europe/Berlin' or 'UTC'")
    _zone(tz)
    return tz


def _zone(tz: str) -> ZoneInfo:
    try:
        return ZoneInfo(tz)
    except (LookupError, ValueError, OSError):  # unknown; a file that is none; a folder
        raise ConfigError(
            f"there is no time zone {tz!r} here: look for a typing error, or `pip install tzdata` if this machine has none"
        ) from None


@lru_cache(maxsize=20_000)
def _calendar(expr: str, tz: str) -> Calendar:
    return Calendar(expr, tz)


@lru_cache(maxsize=20_000)
def _next_stamp(calendar: Calendar, after: int) -> int | None:
    """Thousands of schedules are due at the same minutes, and each is asked more than once for the same time."""
    return calendar.next_stamp(after)


class Calendar:
    """A parsed expression on the wall clock of a zone."""

    def __init__(self, expr: str, tz: str) -> None:
        self.expr, self.tz = expr, tz
        fields = expr.split()
        if len(fields) not in (5, 6):
            raise ConfigError(f"the cron expression {shown(expr, 60)} has {len(fields)} fields: {_FIELDS}")
        try:
            self._parsed = parsed = CronSim(expr, datetime(2000, 1, 1))  # noqa: DTZ001  a parser; the time is not used
        except (CronSimError, ValueError, IndexError, AssertionError) as error:
            said = str(error).lower().removeprefix("bad ") or "field"
            raise ConfigError(
                f"the cron expression {shown(expr, 80)} is wrong in its {said}: {_remedy(said)}"
            ) from None
        self._seconds, self._minutes, self._hours = (
            sorted(field) for field in (parsed.seconds, parsed.minutes, parsed.hours)
        )
        self._first = time(self._hours[0], self._minutes[0], self._seconds[0])
        self._fixed = not any(field.startswith("*") for field in parsed.parts[1:3])
        self._zone = None if tz in ("UTC", "Etc/UTC") else _zone(tz)
        if self._wall_after(datetime(2000, 1, 1)) is None:  # noqa: DTZ001  on the wall
            raise ConfigError(
                f"the cron expression {shown(expr, 80)} never comes: no year has such a day; for the last of a month write L"
            )

    @property
    def words(self) -> str:
        """What it says, in English."""
        return self._parsed.explain()

    def next_stamp(self, after: int) -> int | None:
        """The stamp of the first time after *after*."""
        now = from_stamp(after)
        try:
            if self._zone is None:
                found = self._wall_after(now.replace(tzinfo=None))
                found = None if found is None else found.replace(tzinfo=UTC)
            elif self._fixed:
                found = self._next_fixed(now, self._zone)
            else:
                found = self._next_shown(now, self._zone)
        except OverflowError:  # the year 9999
            return None
        return None if found is None else (found - _EPOCH) // _MICROSECOND

    def count(self, after: int, until: int) -> int:
        """How many times there are in (*after*, *until*]."""
        first, last = (from_stamp(at).astimezone(self._zone or UTC) for at in (after, until))
        found = self._of_day(last) - self._of_day(first)
        day, whole = first.date(), len(self._hours) * len(self._minutes) * len(self._seconds)
        while day < last.date():
            found += whole * self._matches(day)
            day += timedelta(days=1)
        return max(0, found)

    def _of_day(self, moment: datetime) -> int:
        """How many times its day has shown at *moment*."""
        if not self._matches(moment.date()):
            return 0
        seconds, minutes = len(self._seconds), len(self._minutes)
        found = bisect_left(self._hours, moment.hour) * minutes * seconds
        if moment.hour in self._parsed.hours:
            found += bisect_left(self._minutes, moment.minute) * seconds
            if moment.minute in self._parsed.minutes:
                found += bisect_right(self._seconds, moment.second)
        return found

    def _matches(self, day: date) -> bool:
        return day.month in self._parsed.months and self._parsed.match_day(day)

    # -- on the wall: naive ----------------------------------------------------------------------------------------

    def _wall_after(self, wall: datetime) -> datetime | None:
        wall = wall.replace(microsecond=0, fold=0) + _SECOND
        day: date | None = wall.date()
        if wall.month in self._parsed.months and self._parsed.match_day(wall.date()):
            clock = self._clock_from(wall.hour, wall.minute, wall.second)
            if clock is not None:
                return datetime.combine(wall.date(), clock)
        day = self._day_after(wall.date())
        return None if day is None else datetime.combine(day, self._first)

    def _clock_from(self, hour: int, minute: int, second: int) -> time | None:
        """The first time of a day that is not before this one."""
        hours, minutes, seconds = self._hours, self._minutes, self._seconds
        if hour in self._parsed.hours:
            if minute in self._parsed.minutes and (place := bisect_left(seconds, second)) < len(seconds):
                return time(hour, minute, seconds[place])
            if (place := bisect_right(minutes, minute)) < len(minutes):
                return time(hour, minutes[place], seconds[0])
        if (place := bisect_right(hours, hour)) < len(hours):
            return time(hours[place], minutes[0], seconds[0])
        return None

    def _day_after(self, day: date) -> date | None:
        last = day.year + _HORIZON
        day += timedelta(days=1)
        while day.year <= last:
            if day.month not in self._parsed.months:
                day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
            elif self._parsed.match_day(day):
                return day
            else:
                day += timedelta(days=1)
        return None

    # -- in a zone ---------------------------------------------------------------------------------------------------

    def _next_fixed(self, now: datetime, zone: ZoneInfo) -> datetime | None:
        wall = self._wall_after(now.astimezone(zone).replace(tzinfo=None))
        while wall is not None:
            at = _change(wall, zone) if _skipped(wall, zone) else _at(wall, zone, 0)
            if at > now:
                return at
            wall = self._wall_after(wall)
        return None

    def _next_shown(self, now: datetime, zone: ZoneInfo) -> datetime | None:
        local = now.astimezone(zone)
        wall = local.replace(tzinfo=None, fold=0)
        if not local.fold and _twice(wall, zone):
            again = self._in_second_pass(wall, zone)
            following = self._wall_after(wall)
            if again is not None and (following is None or not _twice(following, zone)):
                return again
        found = self._wall_after(wall)
        while found is not None and _skipped(found, zone):
            over = _change(found, zone).astimezone(zone).replace(tzinfo=None, fold=0)
            found = self._wall_after(over - _SECOND)
        if found is None:
            return None
        first = _at(found, zone, 0)
        return first if first > now else _at(found, zone, 1)

    def _in_second_pass(self, wall: datetime, zone: ZoneInfo) -> datetime | None:
        """The first match among what the clock shows a second time, when *wall* is shown for the first."""
        back = _change(wall, zone).astimezone(zone).replace(tzinfo=None, fold=0)
        found = self._wall_after(back - _SECOND)
        return _at(found, zone, 1) if found is not None and _twice(found, zone) else None


def _remedy(field: str) -> str:
    return {
        "second": "0-59",
        "minute": "0-59, as in 0, */15 or 10-20",
        "hour": "0-23, as in 6, */2 or 9-17",
        "day-of-month": "1-31 that the months have, L for the last day, LW for the last weekday",
        "month": "1-12 or JAN-DEC",
        "day-of-week": "0-7 or SUN-SAT, as in MON-FRI, MON#1 or 5L",
    }.get(field, _FIELDS)


def _at(wall: datetime, zone: ZoneInfo, fold: int) -> datetime:
    return wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)


def _offsets(wall: datetime, zone: ZoneInfo) -> tuple[timedelta, timedelta]:
    """How far the clock was ahead of UTC before the change that is about *wall*, and after it; alike when there is none."""
    before, after = (wall.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
    assert before is not None
    assert after is not None
    return before, after


def _skipped(wall: datetime, zone: ZoneInfo) -> bool:
    before, after = _offsets(wall, zone)
    return before < after


def _twice(wall: datetime, zone: ZoneInfo) -> bool:
    before, after = _offsets(wall, zone)
    return before > after


def _change(wall: datetime, zone: ZoneInfo) -> datetime:
    """The moment of the change by which *wall* is skipped, or shown twice."""
    before, after = _offsets(wall, zone)
    early = int((wall - max(before, after)).replace(tzinfo=UTC).timestamp())
    late = int((wall - min(before, after)).replace(tzinfo=UTC).timestamp())
    while late - early > 1:
        middle = (early + late) // 2
        moment = datetime.fromtimestamp(middle, UTC)
        if moment.astimezone(zone).utcoffset() == before:
            early = middle
        else:
            late = middle
    return datetime.fromtimestamp(late, UTC)
