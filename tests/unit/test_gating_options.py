"""Keys, limits, lanes and breakers as options: at every level the nearer wins, and what cannot be is refused where it is said."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest

from dayjob import App, Breaker, Concurrency, Debounce, Lane, RateLimit, Task, Tasks, Throttle, Unique
from dayjob.errors import ConfigError
from dayjob.gatekeeper import gating_of
from dayjob.policies import Overrides
from dayjob.store.gating import Gate, Gating
from dayjob.task import NewJob

STRIPE = RateLimit(10, per=2.0, key="stripe")


@dataclass
class Order:
    id: int
    customer: str


def charge(order_id: int, note: str = "-") -> None: ...


def bill(order: Order, data: dict[str, Any]) -> None: ...


def declared(fn: Any = charge, **options: Any) -> Task[..., None]:
    return Tasks(prefix="shop.").task(**options)(fn)


def gating(new: NewJob[Any]) -> Gating:
    found = gating_of(new)
    assert found is not None
    return found


def test_a_job_without_any_has_none() -> None:
    assert declared().job(1).gating is None
    assert gating_of(declared().job(1)) is None


def test_all_of_them_meet_in_the_row() -> None:
    task = declared(
        unique=Unique("order:{order_id}", ttl=60),
        rate_limit=[STRIPE],
        concurrency=Concurrency(3, key="tenant:{meta.tenant}"),
        lane=Lane("l:{order_id}", order="strict", weight=5),
        breaker=Breaker("psp"),
    )
    found = gating(task.using(meta={"tenant": "a"}).job(7))

    assert found.unique is not None
    assert (found.unique.key, found.unique.until, found.unique.ttl) == ("order:7", "done", 60.0)
    assert (found.lane, found.weight) == ("l:7", 5)
    assert found.gates == (
        Gate("breaker", "psp"),
        Gate("concurrency", "tenant:a", 3),
        Gate("order", "l:7"),
        Gate("rate", "stripe", 10, 2.0),
    )


def test_the_order_in_which_limits_are_said_does_not_matter() -> None:
    one, two = Concurrency(1, key="a"), Concurrency(2, key="b")
    assert gating(declared(concurrency=[one, two]).job(1)) == gating(declared(concurrency=[two, one]).job(1))


def test_the_nearer_wins_and_false_takes_all_away(app: App) -> None:
    group = Tasks(prefix="shop.", lane="group", rate_limit=STRIPE)
    task = group.task(concurrency=Concurrency(3))(charge)
    app.include(group)
    app.queue("default", defaults={"lane": "queue", "breaker": Breaker("queue's")})
    assert gating(task.job(1)) == Gating(
        lane="group",
        gates=(Gate("breaker", "queue's"), Gate("concurrency", "task:shop.charge", 3), Gate("rate", "stripe", 10, 2.0)),
    )
    near = task.using(lane="near", rate_limit=False, breaker=False)
    assert gating(near.job(1)) == Gating(lane="near", gates=(Gate("concurrency", "task:shop.charge", 3),))
    nothing = task.using(lane=False, rate_limit=False, breaker=False, concurrency=False)
    assert nothing.job(1).gating is None
    assert gating(nothing.using(lane="again").job(1)) == Gating(lane="again")


def test_debounce_puts_off_and_replaces_until_it_has_started() -> None:
    new = declared(unique=Debounce("k", wait=5, max_wait=60)).job(1)
    unique = gating(new).unique
    assert unique is not None
    assert new.delay == 5.0
    assert (unique.until, unique.on_conflict, unique.latest, unique.ttl) == ("started", "replace", 60.0, None)


def test_throttle_is_a_key_until_a_time() -> None:
    new = declared(unique=Throttle("k", every=30)).job(1)
    unique = gating(new).unique
    assert unique is not None
    assert new.delay is None
    assert (unique.until, unique.on_conflict, unique.ttl) == ("expired", "existing", 30.0)


def test_a_time_said_nearer_than_a_debounce_wins_and_beside_it_is_refused(app: App) -> None:
    task = app.task(name="shop.charge", unique=Debounce("k", wait=5))(charge)
    assert task.using(delay=60).job(1).delay == 60
    assert task.using(unique="other").job(1).delay is None
    assert task.using(unique=False).job(1).delay is None
    with pytest.raises(ConfigError, match="leave delay= and run_at= out"):
        task.using(unique=Debounce("k"), delay=3)
    app.queue("slow", defaults={"delay": 100})
    assert task.using(queue="slow").job(1).delay == 5


def test_unique_text_is_literal_whatever_is_in_it() -> None:
    task = declared()
    first = gating(task.using(unique="order:7").job(1)).unique
    assert first is not None
    assert first.key == "order:7"
    braces = gating(task.using(unique="{not a name} }{").job(1)).unique
    assert braces is not None
    assert braces.key == "{not a name} }{"


def test_a_literal_key_that_names_an_argument_is_a_mistake_and_is_refused() -> None:
    with pytest.raises(ConfigError, match="unique=Unique"):
        declared(unique="order:{order_id}")
    with pytest.raises(ConfigError, match="unique=Unique"):
        declared().using(unique="tenant:{meta.tenant}")


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"unique": Unique("{order}")}, "did you mean 'order_id'?"),
        ({"unique": Unique("{x}")}, "order_id, note, meta.<name>"),
        ({"unique": Unique(args=["x"])}, "'x'"),
        ({"lane": "{meta}"}, "meta.tenant"),
        ({"lane": "{order_id.x}"}, "no field 'x'"),
        ({"rate_limit": RateLimit(1, key="{tenant}")}, "RateLimit"),
        ({"concurrency": [Concurrency(1), Concurrency(2, key="{nope}")]}, "nope"),
        ({"breaker": Breaker("{nope}")}, "Breaker"),
        ({"unique": True}, "unique=True"),
        ({"unique": 7}, "unique=7"),
        ({"unique": ""}, "empty"),
        ({"unique": "x" * 10_000}, "10,000"),
        ({"rate_limit": 10}, "RateLimit(10, per=1)"),
        ({"rate_limit": Concurrency(1)}, "RateLimit(10, per=1)"),
        ({"concurrency": 3}, "Concurrency(3)"),
        ({"concurrency": [Concurrency(1, key=str(n)) for n in range(9)]}, "8"),
        ({"rate_limit": [RateLimit(1), RateLimit(100, per=60)]}, "a key of its own"),
        ({"lane": 7}, "lane=7"),
        ({"breaker": "stripe"}, "Breaker(...)"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_is_refused_at_decoration_and_at_using(options: dict[str, Any], culprit: str) -> None:
    task = declared()
    began = time.thread_time()
    with pytest.raises(ConfigError) as at_decoration:
        declared(**options)
    with pytest.raises(ConfigError) as at_using:
        task.using(**options)

    assert time.thread_time() - began < 0.2
    assert culprit in str(at_decoration.value)
    assert culprit in str(at_using.value)


def test_fields_of_an_argument_are_checked_where_its_type_tells_them() -> None:
    assert (
        gating(declared(bill, lane="{order.customer}/{data.anything}").job(Order(1, "c"), {"anything": 2})).lane
        == "c/2"
    )
    with pytest.raises(ConfigError, match="there are id, customer"):
        declared(bill, lane="{order.client}")


def test_two_limits_whose_keys_turn_out_the_same_are_refused_at_the_enqueue() -> None:
    task = declared(concurrency=[Concurrency(1, key="{order_id}"), Concurrency(2, key="{note}")])
    with pytest.raises(ConfigError, match="a key of its own"):
        gating_of(task.job(7, "7"))


def test_by_name_and_by_call_make_the_same_key(app: App) -> None:
    task = app.task(name="shop.charge", unique=Unique())(charge)
    by_name = app._producer.named("shop.charge", {"order_id": 7})
    assert gating(by_name) == gating(task.job(order_id=7)) == gating(task.job(7, "-"))
    assert gating(by_name) != gating(task.job(8))


def test_by_name_without_the_code_templates_see_the_arguments_as_given(app: App) -> None:
    new = app._producer.named("far.task", {"user": {"id": 7}}, lane="{user.id}", unique="k", concurrency=Concurrency(2))
    found = gating(new)
    assert found.lane == "7"
    assert found.gates == (Gate("concurrency", "task:far.task", 2),)
    with pytest.raises(ConfigError, match=r"user\.name"):
        gating_of(app._producer.named("far.task", {"user": {"id": 7}}, lane="{user.name}"))


def test_hooks_may_write_the_meta_that_a_key_shows(app: App) -> None:
    task = app.task(name="shop.charge", lane="{meta.tenant}")(charge)

    @app.on_enqueue
    def stamp(new: NewJob[Any]) -> None:
        new.meta["tenant"] = "t1"

    assert app._producer._row(task.job(1), "00000000-0000-7000-8000-000000000000").gating == Gating(lane="t1")


def test_a_breaker_said_for_one_job_reaches_its_worker(app: App) -> None:
    task = app.task(name="shop.charge", breaker=Breaker("a", on=(OSError,)))(charge)
    plan = app.registry.plan("shop.charge", "default", None)
    assert plan.breaker == Breaker("a", on=(OSError,))

    new = task.using(breaker=Breaker("b", failures=2)).job(1)
    assert new.overrides is not None
    options = new.overrides.to_bytes()
    assert app.registry.plan("shop.charge", "default", options).breaker == Breaker("b", failures=2, on=(OSError,))
    off = task.using(breaker=False).job(1).overrides
    assert off is not None
    assert Overrides.from_bytes(off.to_bytes() or b"") == off
    assert app.registry.plan("shop.charge", "default", off.to_bytes()).breaker is None
    with pytest.raises(ConfigError, match="on="):
        task.using(breaker=Breaker("b", on=(ValueError,)))
