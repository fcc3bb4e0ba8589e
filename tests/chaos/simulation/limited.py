"""Jobs of the simulation that wait for others: keys, limits, rates, strict lanes, and rushes in which many of one kind come."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from hashlib import blake2b

from msgspec import structs

from dayjob.store.gating import Gate, Gating, Unique
from tests.chaos.ledger import Plan
from tests.chaos.simulation.work import Spec

LONGEST = 5.0
"""Seconds of work: whoever has a limit of one keeps all others of its key waiting."""
DEBOUNCED = 4.0
"""Seconds by which a job that may be replaced is put off, from the last enqueue on."""

Made = tuple[Gating, Plan]


def _keyed(plan: Plan, key: str, unique: Unique) -> Made:
    digest = blake2b(key.encode(), digest_size=16).hexdigest()
    unique = structs.replace(unique, hash=digest, key=key)
    return Gating(unique), structs.replace(plan, unique=key, until=unique.until, ttl=unique.ttl)


def order(rng: random.Random, plan: Plan) -> Made:
    """One at a time; who comes meanwhile is told who is there, or refused."""
    return _keyed(plan, f"order:{rng.randrange(2)}", Unique("", "", on_conflict=rng.choice(("existing", "raise"))))


def search(rng: random.Random, plan: Plan) -> Made:
    """Put off by each that comes before it has started, for a minute at most."""
    plan = structs.replace(plan, delay=DEBOUNCED)
    how = rng.choice(("replace", "extend"))
    return _keyed(plan, "search", Unique("", "", "started", on_conflict=how, latest=60.0))


def alarm(rng: random.Random, plan: Plan) -> Made:
    """One in twenty seconds, however soon it ends."""
    return _keyed(plan, "alarm", Unique("", "", "expired", ttl=20.0))


def report(rng: random.Random, plan: Plan) -> Made:
    """One at a time, but for half a minute at most."""
    return _keyed(plan, "report", Unique("", "", ttl=30.0))


def tenant(rng: random.Random, plan: Plan) -> Made:
    """So many of a tenant run at once."""
    key, limit = rng.choice((("tenant:0", 1), ("tenant:1", 1), ("tenant:2", 3)))
    return Gating(gates=(Gate("concurrency", key, limit),)), structs.replace(plan, shares=(key, limit))


def stripe(rng: random.Random, plan: Plan) -> Made:
    """So many start in a while."""
    rate = rng.choice((("stripe", 3, 20.0), ("sms", 1, 5.0)))
    return Gating(gates=(Gate("rate", *rate),)), structs.replace(plan, rate=rate)


def both(rng: random.Random, plan: Plan) -> Made:
    """A limit and a rate, which others have, too, and a key of its own."""
    key = f"both:{rng.randrange(3)}"
    limit, rate = ("tenant:0", 1), ("stripe", 3, 20.0)
    gating, plan = _keyed(plan, key, Unique("", ""))
    gates = (Gate("concurrency", *limit), Gate("rate", *rate))
    return structs.replace(gating, gates=gates), structs.replace(plan, shares=limit, rate=rate)


def lane(rng: random.Random, plan: Plan) -> Made:
    """One after the other, also when the first is tried again."""
    return Gating(lane="account:7", gates=(Gate("order", "account:7"),)), structs.replace(plan, shares=("account:7", 1))


Kind = Callable[[random.Random, Plan], Made]
KINDS: tuple[Kind, ...] = (order, search, alarm, report, tenant, tenant, stripe, both, lane)


def rush(rng: random.Random, draw: Callable[[random.Random], Spec], kinds: Sequence[Kind] = KINDS) -> list[Spec]:
    """Some jobs of one kind that come at once."""
    kind = rng.choice(kinds)
    return [_limited(rng, draw, kind) for _ in range(rng.choice((1, 2, 4, 8)))]


def _limited(rng: random.Random, draw: Callable[[random.Random], Spec], kind: Kind) -> Spec:
    spec = draw(rng)
    while spec.seconds > LONGEST or spec.task == "deaf":
        spec = draw(rng)
    gating, plan = kind(rng, spec.plan)
    return structs.replace(spec, gating=gating, plan=plan)
