"""Async jobs: each has its own task and context, though many share a runner."""

from __future__ import annotations

import asyncio
import contextvars
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dayjob import App
from dayjob.states import Outcome

mood: contextvars.ContextVar[str] = contextvars.ContextVar("mood", default="none")


@pytest.fixture
def app(tmp_path: Path) -> Any:
    with App(f"sqlite:///{tmp_path}/jobs.db") as app:
        yield app


def test_what_a_job_sets_in_its_context_no_other_job_sees(app: App) -> None:
    @app.task
    async def paint(text: str, suspend: bool) -> str:
        before = mood.get()
        mood.set(text)
        if suspend:
            await asyncio.sleep(0)
        assert mood.get() == text
        return before

    jobs = app.enqueue_many([paint.job(f"mood {number}", number % 2 == 0) for number in range(20)])
    app.worker(concurrency=3).run_until_idle()

    assert {job.result(timeout=1) for job in jobs} == {"none"}


def test_a_job_is_one_task_from_its_first_line_to_its_last(app: App) -> None:
    @app.task
    async def look(pauses: int) -> int:
        tasks = set()
        for _ in range(pauses):
            tasks.add(id(asyncio.current_task()))
            await asyncio.sleep(0)
        tasks.add(id(asyncio.current_task()))
        return len(tasks)

    jobs = app.enqueue_many([look.job(number) for number in range(5)])
    app.worker().run_until_idle()

    assert [job.result(timeout=1) for job in jobs] == [1] * 5


def test_jobs_that_run_at_the_same_time_are_different_tasks(app: App) -> None:
    seen: list[Any] = []

    @app.task
    async def meet() -> None:
        seen.append(asyncio.current_task())
        while len(seen) < 4:  # noqa: ASYNC110  # an event belongs to one loop
            await asyncio.sleep(0.001)

    app.enqueue_many([meet.job() for _ in range(4)])
    app.worker(concurrency=4).run_until_idle()

    assert len(set(map(id, seen))) == 4


def test_timeouts_and_task_groups_work_inside_jobs(app: App) -> None:
    async def sleep_and_say(text: str) -> str:
        await asyncio.sleep(0.001)
        return text

    @app.task
    async def group() -> list[str]:
        async with asyncio.TaskGroup() as tasks:
            parts = [tasks.create_task(sleep_and_say(text)) for text in "ab"]
        return [part.result() for part in parts]

    @app.task
    async def bounded() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(10)
        except TimeoutError:
            return "out of time"
        return "not reached"

    jobs = [group.enqueue(), bounded.enqueue()]
    app.worker().run_until_idle()

    assert [job.result(timeout=1) for job in jobs] == [["a", "b"], "out of time"]


def test_a_job_that_cancels_its_task_without_waiting_does_not_cancel_the_next_one(app: App) -> None:
    @app.task(retry=False)
    async def cancel_me() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "done"

    @app.task(retry=False)
    async def innocent() -> str:
        await asyncio.sleep(0)
        return "fine"

    first, second = app.enqueue_many([cancel_me.job(), innocent.job()])
    app.worker(concurrency=1).run_until_idle()

    assert (first.result(timeout=1), second.result(timeout=1)) == ("done", "fine")


def test_many_short_jobs_do_not_keep_the_loop_from_turning(app: App) -> None:
    """A job that waits for its next turn gets it between two stretches of short ones."""
    turns: list[int] = []
    done: list[int] = []

    @app.task
    async def short() -> None:
        end = asyncio.get_running_loop().time() + 0.001
        while asyncio.get_running_loop().time() < end:
            pass
        done.append(1)

    @app.task(priority=1)
    async def patient() -> None:
        while len(done) < 200:
            turns.append(len(done))
            await asyncio.sleep(0)

    app.enqueue_many([patient.job(), *(short.job() for _ in range(200))])
    app.worker(concurrency=2).run_until_idle()

    gaps = [after - before for before, after in pairwise(turns)]
    assert max(gaps) <= 60


def test_kinds_mix_in_one_queue_and_the_limit_holds_over_all(app: App) -> None:
    running: set[int] = set()
    most: list[int] = []

    def enter(number: int) -> None:
        running.add(number)
        most.append(len(running))

    @app.task
    async def a(number: int) -> None:
        enter(number)
        await asyncio.sleep(0.002)
        running.discard(number)

    @app.task
    def b(number: int) -> None:
        enter(number)
        __import__("time").sleep(0.002)
        running.discard(number)

    app.enqueue_many([(a if number % 3 else b).job(number) for number in range(120)])
    counts = app.worker(concurrency=3).run_until_idle()

    assert counts == {Outcome.COMPLETED: 120}
    assert max(most) == 3


@pytest.mark.parametrize("kind", ["async", "thread", "mixed"])
def test_with_one_place_jobs_run_one_by_one_in_their_order(app: App, kind: str) -> None:
    order: list[int] = []

    @app.task
    async def a(number: int) -> None:
        order.append(number)
        if number % 2:
            await asyncio.sleep(0)

    @app.task
    def b(number: int) -> None:
        order.append(number)

    tasks = {"async": (a, a), "thread": (b, b), "mixed": (a, b)}[kind]
    app.enqueue_many([tasks[number % 2].job(number) for number in range(300)])
    app.worker(concurrency=1).run_until_idle()

    assert order == list(range(300))


def test_each_queue_keeps_to_its_own_number(app: App) -> None:
    running: dict[str, int] = {"slow": 0, "fast": 0}
    most: dict[str, int] = {"slow": 0, "fast": 0}

    async def body(queue: str) -> None:
        running[queue] += 1
        most[queue] = max(most[queue], running[queue])
        await asyncio.sleep(0.002)
        running[queue] -= 1

    @app.task(queue="slow")
    async def slow() -> None:
        await body("slow")

    @app.task(queue="fast")
    async def fast() -> None:
        await body("fast")

    app.enqueue_many([*(slow.job() for _ in range(30)), *(fast.job() for _ in range(60))])
    app.worker(queues={"slow": 1, "fast": 4}).run_until_idle()

    assert most == {"slow": 1, "fast": 4}


def test_a_background_task_of_a_job_may_outlive_it(app: App) -> None:
    left: list[str] = []

    @app.task
    async def spawn() -> str:
        async def later() -> None:
            await asyncio.sleep(0.01)
            left.append("later")

        left.append("now")
        spawned.append(asyncio.create_task(later()))
        return "spawned"

    spawned: list[asyncio.Task[None]] = []

    @app.task(priority=-1)
    async def wait_for_it() -> None:
        await spawned[0]

    app.enqueue_many([spawn.job(), wait_for_it.job()])
    app.worker().run_until_idle()

    assert left == ["now", "later"]


def test_current_job_is_known_in_tasks_and_threads_below(shop: ModuleType) -> None:
    from dayjob import current_job

    app = shop.app

    def name() -> str:
        job = current_job()
        return job.task if job is not None else ""

    async def child() -> str:
        return name()

    @app.task(name="test.deep")
    async def deep() -> list[str]:
        return [name(), await asyncio.create_task(child()), await asyncio.to_thread(name)]

    job = deep.enqueue()
    app.worker().run_until_idle()

    assert job.result(timeout=1) == ["test.deep"] * 3
    assert current_job() is None
