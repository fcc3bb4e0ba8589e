"""`app.transaction(...)`: what is enqueued inside joins, for the one who entered it, as long as it lasts."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from dayjob import App, ConfigError, Settings, Task
from dayjob.errors import StoreUnavailable
from dayjob.testing import VirtualClock
from tests.transactions.conftest import Stage
from tests.transactions.kinds import Side


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def app(place: Path) -> Iterator[App]:
    with App(f"sqlite:///{place}") as app:
        yield app


@pytest.fixture
def send(app: App) -> Task[[int], int]:
    @app.task(name="shop.send")
    def send(order: int) -> int:
        return order

    return send


@pytest.fixture
def theirs(app: App, place: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(place, timeout=0.2)) as connection:
        yield connection


def test_every_enqueue_inside_joins(stage: Stage) -> None:
    async def story(side: Side) -> None:
        async with stage.app.transaction(side.connection) as given:
            assert given is side.connection
            await side.plainly(stage.send, 1)
            calls = [stage.send.job(2), stage.send.using(priority=5).job(3)]
            if side.awaited:
                await stage.app.aenqueue_many(calls)
                await stage.app.aenqueue("shop.send", {"order": 4})
            else:
                stage.app.enqueue_many(calls)
                stage.app.enqueue("shop.send", {"order": 4})
        await side.rollback()
        with stage.app.transaction(side.connection):
            await side.plainly(stage.send, 5)
        await side.commit()

    stage.play(story)

    assert [job.args["order"] for job in stage.app.jobs.find()] == [5]


def test_it_ends_with_its_block(app: App, send: Task[[int], int], theirs: sqlite3.Connection) -> None:
    with app.transaction(theirs):
        pass
    send.enqueue(1)

    assert app.jobs.count() == 1


def test_it_ends_with_an_error_too(app: App, send: Task[[int], int], theirs: sqlite3.Connection) -> None:
    def fail() -> None:
        with app.transaction(theirs):
            send.enqueue(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    theirs.rollback()
    send.enqueue(2)

    assert [job.args["order"] for job in app.jobs.find()] == [2]


def test_blocks_nest_and_the_inner_one_wins(app: App, send: Task[[int], int], tmp_path: Path) -> None:
    with App(f"sqlite:///{tmp_path / 'other.db'}") as other:

        @other.task(name="other.send")
        def elsewhere(order: int) -> int:
            return order

        one, two = sqlite3.connect(tmp_path / "jobs.db"), sqlite3.connect(tmp_path / "other.db")
        with closing(one), closing(two):
            with app.transaction(one):
                send.enqueue(1)
                with other.transaction(two), app.transaction(one):
                    elsewhere.enqueue(2)
                    send.enqueue(3)
                send.enqueue(4)
            one.commit()

            assert sorted(job.args["order"] for job in app.jobs.find()) == [1, 3, 4]
            assert other.jobs.count() == 0  # joined, and never committed


def test_what_one_call_says_wins_over_the_block(app: App, send: Task[[int], int], place: Path) -> None:
    with closing(sqlite3.connect(place)) as one, closing(sqlite3.connect(place)) as two:
        with app.transaction(one):
            send.using(conn=two).enqueue(1)
        two.commit()

        assert app.jobs.count() == 1


def test_it_does_not_hold_for_threads_started_inside(
    app: App, send: Task[[int], int], theirs: sqlite3.Connection
) -> None:
    import contextvars

    with app.transaction(theirs):
        copied = contextvars.copy_context()
        for thread in (
            threading.Thread(target=send.enqueue, args=(1,)),
            threading.Thread(target=copied.run, args=(send.enqueue, 2)),
        ):
            thread.start()
            thread.join()

    assert app.jobs.count() == 2  # without a commit of theirs


async def test_it_does_not_hold_for_tasks_started_inside(
    app: App, send: Task[[int], int], theirs: sqlite3.Connection
) -> None:
    async with app.transaction(theirs):
        await asyncio.create_task(send.aenqueue(1))
        await asyncio.to_thread(send.enqueue, 2)

        assert app.jobs.count() == 2


async def test_two_tasks_have_each_their_own(app: App, send: Task[[int], int], place: Path) -> None:
    turn = asyncio.Lock()  # SQLite has one writer

    async def request(order: int, *, commit: bool) -> None:
        async with turn, aiosqlite.connect(place) as connection, app.transaction(connection):
            await asyncio.sleep(0)
            await send.aenqueue(order)
            if commit:
                await connection.commit()

    await asyncio.gather(*(request(n, commit=n % 2 == 0) for n in range(6)))

    assert sorted(job.args["order"] for job in app.jobs.find()) == [0, 2, 4]


def test_a_generator_that_ends_it_in_another_context_ends_it(
    app: App, send: Task[[int], int], theirs: sqlite3.Connection
) -> None:
    import contextvars

    @contextmanager
    def unit_of_work() -> Iterator[None]:
        with app.transaction(theirs):
            yield

    unit = unit_of_work()
    unit.__enter__()
    contextvars.copy_context().run(unit.__exit__, None, None, None)
    send.enqueue(1)

    assert app.jobs.count() == 1


def test_it_is_refused_at_its_beginning(app: App) -> None:
    for wrong in (None, "sqlite:///jobs.db", object()):
        with (
            pytest.raises(ConfigError, match="psycopg, asyncpg, sqlite3, SQLAlchemy or Django"),
            app.transaction(wrong),
        ):
            pass


def test_things_that_are_nearly_connections_are_told_apart(app: App, theirs: sqlite3.Connection, place: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{place}")

    for wrong, hint in ((theirs.cursor(), "give its connection"), (engine, "belongs to one connection")):
        with pytest.raises(ConfigError, match=hint):
            app.transaction(wrong).__enter__()
    with pytest.raises(ConfigError, match="leads to no database"):
        app.transaction(AsyncSession()).__enter__()


def test_calls_that_name_different_connections_are_no_one_call(app: App, send: Task[[int], int], place: Path) -> None:
    with closing(sqlite3.connect(place)) as one, closing(sqlite3.connect(place)) as two:
        with pytest.raises(ConfigError, match="one call takes one connection"):
            app.enqueue_many([send.using(conn=one).job(1), send.using(conn=two).job(2)])
        with pytest.raises(ConfigError, match="one call takes one connection"):
            app.enqueue_many([send.using(conn=one).job(1), send.job(2)])

        assert not one.in_transaction


def test_in_autocommit_it_is_an_ordinary_enqueue_there(app: App, send: Task[[int], int], place: Path) -> None:
    with closing(sqlite3.connect(place, isolation_level=None)) as connection:
        job = send.using(conn=connection).enqueue(1)

        assert not connection.in_transaction
        assert job.refresh().state == "available"


def test_and_wakes_a_sleeping_worker(place: Path) -> None:
    app = App(f"sqlite:///{place}", settings=Settings(poll=10.0))

    @app.task(name="shop.hurry")
    def hurry() -> int:
        return 1

    with app, closing(sqlite3.connect(place, isolation_level=None)) as connection:
        worker = app.worker()
        thread = threading.Thread(target=worker.run)
        asleep = threading.Event()
        app.on("worker.started")(lambda event: asleep.set())
        thread.start()
        asleep.wait(5)
        hurry.enqueue().result(timeout=5)  # it has looked, and found nothing more
        job = hurry.using(conn=connection).enqueue()

        assert job.result(timeout=4) == 1
        worker.stop(now=True)
        thread.join(10)


def test_another_file_of_the_same_kind_is_refused_and_gets_nothing(
    app: App, send: Task[[int], int], tmp_path: Path
) -> None:
    with App(f"sqlite:///{tmp_path / 'other.db'}") as other, closing(sqlite3.connect(tmp_path / "other.db")) as wrong:
        with pytest.raises(ConfigError, match=r"other\.db.*jobs\.db.*app\.outbox"):
            send.using(conn=wrong).enqueue(1)
        wrong.commit()

        assert other.jobs.count() == app.jobs.count() == 0


def test_the_same_file_by_another_name_is_the_same_file(app: App, send: Task[[int], int], place: Path) -> None:
    place.with_name("link.db").symlink_to(place)
    with closing(sqlite3.connect(place.with_name("link.db"))) as connection:
        send.using(conn=connection).enqueue(1)
        connection.commit()

    assert app.jobs.count() == 1


def test_a_lock_that_others_hold_fails_the_transaction_and_is_not_waited_for_again(
    app: App, send: Task[[int], int], theirs: sqlite3.Connection, place: Path
) -> None:
    with closing(sqlite3.connect(place)) as rival:
        rival.execute("BEGIN IMMEDIATE")

        with pytest.raises(StoreUnavailable, match="BEGIN IMMEDIATE"):
            send.using(conn=theirs).enqueue(1)

    assert app.jobs.count() == 0


def test_events_say_that_it_was_not_committed_yet(app: App, send: Task[[int], int], theirs: sqlite3.Connection) -> None:
    seen: list[Any] = []
    app.on("job.enqueued")(seen.append)
    send.using(conn=theirs).enqueue(1)
    with app.transaction(theirs):
        app.enqueue_many([send.job(2)])
    theirs.commit()
    send.enqueue(3)

    assert [event.joined for event in seen] == [True, True, False]


def test_hooks_stamp_what_joins(app: App, send: Task[[int], int], theirs: sqlite3.Connection) -> None:
    app.on_enqueue(lambda new: new.meta.update(by="web"))
    job = send.using(conn=theirs).enqueue(1)
    theirs.commit()

    assert job.refresh().meta == {"by": "web"}


def test_a_process_that_never_asked_for_the_time_joins_a_transaction_that_holds_the_lock(place: Path) -> None:
    """The store's clock is learned by a write, which the caller's own lock would make wait for ever."""
    with App(f"sqlite:///{place}") as first:
        first.migrate()
    with App(f"sqlite:///{place}") as app, closing(sqlite3.connect(place, isolation_level=None)) as connection:

        @app.task(name="shop.first")
        def first_task() -> None:
            """Nothing."""

        connection.execute("BEGIN IMMEDIATE")
        job = first_task.using(conn=connection).enqueue()
        connection.execute("COMMIT")

        assert job.refresh().state == "available"


class TestUnderTest:
    """With `app.testing()` no connection leads to the store: enqueues go there at once."""

    def test_the_code_runs_as_it_is(self, app: App, send: Task[[int], int], theirs: sqlite3.Connection) -> None:
        with app.testing(clock=VirtualClock()) as t:
            send.using(conn=theirs).enqueue(1)
            with app.transaction(object()):
                send.enqueue(2)

            t.assert_enqueued(send, count=2)
            assert t.drain().total() == 2
        assert not theirs.in_transaction
        assert app.jobs.count() == 0


@pytest.mark.parametrize("how", ["using", "block"])
def test_a_first_enqueue_does_not_wait_for_its_own_transaction_to_make_the_tables(place: Path, how: str) -> None:
    app = App(f"sqlite:///{place}")

    @app.task(name="shop.send")
    def send(order: int) -> None: ...

    def first(connection: sqlite3.Connection) -> None:
        if how == "using":
            send.using(conn=connection).enqueue(1)
        else:
            app.transaction(connection).__enter__()

    with closing(sqlite3.connect(place)) as connection:
        connection.execute("CREATE TABLE orders (id)")
        connection.execute("INSERT INTO orders VALUES (1)")
        begun = time.monotonic()

        with pytest.raises(ConfigError, match=r"app\.open\(\)"):
            first(connection)
        assert time.monotonic() - begun < 1.0
        connection.commit()

        app.open()
        connection.execute("INSERT INTO orders VALUES (2)")
        send.using(conn=connection).enqueue(2)
        connection.commit()

    assert app.jobs.count() == 1
    app.close()


def test_a_first_enqueue_joins_where_the_tables_are_there(app: App, place: Path) -> None:
    other = App(f"sqlite:///{place}")

    @other.task(name="shop.send")
    def send(order: int) -> None: ...

    with closing(sqlite3.connect(place)) as connection:
        connection.execute("CREATE TABLE orders (id)")
        connection.execute("INSERT INTO orders VALUES (1)")
        send.using(conn=connection).enqueue(1)
        connection.commit()
    other.close()

    assert app.jobs.count() == 1
