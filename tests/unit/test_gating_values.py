"""What a program says of keys, limits, lanes and breakers: checked where it is made, comparable, and told in a line."""

from __future__ import annotations

import copy
import math
import pickle
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from dayjob import Breaker, Concurrency, Debounce, Lane, RateLimit, Throttle, Unique
from dayjob.errors import ConfigError

HUGE = 2**70
BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: RateLimit(0), "limit=0"),
    (lambda: RateLimit(-1), "limit=-1"),
    (lambda: RateLimit(math.nan), "limit=nan"),  # type: ignore[arg-type]
    (lambda: RateLimit(math.inf), "limit=inf"),  # type: ignore[arg-type]
    (lambda: RateLimit(0.5), "RateLimit(1, per=2)"),  # type: ignore[arg-type]
    (lambda: RateLimit(True), "bool"),
    (lambda: RateLimit("10"), "int"),  # type: ignore[arg-type]
    (lambda: RateLimit(HUGE), "limit="),
    (lambda: RateLimit(1, per=0), "per=0"),
    (lambda: RateLimit(1, per=-1), "per=-1"),
    (lambda: RateLimit(1, per=math.nan), "per=nan"),
    (lambda: RateLimit(1, per=HUGE), "per="),
    (lambda: RateLimit(1, per=None), "per"),  # type: ignore[arg-type]
    (lambda: RateLimit(1, key=""), "empty"),
    (lambda: RateLimit(1, key="x" * 10_000), "10,000"),
    (lambda: Concurrency(0), "limit=0"),
    (lambda: Concurrency(1.5), "whole number"),  # type: ignore[arg-type]
    (lambda: Concurrency(1, key="{}"), "no argument"),
    (lambda: Unique(key=""), "empty"),
    (lambda: Unique(key="a", args=["b"]), "one of them"),
    (lambda: Unique(args=[]), "args="),
    (lambda: Unique(args="order_id"), "args="),
    (lambda: Unique(until="never"), "until='never'"),  # type: ignore[arg-type]
    (lambda: Unique(on_conflict="ignore"), "on_conflict='ignore'"),  # type: ignore[arg-type]
    (lambda: Unique(until="expired"), "ttl="),
    (lambda: Unique(ttl=0), "ttl=0"),
    (lambda: Unique(ttl=HUGE), "ttl="),
    (lambda: Unique(ttl=math.nan), "ttl=nan"),
    (lambda: Debounce(wait=0), "wait=0"),
    (lambda: Debounce(wait=HUGE), "wait="),
    (lambda: Debounce(wait=10, max_wait=5), "max_wait=5"),
    (lambda: Throttle(every=0), "every=0"),
    (lambda: Throttle(every=math.inf), "every=inf"),
    (lambda: Lane("x", order="random"), "order='random'"),  # type: ignore[arg-type]
    (lambda: Lane("x", weight=0), "weight=0"),
    (lambda: Lane("x", weight=101), "weight=101"),
    (lambda: Lane(""), "empty"),
    (lambda: Breaker("x", failures=0), "failures=0"),
    (lambda: Breaker("x", within=0), "within=0"),
    (lambda: Breaker("x", cooldown=math.nan), "cooldown=nan"),
    (lambda: Breaker("x", on=("ConnectionError",)), "exception types"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "culprit"), BAD, ids=[culprit for _, culprit in BAD])
def test_a_value_that_makes_no_sense_is_refused_at_once_and_named(make: Callable[[], Any], culprit: str) -> None:
    began = time.thread_time()
    with pytest.raises(ConfigError) as caught:
        make()

    assert time.thread_time() - began < 0.1
    assert culprit in str(caught.value)
    assert len(str(caught.value)) < 400


GOOD = [
    (lambda: Unique("order:{order_id}", until="started", ttl=60, on_conflict="replace"),
     "Unique(key='order:{order_id}', until='started', ttl=60.0, on_conflict='replace')"),
    (lambda: Unique(args=["b", "a"]), "Unique(args=('a', 'b'))"),
    (lambda: Debounce("k", wait=timedelta(seconds=2)), "Debounce(key='k', wait=2.0)"),
    (lambda: Throttle("k"), "Throttle(key='k')"),
    (lambda: RateLimit(10, per=2, key="k"), "RateLimit(limit=10, per=2.0, key='k')"),
    (lambda: Concurrency(3), "Concurrency(limit=3)"),
    (lambda: Lane("k", order="strict", weight=3), "Lane(key='k', order='strict', weight=3)"),
    (lambda: Breaker("k", on=ConnectionError), "Breaker(key='k', on=(<class 'ConnectionError'>,))"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "text"), GOOD, ids=[text for _, text in GOOD])
def test_a_value_equals_its_like_travels_and_says_what_it_is(make: Callable[[], Any], text: str) -> None:
    value = make()

    assert value == make()
    assert hash(value) == hash(make())
    assert repr(value) == text
    assert copy.deepcopy(value) == value
    assert pickle.loads(pickle.dumps(value)) == value
    with pytest.raises(AttributeError):
        value.key = "other"


def test_a_breaker_counts_what_it_is_there_for_and_a_predicate_that_fails_counts() -> None:
    assert Breaker("k", on=(ConnectionError,)).counts(ConnectionRefusedError())
    assert not Breaker("k", on=(ConnectionError,)).counts(ValueError())
    assert Breaker("k", on=lambda error: "503" in str(error)).counts(RuntimeError("503"))

    def broken(error: BaseException) -> bool:
        raise RuntimeError("predicate")

    error = ValueError("x")
    assert Breaker("k", on=broken).counts(error)
    assert any("predicate" in note for note in error.__notes__)
