"""The command line on servers: jobs all the way, wake-ups, the demo."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Going, Project
from tests.servers.needed import needed
from tests.servers.postgres import postgres
from tests.servers.redis import redis


@pytest.fixture(params=["postgres-18", "valkey-9"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database."""
    if request.param == "valkey-9":
        valkey = needed(lambda: redis("valkey-9"))
        yield valkey.url(valkey.database())
        return
    server = needed(postgres)
    with server.database() as name:
        yield server.url(name)


def on(project: Project, url: str) -> Project:
    """The project, with its app's store at *url*."""
    code = project.folder / "shop.py"
    code.write_text(code.read_text().replace("App(", f"App({url!r}, ", 1))
    return project


@pytest.fixture
def shop(project: Project, url: str) -> Project:
    """A project whose app is at the server, migrated."""
    on(project, url)("migrate")
    return project


def ended(going: Going) -> int:
    going.signal(signal.SIGTERM)
    return going.wait()


def until_completed(shop: Project, id: str) -> None:
    deadline = time.monotonic() + 8
    while shop.state(id) != "completed":
        assert time.monotonic() < deadline, f"job {id} is {shop.state(id)}"


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


@pytest.mark.processes
def test_a_sleeping_worker_is_woken_and_leaves_in_order(shop: Project) -> None:
    worker = shop.start("worker", DAYJOB_POLL="3600")
    worker.said("leader.elected")
    until_completed(shop, shop.enqueue("greet", name="Ann"))

    assert ended(worker) == 0
    assert shop("workers", "--json").json == []


def demonstrate(project: Project, url: str) -> None:
    for n in range(60):
        (project.folder / f"text-{n}.txt").write_text(f"line {n}\n")
    run = project("demo", str(project.folder), "--url", url)

    assert "kill -9 lost nothing" in run.out


@pytest.mark.processes
def test_the_demo_runs_on_valkey_and_leaves_nothing(project: Project) -> None:
    valkey = needed(lambda: redis("valkey-9"))
    database = valkey.database()
    demonstrate(project, valkey.url(database))

    assert valkey.do("DBSIZE", database=database) == 0


@pytest.mark.processes
def test_a_server_without_schema_refuses_with_the_remedy(project: Project, url: str) -> None:
    refused = on(project, url)("enqueue", "pid", status=None)

    assert refused.status == 1, refused
    assert "dayjob migrate" in refused.err.splitlines()[-1]
