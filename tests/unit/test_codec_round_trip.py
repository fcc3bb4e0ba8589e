"""What a task receives equals what the caller passed, or the call is refused: for every hint and every value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal, NamedTuple, NewType, Optional, TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dayjob.codec import Signature
from dayjob.errors import PayloadError, PayloadInvalid

LIMIT = 100_000


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Mode(StrEnum):
    FAST = "fast"


@dataclass
class Line:
    sku: str
    count: int = 1
    price: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Point:
    x: float
    y: float


@dataclass
class Order:
    id: UUID
    lines: list[Line]
    color: Color
    at: datetime


class Row(msgspec.Struct):
    name: str
    values: tuple[int, ...] = ()


class Pair(NamedTuple):
    left: int
    right: str


class Shape(TypedDict, total=False):
    width: int
    label: str


@dataclass
class Tree:
    name: str
    below: list[Tree] = field(default_factory=list)


@dataclass
class Picky:
    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError("n must not be negative")
        if self.n > 9:
            raise KeyError(self.n)


UserId = NewType("UserId", int)


def optional(hint: Any) -> Any:
    return Optional[hint]  # noqa: UP045  # the hint may be None itself, which has no |


def sign(hint: Any, result: Any = None) -> Signature:
    def task(value: Any) -> Any: ...

    task.__annotations__ = {"value": hint, "return": result}
    return Signature(task, "t")


def through(hint: Any, value: Any) -> Any:
    signature = sign(hint)
    (received,) = signature.decode(signature.encode((value,), {}, LIMIT))
    return received


def alike(sent: Any, received: Any) -> bool:
    """Equality of value and type, all the way down; written apart from the code it judges."""
    if isinstance(sent, datetime):
        return type(received) is type(sent) and sent.astimezone(UTC) == received.astimezone(UTC)
    if type(sent) is int and type(received) is float:
        return sent == received
    if type(sent) is not type(received):
        return False
    if is_dataclass(sent):
        return all(alike(getattr(sent, f.name), getattr(received, f.name)) for f in fields(sent))
    if isinstance(sent, dict):
        return len(sent) == len(received) and all(
            alike(*keys) and alike(sent[keys[0]], received[keys[1]]) for keys in zip(sent, received, strict=True)
        )
    if isinstance(sent, (list, tuple)):
        return len(sent) == len(received) and all(map(alike, sent, received))
    if isinstance(sent, (set, frozenset)):
        return sent == received and sorted(str(type(one)) for one in sent) == sorted(str(type(one)) for one in received)
    return bool(sent == received) and str(sent) == str(received)


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=11))])
NAIVE = datetime(1900, 1, 1)  # noqa: DTZ001  # on purpose
MOMENTS = st.datetimes(NAIVE, NAIVE.replace(year=2200), timezones=ZONES)
SCALARS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (int, st.integers(-(10**400), 10**400)),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (str, TEXT),
    (bool, st.booleans()),
    (bytes, st.binary(max_size=20)),
    (None, st.none()),
    (UUID, st.uuids()),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (datetime, MOMENTS),
    (date, st.dates()),
    (time, st.times()),
    (timedelta, st.timedeltas()),
    (Color, st.sampled_from(Color)),
    (Level, st.sampled_from(Level)),
    (Mode, st.sampled_from(Mode)),
    (Literal["a", "b", 3], st.sampled_from(["a", "b", 3])),
    (UserId, st.integers().map(UserId)),
    (Point, st.builds(Point, st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))),
]
HASHABLE = SCALARS[:16]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
LINES = st.builds(Line, TEXT, st.integers(), st.none() | st.decimals(allow_nan=False, allow_infinity=False))
WHOLES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (Any, JSON),
    (dict, st.dictionaries(TEXT, JSON, max_size=3)),
    (list, st.lists(JSON, max_size=3)),
    (Order, st.builds(Order, st.uuids(), st.lists(LINES, max_size=3), st.sampled_from(Color), MOMENTS)),
    (Row, st.builds(Row, TEXT, st.lists(st.integers(), max_size=3).map(tuple))),
    (Pair, st.builds(Pair, st.integers(), TEXT)),
    (Shape, st.fixed_dictionaries({}, optional={"width": st.integers(), "label": TEXT})),
]


@st.composite
def hinted(draw: st.DrawFn) -> tuple[Any, Any]:
    """A type hint and a value of it."""
    if draw(st.integers(0, 3)) == 0:
        hint, values = draw(st.sampled_from(WHOLES))
        return hint, draw(values)
    shape = draw(
        st.sampled_from(["plain", "optional", "list", "sequence", "tuple", "pair", "set", "dict", "keys", "nested"])
    )
    hint, values = draw(st.sampled_from(HASHABLE if shape in ("set", "keys") else SCALARS))
    if shape == "optional":
        return optional(hint), draw(st.none() | values)
    if shape in ("list", "sequence"):
        return (list if shape == "list" else Sequence)[hint], draw(st.lists(values, max_size=4))
    if shape == "tuple":
        return tuple[hint, ...], tuple(draw(st.lists(values, max_size=4)))
    if shape == "pair":
        return tuple[hint, int], (draw(values), draw(st.integers()))
    if shape == "set":
        return frozenset[hint], frozenset(draw(st.lists(values, max_size=4)))
    if shape == "dict":
        return Mapping[str, hint], draw(st.dictionaries(TEXT, values, max_size=4))
    if shape == "nested":
        return dict[str, list[optional(hint)]], draw(
            st.dictionaries(TEXT, st.lists(st.none() | values, max_size=3), max_size=3)
        )
    keys = draw(
        st.sampled_from([(int, st.integers()), (UUID, st.uuids()), (date, st.dates()), (Color, st.sampled_from(Color))])
    )
    return dict[keys[0], hint] if shape == "keys" else hint, draw(
        st.dictionaries(keys[1], values, max_size=4) if shape == "keys" else values
    )


@given(hinted())
@settings(max_examples=400, deadline=None)
def test_a_value_of_the_type_hinted_arrives_as_it_was_passed(pair: tuple[Any, Any]) -> None:
    hint, value = pair

    assert alike(value, through(hint, value))


STRANGE = st.one_of(
    JSON,
    st.floats(),
    st.text(st.characters(), max_size=5),
    st.datetimes(timezones=st.none() | ZONES),
    st.times(timezones=st.none() | ZONES),
    st.decimals(),
    st.binary(max_size=5),
    st.sampled_from(
        [Color.RED, Level.LOW, Mode.FAST, Line("a"), Pair(1, "b"), Row("r"), Ellipsis, int, print, object()]
    ),
    st.lists(st.integers() | st.booleans() | TEXT | st.floats(), max_size=3),
    st.tuples(st.integers(), TEXT),
    st.sets(st.integers() | st.booleans(), max_size=3),
    st.frozensets(TEXT, max_size=3),
    st.dictionaries(st.integers() | st.booleans() | TEXT | st.none() | st.tuples(st.integers()), JSON, max_size=3),
)


@given(st.sampled_from([hint for hint, _ in (*SCALARS, *WHOLES)]), STRANGE, st.integers(0, 3))
@settings(max_examples=1_000, deadline=None)
def test_any_value_for_any_hint_arrives_as_it_was_passed_or_is_refused(hint: Any, value: Any, shape: int) -> None:
    hint = [hint, optional(hint), list[hint], dict[str, hint]][shape]
    sent = [value, value, [value], {"k": value}][shape]

    try:
        received = through(hint, sent)
    except PayloadError as error:
        refused = str(error)
    else:
        refused = None

    assert ("value" in refused) if refused is not None else alike(sent, received)  # an error names the argument


@given(JSON)
@settings(max_examples=100, deadline=None)
def test_results_without_a_hint_arrive_as_plain_json(value: Any) -> None:
    signature = sign(int, Any)

    assert alike(value, signature.decode_result(signature.encode_result(value, LIMIT)))


@given(hinted())
@settings(max_examples=100, deadline=None)
def test_results_arrive_as_they_were_returned(pair: tuple[Any, Any]) -> None:
    hint, value = pair
    signature = sign(int, hint)

    assert alike(value, signature.decode_result(signature.encode_result(value, LIMIT)))


def test_a_datetime_in_the_repeated_hour_of_a_zone_keeps_its_instant() -> None:
    zone = ZoneInfo("Europe/Berlin")
    first, second = (datetime(2026, 10, 25, 2, 30, fold=fold, tzinfo=zone) for fold in (0, 1))

    assert [first.astimezone(UTC), second.astimezone(UTC)] == [
        through(list[datetime], [first, second])[0],
        through(datetime, second),
    ]


def test_a_zone_with_seconds_in_its_offset_is_refused_not_shifted() -> None:
    before_standard_time = datetime(1850, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))

    with pytest.raises(PayloadError, match="astimezone"):
        through(datetime, before_standard_time)


def test_constraints_in_annotations_are_checked_where_the_call_is_made() -> None:
    hint = Annotated[int, msgspec.Meta(ge=1)]

    assert through(hint, 3) == 3
    with pytest.raises(PayloadInvalid, match="value"):
        through(hint, 0)


def test_integers_stay_exact_also_where_no_hint_says_int() -> None:
    for number in (2**53 + 1, 2**64, -(2**63) - 1, 10**300):
        assert through(Any, {"n": [number]}) == {"n": [number]}


def test_an_int_for_a_float_is_taken_when_the_float_is_exact() -> None:
    assert through(float, 3) == 3.0
    with pytest.raises(PayloadInvalid, match="rounded"):
        through(float, 2**53 + 1)


def test_minus_zero_and_subnormal_floats_arrive() -> None:
    assert math.copysign(1, through(float, -0.0)) == -1
    assert through(float, 5e-324) == 5e-324


def test_bytes_are_any_bytes() -> None:
    assert through(bytes, bytes(range(256))) == bytes(range(256))


def test_fields_that_the_constructor_sets_itself_arrive_or_the_value_is_refused() -> None:
    @dataclass
    class Counted:
        start: int
        _private: int = 0
        doubled: int = field(init=False)

        def __post_init__(self) -> None:
            self.doubled = self.start * 2

    assert through(Counted, Counted(1, _private=3)) == Counted(1, _private=3)
    changed = Counted(1)
    changed.doubled = 7
    with pytest.raises(PayloadInvalid) as caught:
        through(Counted, changed)
    assert caught.value.argument == "value.doubled"


def test_types_that_contain_themselves_travel() -> None:
    tree = Tree("a", [Tree("b"), Tree("c", [Tree("d")])])

    assert through(Tree, tree) == tree
    assert through(dict[str, Tree | None], {"x": tree, "y": None}) == {"x": tree, "y": None}


def test_a_tree_that_contains_itself_is_refused() -> None:
    tree = Tree("a")
    tree.below.append(Tree("b", [tree]))

    with pytest.raises(PayloadError, match="contains itself"):
        through(Tree, tree)


def test_what_a_constructor_refuses_is_an_invalid_payload_there_and_here() -> None:
    signature = sign(Picky)
    wrong = Picky(1)

    for n, problem in ((-1, "must not be negative"), (99, "KeyError")):
        wrong.n = n
        with pytest.raises(PayloadInvalid, match=problem):
            through(Picky, wrong)
        with pytest.raises(PayloadInvalid, match=problem):
            signature.decode(b'{"value":{"n":%d}}' % n)


def test_a_field_that_was_never_set_is_named() -> None:
    @dataclass(slots=True)
    class Late:
        set_later: int = field(init=False)

    with pytest.raises(PayloadError, match="set_later"):
        through(Late, Late())


def test_a_subclass_of_the_dataclass_hinted_is_refused_not_cut() -> None:
    @dataclass
    class Base:
        a: int

    @dataclass
    class Derived(Base):
        b: int = 0

    with pytest.raises(PayloadInvalid, match="Derived would arrive as a Base"):
        through(Base, Derived(1, 2))


def test_pydantic_models_travel_in_their_own_json_form() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Item(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        model_config = pydantic.ConfigDict(strict=True)
        at: datetime
        price: Decimal
        tags: set[str]

    class Cart(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        items: list[Item]

    cart = Cart(items=[Item(at=datetime(2026, 1, 1, tzinfo=UTC), price=Decimal("1.10"), tags={"a"})])

    assert through(Cart, cart) == cart
    assert through(list[Cart], [cart, cart]) == [cart, cart]
    with pytest.raises(PayloadError, match="time zone"):
        through(Cart, Cart(items=[Item(at=NAIVE, price=Decimal(1), tags=set())]))


def test_what_pydantic_hides_when_it_writes_is_refused_not_replaced_by_stars() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Login(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        password: pydantic.SecretStr

    with pytest.raises(PayloadInvalid, match="changed"):
        through(Login, Login(password="hush"))
