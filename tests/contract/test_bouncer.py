"""Behind pgbouncer in transaction mode, where no session lasts: the parts of the suite to which a session could matter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

import dayjob.store
from dayjob.errors import StoreUnavailable
from tests.contract import test_p1_durable, test_p2_one_at_a_time, test_p3_fenced, test_p9_ambiguity, test_races
from tests.contract.engines import PostgresBouncer
from tests.contract.scene import Scene

if "postgresql" not in dayjob.store.ENGINES:
    pytest.skip("this release has no PostgreSQL engine", allow_module_level=True)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[PostgresBouncer]:
    """In place of all engines."""
    under_test = PostgresBouncer(tmp_path)
    yield under_test
    under_test.close()


class TestP1BehindABouncer(test_p1_durable.TestP1Durable):
    pass


class TestP2BehindABouncer(test_p2_one_at_a_time.TestP2OneAtATime):
    pass


class TestP3BehindABouncer(test_p3_fenced.TestP3Fenced):
    pass


class TestP9BehindABouncer(test_p9_ambiguity.TestP9Ambiguity):
    pass


class TestRacesBehindABouncer(test_races.TestRaces):
    pass


def test_its_users_poll(scene: Scene) -> None:
    scene.job()

    assert scene.store.polls is True
    with pytest.raises(StoreUnavailable, match="pooler"):
        scene.store.listen(["work"])


def test_nothing_stays_in_connections_that_belong_to_others_too(scene: Scene, engine: PostgresBouncer) -> None:
    def seen() -> list[tuple[object, ...]]:
        """What strangers find in the sessions that they are given, all at once."""
        with ExitStack() as stack:
            strangers = [stack.enter_context(psycopg.connect(engine.url)) for _ in range(4)]
            return [
                stranger.execute(
                    "SELECT (SELECT array_agg((name, setting)::text ORDER BY name) FROM pg_settings"
                    " WHERE source = 'session' AND name NOT IN ('application_name', 'client_encoding')),"
                    " (SELECT count(*) FROM pg_prepared_statements),"
                    " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())"
                ).fetchall()[0]
                for stranger in strangers
            ]

    before = seen()
    ann = scene.worker()
    for _ in range(20):
        scene.jobs(3)
        for job in ann.claim(3):
            ann.settle(job)
    scene.store.listening("work")

    assert seen() == before
