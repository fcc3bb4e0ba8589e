"""What cron would do, found by looking at the clock on the wall each minute: slow, and written by nobody who knows `Cron`."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def numbers(field: str, low: int, high: int) -> set[int]:
    term, _, step = field.partition("/")
    found: list[int] = []
    for part in term.split(","):
        first, _, last = part.partition("-")
        found += range(low, high + 1) if part == "*" else range(int(first), int(last or first) + 1)
    return set(sorted(found)[:: int(step or 1)])


def on_day(wall: datetime, days: str, weekdays: str) -> bool:
    """An implementation of its own of the days: of month and of week, both if one begins with a star."""
    last = (wall + DAY).month != wall.month
    by_date = last if days == "L" else wall.day in numbers(days, 1, 31)
    sunday = wall.isoweekday() % 7 == 0
    by_week = {
        "*": True,
        "SUN": sunday,
        "7": sunday,
        "MON-FRI": wall.isoweekday() <= 5,
        "SUN#1": sunday and wall.day <= 7,
        "0L": sunday and (wall + 7 * DAY).month != wall.month,
    }[weekdays]
    return (by_date and by_week) if "*" in (days[0], weekdays[0]) else (by_date or by_week)


def oracle(fields: tuple[str, str, str, str], zone: ZoneInfo, begin: datetime, end: datetime) -> list[datetime]:
    """What cron would do: look at the clock on the wall each minute."""
    minute, hour, days, weekdays = fields
    minutes, hours = numbers(minute, 0, 59), numbers(hour, 0, 23)

    def fits(wall: datetime) -> bool:
        return wall.minute in minutes and wall.hour in hours and on_day(wall, days, weekdays)

    found: list[datetime] = []
    now, shown = begin, begin.astimezone(zone).replace(tzinfo=None, fold=0)
    while now < end:
        now += MINUTE
        wall = now.astimezone(zone).replace(tzinfo=None, fold=0)
        if minute[0] == "*" or hour[0] == "*":
            if fits(wall):
                found.append(now)
            continue
        due = False
        while shown < wall:  # what was skipped is made up for; what is shown again counts no more
            shown += MINUTE
            due = due or fits(shown)
        if due:
            found.append(now)
    return [at for at in found if at <= end]
