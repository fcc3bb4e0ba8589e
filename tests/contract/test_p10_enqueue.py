"""P10, first half: jobs enqueued in the application's own transaction exist with its commit, and never without."""

from __future__ import annotations

import time

import pytest

from dayjob.clock import SECOND
from dayjob.errors import ConfigError, StoreError, StoreUnavailable
from dayjob.states import State
from dayjob.store.callers import adapt, perform
from dayjob.store.contract import Store
from dayjob.store.records import Filter
from tests.contract.engines import EngineUnderTest
from tests.contract.scene import Scene
from tests.contract.theirs import Theirs, connect, effects, joinable

pytestmark = joinable


class TestP10Enqueue:
    def test_a_job_and_the_callers_writes_are_committed_together(self, scene: Scene, app: Theirs) -> None:
        row = scene.row()
        app.note("order 7")
        answers = app.enqueue(row)
        app.commit()

        assert [answer.outcome for answer in answers] == ["inserted"]
        assert scene.state(row.id) is State.AVAILABLE
        assert effects(scene.engine) == ["order 7"]

    def test_and_rolled_back_together(self, scene: Scene, app: Theirs) -> None:
        row = scene.row()
        app.note("order 7")
        app.enqueue(row)
        app.rollback()

        assert scene.store.get(row.id) is None
        assert scene.worker().claim() == []
        assert scene.store.count(Filter()) == 0
        assert effects(scene.engine) == []

    def test_nobody_sees_it_before_the_commit(self, scene: Scene, app: Theirs, store: Store) -> None:
        app.enqueue(scene.row())

        assert store.count(Filter()) == 0
        assert store.find(Filter()).jobs == []
        assert store.queues(now=scene.now) == []

        app.commit()

        assert store.count(Filter()) == 1

    def test_what_is_committed_late_is_claimed_though_younger_jobs_were_claimed_before(
        self, scene: Scene, app: Theirs
    ) -> None:
        ann = scene.worker()
        if scene.store.system != "postgresql":
            pytest.skip("nobody else can write meanwhile")
        late = scene.row()
        app.enqueue(late)
        young = [scene.job() for _ in range(3)]
        assert ann.ids() == young
        app.commit()

        assert ann.ids() == [late.id]

    @pytest.mark.parametrize("repeat", [False, True])
    def test_an_id_in_an_open_transaction_neither_fails_nor_much_delays_its_neighbours(
        self, scene: Scene, app: Theirs, repeat: bool
    ) -> None:
        if scene.store.system != "postgresql":
            pytest.skip("nobody else can write meanwhile")
        taken, rows = scene.row(), [scene.row() for _ in range(3)]
        app.enqueue(taken)
        finished = scene.job()
        ann = scene.worker()
        ann.settle(ann.take(finished))
        begun = time.monotonic()
        batch = [rows[0], taken, rows[1], scene.row(id=finished), rows[2], rows[0]]
        answers = scene.store.enqueue(batch, repeat=repeat, now=scene.now)
        took = time.monotonic() - begun
        app.rollback()

        outcomes = [answer.outcome for answer in answers]
        assert outcomes[:3] == ["inserted", "refused", "inserted"]
        assert outcomes[4:] == ["inserted", "existing"]
        assert outcomes[3] == "existing" or not repeat
        assert isinstance(answers[1].error, StoreUnavailable)
        assert took < 3.0
        claimed = set(ann.ids())
        assert {row.id for row in rows} <= claimed
        assert taken.id not in claimed

    def test_many_ids_in_open_transactions_are_waited_for_once(self, scene: Scene, app: Theirs) -> None:
        if scene.store.system != "postgresql":
            pytest.skip("nobody else can write meanwhile")
        taken, rows = [scene.row() for _ in range(20)], [scene.row() for _ in range(20)]
        app.enqueue(*taken)
        begun = time.monotonic()
        answers = scene.store.enqueue([row for pair in zip(taken, rows, strict=True) for row in pair], now=scene.now)
        took = time.monotonic() - begun
        app.rollback()

        assert [answer.outcome for answer in answers] == ["refused", "inserted"] * 20
        assert took < 5.0

    def test_a_thousand_and_more_keep_their_order(self, scene: Scene, app: Theirs) -> None:
        rows = [scene.row() for _ in range(1234)]
        answers = app.enqueue(*rows)
        app.commit()
        ann = scene.worker()

        assert {answer.outcome for answer in answers} == {"inserted"}
        assert [*ann.ids(1000), *ann.ids(1000)] == [row.id for row in rows]

    def test_it_stores_what_an_ordinary_enqueue_stores(self, scene: Scene, app: Theirs) -> None:
        fields = {
            "queue": "mail", "priority": 7, "delay": 60.0, "expires": 3600.0, "max_attempts": 3, "tags": '["vip"]',
            "meta": '{"by":"web"}', "options": b"\x00\xff", "payload": b'{"n":"\xc3\xa9\x00"}', "task": "shop.send",
        }  # fmt: skip
        joined = scene.row(**fields)
        ordinary = scene.job(**fields)
        app.enqueue(joined)
        app.commit()
        one, other = scene.get(joined.id), scene.get(ordinary)

        other.id, other.entry, other.place = one.id, one.entry, one.place
        assert one == other
        assert one.state is State.SCHEDULED
        assert one.run_at == scene.now + 60 * SECOND

    def test_a_time_that_is_past_is_now(self, scene: Scene, app: Theirs) -> None:
        row = scene.row(run_at=scene.now - SECOND)
        app.enqueue(row)
        app.commit()

        assert scene.worker().ids() == [row.id]

    def test_an_id_that_waits_already_answers_so_and_breaks_nothing(self, scene: Scene, app: Theirs) -> None:
        known = scene.job(payload=b'{"n":0}')
        new = scene.row()
        app.note("before")
        answers = app.enqueue(scene.row(id=known), new, scene.row(id=new.id))
        app.note("after")
        app.commit()

        assert [answer.outcome for answer in answers] == ["existing", "inserted", "existing"]
        assert scene.get(known).payload == b'{"n":0}'
        assert scene.state(new.id) is State.AVAILABLE
        assert effects(scene.engine) == ["after", "before"]

    @pytest.mark.parametrize("keep", [None, 0.0])
    def test_an_id_that_has_finished_or_gone_exists(self, scene: Scene, app: Theirs, keep: float | None) -> None:
        id, ann = scene.job(), scene.worker()
        ann.settle(ann.take(id), keep=keep)
        answers = app.enqueue(scene.row(id=id), repeat=True)
        app.commit()

        assert [answer.outcome for answer in answers] == ["existing"]
        assert ann.claim() == []

    def test_two_calls_in_one_transaction_are_two_jobs(self, scene: Scene, app: Theirs) -> None:
        first, second = scene.row(), scene.row()
        app.enqueue(first)
        app.enqueue(second)
        app.commit()

        assert scene.worker().ids() == [first.id, second.id]

    def test_a_connection_that_leads_elsewhere_is_refused_by_name(
        self, scene: Scene, app: Theirs, engine: EngineUnderTest, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        other = type(engine)(tmp_path_factory.mktemp("elsewhere"))
        elsewhere = connect(other)

        with pytest.raises(ConfigError, match=r"app\.outbox"):
            perform(scene.store, adapt(elsewhere), scene.store.enqueue_script([scene.row()]))

        elsewhere.close()
        other.close()

    def test_jobs_of_another_place_are_not_swallowed_by_it(
        self, scene: Scene, engine: EngineUnderTest, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        other = type(engine)(tmp_path_factory.mktemp("elsewhere"))
        theirs = other.store()
        elsewhere = connect(other)

        with pytest.raises(ConfigError, match=r"app\.outbox") as told:
            perform(scene.store, adapt(elsewhere), scene.store.enqueue_script([scene.row()]))
        elsewhere.commit()

        assert theirs.count(Filter()) == 0
        assert scene.store.url.rpartition("/")[2] in str(told.value)
        assert other.url.rpartition("/")[2] in str(told.value)
        elsewhere.close()
        other.close()

    def test_what_breaks_the_transaction_is_told_in_dayjobs_words(self, scene: Scene, app: Theirs) -> None:
        if scene.store.system == "postgresql":
            with pytest.raises(Exception, match="nothing_there"):
                app.connection.execute("SELECT * FROM nothing_there")

            with pytest.raises(StoreError, match="roll back and repeat"):
                app.enqueue(scene.row())
        else:
            rival = connect(scene.engine)
            rival.execute("INSERT INTO effect VALUES ('holds the lock')")

            with pytest.raises(StoreUnavailable, match="roll back and repeat"):
                app.enqueue(scene.row())
            rival.close()

        app.rollback()
        row = scene.row()
        app.enqueue(row)
        app.commit()
        assert scene.state(row.id) is State.AVAILABLE
