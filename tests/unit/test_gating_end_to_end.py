"""Keys, limits, lanes and breakers through the whole of dayjob, on the embedded store."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dayjob import (
    App,
    Breaker,
    Concurrency,
    Debounce,
    JobContext,
    RateLimit,
    Retry,
    RetryAfter,
    State,
    Throttle,
    Unique,
)
from dayjob.errors import ConfigError
from dayjob.outbox.body import decode, encode
from dayjob.services.duties import Admitter
from dayjob.store.gating import Gate, Gating
from dayjob.store.gating import Unique as UniqueRow
from dayjob.store.records import NewRow, WorkerInfo
from dayjob.testing import VirtualClock


def test_merge_is_refused_in_a_callers_transaction(app: App, tmp_path: Path) -> None:
    import sqlite3

    @app.task(name="notify", unique=Unique("k", on_conflict="merge"))
    def notify(ids: list[int]) -> None: ...

    app.open()
    connection = sqlite3.connect(tmp_path / "jobs.db")
    with pytest.raises(ConfigError, match="merge"):
        notify.using(conn=connection).enqueue([1])
    with pytest.raises(ConfigError, match="merge"):
        app.enqueue_many([notify.using(conn=connection).job([1])])
    connection.close()
    assert app.jobs.count() == 0


def test_a_key_taken_in_a_transaction_that_is_rolled_back_is_free(app: App, tmp_path: Path) -> None:
    import sqlite3

    @app.task(name="charge", unique=Unique("k"))
    def charge() -> None: ...

    app.open()
    connection = sqlite3.connect(tmp_path / "jobs.db")
    with app.transaction(connection):
        assert charge.enqueue().outcome == "inserted"
        assert charge.enqueue().outcome == "existing"
        connection.rollback()
    connection.close()
    assert charge.enqueue().outcome == "inserted"


def test_debounce_runs_the_last_of_a_burst_once_when_it_is_quiet(app: App) -> None:
    ran = []

    @app.task(name="index", unique=Debounce("doc:{doc}", wait=5, max_wait=12))
    def index(doc: int, version: int) -> None:
        ran.append(version)

    with app.testing(clock=VirtualClock()) as t:
        for version in range(6):
            index.enqueue(1, version)
            t.clock.advance(1.9)
            t.drain()
        assert ran == []
        t.clock.advance(0.7)
        t.drain()
        assert ran == [5]  # 12 seconds after the first, though the last is only 3 old
        index.enqueue(1, 6)
        t.clock.advance(5.1)
        t.drain()
    assert ran == [5, 6]


def test_throttle_lets_one_through_per_stretch_also_when_it_has_ended(app: App) -> None:
    ran = []

    @app.task(name="ping", unique=Throttle("k", every=60))
    def ping(n: int) -> None:
        ran.append(n)

    with app.testing(clock=VirtualClock()) as t:
        for n in range(4):
            ping.enqueue(n)
            t.drain()
            t.clock.advance(20.1)
    assert ran == [0, 3]


def test_a_rate_counts_starts_and_opens_with_the_clock(app: App) -> None:
    @app.task(name="call", rate_limit=RateLimit(3, per=10, key="api"))
    def call(n: int) -> None: ...

    with app.testing(clock=VirtualClock()) as t:
        app.enqueue_many([call.job(n) for n in range(8)])
        ran = []
        for _ in range(4):
            t.drain()
            ran.append(app.jobs.count(state="completed"))
            t.clock.advance(10.1)
    assert ran == [3, 6, 8, 8]


def test_limits_are_listed_changed_at_run_time_and_given_back_to_the_code(app: App) -> None:
    @app.task(name="call", rate_limit=RateLimit(1, per=3600, key="api"), concurrency=Concurrency(5, key="c"))
    def call(n: int) -> None: ...

    with app.testing(clock=VirtualClock()) as t:
        jobs = app.enqueue_many([call.job(n) for n in range(10)])
        t.drain()
        (rate,) = (row for row in app.limits.list() if row.kind == "rate")
        assert (rate.key, rate.limit, rate.per, rate.taken, rate.waiting) == ("api", 1, 3600.0, 1, 9)
        assert rate.opens == pytest.approx(3600, abs=1)
        (hurdle,) = (row for row in app.limits.of(jobs[-1].refresh()) if row.kind == "rate")
        assert hurdle == rate

        app.limits.set("rate", "api", 4, per=3600)
        t.drain()
        assert app.jobs.count(state="completed") == 4
        app.limits.set(RateLimit(6, per=3600, key="api"))
        t.drain()
        assert app.jobs.count(state="completed") == 6
        app.limits.reset("rate", "api")
        t.drain()
        assert app.jobs.count(state="completed") == 6
        assert next(row.limit for row in app.limits.list() if row.kind == "rate") == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda app: app.limits.set("rate", "k", 0),
        lambda app: app.limits.set("rate", "k", -1),
        lambda app: app.limits.set("rate", "k", 1, per=0),
        lambda app: app.limits.set("rate", "", 1),
        lambda app: app.limits.set("rate", "x" * 10_000, 1),
        lambda app: app.limits.set("rate", None, 1),
        lambda app: app.limits.set("rate", "k"),
        lambda app: app.limits.set("breaker", "k", 1),
        lambda app: app.limits.set("concurrency", "k", 1, per=1),
        lambda app: app.limits.set(Concurrency(1)),
        lambda app: app.limits.set(Concurrency(1, key="{tenant}")),
        lambda app: app.limits.set(Concurrency(1, key="k"), "k"),
        lambda app: app.limits.reset("speed", "k"),
        lambda app: app.limits.reset("rate", 3),  # type: ignore[arg-type]
        lambda app: app.limits.set("rate", b"k", 1),  # type: ignore[call-overload]
        lambda app: app.breakers.open(""),
        lambda app: app.breakers.open(7),
        lambda app: app.limit(),
        lambda app: app.limit("stripe"),
        lambda app: app.limit(Concurrency(1)),
        lambda app: app.limit(Concurrency(1, key="{tenant}")),
        lambda app: app.limit(Concurrency(1, key="k"), Concurrency(2, key="k")),
        lambda app: app.limit(Concurrency(1, key="k"), timeout=-1),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(app: App, call: Callable[[App], object]) -> None:
    app.open()
    began = time.thread_time()
    with pytest.raises(ConfigError):
        call(app)
    assert time.thread_time() - began < 0.1
    assert app.limits.list() == []


def test_a_breaker_parks_probes_and_closes_without_spending_attempts(app: App) -> None:
    broken, calls, told = True, [], []

    @app.task(name="pay", retry=10, breaker=Breaker("psp", failures=3, within=60, cooldown=30, on=(ConnectionError,)))
    def pay(n: int) -> None:
        calls.append(n)
        if broken:
            raise ConnectionError("down")

    app.on("breaker.opened")(lambda event: told.append(("opened", event.key, event.seconds)))
    app.on("breaker.closed")(lambda event: told.append(("closed", event.key)))
    with app.testing(clock=VirtualClock()) as t:
        jobs = app.enqueue_many([pay.job(n) for n in range(20)])
        t.drain(raises=False)
        opened_after = len(calls)
        assert opened_after >= 3
        assert [(row.key, row.state) for row in app.breakers.list()] == [("psp", "open")]
        t.clock.advance(29)
        t.drain(raises=False)
        assert len(calls) == opened_after  # nothing passes before the cooldown
        t.clock.advance(1.5)
        t.drain(raises=False)
        assert len(calls) == opened_after + 1  # one to try, and it failed
        broken = False
        t.clock.advance(31)
        t.drain()
        t.clock.advance(3600)
        t.drain()
        assert app.breakers.list() == []
        assert all(job.refresh().state is State.COMPLETED for job in jobs)
        assert max(job.attempt for job in jobs) < 10
    assert told[0] == ("opened", "psp", 30.0)
    assert told[-1] == ("closed", "psp")


def test_a_probe_that_completes_in_a_transaction_of_its_own_closes_the_breaker(app: App) -> None:
    broken = [True]

    @app.task(name="pay", retry=Retry(base=0, jitter=0), breaker=Breaker("psp", failures=1, cooldown=0.001))
    def pay(ctx: JobContext) -> None:
        if broken:
            broken.pop()
            raise ConnectionError("down")
        with ctx.transaction():
            pass

    job = pay.enqueue()
    while job.refresh().state is not State.COMPLETED:
        app.worker().run_until_idle()

    assert not broken
    assert app.breakers.list() == []


def test_what_a_breaker_is_not_there_for_does_not_open_it(app: App) -> None:
    @app.task(name="pay", retry=1, breaker=Breaker("psp", failures=2, on=(ConnectionError,)))
    def pay(n: int) -> None:
        raise ValueError("ours")

    with app.testing() as t:
        app.enqueue_many([pay.job(n) for n in range(6)])
        t.drain(raises=False)
        assert app.jobs.count(state="dead") == 6
        assert app.breakers.list() == []


def test_a_breaker_is_opened_and_closed_by_hand(app: App) -> None:
    @app.task(name="pay", breaker=Breaker("psp:{account}"))
    def pay(account: int) -> None: ...

    with app.testing() as t:
        app.breakers.open("psp:1")
        one, two = pay.enqueue(1), pay.enqueue(2)
        t.drain()
        assert (one.refresh().state, two.refresh().state) == (State.BLOCKED, State.COMPLETED)
        t.clock.advance(3600)
        t.drain()
        assert one.refresh().state is State.BLOCKED
        app.breakers.close("psp:1")
        t.drain()
        assert one.refresh().state is State.COMPLETED


def test_retry_after_pauses_a_limit_for_everybody(app: App) -> None:
    account = RateLimit(1000, per=1, key="account:{account}")
    calls = []

    @app.task(name="call", rate_limit=account)
    def call(account_id: int, account: int) -> None:
        calls.append((account, account_id))
        if len(calls) == 1:
            raise RetryAfter(30, pause=globals()["ACCOUNT"])

    globals()["ACCOUNT"] = account
    with app.testing(clock=VirtualClock()) as t:
        call.enqueue(1, 7)
        t.drain(raises=False)
        call.enqueue(2, 7)
        call.enqueue(3, 8)
        t.drain(raises=False)
        assert calls == [(7, 1), (8, 3)]
        t.clock.advance(31)
        t.drain()
    assert sorted(calls) == [(7, 1), (7, 1), (7, 2), (8, 3)]


def test_strict_lanes_keep_their_order_across_retries(app: App) -> None:
    seen: list[tuple[int, int]] = []

    @app.task(name="step", lane="never", retry=3)
    def step(lane: int, n: int) -> None:
        seen.append((lane, n))
        if n == 1 and seen.count((lane, 1)) == 1:
            raise RuntimeError("once")

    from dayjob import Lane

    strict = step.using(lane=Lane("{lane}", order="strict"))
    with app.testing(clock=VirtualClock()) as t:
        for n in range(4):
            for lane in range(2):
                strict.enqueue(lane, n)
        for _ in range(6):
            t.drain(raises=False)
            t.clock.advance(10)
    for lane in range(2):
        assert [n for which, n in seen if which == lane] == [0, 1, 1, 2, 3]


def test_a_limit_inside_a_job_sees_its_arguments_and_meta(app: App) -> None:
    seen = []

    @app.task(name="call")
    def call(account: int) -> None:
        with app.limit(Concurrency(1, key="{account}/{meta.tenant}"), Concurrency(5)):
            seen.extend(row.key for row in app.limits.list())

    with app.testing() as t:
        call.using(meta={"tenant": "x"}).enqueue(7)
        t.drain()
    assert sorted(seen) == ["7/x", "task:call"]


def test_a_job_that_meets_an_open_breaker_is_snoozed_and_spends_no_attempt(app: App) -> None:
    @app.task(name="pay", retry=1)
    def pay() -> None:
        with app.limit(Breaker("psp")):
            pass

    with app.testing(clock=VirtualClock()) as t:
        app.breakers.open("psp")
        job = pay.enqueue()
        t.drain()
        assert job.refresh().state is State.SCHEDULED
        assert job.attempt == 0
        app.breakers.close("psp")
        t.clock.advance(11)
        t.drain()
        assert job.refresh().state is State.COMPLETED


def test_an_outbox_is_not_asked_for_what_it_cannot_tell(app: App, tmp_path: Path) -> None:
    import sqlite3

    @app.task(name="charge", unique=Unique("k", on_conflict="raise"))
    def charge() -> None: ...

    connection = sqlite3.connect(tmp_path / "shop.db")
    with pytest.raises(ConfigError, match="outbox"):
        charge.using(outbox=connection).enqueue()
    with pytest.raises(ConfigError, match="outbox"), app.outbox(connection):
        charge.enqueue()
    connection.close()


def test_what_a_job_waits_for_travels_through_an_outbox() -> None:
    gating = Gating(
        UniqueRow("0" * 32, "k", "expired", 60.0), "lane", 3, (Gate("rate", "api", 10, 2.0), Gate("order", "l"))
    )
    row = NewRow("00000000-0000-7000-8000-000000000000", "charge", "default", b"{}", gating=gating)

    assert decode(encode(row), row.id, 0.0).gating == gating
    assert b"gating" not in encode(NewRow(row.id, "charge", "default", b"{}"))  # an older relay takes it


def test_the_leader_lets_through_what_time_alone_opens_and_wakes_workers(app: App) -> None:
    @app.task(name="call", rate_limit=RateLimit(1, per=10, key="api"))
    def call(n: int) -> None: ...

    with app.testing(clock=VirtualClock()) as t:
        app.enqueue_many([call.job(n) for n in range(3)])
        t.drain()
        store = app.store
        beat = store.beat(WorkerInfo("00000000-0000-4000-8000-000000000001", "w", "h", 1), [])
        assert beat.term is not None
        admitter, ear = Admitter(store), store.listen(["work"])
        assert 0.0 < (admitter.tick(beat.term) or 0.0) <= 1.0
        assert app.jobs.count(state="available") == 0
        t.clock.advance(10.1)
        admitter.tick(beat.term)
        assert app.jobs.count(state="available") == 1
        assert ear.wait(1.0)
        assert admitter.tick(beat.term + 1) is None
        ear.close()


def test_inline_tests_run_what_limits_let_through(app: App) -> None:
    ran = []

    @app.task(name="call", unique=Unique("k"), concurrency=Concurrency(1), lane="l")
    def call(n: int) -> None:
        ran.append(n)

    with app.testing(mode="inline"):
        assert [call.enqueue(n).outcome for n in range(3)] == ["inserted"] * 3
    assert ran == [0, 1, 2]


def test_a_call_that_was_made_is_no_failure_because_the_store_went_away_meanwhile(app: App) -> None:
    told = []
    app.on("service.failed")(lambda event: told.append(event.service))
    with app.testing() as t:
        with app.limit(Concurrency(1, key="api"), Breaker("psp")):
            down = t.store_down()
            down.__enter__()
        down.__exit__(None, None, None)
        t.clock.advance(61)
        with app.limit(Concurrency(1, key="api"), timeout=0):  # what could not be given back has ended by itself
            pass
    assert told == ["limit", "limit"]


def test_a_test_runs_one_job_when_its_limits_let_it_pass_and_is_told_when_they_do_not(app: App) -> None:
    limit = Concurrency(1, key="k")

    @app.task(name="export", concurrency=limit)
    def export(n: int) -> int:
        return n

    with app.testing(clock=VirtualClock()) as t:
        first = export.enqueue(1)
        assert t.run(first).result() == 1
        assert t.run(export.job(2)).result() == 2
        with app.limit(limit), pytest.raises(ConfigError, match="nothing lets it pass: concurrency k"):
            t.run(export.job(3))
        assert t.drain() == {"completed": 1}


def test_what_is_held_is_given_back_even_if_a_predicate_ends_it_all(app: App) -> None:
    def impatient(error: BaseException) -> bool:
        raise KeyboardInterrupt

    with app.testing():
        with pytest.raises(KeyboardInterrupt), app.limit(Concurrency(1, key="api"), Breaker("psp", on=impatient)):
            raise ValueError
        assert app.limits.list() == []


def test_an_argument_called_meta_is_what_a_template_shows(app: App) -> None:
    @app.task(name="load", concurrency=Concurrency(1, key="{meta.tenant}"))
    def load(meta: dict[str, int]) -> None: ...

    with app.testing():
        job = load.using(meta={"tenant": 2}).enqueue({"tenant": 1})
    assert job.gating is not None
    assert [gate.key for gate in job.gating.gates] == ["1"]


def test_a_limit_in_a_job_with_the_jobs_own_breaker_is_passed_by_the_probe(app: App) -> None:
    psp, calls = Breaker("psp", failures=1, within=60, cooldown=30), []

    @app.task(name="pay", retry=Retry(max_attempts=3, backoff="fixed", base=1, jitter=0), breaker=psp)
    def pay() -> None:
        with app.limit(psp):
            calls.append(1)
            if len(calls) == 1:
                raise ConnectionError("down")

    with app.testing(clock=VirtualClock()) as t:
        job = pay.enqueue()
        t.drain(raises=False)
        assert [row.state for row in app.breakers.list()] == ["open"]
        t.clock.advance(31)
        t.drain()

        assert (job.refresh().state, len(calls), app.breakers.list()) == (State.COMPLETED, 2, [])
