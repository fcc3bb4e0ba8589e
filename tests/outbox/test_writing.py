"""Jobs go into the outbox in the application's transaction, through every kind of connection."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from dayjob import App
from dayjob.errors import ConfigError
from dayjob.outbox.tables import DIALECTS, insertion, schema_sql
from tests.contract.engines import Postgres18
from tests.outbox.conftest import Scene
from tests.transactions.kinds import Side


def test_a_job_is_in_the_outbox_when_the_transaction_commits(staged: Scene, kind: type[Side]) -> None:
    async def story(side: Side) -> str:
        await side.note("paid")
        bound = staged.send.using(outbox=side.connection)
        job = await bound.aenqueue(order=7) if side.awaited else bound.enqueue(order=7)
        await side.commit()
        return str(job.id)

    id = kind.play(staged.url, story)

    assert [(id, "shop.send", "default")] == staged.sql("SELECT job_id, task, queue FROM dayjob_outbox")
    assert staged.sql("SELECT note FROM effect") == [("paid",)]


def test_nothing_is_there_when_it_rolls_back(staged: Scene, kind: type[Side]) -> None:
    async def story(side: Side) -> None:
        await side.note("paid")
        async with staged.app.outbox(side.connection):
            await side.plainly(staged.send, 7)
        await side.rollback()

    kind.play(staged.url, story)

    assert staged.sql("SELECT * FROM dayjob_outbox") == []


def test_a_block_takes_all_enqueues_and_the_nearer_word_wins(scene: Scene) -> None:
    connection = scene.connect()
    with scene.app.outbox(connection):
        scene.send.enqueue(order=1)
        scene.app.enqueue("shop.send", {"order": 2})
        scene.app.enqueue_many([scene.send.job(order=3), scene.send.job(order=4)])
    scene.send.enqueue(order=5)
    connection.commit()
    connection.close()

    assert scene.sql("SELECT count(*) FROM dayjob_outbox") == [(4,)]
    assert scene.app.jobs.count() == 1


def test_the_store_of_the_queue_is_not_needed(scene: Scene, tmp_path: Path) -> None:
    app = App(f"sqlite:///{tmp_path / 'absent' / 'nowhere.db'}")

    @app.task(name="shop.far")
    def far(order: int) -> None: ...

    connection = scene.connect()
    far.using(outbox=connection).enqueue(order=1)
    connection.commit()
    connection.close()

    assert scene.sql("SELECT task FROM dayjob_outbox") == [("shop.far",)]


def test_an_id_of_the_callers_own_waits_once(scene: Scene) -> None:
    id, connection = uuid4(), scene.connect()
    first = scene.send.using(outbox=connection, id=id).enqueue(order=1)
    again = scene.send.using(outbox=connection, id=id).enqueue(order=1)
    connection.commit()
    connection.close()

    assert (first.outcome, again.outcome) == ("inserted", "existing")
    assert scene.sql("SELECT count(*) FROM dayjob_outbox") == [(1,)]


def test_many_jobs_keep_their_order(scene: Scene) -> None:
    ids = scene.put(*range(700))

    assert ids == [row[0] for row in scene.sql("SELECT job_id FROM dayjob_outbox ORDER BY seq")]


def test_a_database_without_the_table_is_named_with_the_remedy(scene: Scene) -> None:
    scene.sql("DROP TABLE dayjob_outbox")
    connection = scene.connect()
    with pytest.raises(ConfigError, match=r"no table dayjob_outbox.*dayjob relay --from URL --migrate"):
        scene.send.using(outbox=connection).enqueue(order=1)
    connection.close()


def test_a_producer_on_a_server_needs_no_more_than_to_insert_and_read(tmp_path: Path) -> None:
    engine = Postgres18(tmp_path)
    scene = Scene(engine.url, f"sqlite:///{tmp_path / 'jobs.db'}")
    role = f"outbox_producer_{engine.database}"
    scene.sql(f"CREATE ROLE {role}; GRANT INSERT, SELECT ON dayjob_outbox TO {role}")
    with closing(scene.connect()) as connection:
        connection.execute(f"SET ROLE {role}")
        scene.send.using(outbox=connection, id=uuid4()).enqueue(order=1)
        connection.commit()

    assert scene.sql("SELECT count(*) FROM dayjob_outbox") == [(1,)]
    scene.sql(f"DROP OWNED BY {role}; DROP ROLE {role}")
    scene.close()
    engine.close()


def test_two_places_for_one_job_are_refused(scene: Scene) -> None:
    with pytest.raises(ConfigError, match="conn= and outbox="):
        scene.send.using(conn=object(), outbox=object())


def test_what_is_no_connection_is_refused(scene: Scene) -> None:
    with pytest.raises(ConfigError, match=r"not builtins\.object"):
        scene.send.using(outbox=object()).enqueue(order=1)
    one, other = scene.connect(), scene.connect()
    calls = [scene.send.using(outbox=where).job(order=1) for where in (one, other)]
    with pytest.raises(ConfigError, match=r"different conn= or outbox="):
        scene.app.enqueue_many(calls)
    one.close()
    other.close()


def test_under_test_jobs_go_to_the_private_store(scene: Scene) -> None:
    connection = scene.connect()
    with scene.app.testing() as t, scene.app.outbox(connection):
        scene.send.enqueue(order=1)

        t.assert_enqueued(task="shop.send")
    connection.close()

    assert scene.sql("SELECT * FROM dayjob_outbox") == []


@pytest.mark.parametrize("system", sorted(DIALECTS))
def test_every_system_has_its_words(system: str) -> None:
    assert "CREATE TABLE IF NOT EXISTS dayjob_outbox (" in schema_sql(system, "dayjob_outbox")
    assert insertion(system, "dayjob_outbox", 2, chosen=True).count("$") == 8
