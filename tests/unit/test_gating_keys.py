"""Keys: what a template may show, how it is checked, and that equal jobs have equal keys and unequal ones do not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from string import ascii_letters
from typing import Annotated, Any, NamedTuple

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dayjob.errors import ConfigError
from dayjob.gating import Declared, Unique, key_of, template
from dayjob.gating.declared import digest
from dayjob.gating.keys import MAX_KEY, escape
from dayjob.gating.values import Concurrency


class Size(Enum):
    LARGE = "l"


@dataclass
class Customer:
    id: int
    secret: str = "s"

    @property
    def computed(self) -> str:
        raise AssertionError("a template called code")

    def method(self) -> str:
        raise AssertionError("a template called code")


class Line(msgspec.Struct):
    sku: str
    customer: Customer


class Point(NamedTuple):
    x: int
    y: int


def render(text: str, meta: dict[str, Any] | None = None, /, **args: Any) -> str:
    return template(text).render("test", args, meta or {})


@pytest.mark.parametrize(
    ("text", "args", "key"),
    [
        ("order:7", {}, "order:7"),
        ("order:{n}", {"n": 7}, "order:7"),
        ("{a}-{b}", {"a": "x", "b": True}, "x-true"),
        ("{{{n}}}", {"n": 7}, "{7}"),
        ("{{n}}", {}, "{n}"),
        ("{line.sku}/{line.customer.id}", {"line": Line("k", Customer(3))}, "k/3"),
        ("{data.a.b}", {"data": {"a": {"b": "c"}}}, "c"),
        ("{p.x}", {"p": Point(1, 2)}, "1"),
        ("{none}", {"none": None}, "null"),
        ("{size}", {"size": Size.LARGE}, "l"),
        ("{amount}", {"amount": Decimal("9.90")}, "9.90"),
        ("{day}", {"day": date(2026, 1, 2)}, "2026-01-02"),
        ("{at}", {"at": datetime(2026, 1, 2, tzinfo=UTC)}, "2026-01-02T00:00:00Z"),
        ("{id}", {"id": uuid.UUID(int=1)}, "00000000-0000-0000-0000-000000000001"),
        ("{tags}", {"tags": {"b", "a"}}, '["a","b"]'),
        ("ключ:{имя}", {"имя": "ü"}, "ключ:ü"),
    ],
)
def test_a_template_shows_arguments_in_their_json_form(text: str, args: dict[str, Any], key: str) -> None:
    assert render(text, **args) == key


def test_meta_is_there_beside_the_arguments_and_an_argument_of_that_name_wins() -> None:
    assert render("{meta.tenant}", {"tenant": 7}) == "7"
    assert render("{meta.tenant}", {"tenant": 7}, meta={"tenant": 8}) == "8"


@pytest.mark.parametrize(
    "text",
    ["{", "}", "{n", "n}", "{}", "{ n }", "{n!r}", "{n:>10}", "{n[0]}", "{n()}", "{0}", "{n.}", "{.n}", "{n..m}",
     "{n.__class__}", "{__class__}", "{n.__init__.__globals__}", "{a b}", "{n.m()}", "{{n}", "{n}}", "{-n}", "{n.0}"],
)  # fmt: skip
def test_what_is_no_template_is_refused_at_once_with_the_way_to_write_one(text: str) -> None:
    began = time.thread_time()
    with pytest.raises(ConfigError, match="key"):
        template(text)
    assert time.thread_time() - began < 0.1


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("", "empty"),
        ("x" * 10_000, "10,000 characters"),
        ("{" * 10_000, "10,000 characters"),
        (7, "must be a str"),
        (None, "must be a str"),
        (b"k", "must be a str"),
        ("a\0b", "NUL"),
        ("a\ud800", "surrogate"),
    ],
    ids=["empty", "10kB", "10kB of braces", "int", "none", "bytes", "nul", "surrogate"],
)
def test_a_key_that_no_store_can_keep_is_refused_at_once(key: Any, problem: str) -> None:
    began = time.thread_time()
    with pytest.raises(ConfigError, match=problem):
        template(key)
    assert time.thread_time() - began < 0.1


@pytest.mark.parametrize("value", ["", "x" * (MAX_KEY + 1), "a\0", "\udfff", "y" * 10_000_000])
def test_so_is_one_that_a_value_makes_so(value: str) -> None:
    began = time.thread_time()
    with pytest.raises(ConfigError, match="key"):
        render("{v}", v=value)
    assert time.thread_time() - began < 0.1


@pytest.mark.parametrize("field", ["computed", "method", "__dict__", "nothing", "numerator"])
def test_only_data_is_read_never_a_property_a_method_or_what_python_adds(field: str) -> None:
    with pytest.raises(ConfigError):
        render(f"{{c.{field}}}", c=Customer(1))
    with pytest.raises(ConfigError):
        render(f"{{n.{field}}}", n=7)


@pytest.mark.parametrize("said", ["a note", {"a": "note that has no hash"}])
def test_a_field_that_an_annotated_type_has_not_is_refused(said: Any) -> None:
    hints = {"c": Annotated[Customer, said]}
    template("{c.id}").check("test", hints, hints)
    with pytest.raises(ConfigError, match="no field 'idd'"):
        template("{c.idd}").check("test", hints, hints)


def test_a_value_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match=r"needs meta\.tenant, which this job does not have"):
        render("{meta.tenant}", {"other": 1})
    with pytest.raises(ConfigError, match=r"needs data\.a\.b"):
        render("{data.a.b}", data={"a": 1})


@given(
    st.text(min_size=1, max_size=MAX_KEY, alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
)
def test_an_escaped_text_is_the_key_itself(text: str) -> None:
    assert template(escape(text)).literal == text


@given(st.text(max_size=60))
def test_a_template_is_refused_or_renders_and_nothing_else_ever_happens(text: str) -> None:
    try:
        made = template(text)
    except ConfigError:
        return
    try:
        key = made.render("test", {"a": 1, "b": Customer(1)}, {"c": "d"})
    except ConfigError:
        return
    assert key
    assert "Customer(" not in key


_data = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8, alphabet=ascii_letters),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(ascii_letters, max_size=4), inner, max_size=3),
    max_leaves=6,
)
_args = st.dictionaries(st.text(ascii_letters, min_size=1, max_size=4), _data, max_size=4)


@given(_args)
def test_the_same_arguments_make_the_same_hash_in_whatever_order_they_come(args: dict[str, Any]) -> None:
    declared = Declared(Unique())
    backwards = dict(reversed(args.items()))

    assert declared.unique_key("t", args, {}) == declared.unique_key("t", backwards, {})


@given(_args, _args)
def test_other_arguments_make_another_hash(one: dict[str, Any], other: dict[str, Any]) -> None:
    assume(msgspec.json.encode(one, order="deterministic") != msgspec.json.encode(other, order="deterministic"))
    declared = Declared(Unique())

    assert declared.unique_key("t", one, {})[0] != declared.unique_key("t", other, {})[0]


@given(st.text(ascii_letters, min_size=1), st.text(ascii_letters, min_size=1), st.binary(), st.binary())
def test_keys_belong_to_their_task_and_kind(task: str, other: str, key: bytes, second: bytes) -> None:
    assume((task, key) != (other, second))
    assert digest(task, b"key", key) != digest(other, b"key", second)
    assert digest(task, b"key", key) != digest(task, b"args", key)
    assert len(digest(task, b"key", key)) == 32


def test_a_set_makes_one_hash_in_every_process() -> None:
    program = (
        "from dayjob.gating import Declared, Unique\n"
        "tags = {f'tag-{number}' for number in range(50)}\n"
        "print(*Declared(Unique()).unique_key('t', {'tags': tags}, {}))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout.decode()
        for seed in ("1", "2")
    ]

    assert said[0] == said[1]
    hash, _, shown = said[0].strip().partition(" ")
    assert len(hash) == 32
    assert shown.startswith('{"tags":["tag-0","tag-1","tag-10"')
    assert len(shown) == 200


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (Decimal("9.9"), Decimal("9.90"), Decimal("9.91")),
        (Decimal(10), Decimal("1E+1"), Decimal(1)),
        (Decimal("-0.0"), Decimal(0), Decimal("0.1")),
        (Decimal("1" * 40 + ".10"), Decimal("1" * 40 + ".1"), Decimal("1" * 40 + ".2")),
        (0.0, -0.0, 0.1),
        (
            datetime(2026, 1, 2, 12, tzinfo=UTC),
            datetime(2026, 1, 2, 14, tzinfo=timezone(timedelta(hours=2))),
            datetime(2026, 1, 2, 12, tzinfo=timezone(timedelta(hours=2))),
        ),
    ],
)
def test_equal_arguments_make_one_hash_however_they_are_spelled(one: Any, same: Any, other: Any) -> None:
    def hash(value: Any) -> str:
        return Declared(Unique()).unique_key("t", {"of": [value]}, {})[0]

    assert hash(one) == hash(same)
    assert hash(one) != hash(other)


def test_a_models_sets_make_one_hash_in_whatever_order_they_are() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Cart(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        numbers: set[int]
        more: list[dict[str, frozenset[int]]]

    one, same = Cart(numbers={0, 8}, more=[{"a": {8, 0}}]), Cart(numbers={8, 0}, more=[{"a": {0, 8}}])
    declared = Declared(Unique())

    assert list(one.numbers) != list(same.numbers)
    assert declared.unique_key("t", {"cart": one}, {}) == declared.unique_key("t", {"cart": same}, {})


def test_chosen_arguments_tell_jobs_apart_and_the_others_do_not() -> None:
    declared = Declared(Unique(args=["order_id", "kind"]))
    first = declared.unique_key("t", {"order_id": 1, "kind": "a", "note": "x"}, {})

    assert first == declared.unique_key("t", {"note": "y", "kind": "a", "order_id": 1}, {})
    assert first != declared.unique_key("t", {"order_id": 2, "kind": "a", "note": "x"}, {})
    with pytest.raises(ConfigError, match="kind"):
        declared.unique_key("t", {"order_id": 1}, {})


def test_a_limit_without_a_key_is_its_tasks_and_outside_of_one_it_needs_a_key() -> None:
    assert key_of(Concurrency(1), "billing.charge", {}, {}) == "task:billing.charge"
    with pytest.raises(ConfigError, match="needs one"):
        key_of(Concurrency(1), None, {}, {})
