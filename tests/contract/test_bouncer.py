"""Behind pgbouncer in transaction mode, where no session lasts: the parts of the suite to which a session could matter."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

import dayjob.store
from dayjob.clock import SECOND
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


def _end_sessions(engine: PostgresBouncer) -> None:
    """All sessions with the server, so that the next ones have what is set by now; gone when this returns, and pgbouncer knows."""
    while engine.server.terminate(engine.database):
        time.sleep(0.01)


def test_its_users_poll(scene: Scene) -> None:
    scene.job()

    assert scene.store.polls is True
    with pytest.raises(StoreUnavailable, match="pooler"):
        scene.store.listen(["work"])


def test_whatever_search_path_is_the_default_its_own_operators_are_meant(scene: Scene, engine: PostgresBouncer) -> None:
    evil = "CREATE FUNCTION evil.{0}({1}, {1}) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil'; END $$; CREATE OPERATOR evil.= (LEFTARG = {1}, RIGHTARG = {1}, FUNCTION = evil.{0})"
    engine.server.sql(
        "CREATE SCHEMA evil; " + "; ".join(evil.format(f"same_{kind}", kind) for kind in ("text", "bigint", "uuid")),
        database=engine.database,
    )
    engine.server.sql(f"ALTER DATABASE {engine.database} SET search_path = evil, pg_catalog")
    _end_sessions(engine)
    store = engine.open()
    ann = scene.worker(store=store)
    id = scene.job()
    ann.settle(ann.take(id), keep=60.0)
    kept = store.get(id)
    store.prune(scene.term, [], now=scene.now + 40 * 86_400 * SECOND)

    assert kept is not None
    assert store.get(id) is None


def test_whatever_isolation_is_the_default_beats_and_claims_see_what_is_there_when_their_turn_comes(
    scene: Scene, engine: PostgresBouncer
) -> None:
    engine.server.sql(f"ALTER DATABASE {engine.database} SET default_transaction_isolation = 'repeatable read'")
    _end_sessions(engine)
    store = engine.open()
    ann = scene.worker(store=store)
    [first, second] = scene.jobs(2)

    def behind(change: str, call: Callable[[], object]) -> None:
        """*call*, which waits for a transaction that does *change*."""
        with psycopg.connect(engine.server.url(engine.database)) as other:
            other.execute(change.encode())
            waiting = pool.submit(call)
            while not engine.server.sql(
                "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'", engine.database
            ):
                time.sleep(0.01)
            other.commit()
            waiting.result(10.0)

    with ThreadPoolExecutor(1) as pool:
        behind("UPDATE dayjob.cluster SET control = control + 1", ann.beat)
        behind(
            f"SELECT dayjob.take_turn(); DELETE FROM dayjob.ready WHERE id = '{first}'",
            lambda: ann.claim(1),
        )

    assert [job.id for batch in ann.batches.values() for job in batch] == [second]


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
