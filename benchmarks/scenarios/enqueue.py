"""How fast jobs are stored: in bulk, one by one, and by a thousand coroutines at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from benchmarks import peers
from benchmarks.jobs import build
from benchmarks.measure import Stopwatch
from benchmarks.model import Bench, Figure, Floor, Round, Scenario, ratio
from benchmarks.peers import huey_sqlite
from benchmarks.workload import arguments

BULK = 30_000
SINGLE = 2_000
TURN = 100
CONCURRENT = 1_000


def measure(bench: Bench) -> Round:
    """The bare engine beside dayjob, each way."""
    bulk = bench.jobs(BULK)
    found: Round = {
        "raw": bench.engine.insert(bench.place("raw"), bulk),
        "raw_best": bench.engine.insert_best(bench.place("raw_best"), bulk),
        "many": _many(bench.store("many"), bulk),
    }
    for peer in peers.of(bench.engine.name):
        if reason := peer.missing():
            bench.skipped[peer.title] = reason
        elif rate := peer.insert(bench.engine, bench.place(peer.name), bench.jobs(peer.jobs)):
            found[f"{peer.name}_many"] = rate
    for served in peers.served(bench.engine.name):
        if not served.missing():
            place = bench.place(f"{served.name}_single")
            found[f"{served.name}_single"] = served.single(bench.engine, place, bench.jobs(SINGLE))
    bench.engine.clear()
    found["concurrent"] = asyncio.run(_concurrent(bench.store("concurrent"), rounds=5))
    return found | _one_by_one(bench)


def _one_by_one(bench: Bench) -> Round:
    """Every way to store one job after the other, a hundred of each in turn: what a disk makes of a durable commit
    changes from second to second."""
    built = build(bench.store("single"))
    ways = {"raw_single": bench.engine.singles(bench.place("raw_single")), "single": _calls(built.noop.enqueue)}
    if bench.engine.name == "sqlite" and huey_sqlite.installed():
        ways["huey_single"] = _calls(huey_sqlite.build(str(bench.place("huey_single") / "huey.db"), fsync=True).noop)
    taken = dict.fromkeys(ways, 0.0)
    jobs = bench.jobs(SINGLE)
    with built.app as app:
        built.noop.enqueue(**arguments(0))  # opens the store
        for _ in range(jobs // TURN):
            for name, store in ways.items():
                taken[name] += store(TURN)
        _expect(app.jobs.count(), jobs + 1)
    return {name: jobs / seconds for name, seconds in taken.items()}


def _calls(enqueue: Callable[..., object]) -> Callable[[int], float]:
    """A function that calls *enqueue* so many times and returns seconds."""

    def store(jobs: int) -> float:
        given = [arguments(number) for number in range(jobs)]
        with Stopwatch() as watch:
            for each in given:
                enqueue(**each)
        return watch.seconds

    return store


def _many(url: str, jobs: int) -> float:
    """`enqueue_many`, with the making of its calls."""
    built = build(url)
    given = [arguments(number) for number in range(jobs)]
    with built.app as app:
        with Stopwatch() as watch:
            app.enqueue_many([built.noop.job(**each) for each in given])
        _expect(app.jobs.count(), jobs)
    return jobs / watch.seconds


async def _concurrent(url: str, rounds: int) -> float:
    """A thousand `aenqueue` awaited together, a few times over."""
    built = build(url)
    given = [arguments(number) for number in range(CONCURRENT)]
    async with built.app as app:
        with Stopwatch() as watch:
            for _ in range(rounds):
                await asyncio.gather(*(built.noop.aenqueue(**each) for each in given))
        _expect(await app.jobs.acount(), CONCURRENT * rounds)
    return CONCURRENT * rounds / watch.seconds


def _expect(stored: int, jobs: int) -> None:
    if stored != jobs:
        raise RuntimeError(f"{stored} jobs are stored, not {jobs}")


SCENARIO = Scenario(
    "enqueue",
    "jobs stored durably per second",
    (
        Figure("raw", "bare engine, batches of 500", "/s"),
        Figure("raw_best", "bare engine, the same in its fastest form", "/s"),
        Figure("many", "dayjob, enqueue_many", "/s"),
        *(
            Figure(f"{peer.name}_many", f"{peer.name}, in bulk", "/s")
            for peer in (*peers.of("postgres"), *peers.of("redis"))
        ),
        Figure("raw_single", "bare engine, a commit for each row", "/s"),
        Figure("single", "dayjob, enqueue one by one", "/s"),
        Figure("huey_single", "huey, one by one, durable", "/s"),
        *(Figure(f"{peer.name}_single", f"{peer.name}, one by one", "/s") for peer in peers.served("redis")),
        Figure("concurrent", "dayjob, 1,000 aenqueue at once", "/s"),
    ),
    (
        Floor("enqueue_many, of the bare engine", ratio("many", "raw"), least=0.4),
        Floor("enqueue_many, of pgqueuer's", ratio("many", "pgqueuer_many"), least=1.5, engine="postgres"),
        Floor("1,000 aenqueue at once, of one by one", ratio("concurrent", "single"), least=5, engine="sqlite"),
        Floor("1,000 aenqueue at once, of one by one", ratio("concurrent", "single"), least=5, engine="postgres"),
        Floor("enqueue one by one, of a bare commit", ratio("single", "raw_single"), least=0.6),
    ),
    measure,
    rounds=5,
)
