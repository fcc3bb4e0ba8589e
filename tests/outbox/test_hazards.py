"""What may go wrong around an outbox: large rows, rows of other hands, clocks, rights, names that are not one's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from dayjob.outbox import desk as desk_module
from dayjob.outbox import relay as relay_module
from dayjob.outbox import report
from dayjob.outbox.desk import Desk
from dayjob.outbox.source import Source, SourceUnavailable
from tests.contract.engines import Postgres18
from tests.outbox.conftest import TABLE, Scene
from tests.outbox.places import execute


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Scene]:
    """The application on PostgreSQL."""
    engine = Postgres18(tmp_path)
    made = Scene(engine.url, f"sqlite:///{tmp_path / 'jobs.db'}")
    yield made
    made.close()
    engine.close()


def aside(scene: Scene) -> dict[str, str]:
    return {one.id: one.error for one in scene.desk().failed()}


def edit(body: bytes, **row: Any) -> bytes:
    """*body* with words in its row that were not there."""
    document = json.loads(body)
    document["row"].update(row)
    return json.dumps(document).encode()


# -- rows ----------------------------------------------------------------------------------------------------------


def test_a_batch_of_large_rows_is_smaller(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "BATCH_BYTES", 2000)
    scene.put(1, meta={"note": "x" * 3000})
    scene.put(*range(2, 40))
    desk = scene.desk()

    first = desk.take(100) or []
    second = desk.settle([row.seq for row in first], {}, 100) or []

    assert len(first) == 1
    assert 1 < len(second) < 20
    assert sum(len(row.body) for row in second) <= 2000
    scene.relay("tester").tick()
    assert scene.orders() == list(range(1 + 1, 40))


def test_a_row_whose_body_names_another_job_is_set_aside(scene: Scene) -> None:
    bad, good = scene.put(1, 2)
    scene.rewrite(bad, lambda body: edit(body, id=str(uuid4())))

    scene.relay().tick()

    assert [good] == scene.stored()
    assert "the id in its body" in aside(scene)[bad]


def test_a_word_that_a_newer_release_added_is_not_dropped_in_silence(scene: Scene) -> None:
    newer, good = scene.put(1, 2)
    scene.rewrite(newer, lambda body: edit(body, lane="tenant:7"))

    scene.relay().tick()

    assert [good] == scene.stored()
    assert "newer release" in aside(scene)[newer]


def test_what_has_its_default_is_not_written(scene: Scene) -> None:
    (id,) = scene.put(1)
    bodies: list[bytes] = []
    scene.rewrite(id, lambda body: bodies.append(body) or body)  # type: ignore[func-returns-value]

    assert {"id", "task", "queue", "payload"} == set(json.loads(bodies[0])["row"])


@pytest.mark.parametrize("body", ["text", 7, 10**12])
def test_a_body_of_another_type_is_one_rows_matter(scene: Scene, body: Any) -> None:
    if not scene.url.startswith("sqlite:"):
        pytest.skip("servers keep to a column's type")
    bad, good = scene.put(1, 2)
    scene.rewrite(bad, lambda _: body)

    scene.relay().tick()

    assert [good] == scene.stored()
    assert [bad] == list(aside(scene))


def test_thousands_of_rows_that_were_set_aside_are_retried_and_discarded(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "CHUNK", 4)
    ids = scene.put(*range(10))
    scene.sql("UPDATE dayjob_outbox SET set_aside = 1")
    desk = scene.desk()

    assert (desk.retry(None), desk.standing().waiting) == (10, 10)
    scene.sql("UPDATE dayjob_outbox SET set_aside = 1")
    assert (desk.retry([*ids[:7], "unknown"]), desk.standing().failed) == (7, 3)
    assert (desk.discard(ids), desk.standing().waiting) == (3, 7)
    scene.sql("UPDATE dayjob_outbox SET set_aside = 1")
    assert (desk.discard(None), desk.standing().failed) == (7, 0)


def test_an_id_that_comes_twice_in_one_call_waits_once(scene: Scene) -> None:
    id, other = uuid4(), uuid4()
    with closing(scene.connect()) as connection, scene.app.outbox(connection):
        jobs = scene.app.enqueue_many([scene.send.using(id=one).job(order=1) for one in (id, other, id)])
        connection.commit()

    assert [job.outcome for job in jobs] == ["inserted", "inserted", "existing"]


def test_what_a_savepoint_takes_back_is_not_delivered(scene: Scene) -> None:
    with closing(scene.connect()) as connection, scene.app.outbox(connection):
        execute(connection, "INSERT INTO effect VALUES ('paid')")
        scene.send.enqueue(order=1)
        execute(connection, "SAVEPOINT here")
        scene.send.enqueue(order=2)
        execute(connection, "ROLLBACK TO SAVEPOINT here")
        scene.send.enqueue(order=3)
        connection.commit()

    scene.relay().tick()

    assert scene.orders() == [1, 3]


# -- clocks and leases ---------------------------------------------------------------------------------------------


def test_a_clock_that_was_set_back_keeps_the_outbox_from_nobody(scene: Scene) -> None:
    scene.put(1)
    dead = scene.relay("dead")
    dead.tick()
    day = 86_400_000_000
    scene.sql(f"UPDATE dayjob_outbox_relay SET held_at = held_at + {day}, held_until = held_until + {day}")
    scene.put(2)

    scene.relay("next").tick()

    assert len(scene.stored()) == 2


def test_a_relay_that_stood_still_does_not_forget_when_rows_were_first_sent(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.put(1)
    relay = scene.relay("tester")
    scene.desk("tester").take(10)
    scene.sql("UPDATE dayjob_outbox_relay SET sent_at = sent_at - 600000000")
    before = scene.sql("SELECT flight, sent_at FROM dayjob_outbox_relay")
    with monkeypatch.context() as patch:
        patch.setattr(relay_module, "STILL", -1.0)
        relay._lease = -1.0
        relay.tick()

    assert before == scene.sql("SELECT flight, sent_at FROM dayjob_outbox_relay")
    relay.tick()
    assert len(scene.stored()) == 1


def test_a_look_that_was_dear_is_followed_by_a_longer_pause(scene: Scene) -> None:
    relay = scene.relay(poll=0.05)

    assert (relay._rest(0.001), relay._rest(0.5)) == (0.05, 2.0)


# -- what is told --------------------------------------------------------------------------------------------------


def test_two_outboxes_of_one_name_are_told_apart(scene: Scene, tmp_path: Path) -> None:
    scene.put(1)
    relay = scene.relay()
    relay.tick()
    path = tmp_path / "same.db"
    path.touch()
    elsewhere = Desk(Source(f"sqlite:///{path}"), TABLE, "elsewhere")
    elsewhere.make()
    elsewhere._named = lambda _: relay.desk.name  # type: ignore[method-assign]  # as it would be on another host
    other = relay_module.OutboxRelay(elsewhere, scene.app.store, scene.app.bus)
    other.tick()

    told = report.read(scene.app.store)
    assert [(relay.desk.name, 1), (relay.desk.name, 0)] == sorted(
        ((one.name, one.delivered) for one in told), key=lambda one: -one[1]
    )
    other.close()


def test_an_outbox_keeps_its_place_in_the_numbers_whoever_relays_it(scene: Scene) -> None:
    for holder in ("first", "second"):
        relay = scene.relay(holder)
        relay.tick()
        relay.close()

    (told,) = report.read(scene.app.store)
    assert told.relay == "second"


def test_trouble_before_the_outbox_was_ever_seen_is_told_until_it_is_mended(scene: Scene) -> None:
    version = scene.sql("SELECT version FROM dayjob_outbox_relay")
    scene.sql("ALTER TABLE dayjob_outbox RENAME TO hidden")
    relay = scene.relay()
    assert relay.attempt() is not None
    (told,) = report.read(scene.app.store)
    assert "no table dayjob_outbox" in str(told.error)

    scene.sql("ALTER TABLE hidden RENAME TO dayjob_outbox")
    relay._reported = float("-inf")
    relay.tick()

    (told,) = report.read(scene.app.store)
    assert (told.error, version) == (None, [(1,)])


def test_the_age_of_what_was_told_is_by_the_stores_clock(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    relay = scene.relay()
    relay.tick()
    monkeypatch.setattr("time.time_ns", lambda: 0)
    monkeypatch.setattr("time.time", lambda: 0.0)

    (told,) = report.read(scene.app.store)
    assert 0 <= told.heard < 30


# -- servers -------------------------------------------------------------------------------------------------------


def test_an_outbox_in_another_schema_has_a_name_of_its_own(served: Scene) -> None:
    served.sql("CREATE SCHEMA tenant")
    url = f"{served.url}?options=-csearch_path%3Dtenant"
    desk = Desk(Source(url), TABLE, "tenant's")
    desk.make()
    with closing(served.connect()) as connection, served.app.outbox(connection):
        connection.execute("SET search_path = tenant")
        served.send.enqueue(order=7)
        connection.commit()
    relay = relay_module.OutboxRelay(desk, served.app.store, served.app.bus)
    relay.tick()

    assert served.orders() == [7]
    assert relay.desk.name == f"{served.desk().source.name} (tenant)"
    relay.close()


def test_a_role_that_may_make_no_tables_finds_them_made(served: Scene) -> None:
    role = f"outbox_reader_{served.url.rpartition('/')[2]}"
    served.sql(f"CREATE ROLE {role} LOGIN")
    served.sql(f"GRANT SELECT ON dayjob_outbox, dayjob_outbox_relay TO {role}")
    desk = Desk(Source(served.url.replace("postgres@", f"{role}@")), TABLE)

    desk.make()
    with pytest.raises(SourceUnavailable, match="permission denied"):
        desk.hold()

    desk.source.close()
    served.sql(f"DROP OWNED BY {role}")
    served.sql(f"DROP ROLE {role}")


def test_a_relay_without_a_right_says_so_and_goes_on_when_it_has_it(served: Scene) -> None:
    role = f"outbox_relay_{served.url.rpartition('/')[2]}"
    served.sql(f"CREATE ROLE {role} LOGIN")
    served.sql(f"GRANT SELECT, UPDATE ON dayjob_outbox, dayjob_outbox_relay TO {role}")
    (id,) = served.put(1)
    desk = Desk(Source(served.url.replace("postgres@", f"{role}@")), TABLE, "poor")
    relay = relay_module.OutboxRelay(desk, served.app.store, served.app.bus)
    assert relay.attempt() is not None
    (told,) = report.read(served.app.store)
    assert "permission denied" in str(told.error)

    served.sql(f"GRANT DELETE ON dayjob_outbox TO {role}")
    relay.tick()

    assert ([id], [(0,)]) == (served.stored(), served.sql("SELECT count(*) FROM dayjob_outbox"))
    relay.close()
    served.sql(f"DROP OWNED BY {role}")
    served.sql(f"DROP ROLE {role}")


def test_a_backlog_is_read_by_its_index_whatever_the_statistics_say(served: Scene) -> None:
    served.sql(
        "INSERT INTO dayjob_outbox (job_id, task, queue, body, created_at) "
        "SELECT gen_random_uuid(), 'shop.send', 'default', '{}', 0 FROM generate_series(1, 30000)"
    )
    desk, plans = served.desk(), ""
    with desk.source.transaction() as run:

        def explained(sql: str, *values: Any) -> Any:
            nonlocal plans
            plans += "".join(f"{line}\n" for (line,) in run(f"EXPLAIN {sql}", *values))
            return run(sql, *values)

        assert len(desk._read(explained, 500)) == 500

    assert [word for word in ("Sort", "Seq Scan") if word in plans] == [], plans
