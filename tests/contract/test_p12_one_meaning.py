"""P12 One meaning: an engine is what the contract says, and refuses clearly what it cannot do. Also its birth and death."""

from __future__ import annotations

import inspect
import threading
import typing
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import cast

import pytest

from dayjob.errors import SchemaMismatch, StoreError, StoreUnavailable
from dayjob.states import Outcome, State
from dayjob.store import contract
from dayjob.store.contract import Store
from dayjob.store.records import Cancel, Filter, Health, Lease, Log, Retry, Settlement, Want, WorkerInfo
from tests.contract import child
from tests.contract.engines import EngineUnderTest
from tests.contract.ids import named
from tests.contract.racing import at_once
from tests.contract.scene import Scene

PROTOCOLS = (
    contract.Jobs,
    contract.Joining,
    contract.Upkeep,
    contract.Cluster,
    contract.Inspector,
    contract.Records,
    contract.Signals,
    contract.Lifecycle,
)
METHODS = [
    pytest.param(protocol, name, id=f"{protocol.__name__}.{name}")
    for protocol in PROTOCOLS
    for name in vars(protocol)
    if not name.startswith("_")
]


class TestP12OneMeaning:
    @pytest.mark.parametrize(("protocol", "name"), METHODS)
    def test_every_method_takes_what_the_contract_says(self, store: Store, protocol: type, name: str) -> None:
        wanted = list(inspect.signature(getattr(protocol, name)).parameters.values())[1:]
        given = list(inspect.signature(getattr(store, name)).parameters.values())

        assert [(p.name, p.kind, p.default) for p in given] == [(p.name, p.kind, p.default) for p in wanted]

    def test_the_contract_is_small(self) -> None:
        assert len(METHODS) <= 40

    def test_a_store_says_where_and_what_it_is(self, engine: EngineUnderTest, store: Store) -> None:
        assert set(typing.get_type_hints(Store)) == {"url", "polls", "processes", "system", "exclusive", "located"}
        assert store.url == engine.url
        assert isinstance(store.polls, bool)
        assert store.processes is engine.processes

    @pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 99, 100, 101, 999, 1000])
    def test_a_batch_of_any_size_is_stored_and_claimed_in_order(self, scene: Scene, count: int) -> None:
        ids, ann = scene.jobs(count), scene.worker()

        jobs = ann.claim(1000)
        assert [job.id for job in jobs] == ids
        turn = ann.turn([ann.settlement(job, _ends(n)) for n, job in enumerate(jobs)])
        assert turn.refused == []
        assert [scene.state(id) for id in ids[:20]] == [_state(n) for n in range(count)][:20]
        assert scene.store.count(Filter(states=(State.COMPLETED, State.DEAD))) == count

    def test_nothing_to_do_is_a_turn_too(self, scene: Scene) -> None:
        turn = scene.worker().turn()

        assert (turn.claimed, turn.refused, turn.settled) == ([], [], [])

    def test_ids_may_be_uuids_of_any_version(self, scene: Scene) -> None:
        ids = [str(uuid.UUID(int=0)), str(uuid.UUID(int=2**128 - 1)), str(uuid.uuid1()), str(uuid.uuid4()), scene.id()]
        for id in ids:
            scene.job(id=id)
        ann = scene.worker()
        for job in ann.claim(100):
            assert ann.record(job, Log(scene.now, "info", job.id)) is True
            assert ann.die(job) is True

        for id in ids:
            assert [log.message for log in scene.store.logs(id)] == [id]
            assert scene.act(Retry(), id) == [id]
            assert scene.store.enqueue([scene.row(id=id)], repeat=True, now=scene.now)[0].outcome == "existing"
        assert scene.store.count(Filter(ids=tuple(ids), states=(State.AVAILABLE,))) == len(ids)

    def test_reasons_and_worker_names_may_be_any_text(self, scene: Scene) -> None:
        nasty = "caf\u00e9 \u2603 'quoted' \"twice\" %s {} \n\t end"
        id, ann = scene.job(), scene.worker(nasty)
        ann.die(ann.take(id), reason=nasty)

        row = scene.get(id)
        assert (row.reason, row.worker, row.attempts[0].reason) == (nasty, nasty, nasty)

    def test_one_handle_serves_many_threads_at_once(self, scene: Scene) -> None:
        def work(n: int) -> int:
            store, name, settled = scene.store, f"w{n}", 0
            store.beat(WorkerInfo(id=name, name=name, host="h", pid=n), [], now=scene.now)
            for turn in range(10):
                store.enqueue([rows[n][turn]], now=scene.now)
                claimed = store.turn(name, turn + 1, wants=[Want(None, 1)], now=scene.now).claimed
                for job in claimed:
                    store.record(Lease(name, job.id, job.entry), [Log(1, "info", "x")], now=scene.now)
                    store.get(job.id)
                settlements = [_completed(job.id, job.entry) for job in claimed]
                settled += len(claimed) - len(store.turn(name, None, settlements, now=scene.now).refused)
                store.find(Filter(), limit=3)
                store.queues(now=scene.now)
            return settled

        rows = [[scene.row() for _ in range(10)] for _ in range(6)]
        done = at_once(*[partial(work, n) for n in range(6)])

        left = scene.store.count(Filter(states=(State.AVAILABLE,)))
        assert sum(done) + left == 60
        assert scene.store.count(Filter(states=(State.COMPLETED,))) == sum(done)

    def test_a_handle_used_by_a_thread_that_ended_serves_the_next(self, scene: Scene) -> None:
        for _ in range(3):
            thread = threading.Thread(target=scene.job)
            thread.start()
            thread.join()

        assert scene.store.count(Filter()) == 3


class TestP12Lifecycle:
    """P12: migrate, check, close; and an error is one of dayjob's, never a driver's."""

    def test_a_store_without_schema_says_what_to_do(self, engine: EngineUnderTest) -> None:
        bare = engine.open()
        with pytest.raises(SchemaMismatch) as caught:
            bare.queues()

        assert caught.value.found == 0
        assert caught.value.wanted > 0
        assert "dayjob migrate" in str(caught.value)

    def test_a_dry_run_names_the_migrations_and_applies_none(self, engine: EngineUnderTest) -> None:
        bare = engine.open()
        due = bare.migrate(dry_run=True)

        assert due != []
        assert bare.migrate(dry_run=True) == due
        with pytest.raises(SchemaMismatch):
            bare.queues()
        assert bare.migrate() == due
        assert bare.migrate() == bare.migrate(dry_run=True) == []
        assert bare.queues() == []

    def test_migrating_again_keeps_everything(self, scene: Scene) -> None:
        id = scene.job()
        before = scene.get(id)

        assert scene.engine.open().migrate() == []
        assert scene.get(id) == before

    def test_of_threads_that_migrate_at_once_one_applies_each_step(self, engine: EngineUnderTest) -> None:
        handles = [engine.open() for _ in range(4)]
        due = handles[0].migrate(dry_run=True)

        applied = at_once(*[handle.migrate for handle in handles])

        assert sorted(name for names in applied for name in names) == due

    @pytest.mark.processes
    def test_of_processes_that_migrate_at_once_one_applies_each_step(self, engine: EngineUnderTest) -> None:
        if not engine.processes:
            pytest.skip("only this process can open it")
        due = engine.open().migrate(dry_run=True)
        with ExitStack() as stack:
            children = [stack.enter_context(child.started("migrate", engine.url)) for _ in range(3)]
            for each in children:
                child.go(each)
            applied = [name for each in children for name in cast(list[str], child.answer(each))]

        assert sorted(applied) == due
        assert engine.open().queues() == []

    def test_check_tells_the_schema_before_and_after_and_changes_nothing(self, engine: EngineUnderTest) -> None:
        bare = engine.open()
        before = bare.check()
        assert (before.schema, before.wanted > 0) == (0, True)
        bare.migrate()

        after = bare.check()

        assert isinstance(after, Health)
        assert after.schema == after.wanted == before.wanted
        assert after.engine != ""
        assert [warning for warning in after.warnings if "fsync" not in warning] == []  # the tests' servers do without

    def test_closing_is_idempotent_and_a_later_call_opens_again(self, scene: Scene) -> None:
        scene.store.close()
        scene.store.close()
        if not scene.engine.processes:
            scene.store.migrate()

        id = scene.job()
        assert scene.worker().ids() == [id]

    def test_closing_one_handle_leaves_the_others_alone(self, scene: Scene) -> None:
        if not scene.engine.processes:
            pytest.skip("there is one handle only")
        id = scene.job()
        second = scene.engine.open()
        assert second.get(id) is not None
        second.close()

        assert scene.worker().ids() == [id]

    @pytest.mark.processes
    def test_a_fork_with_a_store_in_use_loses_nothing_on_either_side(self, scene: Scene) -> None:
        if not scene.engine.processes:
            pytest.skip("only this process can open it")
        scene.store.close()  # nobody but the two may hold the place open: the last to close it tidies up
        with child.started("fork", scene.engine.url, str(scene.now)) as forker:
            child.go(forker)
            assert child.answer(forker) == 0

        stored = [named("before"), *(named(f"{who}{n}") for who in ("parent", "child", "late") for n in range(20))]
        assert sorted(scene.worker().ids(100)) == sorted(stored)

    def test_an_outage_is_told_as_such_by_all_that_write_and_what_they_repeat_happens_once(
        self, scene: Scene, engine: EngineUnderTest
    ) -> None:
        if not engine.interruptible:
            pytest.skip("memory does not fail")
        id, ann, bob = scene.job(), scene.worker("ann"), scene.worker("bob")
        job = ann.take(id)
        failures: list[Exception] = []
        calls: list[Callable[[], object]] = [
            lambda: engine.open().enqueue([scene.row(id=named("late"))], now=scene.now),
            lambda: engine.open().turn(ann.id, 2, [ann.settlement(job, _ends(0))], [ann.want()], now=scene.now),
            lambda: engine.open().beat(bob.info, [], now=scene.now),
            lambda: engine.open().act(Filter(ids=(id,)), Cancel(), now=scene.now),
        ]

        def attempt(call: Callable[[], object]) -> None:
            try:
                call()
            except StoreError as error:
                failures.append(error)

        with engine.outage():
            at_once(*[partial(attempt, call) for call in calls])

        assert [type(error) for error in failures] == [StoreUnavailable] * len(calls)
        assert scene.store.get(named("late")) is None
        assert (scene.state(id), scene.get(id).cancelling) == (State.RUNNING, False)
        assert bob.beat().lost is False
        assert ann.settled(job) is True
        repeats = [scene.store.enqueue([scene.row(id=named("late"))], repeat=True, now=scene.now)[0] for _ in range(2)]
        assert [answer.outcome for answer in repeats] == ["inserted", "existing"]


def _ends(n: int) -> Outcome:
    return Outcome.COMPLETED if n % 3 else Outcome.DEAD


def _state(n: int) -> State:
    return State.COMPLETED if n % 3 else State.DEAD


def _completed(id: str, entry: int) -> Settlement:
    return Settlement(id, entry, Outcome.COMPLETED, 1, 2, result=b"null")
