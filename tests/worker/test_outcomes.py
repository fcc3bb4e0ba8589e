"""What a task returns or raises, and what becomes of its job: the table of the design, cell by cell."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from dayjob import JobFailed
from dayjob.states import Outcome
from tests.worker.conftest import Witness


def run(shop: ModuleType, job: Any) -> Any:
    shop.app.worker().run_until_idle()
    return job.refresh()


def test_values_come_back_from_all_three_kinds(shop: ModuleType) -> None:
    jobs = [shop.add.enqueue(1, 2), shop.join.enqueue("a", "b"), shop.square.enqueue(7)]

    counts = shop.app.worker().run_until_idle()

    assert counts == {Outcome.COMPLETED: 3}
    assert [job.result(timeout=1) for job in jobs] == [3, "ab", 49]


def test_a_failed_job_is_tried_again_and_is_dead_when_its_attempts_are_used_up(shop: ModuleType) -> None:
    job = run(shop, shop.refuse.enqueue("no"))

    assert (job.state, job.reason, job.attempt) == ("dead", "failed", 2)
    assert [(one.outcome, one.message) for one in job.attempts] == [("failed", "no 1"), ("dead", "no 2")]
    assert job.attempts[0].error_type == "tests.worker.shop.Refused"
    assert "raise Refused" in job.attempts[0].traceback
    with pytest.raises(JobFailed, match="no 2"):
        job.result(timeout=1)


def test_retry_after_spends_an_attempt_and_its_cause_is_recorded(shop: ModuleType) -> None:
    job = run(shop, shop.direct.enqueue("retry_after"))

    assert (job.state, job.attempt) == ("scheduled", 1)
    assert (job.attempts[0].outcome, job.attempts[0].message) == ("failed", "busy")


def test_a_snooze_spends_no_attempt(shop: ModuleType) -> None:
    job = run(shop, shop.direct.enqueue("snooze"))

    assert (job.state, job.attempt, job.attempts[0].outcome) == ("scheduled", 0, "snoozed")


def test_a_task_may_cancel_its_own_job(shop: ModuleType) -> None:
    job = run(shop, shop.direct.enqueue("cancel"))

    assert (job.state, job.reason, job.attempt) == ("cancelled", "not wanted", 0)


def test_unrecoverable_is_dead_at_once(shop: ModuleType) -> None:
    job = run(shop, shop.direct.enqueue("unrecoverable"))

    assert (job.state, job.reason, job.attempt) == ("dead", "unrecoverable", 1)
    assert job.attempts[0].message == "no such order"


@pytest.mark.parametrize("how", ["exit", "cancelled_error"])
def test_sys_exit_and_a_stray_cancellation_are_failures_like_others(shop: ModuleType, how: str) -> None:
    job = run(shop, shop.direct.enqueue(how))

    assert (job.state, job.reason) == ("dead", "failed")
    assert [one.outcome for one in job.attempts] == ["failed", "dead"]


def test_a_result_that_cannot_be_serialised_fails_the_job_and_says_so(shop: ModuleType) -> None:
    job = run(shop, shop.unspeakable.enqueue())

    assert (job.state, job.reason, len(job.attempts)) == ("dead", "result", 1)
    assert "return value" in job.attempts[0].message


def test_a_job_that_expired_before_it_started_is_cancelled(shop: ModuleType, witness: Witness) -> None:
    job = shop.add.using(expires=0.001).enqueue(1, 2)
    # Only a job that waits is cancelled by the leader; one that is available is claimed, and looked at then.
    witness.end()

    job = run(shop, job)

    assert (job.state, job.reason) == ("cancelled", "expired")


def test_an_unknown_task_waits_longer_each_time_and_is_reported(shop: ModuleType, witness: Witness) -> None:
    job = shop.app.enqueue("not.here", {"a": 1})

    job = run(shop, job)

    parked = witness.wait_for("job.parked")
    assert (job.state, job.attempt) == ("scheduled", 0)
    assert "not.here" in parked.reason
    assert 2.0 <= parked.delay <= 2.4
    job.edit(run_at="now")
    shop.app.worker().run_until_idle()
    assert 4.0 <= witness.wait_for("job.parked", count=2).delay <= 4.8


def test_a_payload_that_no_longer_fits_waits(shop: ModuleType, witness: Witness) -> None:
    job = shop.add.enqueue(1, 2)
    job.edit(args={"a": 1, "b": 2})
    store = shop.app.store
    from dayjob.store.records import Edit, Filter

    store.act(Filter(ids=(job.id,)), Edit(payload=b'{"a": "x", "c": 1}'))

    job = run(shop, job)

    assert (job.state, job.attempt) == ("scheduled", 0)
    assert "add" in witness.wait_for("job.parked").reason


def test_a_thread_task_is_parked_as_well(shop: ModuleType, witness: Witness) -> None:
    from dayjob.store.records import Edit, Filter

    for task, args in ((shop.join, ("a", "b")), (shop.square, (1,))):
        job = task.enqueue(*args)
        shop.app.store.act(Filter(ids=(job.id,)), Edit(payload=b"{}"))

        assert run(shop, job).state == "scheduled"
    assert len(witness.of("job.parked")) == 2


@pytest.mark.parametrize("payload", [b"\xff\xfe", b"", b"[1]", b"{" * 5000])
def test_bytes_that_no_code_can_read_are_dead_at_once_and_their_neighbours_run(
    shop: ModuleType, witness: Witness, payload: bytes
) -> None:
    from dayjob.store.records import Edit, Filter

    broken = [task.enqueue(*args) for task, args in ((shop.add, (1, 2)), (shop.join, ("a", "b")), (shop.square, (1,)))]
    shop.app.store.act(Filter(ids=tuple(job.id for job in broken)), Edit(payload=payload))
    sound = shop.add.enqueue(1, 2)

    assert run(shop, sound).state == "completed"
    for job in broken:
        job.refresh()
        assert (job.state, job.reason) == ("dead", "unreadable")
        assert "JSON" in job.attempts[0].message
    assert len(witness.of("job.dead")) == 3


def test_events_tell_each_failure_once_and_the_death_after_it(shop: ModuleType, witness: Witness) -> None:
    run(shop, shop.refuse.enqueue("no"))

    failed = [(event.attempt, event.delay) for event in witness.of("job.failed")]
    assert failed == [(1, 0.0), (2, None)]
    assert [event.attempt for event in witness.of("job.retried")] == [1]
    assert [(event.reason, event.error) for event in witness.of("job.dead")] == [
        ("failed", "tests.worker.shop.Refused: no 2")
    ]
    names = [event.name for event in witness.events if event.name.startswith("job.")]
    assert names[-2:] == ["job.failed", "job.dead"]
