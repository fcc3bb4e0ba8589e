"""Cron against an oracle that looks at every minute of five years' changes of the clock, in twelve zones; and bad input."""

from __future__ import annotations

import itertools
import pickle
import random
import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from dayjob import ConfigError
from dayjob.clock import SECOND, to_stamp
from dayjob.schedule import Cron, Every, latest, rules, times
from tests.schedules.oracle import oracle

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)

ZONES = {
    "UTC": 2010,
    "Europe/Berlin": 2020,
    "America/New_York": 2020,
    "America/Sao_Paulo": 2014,  # midnight is skipped
    "America/Havana": 2018,
    "Australia/Lord_Howe": 2018,  # by half an hour
    "Pacific/Apia": 2009,  # 30 December 2011 is skipped
    "Africa/Casablanca": 2013,  # four changes a year
    "Asia/Kathmandu": 2018,  # 5:45 ahead, no changes
    "Africa/Cairo": 2020,
    "Asia/Tehran": 2018,
    "America/St_Johns": 2008,  # changed at one minute past midnight
}

MINUTES = ("0", "30", "*/15", "7,37", "*", "0-10", "59")
HOURS = ("*", "0", "2", "1-3", "*/2", "0,23", "6", "0-23")
DAYS = ("*", "*", "*", "1-15", "*/2", "L", "30")
WEEKDAYS = ("*", "*", "SUN", "MON-FRI", "7", "SUN#1", "0L")


def changes(zone: ZoneInfo, year: int) -> list[datetime]:
    """The hours in five years in which the zone's offset changes; without any, some day."""
    hours = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(5 * 366 * 24)]
    offsets = [hour.astimezone(zone).utcoffset() for hour in hours]
    return [b for b, x, y in zip(hours[1:], offsets, offsets[1:], strict=False) if x != y] or [
        datetime(year, 2, 27, tzinfo=UTC)
    ]


@pytest.mark.parametrize("name", ZONES)
def test_every_time_is_the_one_that_cron_would_have_run_at_around_each_change_of_the_clock_in_five_years(
    name: str,
) -> None:
    zone, rng = ZoneInfo(name), random.Random(name)
    for change in changes(zone, ZONES[name]):
        begin, end = change - timedelta(hours=30), change + timedelta(hours=30)
        fields = (rng.choice(MINUTES), rng.choice(HOURS), rng.choice(DAYS), rng.choice(WEEKDAYS))
        for each in (fields, (rng.choice(("*/10", "5", "*")), rng.choice(("*", "0", "1", "2", "3")), "*", "*")):
            cron = Cron(f"{each[0]} {each[1]} {each[2]} * {each[3]}", name)

            found = [*times(cron, to_stamp(begin), to_stamp(end))]

            assert found == [to_stamp(at) for at in oracle(each, zone, begin, end)], (cron, change)


@pytest.mark.parametrize("name", ["Europe/Berlin", "Australia/Lord_Howe", "America/Sao_Paulo", "Pacific/Apia"])
def test_asked_at_any_moment_about_a_change_it_says_the_next_of_all_times_and_never_one_that_is_over(name: str) -> None:
    zone = ZoneInfo(name)
    for change, expr in itertools.product(
        changes(zone, ZONES[name])[:4], ("30 2 * * *", "*/20 * * * *", "0 0 * * *", "5 1-3 * * *")
    ):
        cron, begin = Cron(expr, name), to_stamp(change - timedelta(hours=30))
        all_times = [*times(cron, begin, to_stamp(change + timedelta(hours=60)))]
        for at in range(begin, to_stamp(change + timedelta(hours=30)), 17 * 60 * SECOND + 1):
            assert cron.next_stamp(at) == next(one for one in all_times if one > at)


def test_a_fixed_time_in_the_gap_comes_once_right_after_it_and_one_in_the_overlap_once() -> None:
    spring, autumn = datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)

    for expr in ("30 2 * * *", "15,30,45 2 * * *", "10 30 2 * * *"):
        cron = Cron(expr, "Europe/Berlin")
        at = cron.next_after(spring)
        assert at == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
        assert at is not None
        following = cron.next_after(at)
        assert following is not None
        assert following.date() == datetime(2026, 3, 30, tzinfo=UTC).date()
    cron = Cron("30 2 * * *", "Europe/Berlin")
    assert cron.next_after(autumn) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert cron.next_after(datetime(2026, 10, 25, 1, 10, tzinfo=UTC)) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


def test_seconds_are_a_sixth_field_in_front() -> None:
    found = times(Cron("*/20 59 23 31 12 *"), to_stamp(datetime(2026, 1, 1, tzinfo=UTC)))

    assert [*itertools.islice(found, 4)] == [
        *(to_stamp(datetime(2026, 12, 31, 23, 59, second, tzinfo=UTC)) for second in (0, 20, 40)),
        to_stamp(datetime(2027, 12, 31, 23, 59, tzinfo=UTC)),
    ]


def test_a_day_that_comes_every_28_years_is_found() -> None:
    at = Cron("0 0 * 2 MON#5").next_after(datetime(2024, 3, 1, tzinfo=UTC))

    assert at == datetime(2044, 2, 29, tzinfo=UTC)


BAD = [
    "*/0 * * * *", "*/-2 * * * *", "0-99999999 * * * *", "* " * 10_000, "\u00b2 * * * *", "1-1_0 * * * *", "0 0 30 2 *",
    "0 0 */31 * MON#5", "0 0 31 2,4 *", "", "* * * *", "* * * * * * *", "* * * * *\0", "60 * * * *", "* 24 * * *",
    "5-1 * * * *", "* * * * 8", "* * * * MON#6", "* * 0 * *", "* * * 13 *", "*/" + "9" * 600 + " * * * *", "@daily", "? ? ? ? ?",
    "1,,2 * * * *", "* * * * L", "1.5 * * * *", None, 5, b"* * * * *",
]  # fmt: skip


@pytest.mark.parametrize("expr", BAD, ids=[str(n) for n in range(len(BAD))])
def test_a_bad_expression_is_refused_at_once_and_the_message_says_what_would_do(expr: str) -> None:
    began = time.perf_counter()
    with pytest.raises(ConfigError, match=r"cron expression .*(\d-|fields|no year)"):
        Cron(expr)

    assert time.perf_counter() - began < 0.1


@pytest.mark.parametrize(
    "tz",
    ["../../etc/passwd", "/etc/passwd", "America", "Europe/Berlim", "localtime", "", "\0", "tzdata.zi", "A" * 5000, "Europe/../UTC", None, 1],
)  # fmt: skip
def test_a_hostile_or_unknown_zone_is_refused_and_no_file_of_that_name_is_opened(tz: str) -> None:
    with pytest.raises(ConfigError, match="time zone"):
        Cron("* * * * *", tz)


@pytest.mark.parametrize(
    "seconds", [0, -1, float("nan"), float("inf"), 2**64, 10**400, 0.5, "300", True, None, timedelta(0)]
)
def test_an_interval_that_makes_no_sense_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match="every"):
        Every(seconds)


@pytest.mark.parametrize(
    "wrong",
    [
        {"overlap": "kill"}, {"catch_up": True}, {"jitter": -1}, {"jitter": float("nan")}, {"start": datetime(2026, 1, 1)},  # noqa: DTZ001
        {"start": datetime(2026, 1, 2, tzinfo=UTC), "end": datetime(2026, 1, 1, tzinfo=UTC)}, {"end": "2026"},
    ],
    ids=str,
)  # fmt: skip
def test_a_policy_that_makes_no_sense_is_refused_by_its_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(reversed(wrong)))):
        rules(**wrong)  # type: ignore[arg-type]


def test_an_interval_does_not_drift_however_late_it_is_asked() -> None:
    every, start = Every(7.5), to_stamp(datetime(2026, 1, 1, tzinfo=UTC))

    for late in range(0, 100 * SECOND, 1_234_567):
        assert every.next_stamp(start + late) % (7.5 * SECOND) == 0


def test_what_was_missed_is_found_from_its_end_however_long_ago_it_began() -> None:
    began, until = time.perf_counter(), to_stamp(datetime(2026, 1, 1, tzinfo=UTC))

    found, earlier = latest(Every(1), 0, until, 1000)
    assert (len(found), found[-1], found[0], earlier) == (1000, until, until - 999 * SECOND, until // SECOND - 1000)
    assert latest(Cron("0 0 1 1 *"), 0, until, 100)[0][0] == to_stamp(datetime(1971, 1, 1, tzinfo=UTC))
    assert latest(Every(60), until - 200 * SECOND, until, 3) == (
        [until - 120 * SECOND, until - 60 * SECOND, until],
        1,
    )
    assert latest(Every(60), until - 180 * SECOND, until, 3)[1] == 0
    assert latest(Cron("* * * * *", "Europe/Berlin"), until - 3_000 * 60 * SECOND, until, 1000)[1] == 2_000
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    "when",
    [
        Every(7.5),
        Cron("*/20 * * * * *"),
        Cron("*/7 3-5 * * MON", "Asia/Kathmandu"),
        Cron("5,9 */2 1-9 * *"),
        Cron("0 0 L * *", "Asia/Tokyo"),
    ],
    ids=repr,
)
def test_times_are_counted_without_a_look_at_each(when: Cron | Every) -> None:
    rng, begin = random.Random(repr(when)), to_stamp(datetime(2026, 3, 2, tzinfo=UTC))
    for _ in range(20):
        after = begin + rng.randrange(40 * 86_400 * SECOND)
        until = after + rng.randrange(3 * 86_400 * SECOND)

        assert when.count(after, until) == sum(1 for _ in times(when, after, until))


@pytest.mark.parametrize(
    "value", [Cron("0 6 * * mon", "Europe/Berlin"), Every(90), Every(60, datetime(2026, 1, 1, tzinfo=UTC))]
)
def test_values_are_compared_by_what_they_say_and_cannot_be_changed(value: Cron | Every) -> None:
    again = pickle.loads(pickle.dumps(value))

    assert again == value
    assert hash(again) == hash(value)
    with pytest.raises(AttributeError):
        value.tz = "UTC"


def test_a_schedule_is_said_in_plain_english() -> None:
    assert Cron("0 6 * * MON-FRI", "Europe/Berlin").words == "At 06:00 on Monday through Friday (Europe/Berlin)"
    assert Cron("0 9 * * MON#1").words == "At 09:00 on the first Monday of the month (UTC)"
    assert [Every(n).words for n in (1_234_567, 300, 3600, 90, 1)] == [
        "Every 1,234,567 seconds",
        "Every 5 minutes",
        "Every hour",
        "Every 90 seconds",
        "Every second",
    ]
