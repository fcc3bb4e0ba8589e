"""The command line on a PostgreSQL server, from the first migration on, and behind pgbouncer: what no other engine has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Project
from tests.e2e.test_servers import demonstrate, ended, on, until_completed
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


@pytest.fixture
def bare(project: Project, server: Server, database: str) -> Project:
    """A project whose app is to be at the server, and nothing migrated."""
    return on(project, server.url(database))


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
def test_the_demo_leaves_no_schema(project: Project, server: Server, database: str) -> None:
    demonstrate(project, server.url(database))

    assert schemas(server, database) == []
