"""A program as a user writes it. Both type checkers read it: each line marked `error` must be one, no other may be.

`assert_type` states what a name is; a marker `# error: mypy-code, pyright-rule` says which complaint is due.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, assert_type

from dayjob import (
    App,
    Breaker,
    Call,
    Concurrency,
    Debounce,
    Job,
    JobContext,
    Lane,
    NewJob,
    RateLimit,
    Retention,
    Retry,
    RetryAfter,
    State,
    Task,
    Tasks,
    Throttle,
    Unique,
)
from dayjob.testing import Testing


@dataclass
class Receipt:
    number: int


@dataclass
class Resources:
    base: int


@asynccontextmanager
async def resources() -> AsyncIterator[Resources]:
    yield Resources(1)


app = App("sqlite:///:memory:", include=["shop.*.tasks"], lifespan=resources)
tasks = Tasks(prefix="billing.", queue="billing", retry=Retry())


# -- declaring -------------------------------------------------------------------------------------------------------


@app.task
def plain(order_id: int) -> str:
    return str(order_id)


@app.task(name="billing.charge", queue="billing", priority=10, retry=3, timeout=30, retention=Retention())
def charge(ctx: JobContext[Resources], order_id: int, amount: Decimal = Decimal(1)) -> Receipt:
    assert_type(ctx.state, Resources)
    return Receipt(order_id)


@tasks.task
async def send(user_id: int, *, urgent: bool = False) -> str:
    return f"{user_id} {urgent}"


@tasks.task(version=2, aliases=["billing.old"])
async def report(ctx: JobContext[Resources], since: datetime) -> list[Receipt]:
    return []


@app.task
def bare(ctx: JobContext, data: int) -> str:
    assert_type(ctx.state, object)
    return str(data)


@app.task
async def plain_data(data: dict[str, Any]) -> dict[str, Any]:
    return data


@app.task(batch=100, batch_wait=0.5)
def mail(calls: list[Call[Receipt]]) -> None:
    assert_type(calls[0].value, Receipt)


@tasks.task(name="index", batch=10, queue="index", retry=3)
async def index(calls: list[Call[int]]) -> list[str | BaseException]:
    return [str(call.value) for call in calls]


@tasks.task(batch=10)
def import_rows(calls: list[Call[dict[str, Any]]]) -> list[int]:
    return [len(call.value) for call in calls]


@app.task(batch=10)  # error: arg-type, reportArgumentType
def no_batch(order_id: int) -> None: ...


assert_type(mail.enqueue(Receipt(1)), Job[None])
assert_type(index.enqueue(7), Job[str])
assert_type(index.using(delay=1).job(7), NewJob[str])
assert_type(import_rows.enqueue({"a": 1}), Job[int])
mail.enqueue(7)  # error: arg-type, reportArgumentType
index.using(delay=1).enqueue("7")  # error: arg-type, reportArgumentType


@app.task(color="red")  # error: call-overload, reportCallIssue
def wrong_option() -> None: ...


stripe = RateLimit(10, per=timedelta(seconds=1), key="stripe")


@app.task(
    unique=Unique("order:{order_id}", until="started", ttl=60, on_conflict="replace"),
    rate_limit=[stripe, RateLimit(1000, per=3600, key="stripe/hour")],
    concurrency=Concurrency(3, key="tenant:{meta.tenant}"),
    lane=Lane("tenant:{meta.tenant}", order="strict", weight=2),
    breaker=Breaker("psp", on=(ConnectionError,)),
)
def limited(order_id: int) -> str:
    with app.limit(stripe, timeout=1, order_id=7):
        return "one call"


@tasks.task(unique=Debounce("k", wait=5, max_wait=None), lane="tenant:{user_id}")
async def calm(user_id: int) -> None:
    async with app.limit(stripe, Concurrency(1, key="k")):
        raise RetryAfter(30, pause=stripe)


@app.task(unique=7)  # error: call-overload, reportArgumentType
def wrong_key() -> None: ...


@app.task(lane=Concurrency(3))  # error: call-overload, reportArgumentType
def wrong_lane() -> None: ...


Unique(until="never")  # error: arg-type, reportArgumentType
Unique(on_conflict="ignore")  # error: arg-type, reportArgumentType
RateLimit()  # error: call-arg, reportCallIssue
RateLimit("10")  # error: arg-type, reportArgumentType
Lane("x", order="random")  # error: arg-type, reportArgumentType
Breaker("x", on=("ConnectionError",))  # error: arg-type, reportArgumentType
app.limit("stripe")  # error: arg-type, reportArgumentType
app.limits.set("speed", "stripe", 5)  # error: arg-type, reportArgumentType
assert_type(limited.enqueue(7), Job[str])
assert_type(limited.using(unique="order:7", lane=False, rate_limit=stripe).enqueue(7), Job[str])
assert_type(limited.using(unique=Throttle("k"), breaker=False).job(7), NewJob[str])
limited.using(concurrency=3)  # error: arg-type, reportArgumentType
assert_type([row.key for row in app.limits.list()], list[str])
assert_type([row.state for row in app.breakers.list()], list[str])

assert_type(plain.enqueue(7), Job[str])
assert_type(charge.enqueue(7), Job[Receipt])
assert_type(charge.enqueue(order_id=7, amount=Decimal("9.99")), Job[Receipt])
assert_type(send.enqueue(7, urgent=True), Job[str])
assert_type(report.enqueue(datetime.now(UTC)), Job[list[Receipt]])
assert_type(bare.enqueue(7), Job[str])
bare.enqueue("7")  # error: arg-type, reportArgumentType
assert_type(plain_data.enqueue({"a": 1}), Job[dict[str, Any]])
plain_data.enqueue(7)  # error: arg-type, reportArgumentType
assert_type(plain(7), str)
assert_type(charge(7, Decimal(2)), Receipt)


# -- arguments -------------------------------------------------------------------------------------------------------

plain.enqueue("7")  # error: arg-type, reportArgumentType
plain.enqueue()  # error: call-arg, reportCallIssue
plain.enqueue(7, 8)  # error: call-arg, reportCallIssue
plain.enqueue(order=7)  # error: call-arg, reportCallIssue
charge.enqueue(order_id=7, amount="9.99")  # error: arg-type, reportArgumentType
charge.job(7, 9.99)  # error: arg-type, reportArgumentType
send.enqueue(7, True)  # error: call-arg, reportCallIssue
plain("7")  # error: arg-type, reportArgumentType

assert_type(plain.job(7), NewJob[str])
assert_type(charge.job(7).using(delay=60), NewJob[Receipt])
assert_type(charge.job(7).enqueue(), Job[Receipt])

# -- using keeps both ------------------------------------------------------------------------------------------------

later = charge.using(delay=timedelta(minutes=1), priority=5, tags=["vip"], meta={"by": "web"}, id=None, expires=60)
assert_type(later.enqueue(7), Job[Receipt])
assert_type(later.job(7), NewJob[Receipt])
assert_type(later.using(queue="other", run_at=None).enqueue(order_id=7), Job[Receipt])
later.enqueue("7")  # error: arg-type, reportArgumentType
later.using(queue="other").enqueue()  # error: call-arg, reportCallIssue
send.using(delay=1).job("7")  # error: arg-type, reportArgumentType
charge.using(color="red")  # error: call-arg, reportCallIssue
charge.using(delay="soon")  # error: arg-type, reportArgumentType
charge.using(priority="high")  # error: arg-type, reportArgumentType

# -- results ---------------------------------------------------------------------------------------------------------

job = charge.enqueue(7)
assert_type(job.result(timeout=1), Receipt)
assert_type(job.join(timeout=1), Job[Receipt])
assert_type(job.refresh(), Job[Receipt])
assert_type(job.state, State)
assert_type(job.run_at, datetime)
assert_type(job.edit(run_at="now", priority=3), bool)
job.edit(run_at="soon")  # error: arg-type, reportArgumentType
job.edit(color="red")  # error: call-arg, reportCallIssue
job.result() + 1  # error: operator, reportOperatorIssue

# -- by name, and many -----------------------------------------------------------------------------------------------

assert_type(app.enqueue("billing.charge", {"order_id": 7}, delay=60), Job[Any])
assert_type(app.enqueue_many([charge.job(7), plain.job(1), send.using(delay=1).job(1)]), list[Job[Any]])
assert_type(app.jobs.get("id"), Job[Any])
assert_type(app.jobs.cancel(state="available", queue="billing"), int)
app.enqueue("billing.charge", {}, color="red")  # error: call-arg, reportCallIssue
app.enqueue_many([charge])  # error: list-item, reportArgumentType
app.enqueue_many([charge.enqueue(7)])  # error: list-item, reportArgumentType
app.jobs.find(color="red")  # error: call-arg, reportCallIssue
app.queue("billing", defaults={"priority": 5, "retry": 3})
app.queue("billing", defaults={"priority": "high"})  # error: arg-type, reportArgumentType


async def awaited() -> None:
    assert_type(await charge.aenqueue(7), Job[Receipt])
    assert_type(await later.aenqueue(7), Job[Receipt])
    assert_type(await send.aenqueue(7), Job[str])
    assert_type(await (await send.aenqueue(7)).aresult(), str)
    assert_type(await send(7), str)
    assert_type(await app.aenqueue_many([send.job(7)]), list[Job[Any]])
    await send.aenqueue("7")  # error: arg-type, reportArgumentType
    await send("7")  # error: arg-type, reportArgumentType


# -- hooks keep what they decorate -----------------------------------------------------------------------------------


@app.on_enqueue
def stamp(new: NewJob[Any]) -> None:
    new.meta["by"] = "web"


@app.around
@contextmanager
def watch(ctx: JobContext[Any]) -> Iterator[None]:
    yield


@app.on("job.dead")
def died(event: object) -> int:
    return 1


@charge.on_dead
def charge_died(dead: Job[Receipt], error: BaseException) -> None: ...


assert_type(died(1), int)
stamp(7)  # error: arg-type, reportArgumentType


# -- tasks as values, and testing ------------------------------------------------------------------------------------


def nightly(task: Task[[int], str]) -> Job[str]:
    return task.enqueue(7)


nightly(plain)
nightly(charge)  # error: arg-type, reportArgumentType

with app.testing(mode="inline") as t:
    assert_type(t, Testing)
    assert_type(t.run(plain.job(7)), Job[str])
    assert_type(t.run(job).result(), Receipt)
    t.drain(queue="billing")
app.testing(mode="fast")  # error: arg-type, reportArgumentType
