"""P10, on dayjob's own connection: a transaction that is lent to a job, bounded where others have to wait for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dayjob.errors import StoreError, TransactionExpired
from dayjob.states import State
from dayjob.store.records import Claimed
from tests.contract.engines import ENGINES, EngineUnderTest
from tests.contract.scene import Scene
from tests.contract.theirs import complete_on


@pytest.fixture(params=[one for one in ENGINES if one.joins], ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EngineUnderTest]:
    """In place of all engines: those that have transactions to lend."""
    under_test: EngineUnderTest = request.param(tmp_path)
    yield under_test
    under_test.close()


def endless(scene: Scene) -> str:
    if scene.store.system == "sqlite":
        return "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    return "SELECT pg_sleep(15)"


class TestP10Lent:
    """A transaction on a connection of the store's own."""

    def test_it_is_committed_as_a_whole(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        lent = scene.store.begin()
        lent.connection.execute("CREATE TABLE effect (note text)")
        lent.connection.execute("INSERT INTO effect VALUES ('paid')")
        done = complete_on(lent, scene, ann, job)
        lent.commit()
        again = scene.store.begin()
        found = again.connection.execute("SELECT note FROM effect").fetchall()
        again.rollback()

        assert done is True
        assert found == [("paid",)]
        assert scene.state(id) is State.COMPLETED

    def test_and_rolled_back_as_a_whole(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        lent = scene.store.begin()
        lent.connection.execute("CREATE TABLE effect (note text)")
        complete_on(lent, scene, ann, job)
        lent.rollback()
        lent.rollback()

        assert scene.state(id) is State.RUNNING
        assert ann.settled(job) is True
        again = scene.store.begin()
        again.connection.execute("CREATE TABLE effect (note text)")
        again.rollback()

    def test_past_its_limit_it_is_rolled_back_whatever_its_owner_does(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        lent = scene.store.begin(limit=0.1)
        complete_on(lent, scene, ann, job)

        assert ann.settled(job) is True  # waits for the end of it
        assert scene.state(id) is State.COMPLETED
        with pytest.raises(TransactionExpired, match=r"0\.1 s"):
            lent.commit()
        with pytest.raises(TransactionExpired):
            complete_on(lent, scene, ann, job)
        if scene.engine.processes:
            with pytest.raises(Exception, match=r"readonly|closed"):
                lent.connection.execute("CREATE TABLE late (note text)")
        lent.rollback()

    def test_a_statement_that_never_ends_is_broken_off_by_it(self, scene: Scene) -> None:
        lent = scene.store.begin(limit=0.1)

        with pytest.raises(Exception, match=r"interrupt|cancel|closed"):
            lent.connection.execute(endless(scene))
        with pytest.raises(StoreError):
            lent.commit()
        lent.rollback()
        assert scene.store.enqueue([scene.row()], now=scene.now)[0].outcome == "inserted"

    def test_broken_off_it_is_rolled_back_and_so_is_the_statement_that_runs(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        lent = scene.store.begin(limit=15.0)
        complete_on(lent, scene, ann, job)
        timer = threading.Timer(0.1, lent.break_off)
        timer.start()

        with pytest.raises(Exception, match=r"interrupt|cancel|closed"):
            lent.connection.execute(endless(scene))
        timer.join()
        assert ann.settled(job) is True  # nobody holds it any more
        assert scene.state(id) is State.COMPLETED
        for late in (lambda: complete_on(lent, scene, ann, job), lent.commit):
            with pytest.raises(StoreError, match="broken off"):
                late()
        lent.break_off()
        lent.rollback()
        lent.break_off()
        assert lent.expired is False

    def test_jobs_of_a_process_have_it_one_after_the_other_or_side_by_side(self, scene: Scene) -> None:
        ids, ann = scene.jobs(8), scene.worker()
        jobs = ann.claim(8)

        def run(job: Claimed) -> None:
            lent = scene.store.begin()
            complete_on(lent, scene, ann, job)
            lent.commit()

        threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert {scene.state(id) for id in ids} == {State.COMPLETED}
