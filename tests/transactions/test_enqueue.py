"""`using(conn=...)`: with every kind of connection, a job exists when the caller commits, and never otherwise."""

from __future__ import annotations

import time
from threading import Thread
from typing import Any

import pytest

from dayjob import ConfigError, PayloadError
from dayjob.errors import StoreError
from tests.transactions.conftest import Stage
from tests.transactions.kinds import Side


def test_a_job_is_committed_together_with_the_callers_writes(stage: Stage) -> None:
    async def story(side: Side) -> Any:
        await side.note("order 7")
        job = await side.enqueue(stage.send, 7)
        before = stage.app.jobs.count()
        await side.commit()
        return job, before

    job, before = stage.play(story)

    assert before == 0
    assert (job.outcome, job.refresh().state) == ("inserted", "available")
    assert stage.effects() == ["order 7"]
    assert stage.app.worker().run_until_idle().total() == 1
    assert job.result(timeout=1) == 7


def test_and_rolled_back_together(stage: Stage) -> None:
    async def story(side: Side) -> None:
        await side.note("order 7")
        await side.enqueue(stage.send, 7)
        await side.rollback()

    stage.play(story)

    assert stage.app.jobs.count() == 0
    assert stage.effects() == []
    assert stage.app.worker().run_until_idle().total() == 0


def test_dayjob_ends_nothing(stage: Stage) -> None:
    """What is written before and after an enqueue is one transaction still, whichever way it ends."""

    async def story(side: Side) -> None:
        for end in (side.rollback, side.commit):
            await side.note("before")
            await side.enqueue(stage.send, 1)
            await side.note("after")
            await side.enqueue(stage.send, 2)
            await end()

    stage.play(story)

    assert stage.effects() == ["after", "before"]
    assert sorted(job.args["order"] for job in stage.app.jobs.find()) == [1, 2]


def test_many_go_in_one_call(stage: Stage) -> None:
    async def story(side: Side) -> list[Any]:
        bound = stage.send.using(conn=side.connection)
        calls = [bound.job(n) for n in range(260)]
        many = await stage.app.aenqueue_many(calls) if side.awaited else stage.app.enqueue_many(calls)
        await side.commit()
        return many

    jobs = stage.play(story)

    assert len({job.id for job in jobs}) == 260
    assert stage.app.jobs.count(state="available") == 260


def test_by_name_and_with_an_id_that_repeats(stage: Stage) -> None:
    id = "01890000-0000-7000-8000-00000000abcd"

    async def story(side: Side) -> list[str]:
        outcomes = []
        for _ in range(2):
            if side.awaited:
                job = await stage.app.aenqueue("shop.send", {"order": 1}, conn=side.connection, id=id)
            else:
                job = stage.app.enqueue("shop.send", {"order": 1}, conn=side.connection, id=id)
            outcomes.append(job.outcome)
        await side.note("goes on")
        await side.commit()
        return outcomes

    assert stage.play(story) == ["inserted", "existing"]
    assert stage.app.jobs.get(id).state == "available"
    assert stage.effects() == ["goes on"]


def test_a_call_that_is_wrong_touches_nothing(stage: Stage) -> None:
    async def story(side: Side) -> None:
        await side.note("order 7")
        with pytest.raises(PayloadError):
            await side.enqueue(stage.send, "seven")
        with pytest.raises(ConfigError):
            await side.enqueue(stage.send, 7, priority=1000)
        await side.commit()

    stage.play(story)

    assert stage.effects() == ["order 7"]
    assert stage.app.jobs.count() == 0


def test_a_connection_that_can_only_be_awaited_says_so_to_the_sync_verb(stage: Stage) -> None:
    async def story(side: Side) -> None:
        bound = stage.send.using(conn=side.connection)
        if side.awaited:
            with pytest.raises(ConfigError, match="aenqueue"):
                bound.enqueue(1)
            with pytest.raises(ConfigError, match="aenqueue_many"):
                stage.app.enqueue_many([bound.job(1)])
        else:
            bound.enqueue(1)
        await side.commit()

    stage.play(story)

    assert stage.app.jobs.count() == (0 if stage.kind.awaited else 1)


def test_a_waiting_worker_starts_it_soon_after_the_commit_and_not_before(stage: Stage) -> None:
    worker = stage.app.worker()
    thread = Thread(target=worker.run, daemon=True)
    thread.start()

    async def story(side: Side) -> Any:
        job = await side.enqueue(stage.send, 7)
        if side.system == "postgresql":  # where others can write meanwhile
            assert stage.send.enqueue(1).result(timeout=5) == 1
        await side.commit()
        return job, time.monotonic()

    try:
        job, committed = stage.play(story)
        assert job.result(timeout=5) == 7
        assert time.monotonic() - committed < 2.0
    finally:
        worker.stop(now=True)
        thread.join(15)


def test_a_database_that_has_no_jobs_is_refused_by_name(stage: Stage) -> None:
    from dayjob import App

    other = (
        "sqlite:////nowhere/jobs.db" if stage.kind.system == "postgresql" else "postgresql://nobody@127.0.0.1:1/none"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(stage.app._link), "_open", lambda link: link.bare())  # nothing answers there
        app = App(other)

        @app.task(name="shop.elsewhere")
        def elsewhere() -> None:
            """Stored in another kind of database."""

        async def story(side: Side) -> None:
            with pytest.raises(ConfigError, match=r"app\.outbox"):
                await side.enqueue(elsewhere)

        stage.play(story)
        app.close()


def test_a_closed_connection_is_an_error_of_the_store(stage: Stage) -> None:
    async def story(side: Side) -> Any:
        await side.note("x")
        await side.rollback()
        return side

    side = stage.play(story)
    if "Sqlalchemy" in type(side).__name__ or "Django" in type(side).__name__:
        pytest.skip("it connects anew")
    if side.awaited:
        pytest.skip("its loop is gone, too")

    with pytest.raises(StoreError):
        stage.send.using(conn=side.connection).enqueue(1)
