"""P7 Nothing is claimed that cannot run; among what can, priority decides, then place."""

from __future__ import annotations

from typing import Any

import pytest

from dayjob.states import Outcome, State
from dayjob.store.records import Edit, Retry, Want
from tests.contract.ids import named, numbered
from tests.contract.scene import Scene


class TestP7Claimable:
    def test_a_scheduled_job_is_not_claimed(self, scene: Scene) -> None:
        scene.job(delay=60.0)

        assert scene.worker().ids() == []

    def test_a_due_job_is_claimed_without_a_leader(self, scene: Scene) -> None:
        # A turn stages what is due: a job waits for no leader.
        scene.leader.leave()
        id = scene.job(delay=60.0)
        scene.advance(60)

        assert scene.worker().ids() == [id]

    def test_only_the_queues_asked_for_are_served(self, scene: Scene) -> None:
        mail, report = scene.job(queue="mail"), scene.job(queue="report")
        ann = scene.worker()

        assert ann.ids(10, "mail", "nothing") == [mail]
        assert ann.ids(10, "report") == [report]

    def test_no_queue_named_means_all_but_the_excluded(self, scene: Scene) -> None:
        mail, _, web = scene.job(queue="mail"), scene.job(queue="report"), scene.job(queue="web")

        assert scene.worker().ids(10, exclude=("report", "nothing")) == [mail, web]

    def test_an_exclusion_means_nothing_where_queues_are_named(self, scene: Scene) -> None:
        id = scene.job(queue="mail")

        assert scene.worker().ids(10, "mail", exclude=("mail",)) == [id]

    def test_a_queue_name_is_matched_whole_and_by_its_case(self, scene: Scene) -> None:
        scene.job(queue="mail")

        assert scene.worker().ids(10, "mai", "Mail", "mail ", "%", "m_il", "*") == []

    def test_each_want_keeps_its_own_limit(self, scene: Scene) -> None:
        mail, report = scene.jobs(3, queue="mail"), scene.jobs(3, queue="report")
        ann = scene.worker()

        turn = ann.turn(wants=[ann.want(2, "mail"), ann.want(1, "report")])

        assert sorted(job.id for job in turn.claimed) == [*mail[:2], report[0]]

    def test_a_want_of_nothing_gets_nothing(self, scene: Scene) -> None:
        ids, ann = scene.jobs(2), scene.worker()

        turn = ann.turn(wants=[ann.want(0), ann.want(1)])

        assert [job.id for job in turn.claimed] == ids[:1]

    def test_a_queue_named_twice_gives_each_job_once(self, scene: Scene) -> None:
        ids = scene.jobs(3)

        assert scene.worker().ids(10, "default", "default") == ids

    def test_an_empty_queue_does_not_use_up_the_next_want(self, scene: Scene) -> None:
        report = scene.jobs(2, queue="report")
        ann = scene.worker()

        turn = ann.turn(wants=[ann.want(2, "mail"), ann.want(2, "report")])

        assert [job.id for job in turn.claimed] == report

    def test_more_urgent_jobs_go_first(self, scene: Scene) -> None:
        by_priority = {priority: scene.job(priority=priority) for priority in (0, -100, 100, 5, -1)}

        assert scene.worker().ids() == [by_priority[p] for p in (100, 5, 0, -1, -100)]

    def test_a_limit_takes_the_most_urgent(self, scene: Scene) -> None:
        scene.jobs(3)
        urgent = scene.job(priority=1)

        assert scene.worker().ids(1) == [urgent]

    def test_over_several_queues_the_most_urgent_goes_first(self, scene: Scene) -> None:
        low, high, mid = (
            scene.job(queue="a", priority=1),
            scene.job(queue="c", priority=3),
            scene.job(queue="b", priority=2),
        )

        assert scene.worker().ids(10, "a", "b", "c") == [high, mid, low]

    def test_over_several_queues_the_older_place_goes_first(self, scene: Scene) -> None:
        ids = [scene.job(queue=queue) for queue in "abcabcba"]
        ann = scene.worker()

        assert ann.ids(3, "a", "b", "c") + ann.ids(3, "c", "b", "a") + ann.ids(3) == ids

    def test_a_claim_lists_its_wants_in_turn_and_the_most_urgent_of_each_first(self, scene: Scene) -> None:
        a1, b1 = scene.job(queue="a"), scene.job(queue="b", priority=1)
        a2, b2 = scene.job(queue="a", priority=5), scene.job(queue="b", priority=9)
        ann = scene.worker()

        turn = ann.turn(wants=[ann.want(5, "a"), ann.want(5, "b")])

        assert [job.id for job in turn.claimed] == [a2, a1, b2, b1]

    def test_a_paused_queue_gives_nothing_and_the_others_go_on(self, scene: Scene) -> None:
        mail, report = scene.job(queue="mail"), scene.job(queue="report")
        ann = scene.worker()
        scene.store.pause("mail", True, now=scene.now)

        assert ann.ids(10, "mail") == []
        assert ann.ids(10, "mail", "report") == [report]
        assert ann.ids() == []
        scene.store.pause("mail", False, now=scene.now)
        assert ann.ids() == [mail]

    def test_a_paused_queue_still_accepts_and_settles(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        scene.store.pause("default", True, now=scene.now)

        scene.job()
        assert ann.settled(job) is True
        assert scene.state(id) is State.COMPLETED

    def test_a_queue_can_be_paused_before_it_holds_anything(self, scene: Scene) -> None:
        assert scene.store.pause("tomorrow", True, now=scene.now) is True
        scene.job(queue="tomorrow")

        assert scene.worker().ids() == []

    def test_a_million_scheduled_jobs_are_not_in_the_way(self, scene: Scene) -> None:
        # In small: what waits for its time must not count against the limit.
        scene.jobs(500, delay=3600.0, priority=100)
        id = scene.job()

        assert scene.worker().ids(1) == [id]

    def test_a_paused_queue_full_of_urgent_jobs_is_not_in_the_way(self, scene: Scene) -> None:
        scene.jobs(500, queue="paused", priority=100)
        scene.store.pause("paused", True, now=scene.now)
        id = scene.job()

        assert scene.worker().ids(1) == [id]

    def test_suspects_are_not_in_the_way(self, scene: Scene) -> None:
        scene.jobs(500, priority=100)
        ann = scene.worker("ann")
        ann.claim(500)
        ann.leave(death="signal 9")
        id = scene.job()

        assert scene.worker("bob").ids(1) == [id]

    def test_a_parked_job_waits_with_back_off_and_is_counted(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        for times in range(3):
            job = ann.take(id)
            assert (job.parked, job.attempt) == (times, 0)
            ann.settle(job, Outcome.PARKED, delay=60.0, reason="no task of this name")
            assert scene.state(id) is State.SCHEDULED
            assert ann.ids() == []
            scene.advance(60)

        assert scene.get(id).attempts[-1].reason == "no task of this name"

    def test_parked_counts_only_in_a_row(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        ann.settle(ann.take(id), Outcome.PARKED, delay=1.0)
        scene.advance(1)
        ann.fail(ann.take(id), delay=1.0)
        scene.advance(1)

        assert ann.take(id).parked == 0


class TestP7OneJobByName:
    """P7: a want that names one job takes it where any claim could, past pauses, queues and suspicion."""

    def one(self, id: str, **rest: Any) -> Want:
        return Want(rest.pop("queues", None), rest.pop("limit", 1), id=id, **rest)

    def test_one_job_is_taken_ahead_of_all_others(self, scene: Scene) -> None:
        first, named, last = scene.job(priority=9), scene.job(queue="other"), scene.job()
        ann = scene.worker()

        assert [job.id for job in ann.turn(wants=[self.one(named)]).claimed] == [named]
        assert ann.ids() == [first, last]

    @pytest.mark.parametrize("rest", [{"queues": ("elsewhere",)}, {"exclude": ("default",)}, {"suspects": True}])
    def test_the_other_wishes_of_the_want_are_void(self, scene: Scene, rest: dict[str, Any]) -> None:
        id, ann = scene.job(), scene.worker()

        assert [job.id for job in ann.turn(wants=[self.one(id, **rest)]).claimed] == [id]

    def test_a_job_of_a_paused_queue_can_be_run_by_hand(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        scene.store.pause("default", True, now=scene.now)

        assert [job.id for job in ann.turn(wants=[self.one(id)]).claimed] == [id]

    def test_a_suspect_can_be_run_by_hand(self, scene: Scene) -> None:
        id = scene.aged(crashes=1)

        assert [job.suspect for job in scene.worker().turn(wants=[self.one(id)]).claimed] == [True]

    def test_what_is_not_available_is_not_taken(self, scene: Scene) -> None:
        ann = scene.worker()
        running, done = scene.job(), scene.job()
        ann.take(running)
        ann.settle(ann.take(done))
        for id in (running, done, scene.job(delay=60.0), "no-such-job"):
            assert ann.turn(wants=[self.one(id)]).claimed == []

    def test_a_job_taken_by_name_is_held_fenced_and_repeated_like_any_other(self, scene: Scene) -> None:
        id, ann, bob = scene.job(), scene.worker("ann"), scene.worker("bob")
        [job] = ann.turn(wants=[self.one(id)]).claimed

        assert ann.turn(wants=[self.one(id)], number=1).claimed == [job]
        assert bob.turn(wants=[self.one(id)]).claimed == []
        ann.leave(death="signal 9 (SIGKILL)")
        assert ann.settled(job) is False
        assert scene.get(id).suspect is True


class TestP7Place:
    """P7: within a priority a job keeps its turn, and gets a new one only when the contract says so."""

    def test_first_in_first_out_inside_a_priority(self, scene: Scene) -> None:
        ids = [*scene.jobs(3), scene.job(), *scene.jobs(2)]
        ann = scene.worker()

        assert [*ann.ids(2), *ann.ids(1), *ann.ids(10)] == ids

    def test_the_order_is_that_of_the_enqueue_and_not_of_the_ids(self, scene: Scene) -> None:
        ids = [scene.job(id=numbered(number)) for number in (9, 5, 7, 1)]

        assert scene.worker().ids() == ids

    @pytest.mark.parametrize("after", [0.0, 30.0])
    def test_a_released_job_goes_back_to_its_old_place(self, scene: Scene, after: float) -> None:
        ids, ann = scene.jobs(4), scene.worker()
        jobs = ann.claim(3)
        scene.advance(after)
        for job in reversed(jobs):
            ann.settle(job, Outcome.RELEASED)

        assert scene.worker("bob").ids() == ids

    def test_jobs_of_a_worker_that_left_go_back_to_their_old_places(self, scene: Scene) -> None:
        ids, ann = scene.jobs(4), scene.worker("ann")
        ann.claim(2)
        later = scene.job()
        ann.leave()

        assert scene.worker("bob").ids() == [*ids, later]

    def test_due_jobs_get_their_places_in_the_order_of_their_times(self, scene: Scene) -> None:
        late, early, middle = scene.job(delay=30.0), scene.job(delay=10.0), scene.job(delay=20.0)
        scene.advance(31)

        assert scene.worker().ids() == [early, middle, late]

    def test_jobs_due_at_the_same_time_keep_the_order_of_their_enqueue(self, scene: Scene) -> None:
        ids = scene.jobs(20, delay=10.0)
        scene.advance(10)

        assert scene.worker().ids(20) == ids

    def test_a_due_job_goes_behind_those_that_were_available_before(self, scene: Scene) -> None:
        due = scene.job(delay=10.0)
        waiting = scene.job()
        scene.advance(10)
        scene.store.stage(scene.term, now=scene.now)
        later = scene.job()

        assert scene.worker().ids() == [waiting, due, later]

    def test_a_failed_job_comes_back_behind_those_that_waited(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        ann.fail(ann.take(id), delay=10.0)
        waiting = scene.job()
        scene.advance(10)

        assert ann.ids() == [waiting, id]

    def test_a_job_retried_by_hand_goes_behind_those_that_waited(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        ann.die(ann.take(id))
        waiting = scene.job()
        scene.act(Retry(), id)
        later = scene.job()

        assert ann.ids() == [waiting, id, later]

    def test_a_job_keeps_its_priority_through_everything(self, scene: Scene) -> None:
        id = scene.job(priority=7)
        ann = scene.worker()
        ann.fail(ann.take(id), delay=1.0)
        scene.advance(1)
        scene.job(priority=6)
        ann.settle(ann.take(id), Outcome.RELEASED)
        ann.die(ann.take(id))
        scene.act(Retry(), id)

        assert ann.take(id).priority == 7

    def test_an_edit_of_the_payload_keeps_the_place(self, scene: Scene) -> None:
        ids = scene.jobs(3)
        scene.act(Edit(payload=b"{}"), ids[0])

        assert scene.worker().ids() == ids

    def test_an_edit_of_the_priority_goes_behind_its_new_equals(self, scene: Scene) -> None:
        first, equal, last = scene.job(), scene.job(priority=5), scene.job()
        scene.act(Edit(priority=5), first)

        assert scene.worker().ids() == [equal, first, last]

    def test_an_edit_of_the_queue_goes_behind_those_that_waited_there(self, scene: Scene) -> None:
        moved, waiting = scene.job(queue="a"), scene.job(queue="b")
        scene.act(Edit(queue="b"), moved)

        ann = scene.worker()
        assert ann.ids(10, "b") == [waiting, moved]
        assert ann.ids(10, "a") == []

    def test_places_hold_across_handles_and_reopening(self, scene: Scene) -> None:
        first = scene.job()
        if scene.engine.processes:
            scene.store.close()
        second = scene.engine.open()
        second.enqueue([scene.row(id=named("second handle"))], now=scene.now)
        third = scene.job()

        assert scene.worker().ids() == [first, named("second handle"), third]
