"""P1 Durable: when `enqueue` returns, the job survives any crash. What comes out is what went in, to the byte."""

from __future__ import annotations

import pytest

from dayjob.clock import SECOND
from dayjob.states import Outcome, State
from dayjob.store.contract import Store
from dayjob.store.records import Checkpoint, Filter, JobRow, Retry
from tests.contract import child
from tests.contract.ids import named
from tests.contract.scene import Scene

EVERY_BYTE = bytes(range(256))
PAYLOADS = {
    "every byte": EVERY_BYTE,
    "empty": b"",
    "one megabyte": EVERY_BYTE * 4096,
    "a large integer": b'{"n":9007199254740993}',
    "an empty list": b'{"rows":[]}',
    "not json": b'{"open',
    "only NUL": b"\0\0\0",
    "not utf-8": b"\xff\xfe\xc3\x28",
    "quotes": b"'; drop table job; --\"",
}
each_payload = pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())


class TestP1Durable:
    def test_another_process_sees_a_job_as_soon_as_enqueue_returned(self, scene: Scene, other: Store) -> None:
        id = scene.job()

        row = other.get(id)
        assert row is not None
        assert row.state is State.AVAILABLE

    def test_a_job_survives_its_producer_that_dies_right_after_enqueue(self, scene: Scene) -> None:
        if not scene.engine.processes:
            pytest.skip("only this process can open it")

        with child.started("enqueue_and_die", scene.engine.url, "mortal", "3", str(scene.now)) as producer:
            child.go(producer)
            assert child.answer(producer) == ["inserted"] * 3
            assert producer.wait() == 9

        assert scene.worker().ids() == [named(f"mortal-{n}") for n in range(3)]

    def test_a_job_survives_the_closing_of_the_store(self, scene: Scene) -> None:
        if not scene.engine.processes:
            pytest.skip("memory lives as long as its handle")
        id = scene.job()

        scene.store.close()

        assert scene.state(id) is State.AVAILABLE

    def test_the_store_says_what_a_crash_of_it_costs(self, scene: Scene) -> None:
        told = scene.store.durability()

        assert told.engine == scene.store.check().engine
        assert told.crash_costs == scene.engine.crash_costs
        assert all(": " in warning for warning in told.warnings)

    def test_all_rows_of_a_call_are_stored_or_none(self, scene: Scene) -> None:
        ids = scene.jobs(1000)

        assert scene.store.count(Filter()) == 1000
        assert scene.worker().ids(1000) == ids

    def test_every_field_of_a_new_job_is_kept(self, scene: Scene) -> None:
        id = scene.job(
            task="billing.charge",
            queue="billing",
            payload=b'{"order":7}',
            priority=-100,
            delay=60.0,
            expires=3600.0,
            max_attempts=7,
            tags='["vip","caf\u00e9"]',
            meta='{"by":"web \u2603"}',
            options=b"\x00\xff",
        )

        row = scene.get(id)
        assert row == JobRow(
            id=id,
            entry=row.entry,
            task="billing.charge",
            queue="billing",
            state=State.SCHEDULED,
            payload=b'{"order":7}',
            priority=-100,
            max_attempts=7,
            created_at=scene.now,
            run_at=scene.stamp(60),
            expires_at=scene.stamp(3600),
            tags='["vip","caf\u00e9"]',
            meta='{"by":"web \u2603"}',
            options=b"\x00\xff",
            place=row.place,
        )

    def test_a_plain_job_has_plain_fields(self, scene: Scene) -> None:
        id = scene.job()

        row = scene.get(id)
        assert row == JobRow(
            id=id,
            entry=row.entry,
            task="shop.charge",
            queue="default",
            state=State.AVAILABLE,
            payload=b'{"n":1}',
            created_at=scene.now,
            run_at=scene.now,
            place=row.place,
        )

    def test_a_claim_carries_every_field_an_executor_needs(self, scene: Scene) -> None:
        id = scene.job(
            task="billing.charge",
            queue="billing",
            payload=EVERY_BYTE,
            priority=100,
            expires=3600.0,
            max_attempts=7,
            tags='["vip"]',
            meta='{"by":"web"}',
            options=EVERY_BYTE,
        )
        created = scene.now
        scene.advance(2)

        job = scene.worker().take()
        assert job.id == id
        assert job.entry == scene.get(id).entry
        assert (job.task, job.queue, job.priority) == ("billing.charge", "billing", 100)
        assert (job.attempt, job.crashes, job.round, job.parked) == (0, 0, 0, 0)
        assert job.max_attempts == 7
        assert (job.created_at, job.run_at, job.expires_at) == (created, created, created + 3600 * SECOND)
        assert (job.tags, job.meta, job.options) == ('["vip"]', '{"by":"web"}', EVERY_BYTE)
        assert (job.recorded, job.suspect) == (False, False)
        assert job.payload == EVERY_BYTE

    def test_absent_and_empty_are_not_the_same(self, scene: Scene) -> None:
        absent = scene.job()
        empty = scene.job(options=b"", tags="[]", meta="{}", max_attempts=1)

        first, second = scene.worker().claim(2)
        assert (first.id, first.options, first.tags, first.meta, first.max_attempts) == (absent, None, None, None, None)
        assert (second.id, second.options, second.tags, second.meta, second.max_attempts) == (empty, b"", "[]", "{}", 1)

    @each_payload
    def test_payload_bytes_come_to_the_worker_untouched(self, scene: Scene, payload: bytes) -> None:
        scene.job(payload=payload)

        assert scene.worker().take().payload == payload

    @each_payload
    def test_payload_result_and_error_bytes_rest_in_the_store_untouched(self, scene: Scene, payload: bytes) -> None:
        done, broken, ann = scene.job(payload=payload), scene.job(payload=payload), scene.worker()
        first, second = ann.claim(2)
        ann.settle(first, result=payload)
        ann.die(second, error=payload)

        assert (scene.get(done).payload, scene.get(done).result) == (payload, payload)
        row = scene.get(broken)
        assert (row.payload, row.error, row.attempts[0].error) == (payload, payload, payload)

    def test_payloads_and_options_of_one_batch_are_not_mixed_up(self, scene: Scene) -> None:
        blobs = [*PAYLOADS.values(), b"", b"\0", b"x"]
        options = [None, b"", *blobs]
        rows = [scene.row(payload=blob, options=options[n]) for n, blob in enumerate(blobs)]
        scene.store.enqueue(rows, now=scene.now)

        jobs = scene.worker().claim(100)

        assert [(job.id, job.payload, job.options) for job in jobs] == [
            (row.id, row.payload, row.options) for row in rows
        ]

    def test_results_and_errors_of_one_turn_are_not_mixed_up(self, scene: Scene) -> None:
        blobs = [None, b"", *PAYLOADS.values(), None, b"\0", b""]
        good, bad = scene.jobs(len(blobs)), scene.jobs(len(blobs))
        ann = scene.worker()
        jobs = ann.claim(100)
        done = [ann.settlement(job, Outcome.COMPLETED, result=blob) for job, blob in zip(jobs, blobs, strict=False)]
        dead = [ann.settlement(job, Outcome.DEAD, error=b) for job, b in zip(jobs[len(blobs) :], blobs, strict=True)]

        ann.turn([each for pair in zip(done, dead, strict=True) for each in pair])

        assert [scene.get(id).result for id in good] == blobs
        assert [scene.get(id).error for id in bad] == blobs
        assert [scene.get(id).attempts[0].error for id in bad] == blobs

    @each_payload
    def test_a_payload_survives_history_and_a_retry_by_hand_untouched(self, scene: Scene, payload: bytes) -> None:
        id, ann = scene.job(payload=payload), scene.worker()
        ann.die(ann.take())
        scene.act(Retry(), id)

        assert ann.take(id).payload == payload

    @each_payload
    def test_a_checkpoint_comes_back_untouched(self, scene: Scene, payload: bytes) -> None:
        id, ann = scene.job(), scene.worker()
        ann.record(ann.take(), Checkpoint(payload))

        assert scene.store.recorded(id) == payload

    def test_no_result_is_not_an_empty_result(self, scene: Scene) -> None:
        nothing, empty = scene.jobs(2)
        ann = scene.worker()
        first, second = ann.claim(2)
        ann.settle(first, result=None)
        ann.settle(second, result=b"")

        assert scene.get(nothing).result is None
        assert scene.get(empty).result == b""

    @pytest.mark.parametrize("name", ["caf\u00e9", "a'b", 'a"b', "a%b", "a_b", "\U0001f680", "x" * 200])
    def test_names_are_kept_as_they_are(self, scene: Scene, name: str) -> None:
        # The facade refuses most of these; an engine must not depend on it.
        id = scene.job(task=name, queue=name)

        assert scene.worker().ids(10, name) == [id]
        assert (scene.get(id).task, scene.get(id).queue) == (name, name)
        assert [queue.name for queue in scene.store.queues(now=scene.now)] == [name]
