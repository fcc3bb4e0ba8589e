"""Names, priorities, retries and retention: checked where they are given, exact where they are used."""

from __future__ import annotations

import copy
import math
import pickle
import random
import time
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dayjob.errors import ConfigError
from dayjob.policies import (
    Overrides,
    Retention,
    Retry,
    RetryNumbers,
    check_max_attempts,
    check_name,
    check_priority,
    check_timeout,
    shown,
)
from dayjob.states import State

STILL = random.Random(0)


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def no_jitter(**options: Any) -> Retry:
    return Retry(jitter=0, **options)


# -- names and numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "default", "billing.charge", "tenant:42", "A-b_c.9", "_x", "9to5", "x" * 200])
def test_a_plain_name_is_taken(name: str) -> None:
    assert check_name("queue", name) == name


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "../etc", "./a", "a/b", "{}", "{a}", "a'b", 'a"b', "a\nb", "a\0b", "a\x1b[31m", "-a", ".a", ":a",
     "é", "a\ud800", "x" * 201, "x" * 10_000, None, 7, b"a", ["a"], object()],
    ids=lambda name: shown(name, 20),
)  # fmt: skip
@pytest.mark.parametrize("what", ["task", "queue", "tag"])
def test_any_other_name_is_refused_at_once_with_what_is_allowed(what: str, name: Any) -> None:
    began = time.thread_time()
    with pytest.raises(ConfigError, match=what) as caught:
        check_name(what, name)

    assert time.thread_time() - began < 0.1
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("priority", [101, -101, 1.5, True, False, "5", None, 10**10_000, math.nan], ids=shown)
def test_a_priority_is_an_int_from_minus_100_to_100(priority: Any) -> None:
    with pytest.raises(ConfigError, match="priority"):
        check_priority(priority)


def test_the_bounds_of_a_priority_are_taken() -> None:
    assert [check_priority(-100), check_priority(100)] == [-100, 100]


@pytest.mark.parametrize("count", [0, -1, 10**9, 1_000_001, 1.0, True, "3", None, math.inf], ids=shown)
def test_max_attempts_has_a_range(count: Any) -> None:
    with pytest.raises(ConfigError, match="max_attempts"):
        check_max_attempts(count)
    with pytest.raises(ConfigError, match="max_attempts"):
        Retry(max_attempts=count)


@pytest.mark.parametrize(
    "timeout",
    [0, 0.0, -1, math.nan, math.inf, True, "5", 1e12, 10**5_000, Unshowable(), timedelta(0), timedelta(-1)],
    ids=shown,
)
def test_a_timeout_is_a_time_ahead_or_none(timeout: Any) -> None:
    with pytest.raises(ConfigError, match="timeout"):
        check_timeout(timeout)


def test_a_timeout_may_be_a_timedelta() -> None:
    assert [check_timeout(timedelta(minutes=2)), check_timeout(1), check_timeout(None)] == [120.0, 1.0, None]


@pytest.mark.parametrize(
    "value",
    [Unshowable(), 10**10_000, [Unshowable()], "x" * 10**7, [1] * 10**6, {"a": "\x00" * 999}],
    ids=["object", "int", "list", "str", "long list", "dict"],
)
def test_what_is_shown_in_errors_is_short_and_never_fails(value: Any) -> None:
    began = time.thread_time()
    text = shown(value)

    assert time.thread_time() - began < 0.1
    assert len(text) <= 80


# -- retries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "attempts"),
    [(True, 5), (False, 1), (3, 3), (1, 1), (Retry(7), 7)],
    ids=["True", "False", "3", "1", "Retry"],
)
def test_retry_may_be_written_short(value: Any, attempts: int) -> None:
    assert Retry.coerce(value).max_attempts == attempts


@pytest.mark.parametrize("value", ["3", 2.0, None, [1], -1, 0, 10**9], ids=shown)
def test_any_other_retry_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError):
        Retry.coerce(value)


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"backoff": "linear"}, "backoff"),
        ({"backoff": []}, "backoff"),
        ({"backoff": [1, -1]}, r"backoff\[1\]"),
        ({"backoff": [math.nan]}, r"backoff\[0\]"),
        ({"backoff": 5}, "backoff"),
        ({"base": -1}, "base"),
        ({"base": math.inf}, "base"),
        ({"base": "1"}, "base"),
        ({"factor": 0.5}, "factor"),
        ({"factor": math.nan}, "factor"),
        ({"factor": True}, "factor"),
        ({"cap": -1}, "cap"),
        ({"jitter": -0.1}, "jitter"),
        ({"jitter": 11}, "jitter"),
        ({"retry_on": ("ValueError",)}, "retry_on"),
        ({"retry_on": int}, "retry_on"),
        ({"give_up_on": [3]}, "give_up_on"),
        ({"give_up_on": 3}, "give_up_on"),
    ],
    ids=str,
)
def test_a_retry_that_makes_no_sense_names_the_argument(options: dict[str, Any], culprit: str) -> None:
    with pytest.raises(ConfigError, match=culprit):
        Retry(**options)


def test_exponential_backoff_grows_to_the_cap() -> None:
    retry = no_jitter(max_attempts=20, base=1, factor=2, cap=10)

    assert [retry.next(n, ValueError(), STILL) for n in range(1, 7)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_exponential_backoff_does_not_overflow() -> None:
    retry = no_jitter(max_attempts=1_000_000, base=1, factor=1e6, cap=60)

    assert retry.next(999_999, ValueError(), STILL) == 60.0


def test_fixed_backoff_and_lists() -> None:
    fixed = no_jitter(backoff="fixed", base=timedelta(seconds=7))
    listed = no_jitter(max_attempts=9, backoff=[1, timedelta(seconds=5), 30])

    assert [fixed.next(n, ValueError(), STILL) for n in (1, 4)] == [7.0, 7.0]
    assert [listed.next(n, ValueError(), STILL) for n in (1, 2, 3, 4, 8)] == [1.0, 5.0, 30.0, 30.0, 30.0]


def test_a_backoff_function_gets_attempt_and_error() -> None:
    retry = no_jitter(backoff=lambda attempt, exc: attempt * 10 + len(str(exc)))

    assert retry.next(2, ValueError("abc"), STILL) == 23.0


@pytest.mark.parametrize("result", [-1, math.nan, math.inf, None, "soon", True], ids=str)
def test_a_backoff_function_that_fails_falls_back_and_is_noted_on_the_error(result: Any) -> None:
    error = ValueError("boom")

    assert no_jitter(backoff=lambda attempt, exc: result).next(3, error, STILL) == 4.0
    assert "backoff" in error.__notes__[0]


def test_a_predicate_that_raises_retries_and_is_noted_on_the_error() -> None:
    error = ValueError("boom")

    def predicate(exc: BaseException) -> bool:
        raise KeyError("oops")

    assert Retry(retry_on=predicate).next(1, error, STILL) is not None
    assert Retry(give_up_on=predicate).next(1, error, STILL) is not None
    assert ["retry_on" in error.__notes__[0], "give_up_on" in error.__notes__[1]] == [True, True]


def test_attempts_are_counted_in_all() -> None:
    retry = Retry(max_attempts=3)

    assert [retry.next(n, ValueError(), STILL) is None for n in (1, 2, 3, 4)] == [False, False, True, True]


def test_the_jobs_own_number_of_attempts_wins() -> None:
    assert Retry(3).next(3, ValueError(), STILL, 5) is not None
    assert Retry(3).next(2, ValueError(), STILL, 2) is None


def test_errors_are_told_apart_by_type_and_by_predicate() -> None:
    by_type = Retry(retry_on=(OSError,), give_up_on=(FileNotFoundError,))
    by_predicate = Retry(retry_on=lambda exc: "again" in str(exc))
    one_type = Retry(give_up_on=KeyError)

    assert by_type.next(1, OSError(), STILL) is not None
    assert by_type.next(1, FileNotFoundError(), STILL) is None
    assert by_type.next(1, ValueError(), STILL) is None
    assert by_predicate.next(1, ValueError("again"), STILL) is not None
    assert by_predicate.next(1, ValueError("never"), STILL) is None
    assert one_type.next(1, KeyError(), STILL) is None


@given(
    st.integers(1, 50),
    st.floats(0, 100),
    st.floats(1, 10),
    st.floats(0, 1000),
    st.floats(0, 10),
    st.integers(0, 2**32),
)
def test_jitter_only_lengthens_and_by_no_more_than_its_share(
    attempt: int, base: float, factor: float, cap: float, jitter: float, seed: int
) -> None:
    options: dict[str, Any] = {"max_attempts": 100, "base": base, "factor": factor, "cap": cap}
    plain = no_jitter(**options).next(attempt, ValueError(), random.Random(seed))
    with_jitter = Retry(jitter=jitter, **options).next(attempt, ValueError(), random.Random(seed))

    assert plain is not None
    assert with_jitter is not None
    assert plain <= with_jitter <= plain * (1 + jitter) + 1e-9


def test_a_retry_is_a_value() -> None:
    retry = Retry(3, backoff=[1, 2], retry_on=(OSError,))

    assert retry == Retry(3, backoff=(1.0, 2.0), retry_on=OSError) != Retry(3)
    assert hash(retry) == hash(copy.copy(retry))
    assert pickle.loads(pickle.dumps(retry)) == retry
    assert repr(Retry(3)) == "Retry(max_attempts=3)"
    with pytest.raises(AttributeError):
        retry.base = 3.0


# -- retention -------------------------------------------------------------------------------------------------------


def test_retention_by_default_keeps_a_day_and_all_that_are_dead() -> None:
    retention = Retention()

    assert [(retention.age(s), retention.count(s)) for s in (State.COMPLETED, State.CANCELLED, State.DEAD)] == [
        (86_400.0, 100_000),
        (86_400.0, 100_000),
        (None, None),
    ]


def test_retention_may_be_written_short() -> None:
    retention = Retention(completed=(3600, 500), cancelled=timedelta(hours=1), dead=(None, 7))

    assert (retention.completed, retention.cancelled, retention.dead) == ((3600.0, 500), (3600.0, None), (None, 7))
    assert Retention(completed=None).completed == (None, None)


@pytest.mark.parametrize(
    "bounds", [(1, 2, 3), (), -1, math.nan, "1d", (3600, -1), (3600, 1.5), (3600, True), True], ids=str
)
def test_a_retention_that_makes_no_sense_names_the_state(bounds: Any) -> None:
    with pytest.raises(ConfigError, match="completed"):
        Retention(completed=bounds)


def test_a_retention_is_a_value() -> None:
    retention = Retention(completed=(1, 2))

    assert retention == pickle.loads(pickle.dumps(retention)) != Retention()
    assert hash(retention) == hash(Retention(completed=(1.0, 2)))
    with pytest.raises(ValueError, match="running"):
        retention.age(State.RUNNING)


# -- what one job changes --------------------------------------------------------------------------------------------


def test_overrides_come_back_as_they_were_stored() -> None:
    overrides = Overrides(RetryNumbers(3, (1.0, 2.0), jitter=0.0), None, (60.0, None, 0.0))
    stored = overrides.to_bytes()

    assert stored is not None
    assert Overrides.from_bytes(stored) == overrides
    assert Overrides().to_bytes() is None


def test_no_limit_is_not_the_same_as_nothing_said() -> None:
    assert Overrides(timeout=None).to_bytes() == b'{"timeout":null}'


@pytest.mark.parametrize("stored", [b"", b"[]", b'{"timeout":"x"}', b"\xff"])
def test_stored_options_that_cannot_be_read_are_a_value_error(stored: bytes) -> None:
    with pytest.raises(ValueError, match="options"):
        Overrides.from_bytes(stored)


@pytest.mark.parametrize(
    ("retry", "culprit"),
    [
        (Retry(backoff=lambda attempt, exc: 1.0), "backoff"),
        (Retry(retry_on=(OSError,)), "retry_on"),
        (Retry(give_up_on=lambda exc: True), "give_up_on"),
    ],
    ids=["backoff", "retry_on", "give_up_on"],
)
def test_code_cannot_be_stored_with_a_job(retry: Retry, culprit: str) -> None:
    with pytest.raises(ConfigError, match=f"{culprit}.*on the task"):
        RetryNumbers.of(retry)


def test_a_jobs_own_numbers_keep_what_the_task_gives_up_on() -> None:
    declared = Retry(9, retry_on=(OSError,), give_up_on=(FileNotFoundError,))

    assert RetryNumbers.of(Retry(2, base=5)).over(declared) == Retry(
        2, base=5, retry_on=(OSError,), give_up_on=(FileNotFoundError,)
    )
