"""What happens to a Redis or Valkey server while 2,000 jobs run: none is lost, none settled twice, and they flow again."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.chaos import app as chaos
from tests.crash.power import Disk
from tests.crash.storm import Storm
from tests.servers.needed import needed
from tests.servers.proxy import Proxy
from tests.servers.redis import Sentinel, Server, program
from tests.servers.wire.operations import CLAIM, ENQUEUE, SETTLE
from tests.servers.wire.redis import RedisWire

REPLIES = {"enqueue": ENQUEUE, "claim": CLAIM, "settle": SETTLE}
EACH = 10

pytestmark = [pytest.mark.crash, pytest.mark.storm, pytest.mark.processes, pytest.mark.timeout(150)]


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the test's own, as durable as can be unless it says otherwise."""
    kind, fsync = getattr(request, "param", ("valkey-9", "always"))
    server = Server(needed(lambda: program(kind)), appendfsync=fsync)
    yield server
    server.close()


@pytest.mark.parametrize(
    "server",
    [("valkey-9", "always"), ("redis-7.0", "always"), ("redis-6.2", "always")],
    indirect=True,
    ids=" ".join,
)
def test_a_crash_of_the_server(server: Server, tmp_path: Path) -> None:
    crashes: list[float] = []

    def fault() -> None:
        server.kill()
        crashes.append(time.monotonic())
        server.start()

    with Storm(server.url(), tmp_path) as storm:
        storm.suffer(fault)
        storm.end()

        assert storm.broken(crashes=crashes) == []


@pytest.mark.parametrize("server", [("valkey-9", "everysec")], indirect=True, ids=" ".join)
def test_a_power_cut_under_everysec_costs_two_seconds_at_most(server: Server, tmp_path: Path) -> None:
    crashes: list[float] = []

    with Disk(server) as disk, Storm(server.url(), tmp_path) as storm:
        storm.suffer(lambda: crashes.append(disk.cut(unflushed=0.7)))
        storm.end()
        lost = storm.lost()

        print(f"{len(lost)} of {len(storm.acknowledged)} acknowledged jobs lost")
        assert lost, "nothing was cut off"
        assert [crashes[0] - at for at in lost.values() if not 0 < crashes[0] - at < 2.0] == []
        assert storm.broken(crashes=crashes, forgetful=2.0) == []


def test_a_replica_is_promoted_and_nothing_that_it_acknowledged_is_lost(tmp_path: Path) -> None:
    kind = needed(lambda: program("valkey-9"))
    with ExitStack() as stack:
        primary = stack.enter_context(closing(Server(kind)))
        for _ in range(2):
            stack.enter_context(closing(Server(kind, of=primary)))
        sentinel = stack.enter_context(closing(Sentinel(primary, replicas=2)))
        waiting = f"{sentinel.url()}?wait_replicas=1&wait_ms=2000"
        storm = stack.enter_context(Storm(waiting, tmp_path, judged_at=sentinel.url()))
        crashes: list[float] = []

        def fault() -> None:
            primary.kill()
            crashes.append(time.monotonic())
            while sentinel.primary() == primary.port:
                time.sleep(0.05)  # Sentinel's time

        storm.suffer(fault)
        storm.end()

        assert storm.broken(crashes=crashes) == []


def test_a_server_that_is_away_for_longer_than_a_lease(server: Server, tmp_path: Path) -> None:
    crashes: list[float] = []

    def fault() -> None:
        server.kill()
        crashes.append(time.monotonic())
        time.sleep(1.5 * chaos.LEASE)  # the outage itself
        server.start()

    with Storm(server.url(), tmp_path) as storm:
        storm.suffer(fault)
        storm.end()

        assert storm.broken(crashes=crashes) == []


def test_every_connection_is_killed_again_and_again(server: Server, tmp_path: Path) -> None:
    killed: list[int] = []

    def fault() -> None:
        for _ in range(6):
            killed.extend(server.do("CLIENT", "KILL", "TYPE", kind) for kind in ("normal", "pubsub"))
            time.sleep(random.uniform(0.05, 0.5))  # until some of them are back

    with Storm(server.url(), tmp_path) as storm:
        storm.suffer(fault)
        storm.end()

        assert sum(killed) >= 20
        assert storm.broken() == []


def test_replies_are_lost_of_what_was_done(server: Server, tmp_path: Path) -> None:
    losses = {}

    with Proxy(server.port, RedisWire) as proxy:

        def fault() -> None:
            losses.update({what: proxy.lose_replies(pattern["redis"], EACH) for what, pattern in REPLIES.items()})
            for what, loss in losses.items():
                assert loss.done.wait(60), f"{what}: only {len(loss.texts)} replies were lost"

        with Storm(server.url(port=proxy.port), tmp_path, judged_at=server.url()) as storm:
            storm.suffer(fault)
            storm.end()

            assert {what: len(loss.texts) for what, loss in losses.items()} == dict.fromkeys(REPLIES, EACH)
            assert storm.broken() == []


def test_somebody_flushes_the_scripts_and_the_memory_is_full_for_a_while(server: Server, tmp_path: Path) -> None:
    def fault() -> None:
        server.do("SCRIPT", "FLUSH")
        with server.set(maxmemory="1mb"):
            time.sleep(2.0)  # the fault itself

    with Storm(server.url(), tmp_path) as storm:
        storm.suffer(fault)
        storm.end()

        assert storm.broken() == []
