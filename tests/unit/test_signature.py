"""Signatures: what is refused at decoration, how calls are bound, versions and upcasters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import msgspec
import pytest

from dayjob.codec import Private, Signature, decode_untyped
from dayjob.context import JobContext
from dayjob.errors import ConfigError, NotSupported, PayloadError, PayloadInvalid, PayloadTooLarge

if TYPE_CHECKING:
    from decimal import Decimal

T = TypeVar("T")
LIMIT = 10_000


class Stranger:
    pass


@dataclass
class Line:
    sku: str
    count: int = 1


def charge(order_id: int, amount: float = 1.5, *, note: str | None = None) -> str: ...


CHARGE = Signature(charge, "billing.charge")


# -- decoration ------------------------------------------------------------------------------------------------------


def bare(order_id, amount: int) -> None: ...  # type: ignore[no-untyped-def]
def bare_default(limit=10) -> None: ...  # type: ignore[no-untyped-def]
def bare_context(ctx, order_id: int) -> None: ...  # type: ignore[no-untyped-def]
def stars(*orders: int) -> None: ...
def double_stars(**options: int) -> None: ...
def late_context(order_id: int, ctx: JobContext[Any]) -> None: ...
def keyword_context(*, ctx: JobContext[Any]) -> None: ...
def inner_context(order_id: int, ctxs: list[JobContext[Any]]) -> None: ...
def stranger(thing: Stranger) -> None: ...
def strangers(things: dict[str, list[Stranger | None]]) -> None: ...
def takes_callable(fn: Callable[[int], int]) -> None: ...
def takes_class(kind: type[Line]) -> None: ...
def takes_object(thing: object) -> None: ...
def takes_complex(number: complex) -> None: ...
def takes_t(thing: T) -> T: ...
def ambiguous(both: list[int] | set[int]) -> None: ...
def returns_stranger() -> Stranger: ...
def only_for_checkers(amount: Decimal) -> None: ...
def misspelled(amount: Dezimal) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("fn", "culprit", "remedy"),
    [
        (bare, "'order_id'", "order_id: int"),
        (bare_default, "'limit'", "limit: int = 10"),
        (bare_context, "'ctx'", "ctx: JobContext"),
        (lambda x: x, "'x'", "x: int"),
        (Line.__eq__, "method", "function"),
        (stars, "*orders", "list"),
        (double_stars, "**options", "dict"),
        (late_context, "ctx", "first parameter"),
        (keyword_context, "context", "first positional"),
        (inner_context, "ctxs", "plain types"),
        (stranger, "thing", "dataclass"),
        (strangers, "Stranger", "dataclass"),
        (takes_callable, "fn", "plain types"),
        (takes_class, "kind", "plain types"),
        (takes_object, "thing", "plain types"),
        (takes_complex, "complex", "plain types"),
        (takes_t, "type variable", "write its type"),
        (ambiguous, "both", "more than one array-like"),
        (returns_stranger, "return value", "Stranger"),
        (only_for_checkers, "'Decimal'", "TYPE_CHECKING"),
        (misspelled, "'Dezimal'", "import or define"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_it_is_refused_at_decoration(fn: Callable[..., Any], culprit: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Signature(fn, "shop.task")

    message = str(caught.value)
    assert "'shop.task'" in message
    assert culprit in message
    assert remedy in message


def test_private_is_refused_until_there_is_encryption() -> None:
    def task(name: str, card: list[Private[str]]) -> None: ...

    with pytest.raises(NotSupported, match=r"Private\[...\].*card"):
        Signature(task, "t")


def test_the_context_is_no_part_of_the_payload() -> None:
    def task(ctx: JobContext[dict[str, int]], order_id: int) -> None: ...

    signature = Signature(task, "t")

    assert (signature.takes_context, signature.params) == (True, ("order_id",))
    assert signature.encode((7,), {}, LIMIT) == b'{"order_id":7}'


def test_types_defined_inside_a_function_are_found() -> None:
    @dataclass
    class Inner:
        value: int

    def task(inner: Inner) -> Inner: ...

    signature = Signature(task, "t")

    assert signature.decode(signature.encode((Inner(1),), {}, LIMIT)) == (Inner(1),)


def test_a_task_without_parameters_has_an_empty_payload() -> None:
    def task() -> None: ...

    signature = Signature(task, "t")

    assert (signature.encode((), {}, LIMIT), signature.decode(b"{}")) == (b"{}", ())


@pytest.mark.parametrize("hint", [None, NoReturn, type(None), "None"])
def test_a_task_that_returns_nothing_says_null(hint: Any) -> None:
    def task() -> Any: ...

    task.__annotations__["return"] = hint

    assert Signature(task, "t").encode_result(None, LIMIT) == b"null"


# -- calls -----------------------------------------------------------------------------------------------------------


def test_arguments_by_position_and_by_name_make_the_same_payload() -> None:
    expected = b'{"order_id":7,"amount":2.5,"note":"hi"}'

    assert CHARGE.encode((7, 2.5), {"note": "hi"}, LIMIT) == expected
    assert CHARGE.encode((), {"note": "hi", "amount": 2.5, "order_id": 7}, LIMIT) == expected


def test_an_omitted_default_is_the_workers_to_fill_in() -> None:
    payload = CHARGE.encode((7,), {}, LIMIT)

    assert payload == b'{"order_id":7}'
    assert CHARGE.decode(payload) == (7, 1.5, None)
    assert CHARGE.arguments(payload) == {"order_id": 7, "amount": 1.5, "note": None}


def test_a_default_given_explicitly_is_kept() -> None:
    assert CHARGE.encode((7, 1.5), {}, LIMIT) == b'{"order_id":7,"amount":1.5}'


def test_keyword_only_parameters_reach_the_function_by_name() -> None:
    def task(a: int, *, b: int = 2, c: int) -> tuple[int, int, int]:
        return a, b, c

    signature = Signature(task, "t")

    assert signature.call(*signature.decode(signature.encode((1,), {"c": 3}, LIMIT))) == (1, 2, 3)


def test_keyword_only_parameters_come_after_the_context() -> None:
    def task(ctx: JobContext[Any], a: int, *, b: int) -> tuple[Any, int, int]:
        return ctx, a, b

    signature = Signature(task, "t")
    decoded = signature.decode(signature.encode((1,), {"b": 2}, LIMIT))

    assert signature.call("context", *decoded) == ("context", 1, 2)


def test_positional_only_parameters_work() -> None:
    def task(a: int, b: str = "x", /) -> tuple[int, str]:
        return a, b

    signature = Signature(task, "t")

    assert signature.call(*signature.decode(signature.encode((1,), {}, LIMIT))) == (1, "x")


def test_the_function_itself_is_called_where_nothing_stands_between() -> None:
    assert Signature(stars_free, "t").call is stars_free


def stars_free(a: int) -> int: ...


def test_mutable_defaults_are_the_functions_own() -> None:
    seen: list[int] = []

    def task(items: list[int] = seen) -> None: ...

    assert Signature(task, "t").decode(b"{}")[0] is seen


@pytest.mark.parametrize(
    ("args", "kwargs", "argument", "problem"),
    [
        ((), {}, "order_id", "missing"),
        ((), {"amount": 1.0}, "order_id", "missing"),
        ((1, 2.0, "note"), {}, None, "at most 2 positional"),
        ((1,), {"order_id": 2}, "order_id", "twice"),
        ((1,), {"amont": 2.0}, "amont", "did you mean 'amount'"),
        ((1,), {"zzz": 2.0}, "zzz", "order_id, amount, note"),
        (("7",), {}, "order_id", "expected int, got str"),
        ((None,), {}, "order_id", "expected int, got NoneType"),
        ((1.0,), {}, "order_id", "expected int, got float"),
        ((1, "2"), {}, "amount", "expected float, got str"),
        ((1,), {"note": 3}, "note", "expected str | None, got int"),
        ((1,), {"note": b"x"}, "note", "bytes would arrive as a str"),
    ],
    ids=str,
)
def test_a_wrong_call_names_the_argument(
    args: tuple[Any, ...], kwargs: dict[str, Any], argument: str | None, problem: str
) -> None:
    with pytest.raises(PayloadInvalid) as caught:
        CHARGE.encode(args, kwargs, LIMIT)

    error = caught.value
    assert (error.task, error.argument) == ("billing.charge", argument)
    assert problem in error.problem


def test_no_value_is_coerced_for_a_missing_optional() -> None:
    assert CHARGE.encode((7,), {"note": None}, LIMIT) == b'{"order_id":7,"note":null}'


# -- by name ---------------------------------------------------------------------------------------------------------


def test_a_call_by_name_takes_json_forms_and_is_checked_by_the_hints() -> None:
    from decimal import Decimal
    from uuid import UUID

    def task(order_id: int, amount: Decimal, key: UUID | None = None) -> None: ...

    task.__annotations__["amount"] = Decimal
    signature = Signature(task, "t")

    payload = signature.encode_json({"order_id": 7, "amount": "9.99"}, LIMIT)
    assert signature.decode(payload) == (7, Decimal("9.99"), None)
    assert signature.decode(signature.encode_json({"order_id": 7, "amount": Decimal("9.9")}, LIMIT))[1] == Decimal(
        "9.9"
    )


@pytest.mark.parametrize(
    ("args", "argument"),
    [
        ({"order_id": "7"}, "order_id"),
        ({}, "order_id"),
        ({"order_id": 7, "amont": 1}, "amont"),
        ({"order_id": {7}}, "order_id"),
        ({"order_id": True}, "order_id"),
        ({"order_id": 7, 3: 4}, "3"),
        ({"order_id": 7, "a b": 4}, "'a b'"),
        ([("order_id", 7)], None),
        (None, None),
        ("order_id", None),
    ],
    ids=str,
)
def test_a_wrong_call_by_name_names_the_argument(args: Any, argument: str | None) -> None:
    with pytest.raises(PayloadError) as caught:
        CHARGE.encode_json(args, LIMIT)

    assert caught.value.argument == argument  # type: ignore[attr-defined]


# -- payloads of other code ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "argument"),
    [
        (b"", None),
        (b"nonsense", None),
        (b"[1]", None),
        (b"null", None),
        (b'"\xff"', None),
        (b"[" * 5_000, None),
        (b"{}", "order_id"),
        (b'{"order_id":"7"}', "order_id"),
        (b'{"order_id":7,"gone":1}', "gone"),
        (b'{"order_id":7,"amount":null}', "amount"),
        (b'{"order_id":7,"$v":2}', None),
        (b'{"order_id":7,"$v":"x"}', None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_payload_that_does_not_fit_is_invalid_and_says_where(payload: bytes, argument: str | None) -> None:
    with pytest.raises(PayloadInvalid) as caught:
        CHARGE.decode(payload)

    assert caught.value.argument == argument


def old_and_new() -> Signature:
    def task(order_id: int, cents: int, currency: str = "EUR") -> None: ...

    signature = Signature(task, "t", 3)
    signature.upcasters[1] = lambda data: {"order_id": data["id"], "amount": data["amount"]}
    signature.upcasters[2] = lambda data: {"order_id": data["order_id"], "cents": data["amount"] * 100}
    return signature


def test_payloads_carry_their_version_from_the_second_on() -> None:
    payload = old_and_new().encode((7, 250), {}, LIMIT)

    assert payload == b'{"$v":3,"order_id":7,"cents":250}'
    assert old_and_new().decode(payload) == (7, 250, "EUR")
    assert decode_untyped(payload) == {"order_id": 7, "cents": 250}


def test_a_version_alone_is_a_payload() -> None:
    def task() -> None: ...

    signature = Signature(task, "t", 2)

    assert signature.decode(signature.encode((), {}, LIMIT)) == ()


def test_the_version_counts_into_the_limit() -> None:
    size = len(old_and_new().encode((7, 250), {}, LIMIT))

    with pytest.raises(PayloadTooLarge):
        old_and_new().encode((7, 250), {}, size - 1)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"id":7,"amount":2}',
        b'{"$v":1,"id":7,"amount":2}',
        b'{"$v":2,"order_id":7,"amount":2}',
        b'{"order_id":7,"amount":2,"$v":2}',
        b'{"order_id":7,"cents":200,"$v":3}',
        b'{"$v": 3, "order_id": 7, "cents": 200}',
    ],
)
def test_older_payloads_are_brought_up_step_by_step(payload: bytes) -> None:
    assert old_and_new().decode(payload) == (7, 200, "EUR")


def test_a_newer_payload_is_not_guessed_at() -> None:
    with pytest.raises(PayloadInvalid, match="version 4, this code knows up to 3"):
        old_and_new().decode(b'{"$v":4,"order_id":7,"cents":200}')


def test_a_missing_upcaster_is_named() -> None:
    signature = old_and_new()
    del signature.upcasters[2]

    with pytest.raises(PayloadInvalid, match=r"@task\.upcast\(2\)"):
        signature.decode(b'{"id":7,"amount":2}')


def test_a_failing_upcaster_is_named_and_its_error_kept() -> None:
    with pytest.raises(PayloadInvalid, match=r"upcast\(1\) raised KeyError") as caught:
        old_and_new().decode(b'{"wrong":7}')

    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    "made", [None, [], {"order_id": "x", "cents": 1}, {"order_id": 1, "cents": {1}}, {"order_id": object()}]
)
def test_an_upcaster_that_makes_nonsense_is_found_out(made: Any) -> None:
    signature = old_and_new()
    signature.upcasters[2] = lambda data: made

    with pytest.raises(PayloadInvalid):
        signature.decode(b'{"$v":2,"order_id":7,"amount":2}')


# -- results ---------------------------------------------------------------------------------------------------------


def test_a_result_that_does_not_fit_the_return_hint_is_refused() -> None:
    with pytest.raises(PayloadInvalid, match=r"return value.*expected str, got int"):
        CHARGE.encode_result(7, LIMIT)


def test_a_stored_result_that_no_longer_fits_says_so() -> None:
    with pytest.raises(PayloadInvalid, match="return hint"):
        CHARGE.decode_result(b"7")


def test_a_large_result_is_refused() -> None:
    with pytest.raises(PayloadTooLarge):
        CHARGE.encode_result("x" * 101, 100)


def test_a_coroutine_that_nobody_awaited_is_no_result() -> None:
    def task(): ...  # type: ignore[no-untyped-def]

    async def other() -> None: ...

    coroutine = other()
    with pytest.raises(PayloadError, match="await"):
        Signature(task, "t").encode_result(coroutine, LIMIT)
    coroutine.close()


def test_annotated_hints_with_unhashable_extras_work() -> None:
    def task(n: int) -> None: ...

    task.__annotations__["n"] = Annotated[int, ["extra"], msgspec.Meta(gt=0)]
    signature = Signature(task, "t")

    assert signature.decode(signature.encode((3,), {}, LIMIT)) == (3,)


def test_parameters_may_have_awkward_names() -> None:
    def task(self_: int, args: int, kwargs: int, _hidden: int, limit: int, fields: int) -> None: ...

    signature = Signature(task, "t")

    assert signature.decode(signature.encode((1, 2), {"kwargs": 3, "_hidden": 4, "limit": 5, "fields": 6}, LIMIT)) == (
        1, 2, 3, 4, 5, 6,
    )  # fmt: skip
