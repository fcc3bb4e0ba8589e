"""P8 Nothing vanishes silently: dead jobs stay; what goes, went by a rule that someone set; trims are counted."""

from __future__ import annotations

from dayjob.states import Outcome, State
from dayjob.store.records import Bound, Checkpoint, Filter, Log, Progress, Tally
from tests.contract.scene import Scene

YEAR = 365 * 86400.0


class TestP8NothingVanishes:
    def test_dead_jobs_stay_until_someone_deals_with_them(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        ann.die(ann.take(id))
        scene.advance(YEAR)

        gone = scene.store.prune(scene.term, [Bound(State.COMPLETED, 0), Bound(State.CANCELLED, 0)], now=scene.now)

        assert gone == 0
        assert scene.state(id) is State.DEAD

    def test_waiting_and_running_jobs_are_never_pruned(self, scene: Scene) -> None:
        running, scheduled, available = scene.job(), scene.job(delay=2 * YEAR), scene.job()
        scene.worker().take(running)
        scene.advance(YEAR)

        scene.store.prune(scene.term, [Bound(state, 0) for state in State], now=scene.now)

        assert [scene.state(id) for id in (running, scheduled, available)] == [
            State.RUNNING,
            State.SCHEDULED,
            State.AVAILABLE,
        ]

    def test_every_job_is_somewhere_after_every_outcome(self, scene: Scene) -> None:
        ids, ann = scene.jobs(len(Outcome)), scene.worker()
        for job, outcome in zip(ann.claim(100), Outcome, strict=True):
            ann.settle(job, outcome, delay=60.0)

        assert scene.store.count(Filter()) == len(ids)
        assert [job.id for job in scene.store.find(Filter(), limit=100).jobs] == ids[::-1]

    def test_every_end_of_a_claim_but_success_leaves_an_attempt(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker("ann")
        story = [Outcome.FAILED, Outcome.SNOOZED, Outcome.RELEASED, Outcome.PARKED, Outcome.LOST, Outcome.CRASHED]
        for n, outcome in enumerate([*story, Outcome.DEAD]):
            job = ann.take(id, suspects=scene.get(id).suspect)
            started = scene.now
            scene.advance(1)
            ann.settle(
                job, outcome, delay=1.0, error=b"e%d" % n, reason=f"r{n}", started_at=started, finished_at=scene.now
            )
            scene.advance(2)

        row = scene.get(id)
        assert [attempt.outcome for attempt in row.attempts] == [*story, Outcome.DEAD]
        assert [attempt.number for attempt in row.attempts] == [1, 2, 2, 2, 2, 2, 2]
        assert [attempt.error for attempt in row.attempts] == [b"e%d" % n for n in range(7)]
        assert [attempt.reason for attempt in row.attempts] == [f"r{n}" for n in range(7)]
        assert {attempt.worker for attempt in row.attempts} == {ann.info.name}
        assert {attempt.round for attempt in row.attempts} == {0}
        for attempt in row.attempts:
            assert attempt.started_at is not None
            assert attempt.finished_at == attempt.started_at + 1_000_000

    def test_the_first_and_the_newest_attempts_are_kept_and_the_rest_is_counted(self, scene: Scene) -> None:
        id, ann, before = scene.job(), scene.worker(), scene.now
        for _ in range(105):
            ann.fail(ann.take(id), delay=0.001)
            scene.advance(0.001)

        assert [attempt.number for attempt in scene.get(id).attempts] == [*range(1, 11), *range(16, 106)]
        assert scene.get(id).attempt == 105
        assert _tallied(scene, before, "trimmed") == 5

    def test_an_attempt_that_never_started_says_so(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        ann.settle(ann.take(id), Outcome.PARKED, started_at=0)

        assert scene.get(id).attempts[0].started_at is None

    def test_what_was_claimed_ahead_and_released_unstarted_leaves_no_attempt(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        ann.settle(ann.take(id), Outcome.RELEASED, started_at=0)

        assert scene.get(id).attempts == []

    def test_logs_are_kept_in_order_with_the_job(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        lines = [Log(scene.stamp(n), "info", f"line {n} \u2603\0") for n in range(5)]
        ann.record(job, *lines[:2])
        ann.record(job, lines[2], Progress(1, 2), *lines[3:])

        shown = [Log(line.at, line.level, line.message.replace("\0", scene.engine.nul)) for line in lines]
        assert scene.store.logs(id) == shown
        ann.settle(job)
        assert scene.store.logs(id) == shown

    def test_logs_of_all_attempts_are_kept(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        for n in range(3):
            job = ann.take(id)
            ann.record(job, Log(scene.now, "info", f"attempt {n}"))
            ann.fail(job, delay=1.0)
            scene.advance(1)

        assert [log.message for log in scene.store.logs(id)] == ["attempt 0", "attempt 1", "attempt 2"]

    def test_the_newest_thousand_log_lines_are_kept_and_the_rest_is_counted(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        job, before = ann.take(id), scene.now
        lines = [Log(scene.stamp(n), "info", str(n)) for n in range(1205)]
        for start in range(0, len(lines), 100):
            ann.record(job, *lines[start : start + 100])

        assert scene.store.logs(id) == lines[205:]
        assert _tallied(scene, before, "trimmed") == 205

    def test_one_write_of_more_log_lines_than_are_kept_is_trimmed_and_counted_too(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        job, before = ann.take(id), scene.now
        ann.record(job, *[Log(scene.stamp(n), "info", str(n)) for n in range(1500)])

        assert [log.message for log in scene.store.logs(id)] == [str(n) for n in range(500, 1500)]
        assert _tallied(scene, before, "trimmed") == 500

    def test_the_last_progress_and_checkpoint_count(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        assert ann.record(job, Progress(1, 10), Checkpoint(b"1"), Progress(2.5, None, "half \u2603"), Checkpoint(b"2"))

        assert scene.get(id).progress == Progress(2.5, None, "half \u2603")
        assert scene.store.recorded(id) == b"2"

    def test_a_checkpoint_is_not_lost_by_later_progress(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        ann.record(job, Checkpoint(b"1"), Log(scene.now, "info", "x"))
        ann.record(job, Progress(1, 2))

        assert scene.store.recorded(id) == b"1"
        assert scene.get(id).progress == Progress(1, 2)

    def test_tallies_are_kept_and_add_up(self, scene: Scene) -> None:
        ann, bob = scene.worker("ann"), scene.worker("bob")
        before = scene.now
        ann.beat(tallies=[Tally("mail", "completed", 3, 0.5), Tally("mail", "retried", 1)])
        bob.beat(tallies=[Tally("mail", "completed", 4), Tally("web", "completed", 1)])
        scene.advance(120)
        ann.beat(tallies=[Tally("mail", "completed", 5)])

        assert _tallied(scene, before, "completed", "mail") == 12
        assert _tallied(scene, before, "retried", "mail") == 1
        assert _tallied(scene, before, "completed") == 13
        assert _tallied(scene, scene.now - 60_000_000, "completed", "mail") == 5

    def test_the_beat_of_a_worker_given_up_still_counts_nothing_twice(self, scene: Scene) -> None:
        ann, before = scene.worker("ann"), scene.now
        ann.beat(tallies=[Tally("mail", "completed", 3)])
        scene.crash(ann)

        ann.beat(tallies=[Tally("mail", "refused", 2)])

        assert _tallied(scene, before, "completed", "mail") == 3
        assert _tallied(scene, before, "refused", "mail") in (0, 2)


def _tallied(scene: Scene, since: int, name: str, queue: str | None = None) -> float:
    """What the store counted under *name*; the minute in which *since* lies counts whole."""
    samples = scene.store.history(since - since % 60_000_000, queue)
    return sum(sample.value for sample in samples if sample.name == name)
