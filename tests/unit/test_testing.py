"""What users test with: the kit, its clock, its accidents, and the pytest plugin."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dayjob import (
    App,
    CancelJob,
    ConfigError,
    JobContext,
    JobFailed,
    Retry,
    RetryAfter,
    Snooze,
    State,
    StoreUnavailable,
    Task,
    Unrecoverable,
    current_job,
)
from dayjob.testing import Testing, VirtualClock

pytest_plugins = ["pytester"]


class Shop:
    """An app with a few tasks, and what they did."""

    def __init__(self, file: Path) -> None:
        self.app = app = App(f"sqlite:///{file}")
        self.sent: list[str] = []

        @app.task(name="welcome", queue="mail")
        async def welcome(email: str) -> str:
            self.sent.append(email)
            return f"to {email}"

        @app.task(name="fragile", retry=Retry(max_attempts=2, backoff=[60], jitter=0))
        def fragile(why: str) -> None:
            raise {"error": ValueError(why), "snooze": Snooze(30), "cancel": CancelJob("no"), "after": RetryAfter(30)}[
                why
            ]

        @app.task(name="sign_up")
        def sign_up(email: str) -> None:
            welcome.enqueue(email)

        self.welcome, self.fragile, self.sign_up = welcome, fragile, sign_up


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "real.db")


def test_the_apps_own_store_is_never_touched(shop: Shop, tmp_path: Path) -> None:
    with shop.app.testing() as t:
        shop.welcome.enqueue("ann@example.org")
        t.drain()
        assert t.store.url != shop.app.url

    assert not (tmp_path / "real.db").exists()
    assert shop.app.jobs.count() == 0


# -- what was enqueued -----------------------------------------------------------------------------------------------


def test_jobs_are_asserted_by_what_they_are(shop: Shop) -> None:
    with shop.app.testing() as t:
        shop.welcome.using(delay=60, priority=5, tags=["vip"], meta={"by": "web", "ip": "::1"}).enqueue(
            "ann@example.org"
        )
        shop.sign_up.enqueue("bob@example.org")

        job = t.assert_enqueued(shop.welcome, args={"email": "ann@example.org"}, queue="mail", delay=60)
        t.assert_enqueued("welcome", tag="vip", priority=5, meta={"by": "web"}, state="scheduled", count=1)
        t.assert_enqueued(shop.welcome.using(delay=1))
        t.assert_enqueued(count=2)
        t.refute_enqueued(shop.fragile)
        t.refute_enqueued(shop.welcome, args={"email": "bob@example.org"})
        t.refute_enqueued(shop.welcome, delay=59)
        assert t.enqueued() == [job, t.assert_enqueued(shop.sign_up)]


def test_a_failed_assertion_shows_what_there_was(shop: Shop) -> None:
    with shop.app.testing() as t:
        with pytest.raises(AssertionError, match="nothing was enqueued"):
            t.assert_enqueued(shop.welcome)
        shop.welcome.enqueue("ann@example.org")
        with pytest.raises(AssertionError, match=r"a job of fragile, found 0(.|\n)*welcome\(email='ann@example.org'\)"):
            t.assert_enqueued(shop.fragile)
        with pytest.raises(AssertionError, match="2 jobs of welcome, found 1"):
            t.assert_enqueued(shop.welcome, count=2)
        with pytest.raises(AssertionError, match="no job of welcome with queue='mail', found 1"):
            t.refute_enqueued(shop.welcome, queue="mail")


# -- running ---------------------------------------------------------------------------------------------------------


def test_draining_runs_what_is_due_and_what_that_enqueues(shop: Shop) -> None:
    with shop.app.testing() as t:
        shop.sign_up.enqueue("ann@example.org")
        shop.welcome.using(delay=60).enqueue("bob@example.org")

        assert t.drain() == {"completed": 2}
        assert shop.sent == ["ann@example.org"]
        t.clock.advance(59)
        assert t.drain() == {}
        t.clock.advance(timedelta(seconds=1))
        assert t.drain() == {"completed": 1}
        assert shop.sent == ["ann@example.org", "bob@example.org"]


def test_one_queue_can_be_drained_alone(shop: Shop) -> None:
    with shop.app.testing() as t:
        shop.sign_up.enqueue("ann@example.org")
        t.drain("mail")
        t.assert_enqueued(shop.sign_up, state="available")
        t.drain("default")
        t.assert_enqueued(shop.welcome, state="available")


def test_a_drain_raises_what_the_task_raised_and_the_job_is_tried_again_later(shop: Shop) -> None:
    with shop.app.testing() as t:
        job = shop.fragile.enqueue("error")
        with pytest.raises(ValueError, match="error"):
            t.drain()
        assert (job.refresh().state, job.attempt) == (State.SCHEDULED, 1)

        t.clock.advance(60)
        assert t.drain(raises=False) == {"dead": 1}
        assert (job.refresh().state, job.attempt) == (State.DEAD, 2)


def test_several_failures_raise_the_first_and_count_the_others(shop: Shop) -> None:
    with shop.app.testing() as t:
        for _ in range(3):
            shop.fragile.enqueue("error")
        with pytest.raises(ValueError, match="error") as raised:
            t.drain()

    assert raised.value.__notes__ == ["2 more jobs raised in this drain"]


@pytest.mark.parametrize(
    ("why", "outcome", "state"),
    [
        ("snooze", "snoozed", State.SCHEDULED),
        ("cancel", "cancelled", State.CANCELLED),
        ("after", "failed", State.SCHEDULED),
    ],
)
def test_what_a_task_raises_to_say_something_fails_no_test(shop: Shop, why: str, outcome: str, state: State) -> None:
    with shop.app.testing() as t:
        job = shop.fragile.enqueue(why)

        assert t.drain() == {outcome: 1}
        assert job.refresh().state == state


def test_a_result_that_cannot_be_stored_fails_the_drain_too(shop: Shop) -> None:
    @shop.app.task(name="wrong", retry=False)
    def wrong() -> int:
        return "text"  # type: ignore[return-value]

    with shop.app.testing() as t:
        job = wrong.enqueue()
        with pytest.raises(JobFailed, match="return value") as raised:
            t.drain()

    assert raised.value.id == job.id


def test_one_job_can_be_run_alone_wherever_it_stands(shop: Shop) -> None:
    with shop.app.testing() as t:
        jobs = [shop.welcome.enqueue(f"{number}@example.org") for number in range(5)]
        later = shop.welcome.using(delay=3600).enqueue("later@example.org")

        assert t.run(jobs[3]).result() == "to 3@example.org"
        assert t.run(later.id).state == State.COMPLETED
        assert t.run(shop.welcome.job("new@example.org")).state == State.COMPLETED
        assert shop.sent == ["3@example.org", "later@example.org", "new@example.org"]
        assert [job.refresh().state for job in jobs] == [*["available"] * 3, "completed", "available"]
        assert [job.attempts for job in jobs if job.state == State.AVAILABLE] == [[]] * 4
        t.drain()
        assert shop.sent[3:] == ["0@example.org", "1@example.org", "2@example.org", "4@example.org"]


def test_running_a_job_raises_what_it_raised(shop: Shop) -> None:
    with shop.app.testing() as t:
        job = shop.fragile.enqueue("error")
        with pytest.raises(ValueError, match="error"):
            t.run(job)
        assert t.run(job, raises=False).state == State.DEAD
        with pytest.raises(ConfigError, match=r"is dead, not waiting; job.retry\(\)"):
            t.run(job)


def test_hooks_of_the_app_run_as_always(shop: Shop) -> None:
    seen: list[str] = []

    @shop.app.around
    def note(ctx: JobContext[Any]) -> Any:
        seen.append(f"before {ctx.task}")
        try:
            yield
        except ValueError:
            seen.append("error")
            raise

    @shop.fragile.on_dead
    def dead(job: Any, error: BaseException) -> None:
        seen.append(f"dead {job.task} {error}")

    with shop.app.testing() as t:
        shop.fragile.using(retry=1).enqueue("error")
        t.drain(raises=False)

    assert seen == ["before fragile", "error", "dead fragile error"]


def test_inline_runs_at_once_and_raises_where_it_was_enqueued(shop: Shop) -> None:
    with shop.app.testing(mode="inline") as t:
        job = shop.sign_up.enqueue("ann@example.org")
        assert job.refresh().state == State.COMPLETED
        assert shop.sent == ["ann@example.org"]
        with pytest.raises(ValueError, match="error"):
            shop.fragile.enqueue("error")
        shop.welcome.using(delay=60).enqueue("bob@example.org")
        shop.app.enqueue_many([shop.welcome.job("cy@example.org"), shop.welcome.job("di@example.org")])

        assert shop.sent == ["ann@example.org", "cy@example.org", "di@example.org"]
        t.assert_enqueued(shop.welcome, state="scheduled", count=1)


async def test_everything_works_in_a_running_loop(shop: Shop) -> None:
    async with shop.app.testing() as t:
        job = await shop.welcome.aenqueue("ann@example.org")
        assert await t.adrain() == {"completed": 1}
        assert await job.aresult() == "to ann@example.org"
        assert t.run(shop.welcome.job("bob@example.org")).state == State.COMPLETED
    async with shop.app.testing(mode="inline"):
        jobs = await asyncio.gather(*(shop.welcome.aenqueue(f"{number}@example.org") for number in range(5)))
        assert [await job.aresult() for job in jobs] == [f"to {number}@example.org" for number in range(5)]


async def test_waiting_for_what_nothing_runs_is_refused(shop: Shop) -> None:
    with shop.app.testing():
        job = shop.welcome.enqueue("ann@example.org")
        with pytest.raises(ConfigError, match=r"t\.drain"):
            job.result()
        with pytest.raises(ConfigError, match=r"t\.drain"):
            await job.ajoin()


# -- a context of one's own ------------------------------------------------------------------------------------------


def test_a_function_can_be_called_with_a_context_of_the_test(shop: Shop) -> None:
    @shop.app.task
    def work(ctx: JobContext[dict[str, int]], steps: int) -> int:
        ctx.log.info("of %d", steps)
        for step in range(steps):
            ctx.raise_if_cancelled()
            ctx.progress(step + 1, steps)
        ctx.save_checkpoint({"at": steps})
        assert current_job() is ctx
        return ctx.state["base"] + ctx.attempt

    with shop.app.testing() as t, t.context(work, attempt=5, state={"base": 10}, meta={"by": "me"}) as ctx:
        assert work.fn(ctx, 2) == 15
        assert (ctx.task, ctx.meta, ctx.last_attempt, ctx.app) == (work.name, {"by": "me"}, True, shop.app)
        assert ctx.logged == [("info", "of 2")]
        assert [(done, total) for done, total, _ in ctx.progressed] == [(1, 2), (2, 2)]
        assert ctx.checkpoint == {"at": 2}
        ctx.cancel()
        with pytest.raises(Exception, match="cancel"):
            work.fn(ctx, 2)
        with pytest.raises(ConfigError, match="attempt"):
            t.context(attempt=0)


# -- accidents -------------------------------------------------------------------------------------------------------


def test_a_crash_makes_a_suspect_and_three_alone_kill_it(shop: Shop) -> None:
    told: list[str] = []

    @shop.welcome.on_dead
    async def dead(job: Any, error: BaseException) -> None:
        told.append(f"{job.state}: {error}")

    with shop.app.testing() as t:
        job, neighbour = shop.welcome.enqueue("ann@example.org"), shop.welcome.enqueue("bob@example.org")
        t.crash(job)
        assert (job.state, job.crashes, job.attempts[-1].outcome) == (State.AVAILABLE, 0, "lost")
        assert [t.crash(job).crashes for _ in range(2)] == [1, 2]
        assert job.state == State.AVAILABLE
        t.crash(job)

        assert (job.state, job.crashes, job.reason) == (State.DEAD, 3, "crashed")
        assert told == [f"dead: job {job.id} (welcome) is dead (crashed): signal 9 (SIGKILL)"]
        assert neighbour.refresh().attempts == []
        assert t.drain() == {"completed": 1}


def test_a_crashed_job_runs_again(shop: Shop) -> None:
    with shop.app.testing() as t:
        job = t.crash(shop.welcome.job("ann@example.org"))
        assert t.drain() == {"completed": 1}
        assert job.refresh().state == State.COMPLETED
        assert [one.outcome for one in job.attempts] == ["lost", "completed"]
        with pytest.raises(ConfigError, match="is completed, not waiting"):
            t.crash(job)


def test_a_job_of_a_paused_queue_is_not_drained_but_can_be_run(shop: Shop) -> None:
    with shop.app.testing() as t:
        job = shop.welcome.enqueue("ann@example.org")
        t.queues.pause("mail")
        assert t.drain() == {}
        assert t.run(job).state == State.COMPLETED


def test_a_suspect_can_be_run(shop: Shop) -> None:
    with shop.app.testing() as t:
        job = t.crash(shop.welcome.job("ann@example.org"))
        assert t.run(job).state == State.COMPLETED


def test_while_the_store_is_down_everyone_is_told_at_once(shop: Shop) -> None:
    with shop.app.testing() as t:
        job = shop.welcome.enqueue("ann@example.org")
        with t.store_down():
            with pytest.raises(StoreUnavailable):
                shop.welcome.enqueue("bob@example.org")
            with pytest.raises(StoreUnavailable):
                asyncio.run(_enqueue(shop.welcome))
            with pytest.raises(StoreUnavailable):
                job.refresh()
            with pytest.raises(StoreUnavailable):
                t.drain()
        assert t.enqueued() == [job]
        assert t.drain() == {"completed": 1}


async def _enqueue(task: Task[[str], str]) -> None:
    await task.aenqueue("cy@example.org")


# -- time ------------------------------------------------------------------------------------------------------------


def test_the_clock_stands_still_until_it_is_moved(shop: Shop) -> None:
    start = datetime(2026, 5, 1, 12, tzinfo=UTC)
    with shop.app.testing(clock=VirtualClock(start)) as t:
        job = shop.welcome.using(expires=30).enqueue("ann@example.org")
        assert job.created_at == t.clock.now == start
        assert t.clock.advance_to(start + timedelta(seconds=20)) == start + timedelta(seconds=20)
        assert t.clock.advance_to(start) == start + timedelta(seconds=20)
        t.clock.advance(11)
        t.drain()

    assert shop.sent == []


@pytest.mark.parametrize("by", [-1, float("nan"), float("inf"), "60", True])
def test_the_clock_never_goes_back(by: Any) -> None:
    clock = VirtualClock()
    before = clock.now
    with pytest.raises(ConfigError):
        clock.advance(by)

    assert clock.now == before


@pytest.mark.parametrize("arguments", [{"mode": "fast"}, {"clock": 7}])
def test_a_test_that_makes_no_sense(shop: Shop, arguments: Any) -> None:
    with pytest.raises(ConfigError):
        shop.app.testing(**arguments)


def test_what_is_not_the_kits_is_the_apps(shop: Shop) -> None:
    with shop.app.testing() as t:
        assert isinstance(t, Testing)
        assert t.jobs is shop.app.jobs
        t.enqueue("welcome", {"email": "ann@example.org"})
        t.drain()
        with pytest.raises(AttributeError, match="nothing_of_this"):
            _ = t.nothing_of_this

    assert shop.sent == ["ann@example.org"]


def test_a_task_that_never_should_be_retried_is_dead_at_once(shop: Shop) -> None:
    @shop.app.task(name="never")
    def never() -> None:
        raise Unrecoverable("no use")

    with shop.app.testing() as t:
        job = never.enqueue()
        with pytest.raises(Unrecoverable, match="no use"):
            t.drain()
        assert (job.refresh().state, job.attempt) == (State.DEAD, 1)


# -- the plugin ------------------------------------------------------------------------------------------------------


def _run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    plugin = [] if _installed() else ["-p", "dayjob.testing.plugin"]
    return pytester.runpytest_subprocess(*plugin, "-p", "no:cacheprovider", *arguments)


def _installed() -> bool:
    from importlib.metadata import entry_points

    return any(entry.value == "dayjob.testing.plugin" for entry in entry_points(group="pytest11"))


def test_the_fixture_gives_the_app_of_the_project_under_test(pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml('[tool.dayjob]\napp = "jobs_of_shop:app"\n')
    pytester.makepyfile(
        jobs_of_shop="""
            from dayjob import App
            app = App()
            @app.task(name="welcome")
            def welcome(email: str) -> str:
                return email
        """,
        test_shop="""
            from jobs_of_shop import app, welcome
            def test_one(dayjob_app):
                job = welcome.enqueue("ann@example.org")
                dayjob_app.assert_enqueued(welcome)
                dayjob_app.drain()
                assert job.result() == "ann@example.org"
                assert dayjob_app.app is app
            def test_two(dayjob_app):
                dayjob_app.refute_enqueued(welcome)
        """,
    )
    _run(pytester).assert_outcomes(passed=2)
    assert not list(Path(pytester.path).glob("*.db"))


def test_the_fixture_gives_an_empty_app_where_there_is_none(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_one(dayjob_app):
            @dayjob_app.task
            async def note(text: str) -> None: ...
            note.enqueue("x")
            assert dayjob_app.drain() == {"completed": 1}
        """
    )
    _run(pytester).assert_outcomes(passed=1)


def test_an_app_that_is_named_and_not_there_is_an_error(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ndayjob_app = nowhere:app\n")
    pytester.makepyfile("def test_one(dayjob_app): ...")
    result = _run(pytester)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*there is no module 'nowhere'*"])
