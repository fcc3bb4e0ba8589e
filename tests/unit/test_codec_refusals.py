"""Values that cannot travel: a typed error at once that names the argument and the way out, and nothing is written."""

from __future__ import annotations

import re
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any

import pytest

from dayjob.codec import Signature, encode_meta, encode_untyped
from dayjob.errors import (
    ConfigError,
    PayloadError,
    PayloadInvalid,
    PayloadNotSerializable,
    PayloadTooLarge,
)

NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001  # on purpose


class Level(IntEnum):
    LOW = 1


class Mode(StrEnum):
    FAST = "fast"


class Text(str):
    __slots__ = ()


class Number(int):
    pass


@dataclass
class Line:
    count: int
    note: str | None = None


class Reduces:
    def __reduce__(self) -> Any:
        raise AssertionError("nothing of a payload is ever pickled")


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def circle() -> list[Any]:
    value: list[Any] = ["x" * 1_000]
    value.append(value)
    return value


def bomb() -> list[Any]:
    value: list[Any] = [0]
    for _ in range(80):
        value = [value, value]
    return value


def self_holding_dict() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = {"again": value}
    return value


BAD: dict[str, tuple[Callable[[], Any], type[PayloadError], str]] = {
    "NaN": (lambda: float("nan"), PayloadNotSerializable, "None"),
    "infinity": (lambda: float("inf"), PayloadNotSerializable, "None"),
    "a Decimal that is no number": (lambda: Decimal("NaN"), PayloadNotSerializable, "None"),
    "a lone surrogate": (lambda: "a\ud800", PayloadNotSerializable, "pass bytes"),
    "a NUL character": (lambda: "a\0b", PayloadNotSerializable, "remove it"),
    "a NUL character in a key": (lambda: {"a\0b": 1}, PayloadNotSerializable, "remove it"),
    "an int of 10,000 digits": (lambda: 10**10_000, PayloadNotSerializable, "str"),
    "a depth of 100,000": (lambda: deep(100_000), PayloadNotSerializable, "flat"),
    "a depth of 101": (lambda: deep(101), PayloadNotSerializable, "flat"),
    "a list that contains itself": (circle, PayloadError, ""),
    "a dict that contains itself": (self_holding_dict, PayloadNotSerializable, "contains itself"),
    "two to the eighty": (bomb, PayloadTooLarge, "reference"),
    "10 MB of text": (lambda: "x" * 10_000_000, PayloadTooLarge, "reference"),
    "10 MB of other text": (lambda: "ä" * 5_000_000, PayloadTooLarge, "reference"),
    "10 MB of bytes": (lambda: b"x" * 10_000_000, PayloadTooLarge, "reference"),
    "a million numbers": (lambda: [1] * 1_000_000, PayloadTooLarge, "reference"),
    "a naive datetime": (lambda: NAIVE, PayloadInvalid, "ZoneInfo"),
    "a set": (lambda: {1, 2}, PayloadInvalid, "list"),
    "a tuple as a key": (lambda: {(1, 2): 3}, PayloadNotSerializable, "str keys"),
    "an int as a key": (lambda: {1: 2}, PayloadInvalid, "str keys"),
    "keys that become one": (lambda: {1: 2, "1": 3}, PayloadInvalid, "str keys"),
    "a tuple": (lambda: (1, 2), PayloadInvalid, "list"),
    "bytes": (lambda: b"x", PayloadInvalid, "annotate it as bytes"),
    "a Decimal": (lambda: Decimal(1), PayloadInvalid, "annotate it as Decimal"),
    "an IntEnum": (lambda: Level.LOW, PayloadInvalid, "annotate it as Level"),
    "a StrEnum": (lambda: Mode.FAST, PayloadInvalid, "annotate it as Mode"),
    "a subclass of str": (lambda: Text("x"), PayloadNotSerializable, r"str\(\.\.\.\)"),
    "a subclass of int": (lambda: Number(1), PayloadNotSerializable, r"int\(\.\.\.\)"),
    "a subclass of dict": (lambda: OrderedDict(a=1), PayloadNotSerializable, r"dict\(\.\.\.\)"),
    "a defaultdict": (lambda: defaultdict(int), PayloadNotSerializable, r"dict\(\.\.\.\)"),
    "a Counter": (lambda: Counter("ab"), PayloadNotSerializable, r"dict\(\.\.\.\)"),
    "a dataclass": (lambda: Line(1), PayloadInvalid, "annotate it as Line"),
    "an object with __reduce__": (Reduces, PayloadNotSerializable, "dataclass"),
    "an object": (object, PayloadNotSerializable, "dataclass"),
    "a class": (lambda: Line, PayloadNotSerializable, "code"),
    "a function": (lambda: deep, PayloadNotSerializable, "code"),
    "a lambda": (lambda: lambda: 0, PayloadNotSerializable, "code"),
    "a module": (lambda: time, PayloadNotSerializable, "plain data"),
    "a complex number": (lambda: 1j, PayloadNotSerializable, "plain data"),
    "a range": (lambda: range(3), PayloadNotSerializable, "plain data"),
    "a generator": (lambda: (n for n in ()), PayloadNotSerializable, "plain data"),
    "a memoryview": (lambda: memoryview(b"x"), PayloadNotSerializable, "plain data"),
}


def sign(hint: Any, result: Any = None) -> Signature:
    def task(first: int, value: Any) -> Any: ...

    task.__annotations__ = {"first": int, "value": hint, "return": result}
    return Signature(task, "shop.task")


def refused(call: Callable[[], object], kind: type[Exception]) -> str:
    """The message of the error that *call* raises within 100 ms: at the second try, when a collection of garbage fell
    into the first one."""
    took: list[float] = []
    while not took or (took[-1] >= 0.1 and len(took) < 3):
        began = time.thread_time()
        with pytest.raises(kind) as caught:
            call()
        took.append(time.thread_time() - began)

    assert min(took) < 0.1
    return str(caught.value)


@pytest.mark.parametrize("name", BAD)
def test_no_hint_lets_it_through_at_the_top(name: str) -> None:
    make, kind, remedy = BAD[name]
    value = make()

    message = refused(lambda: sign(Any).encode((1, value), {}, 10_000), kind)

    assert "'shop.task'" in message
    assert "value" in message or kind is PayloadTooLarge or name == "a list that contains itself"
    assert re.search(remedy, message), message


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize(
    ("hint", "wrap"),
    [
        (list[Any], lambda value: [1, value]),
        (dict[str, Any], lambda value: {"ok": 1, "bad": {"worse": value}}),
        (dict, lambda value: {"bad": [value]}),
    ],
    ids=["list", "dict of dicts", "bare dict"],
)
def test_no_container_lets_it_through(name: str, hint: Any, wrap: Callable[[Any], Any]) -> None:
    make, kind, _ = BAD[name]
    value = wrap(make())

    message = refused(lambda: sign(hint).encode((1, value), {}, 10_000), kind if "itself" not in name else PayloadError)

    assert "'shop.task'" in message


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("hint", [str, float, bool, list[int], float | None, dict[str, int], list[float]], ids=str)
def test_no_other_hint_lets_it_through(name: str, hint: Any) -> None:
    value = BAD[name][0]()

    refused(lambda: sign(hint).encode((1, value), {}, 10_000), PayloadError)


@pytest.mark.parametrize("name", BAD)
def test_no_result_lets_it_through_but_tuples_where_no_hint_says_otherwise(name: str) -> None:
    value = BAD[name][0]()
    signature = sign(int, Any)

    if name == "a tuple":
        assert signature.decode_result(signature.encode_result(value, 10_000)) == [1, 2]
    else:
        message = refused(lambda: signature.encode_result(value, 10_000), PayloadError)
        assert "return value" in message or "bytes" in message


@pytest.mark.parametrize("name", [name for name in BAD if name not in ("bytes", "a Decimal")])
def test_no_call_by_name_lets_it_through(name: str) -> None:
    value = BAD[name][0]()

    refused(lambda: encode_untyped("shop.task", {"value": value}, 10_000), PayloadError)
    refused(lambda: encode_meta({"value": value}), ConfigError)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, True),
        (float, True),
        (int | None, False),
        (list[int], [1, True]),
        (list[float], [True]),
        (dict[str, int], {"a": True}),
        (tuple[int, str], (True, "x")),
        (set[int], {True}),
        (Line, Line(True)),
        (list[Line], [Line(1), Line(False)]),
        (int | str, True),
    ],
    ids=str,
)
def test_a_bool_is_no_int_at_any_depth(hint: Any, value: Any) -> None:
    message = refused(lambda: sign(hint).encode((1, value), {}, 10_000), PayloadInvalid)

    assert "bool" in message


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (float | None, float("nan")),
        (float | None, float("-inf")),
        (list[float | None], [1.0, float("nan")]),
        (Any, {"a": float("nan")}),
    ],
    ids=str,
)
def test_nan_does_not_become_none(hint: Any, value: Any) -> None:
    refused(lambda: sign(hint).encode((1, value), {}, 10_000), PayloadNotSerializable)


@pytest.mark.parametrize(
    ("hint", "value", "received"),
    [
        (list[int], {1, 2}, "list"),
        (list[int], (1, 2), "list"),
        (set[int], [1, 1], "set"),
        (tuple[int, ...], [1, 2], "tuple"),
        (frozenset[int], {1}, "frozenset"),
        (str, Mode.FAST, "str"),
        (int, Level.LOW, "int"),
        (Level, 1, "Level"),
        (Decimal, "1.10", "Decimal"),
        (Decimal, 1, "Decimal"),
        (datetime, "2026-01-01T00:00:00Z", "datetime"),
        (Line, {"count": 1}, "Line"),
        (bytes, "eA==", "bytes"),
    ],
    ids=str,
)
def test_nothing_is_converted_on_the_way(hint: Any, value: Any, received: str) -> None:
    message = refused(lambda: sign(hint).encode((1, value), {}, 10_000), PayloadInvalid)

    assert f"would arrive as a {received}" in message.replace("an int", "a int")


def test_the_message_leads_to_the_culprit_inside_the_argument() -> None:
    signature = sign(dict[str, list[Line]])

    with pytest.raises(PayloadError) as caught:
        signature.encode((1, {"lines": [Line(1), Line(2, "a\0")]}), {}, 10_000)

    assert caught.value.argument == "value['lines'][1].note"  # type: ignore[attr-defined]


def test_a_wrong_type_inside_an_argument_is_named_with_its_path() -> None:
    with pytest.raises(PayloadInvalid) as caught:
        sign(list[Line]).encode((1, [Line("3")]), {}, 10_000)  # type: ignore[arg-type]

    assert caught.value.argument == "value[0].count"
    assert "expected int, got str" in caught.value.problem


def test_values_are_not_shown_in_errors() -> None:
    for value in ("secret\0", "secret\ud800", ["secret", "secret"], {"a": "secret"}):
        with pytest.raises(PayloadError) as caught:
            sign(float).encode((1, value), {}, 10_000)

        assert "secret" not in str(caught.value)


def test_a_payload_of_exactly_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    signature = sign(str)
    payload = signature.encode((1, "x" * 100), {}, 10_000)

    assert signature.encode((1, "x" * 100), {}, len(payload)) == payload
    with pytest.raises(PayloadTooLarge) as caught:
        signature.encode((1, "x" * 100), {}, len(payload) - 1)
    assert (caught.value.size, caught.value.limit) == (len(payload), len(payload) - 1)


def test_escapes_count_into_the_limit() -> None:
    with pytest.raises(PayloadTooLarge):
        sign(list[str]).encode((1, ["\x01" * 2_000]), {}, 10_000)


def test_an_encoder_of_the_library_itself_cannot_be_reached_by_a_class_that_looks_like_a_model() -> None:
    class Sly:
        def model_dump(self, **options: Any) -> Any:
            raise AssertionError("called")

    refused(lambda: sign(Any).encode((1, Sly()), {}, 10_000), PayloadNotSerializable)
