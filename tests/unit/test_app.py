"""The app itself: its store, its hooks, its streams."""

from __future__ import annotations

import asyncio
import inspect
import os
import sqlite3
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from dayjob import App, ConfigError, JobContext, SchemaMismatch, Settings, StoreError, current_job
from dayjob.events import JobCompleted

# -- the store -------------------------------------------------------------------------------------------------------


def test_nothing_is_opened_before_it_is_used(tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    app = App(f"sqlite:///{file}")

    @app.task
    def note() -> None: ...

    note.job()
    assert not file.exists()
    note.enqueue()
    assert file.exists()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    app.close()


def test_the_url_comes_from_the_environment_and_relative_paths_stand_beside_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").touch()
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)

    assert App().url == f"sqlite:///{tmp_path / 'dayjob.db'}"
    monkeypatch.setenv("DAYJOB_URL", "sqlite:///other.db")
    assert App().url == f"sqlite:///{tmp_path / 'other.db'}"
    assert App("sqlite:///:memory:").url == "sqlite:///:memory:"


@pytest.mark.parametrize("given", [None, "sqlite:///jobs.db"])
def test_where_a_relative_path_leads_is_logged(
    given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAYJOB_URL", raising=False)
    caplog.set_level("INFO", logger="dayjob")

    with App(given) as app:
        assert [record.getMessage() for record in caplog.records if app.url in record.getMessage()]

    caplog.clear()
    with App(app.url):
        assert not caplog.records


def test_another_url_can_be_set_until_the_store_is_open(tmp_path: Path) -> None:
    app = App(f"sqlite:///{tmp_path / 'one.db'}")
    app.url = f"sqlite:///{tmp_path / 'two.db'}"
    app.open()
    with pytest.raises(ConfigError, match="is open"):
        app.url = "sqlite:///:memory:"
    app.close()

    assert [file.name for file in tmp_path.glob("*.db")] == ["two.db"]


@pytest.mark.parametrize("url", ["", "jobs.db", "sqlite://", "mysql://host/db", 7])
def test_a_url_that_makes_no_sense(url: Any) -> None:
    with pytest.raises(ConfigError):
        App(url).open()


@pytest.mark.parametrize("namespace", ["", "1a", "a-b", "a b", "a;drop", "ä", "x" * 41, 7, None])
def test_a_namespace_that_makes_no_sense(namespace: Any) -> None:
    with pytest.raises(ConfigError, match="namespace"):
        App("sqlite:///:memory:", namespace=namespace)


def test_namespaces_keep_apps_in_one_file_apart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    with App(url) as one, App(url, namespace="other") as other:
        one.enqueue("note", {})

        assert (one.jobs.count(), other.jobs.count()) == (1, 0)


@pytest.mark.parametrize(
    "arguments",
    [{"settings": {}}, {"lifespan": 7}, {"include": [7]}, {"include": 7}],
    ids=lambda given: next(iter(given)),
)
def test_arguments_that_make_no_sense(arguments: Any) -> None:
    with pytest.raises((ConfigError, TypeError)):
        App("sqlite:///:memory:", **arguments)


def test_settings_come_from_the_environment_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYJOB_MAX_PAYLOAD", "100")

    assert App("sqlite:///:memory:").settings.max_payload == 100
    assert App("sqlite:///:memory:", settings=Settings()).settings.max_payload == 10_000


def test_migrations_are_shown_before_and_applied_once(tmp_path: Path) -> None:
    app = App(f"sqlite:///{tmp_path / 'jobs.db'}")
    due = app.migrate(dry_run=True)

    assert due
    assert app.migrate() == due
    assert app.migrate() == []
    assert app.check().schema == app.check().wanted
    app.close()


def test_a_store_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    with App(f"sqlite:///{file}") as app:
        app.enqueue("note", {})
    with sqlite3.connect(file) as connection:
        connection.execute("INSERT INTO dayjob_schema VALUES (999, 'from tomorrow', 0)")
    connection.close()
    app = App(f"sqlite:///{file}")
    for use in (app.open, app.jobs.count, lambda: app.enqueue("note", {})):
        with pytest.raises(SchemaMismatch, match="newer release"):
            use()
    app.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    file.write_text(
        "hello, I am a letter and no database at all, and long enough for a header of one hundred bytes " * 3
    )
    app = App(f"sqlite:///{file}")
    with pytest.raises(StoreError, match="not an SQLite database"):
        app.enqueue("note", {})
    app.close()

    assert file.read_text().startswith("hello")


def test_a_transaction_of_ones_own_on_the_same_file_is_named_within_seconds(app: App, tmp_path: Path) -> None:
    app.open()
    mine = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    mine.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(StoreError, match="your own transaction"):
            app.enqueue("note", {})
    finally:
        mine.execute("ROLLBACK")
        mine.close()

    app.enqueue("note", {})
    assert app.jobs.count() == 1


def test_the_facade_stays_thin() -> None:
    public = [name for name, _ in inspect.getmembers(App, inspect.isfunction) if not name.startswith("_")]
    own = [name for name in public if name in vars(App)]

    assert len(own) <= 30


# -- hooks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["generator", "async generator", "manager", "async manager"])
def test_the_lifespan_is_entered_once_and_what_it_yields_is_the_state(kind: str) -> None:
    seen: list[str] = []

    def plain() -> Iterator[str]:
        seen.append("enter")
        yield "state"
        seen.append("leave")

    async def awaited() -> AsyncIterator[str]:
        seen.append("enter")
        yield "state"
        seen.append("leave")

    lifespans: dict[str, Any] = {
        "generator": plain,
        "async generator": awaited,
        "manager": contextmanager(plain),
        "async manager": asynccontextmanager(awaited),
    }
    with App("sqlite:///:memory:", lifespan=lifespans[kind]) as app:

        @app.task
        def note(ctx: JobContext[str]) -> None:
            seen.append(f"{ctx.state} {ctx.app is app}")

        app.enqueue_many([note.job(), note.job()])
        app.worker().run_until_idle()

    assert seen == ["enter", "state True", "state True", "leave"]


def test_arounds_stand_around_every_attempt_in_their_order_and_see_the_error(app: App) -> None:
    seen: list[str] = []

    @app.around
    def outer(ctx: JobContext[Any]) -> Iterator[None]:
        seen.append(f"outer {ctx.task}")
        try:
            yield
        except ValueError as error:
            seen.append(f"outer saw {error}")
            raise

    @app.around
    @contextmanager
    def inner(ctx: JobContext[Any]) -> Iterator[None]:
        job = current_job()
        seen.append(f"inner {job is not None and job.id == ctx.id}")
        yield

    @app.task(name="sync", retry=False)
    def sync(fail: bool) -> None:
        if fail:
            raise ValueError("as told")

    @app.task(name="async")
    async def run() -> None: ...

    for call in (sync.job(False), sync.job(True), run.job()):
        call.enqueue()
        app.worker().run_until_idle()

    assert seen == [
        *("outer sync", "inner True"),
        *("outer sync", "inner True", "outer saw as told"),
        *("outer async", "inner True"),
    ]


@pytest.mark.parametrize("hook", [7, None, "name"])
def test_hooks_that_are_no_functions(app: App, hook: Any) -> None:
    for decorate in (app.around, app.on_enqueue):
        with pytest.raises(ConfigError):
            decorate(hook)


def test_an_async_hook_cannot_stamp(app: App) -> None:
    async def stamp(new: Any) -> None: ...

    with pytest.raises(ConfigError, match="plain function"):
        app.on_enqueue(stamp)


def test_a_direct_call_needs_no_store(app: App) -> None:
    @app.task
    def note(ctx: JobContext[Any], text: str) -> tuple[str, bool]:
        ctx.log.info("not stored")
        return text, ctx.app is app

    assert note("hello") == ("hello", True)


def test_defaults_of_a_queue_hold_where_nothing_nearer_speaks(app: App) -> None:
    app.queue("mail", defaults={"priority": 5, "retry": 2, "tags": ["letter"], "delay": 60})

    @app.task(name="one", queue="mail")
    def one() -> None: ...

    @app.task(name="two", queue="mail", priority=7)
    def two() -> None: ...

    jobs = [one.enqueue(), two.enqueue(), two.using(priority=9, tags=[]).enqueue()]

    assert [(job.priority, job.tags, job.state.value) for job in jobs] == [
        (5, ("letter",), "scheduled"),
        (7, ("letter",), "scheduled"),
        (9, (), "scheduled"),
    ]
    assert [job.max_attempts for job in jobs] == [2, 2, 2]
    assert one.using(queue="other").enqueue().max_attempts == 5
    for bad in ({"priority": 101}, {"color": "red"}, "x"):
        with pytest.raises(ConfigError):
            app.queue("mail", defaults=bad)  # type: ignore[arg-type]


# -- streams ---------------------------------------------------------------------------------------------------------


def test_a_stream_shows_what_happens_in_workers(app: App) -> None:
    @app.task(name="note")
    def note() -> None: ...

    stream = app.events("job.completed")
    worker = app.worker(grace=1)
    thread = Thread(target=worker.run)
    thread.start()
    try:
        job = note.enqueue()
        with stream:
            event = next(iter(stream))
    finally:
        worker.stop()
        thread.join(10)

    assert isinstance(event, JobCompleted)
    assert (event.id, event.task) == (job.id, "note")


async def test_a_stream_can_be_awaited_and_closed(app: App) -> None:
    stream = app.events("job")
    seen: list[Any] = []

    async def read() -> None:
        async for event in stream:
            seen.append(event)  # noqa: PERF401

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    stream.close()
    await asyncio.wait_for(reading, 5)

    assert seen == []


def test_a_stream_of_nothing_there_is(app: App) -> None:
    with pytest.raises(ConfigError, match="no event is named"):
        app.events("job.exploded")
    with app.events() as stream:
        app.store.notify("event", b"no event at all")
        app.store.notify("event", b'{"event": "from.tomorrow", "at": 1}')
        app.store.notify("event", b'{"event": "job.completed"}')
        assert stream.take(0.2) == []


# -- waiting ---------------------------------------------------------------------------------------------------------


def test_the_listener_thread_goes_when_the_app_closes(app: App) -> None:
    import threading

    job = app.enqueue("note", {})
    with pytest.raises(TimeoutError):
        job.join(timeout=0.01)
    app.close()

    assert "dayjob-waiting" not in [thread.name for thread in threading.enumerate()]


def test_who_waits_goes_on_when_the_app_is_closed_meanwhile(app: App) -> None:
    @app.task(name="note")
    def note() -> int:
        return 7

    job = note.enqueue()
    results: list[int] = []
    thread = Thread(target=lambda: results.append(job.result(timeout=10)))
    thread.start()
    app.close()
    app.worker().run_until_idle()
    thread.join(10)

    assert results == [7]


def test_a_child_can_wait_after_a_fork(app: App) -> None:
    job = app.enqueue("note", {})
    with pytest.raises(TimeoutError):
        job.join(timeout=0.01)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            job.join(timeout=0.01)
        except TimeoutError:
            status = 0
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(ended) == 0
