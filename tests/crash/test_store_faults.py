"""What happens to the server and to the line while 2,000 jobs run: none is lost, none settled twice, and they flow again."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos import app as chaos
from tests.contract.engines import Postgres, Postgres15, Postgres18
from tests.crash.storm import Storm
from tests.servers.postgres import Server
from tests.servers.proxy import Proxy
from tests.servers.wire.operations import CLAIM, ENQUEUE, SETTLE
from tests.servers.wire.postgres import PostgresWire

REPLIES = {"enqueue": ENQUEUE, "claim": CLAIM, "settle": SETTLE}
EACH = 10

pytestmark = [pytest.mark.crash, pytest.mark.storm, pytest.mark.processes, pytest.mark.timeout(150)]


both_servers = pytest.mark.parametrize(
    "engine", [Postgres18, Postgres15], indirect=True, ids=lambda engine: engine.name
)


@pytest.fixture
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Postgres]:
    """A database on the server that a test names, else on the newer one."""
    under_test: Postgres = getattr(request, "param", Postgres18)(tmp_path)
    yield under_test
    under_test.close()


@pytest.fixture
def server(engine: Postgres) -> Server:
    return engine.server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port, PostgresWire) as proxy:
        yield proxy


@pytest.fixture
def storm(engine: Postgres, tmp_path: Path) -> Iterator[Storm]:
    """Workers and producer on the server itself."""
    with Storm(engine.url, tmp_path) as storm:
        yield storm


@pytest.fixture
def storm_on_a_bad_line(engine: Postgres, proxy: Proxy, tmp_path: Path) -> Iterator[Storm]:
    """Workers and producer behind the proxy."""
    bad = engine.server.url(engine.database, port=proxy.port)
    with Storm(bad, tmp_path, judged_at=engine.url) as storm:
        yield storm


@both_servers
def test_a_crash_of_the_server(storm: Storm, server: Server) -> None:
    crashes: list[float] = []

    def fault() -> None:
        server.stop("immediate")
        crashes.append(time.monotonic())
        server.start()

    storm.suffer(fault)
    storm.end()

    assert storm.broken(crashes=crashes) == []


def test_a_server_that_is_away_for_longer_than_a_lease(storm: Storm, server: Server) -> None:
    def fault() -> None:
        server.stop("fast")
        time.sleep(1.5 * chaos.LEASE)  # the outage itself
        server.start()

    storm.suffer(fault)
    storm.end()

    assert storm.broken() == []


@both_servers
def test_every_connection_is_terminated_again_and_again(storm: Storm, engine: Postgres) -> None:
    terminated: list[int] = []

    def fault() -> None:
        for _ in range(6):
            terminated.append(engine.server.terminate(engine.database))
            time.sleep(random.uniform(0.05, 0.5))  # until some of them are back

    storm.suffer(fault)
    storm.end()

    assert sum(terminated) >= 20
    assert storm.broken() == []


@both_servers
def test_replies_are_lost_of_what_was_committed(storm_on_a_bad_line: Storm, proxy: Proxy) -> None:
    losses = {}

    def fault() -> None:
        losses.update({what: proxy.lose_replies(pattern["postgres"], EACH) for what, pattern in REPLIES.items()})
        for what, loss in losses.items():
            assert loss.done.wait(60), f"{what}: only {len(loss.texts)} replies were lost"

    storm_on_a_bad_line.suffer(fault)
    storm_on_a_bad_line.end()

    assert {what: len(loss.texts) for what, loss in losses.items()} == dict.fromkeys(REPLIES, EACH)
    assert storm_on_a_bad_line.broken() == []


def test_connections_break_in_the_middle(storm_on_a_bad_line: Storm, proxy: Proxy) -> None:
    cuts: list[int] = []

    def fault() -> None:
        for _ in range(8):
            cuts.append(proxy.cut())
            time.sleep(random.uniform(0.05, 0.5))  # until some of them are back

    storm_on_a_bad_line.suffer(fault)
    storm_on_a_bad_line.end()

    assert sum(cuts) >= 20
    assert storm_on_a_bad_line.broken() == []


def test_nothing_arrives_for_five_seconds(storm_on_a_bad_line: Storm, proxy: Proxy) -> None:
    def fault() -> None:
        proxy.blackhole(5.0)
        time.sleep(5.0)  # the fault itself

    storm_on_a_bad_line.suffer(fault)
    storm_on_a_bad_line.end()

    assert storm_on_a_bad_line.broken() == []


def test_nobody_is_let_in_and_then_everything_is_late(storm_on_a_bad_line: Storm, proxy: Proxy) -> None:
    def fault() -> None:
        proxy.refusing = True
        proxy.cut()
        time.sleep(1.0)  # the fault itself
        proxy.refusing = False
        proxy.delay(0.03)
        time.sleep(3.0)
        proxy.delay(0.0)

    storm_on_a_bad_line.suffer(fault)
    storm_on_a_bad_line.end()

    assert storm_on_a_bad_line.broken() == []


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A file system of this size, writable for all."""
    folder = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp") / f"dayjob-small-{os.getpid()}"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", folder]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        folder.rmdir()
        pytest.skip("only root can make a small file system, and not in every container")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


def fill(disk: Path) -> Path:
    """Fill the rest of *disk* with one file."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return ballast


def test_the_disk_is_full_for_a_while(engine: Postgres, tmp_path: Path) -> None:
    server = engine.server
    with small_disk("64m") as disk:
        place = disk / "data"
        place.mkdir()
        owner = server.data.stat()
        os.chown(place, owner.st_uid, owner.st_gid)
        server.sql(f"CREATE TABLESPACE small LOCATION '{place}'")
        server.sql(f"ALTER DATABASE {engine.database} SET TABLESPACE small")
        try:
            with Storm(engine.url, tmp_path) as storm:

                def fault() -> None:
                    ballast = fill(disk)
                    time.sleep(3.0)  # the fault itself
                    ballast.unlink()

                before = server.log.stat().st_size
                storm.suffer(fault)
                storm.end()

                said = server.log.read_bytes()[before:].decode()
                assert "No space left on device" in said
                assert storm.broken() == []
        finally:
            engine.close()
            server.sql("DROP TABLESPACE small")
