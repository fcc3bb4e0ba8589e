"""The command line on a PostgreSQL server, from the first migration on, and behind pgbouncer."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Going, Project
from tests.servers.bouncer import bouncer
from tests.servers.needed import needed
from tests.servers.postgres import Server, postgres


@pytest.fixture
def server() -> Server:
    return needed(postgres)


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    with server.database() as name:
        yield name


def on(project: Project, url: str) -> Project:
    """The project, with its app's store at *url*."""
    code = project.folder / "shop.py"
    code.write_text(code.read_text().replace("App(", f"App({url!r}, ", 1))
    return project


@pytest.fixture
def bare(project: Project, server: Server, database: str) -> Project:
    """A project whose app is to be at the server, and nothing migrated."""
    return on(project, server.url(database))


@pytest.fixture
def shop(bare: Project) -> Project:
    """The same, migrated."""
    bare("migrate")
    return bare


def schemas(server: Server, database: str) -> list[str]:
    """The schemas that dayjob has made."""
    found = server.sql("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'dayjob%%'", database=database)
    return [name for (name,) in found]


@pytest.mark.processes
@pytest.mark.parametrize("command", [["enqueue", "pid"], ["worker", "--burst"], ["jobs", "list"], ["queues", "list"]])
def test_a_server_is_migrated_by_one_who_says_so_and_by_nobody_else(
    bare: Project, server: Server, database: str, command: list[str]
) -> None:
    refused = bare(*command, status=None)

    assert refused.status == 1, refused
    assert "dayjob migrate" in refused.err.splitlines()[-1]
    assert schemas(server, database) == []


@pytest.mark.processes
def test_jobs_go_all_the_way(shop: Project) -> None:
    good = shop.enqueue("greet", name="Ann")
    bad = shop.enqueue("fail", why="on purpose")
    shop("worker", "--burst")
    done, dead = (shop("jobs", "show", id, "--json").json for id in (good, bad))
    again = shop("dead", "retry", bad).out

    assert done["state"] == "completed"
    assert (dead["state"], dead["error"]["message"]) == ("dead", "on purpose")
    assert [line["message"] for line in dead["logs"]] == ["db is open"]
    assert again == "retried 1 job\n"
    assert shop.state(bad) == "available"


def ended(going: Going) -> int:
    going.signal(signal.SIGTERM)
    return going.wait()


def until_completed(shop: Project, id: str) -> None:
    deadline = time.monotonic() + 8
    while shop.state(id) != "completed":
        assert time.monotonic() < deadline, f"job {id} is {shop.state(id)}"


@pytest.mark.processes
def test_a_sleeping_worker_is_woken_and_leaves_in_order(shop: Project) -> None:
    worker = shop.start("worker", DAYJOB_POLL="3600")
    worker.said("leader.elected")
    until_completed(shop, shop.enqueue("greet", name="Ann"))

    assert ended(worker) == 0
    assert shop("workers", "--json").json == []


@pytest.mark.processes
def test_behind_pgbouncer_a_worker_looks_for_itself_and_doctor_says_so(project: Project) -> None:
    before = needed(bouncer)
    with before.server.database() as database:
        shop = on(project, before.url(database))
        shop("migrate")
        worker = shop.start("worker")
        worker.said("leader.elected")
        until_completed(shop, shop.enqueue("greet", name="Ann"))
        doctor = shop("doctor", status=None)

        assert ended(worker) == 0
        assert "pooler" in doctor.out, doctor


@pytest.mark.processes
def test_the_demo_runs_there_and_leaves_nothing(project: Project, server: Server, database: str) -> None:
    for n in range(60):
        (project.folder / f"text-{n}.txt").write_text(f"line {n}\n")
    run = project("demo", str(project.folder), "--url", server.url(database))

    assert "kill -9 lost nothing" in run.out
    assert schemas(server, database) == []
