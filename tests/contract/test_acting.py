"""Acting by hand: cancel, retry, delete, edit; what fits is touched once, and nothing else is touched."""

from __future__ import annotations

import pytest

from dayjob.states import Outcome, State
from dayjob.store.contract import Store
from dayjob.store.records import Action, Cancel, Checkpoint, Delete, Edit, Filter, Log, Retry
from tests.contract.ids import named
from tests.contract.scene import Puppet, Scene


class Cast:
    """One job in each state, by state."""

    def __init__(self, scene: Scene) -> None:
        self.ann: Puppet = scene.worker("cast")
        self.ids: dict[State, str] = {}
        for state in (State.RUNNING, State.COMPLETED, State.CANCELLED, State.DEAD):
            self.ids[state] = scene.job()
            job = self.ann.take(self.ids[state])
            if state is not State.RUNNING:
                self.ann.settle(job, Outcome(state.value), error=b"boom", reason="cast")
        self.ids[State.SCHEDULED] = scene.job(delay=600.0)
        self.ids[State.AVAILABLE] = scene.job()

    def rows(self, scene: Scene) -> dict[State, object]:
        return {state: scene.store.get(id) for state, id in self.ids.items()}


FITS: list[tuple[Action, set[State]]] = [
    (Cancel(), {State.SCHEDULED, State.AVAILABLE, State.RUNNING}),
    (Retry(), {State.SCHEDULED, State.COMPLETED, State.CANCELLED, State.DEAD}),
    (Delete(), {State.SCHEDULED, State.AVAILABLE, State.COMPLETED, State.CANCELLED, State.DEAD}),
    (Edit(payload=b"{}"), {State.SCHEDULED, State.AVAILABLE}),
    (Edit(run_at=0), {State.SCHEDULED, State.AVAILABLE}),
]
each_fit = pytest.mark.parametrize(("action", "states"), FITS, ids=lambda value: type(value).__name__)


class TestActing:
    @each_fit
    def test_an_action_touches_the_states_it_fits_and_no_other(
        self, scene: Scene, action: Action, states: set[State]
    ) -> None:
        cast = Cast(scene)
        before = cast.rows(scene)

        touched = scene.act(action, *cast.ids.values())

        assert sorted(touched) == sorted(cast.ids[state] for state in states)
        for state, row in cast.rows(scene).items():
            assert (row != before[state]) == (state in states)

    @each_fit
    def test_jobs_that_do_not_fit_do_not_use_up_the_limit(
        self, scene: Scene, action: Action, states: set[State]
    ) -> None:
        cast, touched = Cast(scene), []
        while batch := scene.act(action, *cast.ids.values(), limit=1):
            touched += batch
            if isinstance(action, (Edit,)) and len(touched) >= len(states):
                break

        assert len(touched) >= len(states) if isinstance(action, Edit) else len(touched) == len(states)

    @each_fit
    def test_a_filter_by_state_holds_an_action_back(self, scene: Scene, action: Action, states: set[State]) -> None:
        cast = Cast(scene)
        before = cast.rows(scene)
        chosen = min(states)

        touched = scene.act(action, states=(chosen,))

        assert touched == [cast.ids[chosen]]
        for state, row in cast.rows(scene).items():
            assert (row != before[state]) == (state is chosen)

    def test_an_unknown_id_is_no_match(self, scene: Scene) -> None:
        for action, _ in FITS:
            assert scene.act(action, "no-such-job") == []

    def test_no_ids_at_all_match_nothing(self, scene: Scene) -> None:
        scene.job()

        assert scene.store.act(Filter(ids=()), Cancel(), now=scene.now) == []
        assert scene.store.act(Filter(states=()), Cancel(), now=scene.now) == []

    @pytest.mark.parametrize("action", [action for action, _ in FITS], ids=lambda value: type(value).__name__)
    def test_all_conditions_must_hold(self, scene: Scene, action: Action) -> None:
        match = {"queue": "q", "task": "a.b", "tags": '["x","y"]', "meta": '{"by":"web"}', "delay": 60.0}
        id = scene.job(**match)
        for wrong in ({"queue": "r"}, {"task": "a.c"}, {"tags": '["xx"]'}, {"meta": "{}"}):
            scene.job(**{**match, **wrong})

        touched = scene.act(action, queue="q", task="a.b", tag="x", text="web", states=(State.SCHEDULED,))

        assert touched == [id]

    def test_a_limit_takes_part_and_the_next_call_goes_on(self, scene: Scene) -> None:
        ids = scene.jobs(5)

        first = scene.act(Cancel(), limit=2)
        second = scene.act(Cancel(), limit=2)
        third = scene.act(Cancel(), limit=2)

        assert [len(first), len(second), len(third)] == [2, 2, 1]
        assert sorted([*first, *second, *third]) == ids

    @pytest.mark.parametrize("action", [Retry(), Delete()])
    def test_a_limit_counts_waiting_and_finished_jobs_together(self, scene: Scene, action: Action) -> None:
        ids, ann = scene.jobs(3), scene.worker()
        for job in ann.claim():
            ann.settle(job)
        ids += scene.jobs(3, delay=60.0)

        touched = [scene.act(action, *ids, limit=4), scene.act(action, *ids, limit=4)]

        assert [len(each) for each in touched] == [4, 2]
        assert sorted([*touched[0], *touched[1]]) == ids

    # -- cancel

    @pytest.mark.parametrize("wait", [{}, {"delay": 60.0}])
    def test_a_waiting_job_is_cancelled_at_once(self, scene: Scene, wait: dict[str, float]) -> None:
        id = scene.job(**wait)
        scene.act(Cancel(reason="not needed"), id)

        row = scene.get(id)
        assert (row.state, row.reason, row.finished_at) == (State.CANCELLED, "not needed", scene.now)
        assert (row.attempt, row.started_at) == (0, None)
        scene.advance(61)
        assert scene.worker().ids() == []

    def test_a_job_cancelled_between_its_attempts_keeps_what_it_has_behind_it(self, scene: Scene) -> None:
        id = scene.aged(attempts=2, crashes=1)
        before = scene.get(id)
        scene.act(Cancel(), id)

        row = scene.get(id)
        assert (row.state, row.attempt, row.crashes) == (State.CANCELLED, 2, 1)
        assert row.attempts == before.attempts

    def test_a_running_job_is_asked_to_stop_and_its_worker_learns_it_by_its_beat(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker("ann")
        bystander = scene.job()
        job = ann.take(id)
        ann.take(bystander)
        bob = scene.worker("bob")
        scene.act(Cancel(reason="enough"), id)

        assert (scene.state(id), scene.get(id).cancelling) == (State.RUNNING, True)
        assert ann.beat().cancelled == ((id, job.entry),)
        assert ann.beat().cancelled == ((id, job.entry),)
        assert bob.beat().cancelled == ()

    def test_a_busy_worker_sees_in_its_next_turn_that_there_is_news(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        ann.take(id)
        before = ann.turn().control
        assert ann.turn().control == before == ann.beat().control

        scene.act(Cancel(), id)

        assert ann.turn().control != before
        assert ann.beat().control == ann.turn().control

    def test_asking_again_does_not_count(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        ann.take(id)

        assert scene.act(Cancel(reason="first"), id) == [id]
        assert scene.act(Cancel(reason="second"), id) == []
        assert scene.get(id).cancelling is True

    def test_running_jobs_asked_already_do_not_use_up_the_limit(self, scene: Scene) -> None:
        ids, ann = scene.jobs(3), scene.worker()
        ann.claim(2)

        assert sorted(scene.act(Cancel(), limit=2) + scene.act(Cancel(), limit=2)) == ids

    def test_a_cancelled_job_is_kept_as_long_as_the_cancel_says(self, scene: Scene) -> None:
        short, ever = scene.jobs(2)
        scene.act(Cancel(keep=60.0), short)
        scene.act(Cancel(keep=None), ever)

        assert scene.get(short).keep_until == scene.stamp(60)
        assert scene.get(ever).keep_until is None

    def test_a_released_job_is_not_cancelled_by_an_old_request(self, scene: Scene) -> None:
        # The request went with the run it was made for: that run ended cancelled, and a retry is a new will.
        id, ann = scene.job(), scene.worker()
        ann.take(id)
        scene.act(Cancel(), id)
        ann.leave()
        scene.act(Retry(), id)
        bob = scene.worker("bob")

        job = bob.take(id)

        assert bob.beat().cancelled == ()
        assert bob.fail(job) is True
        assert scene.state(id) is State.SCHEDULED

    # -- retry

    @pytest.mark.parametrize("end", [Outcome.COMPLETED, Outcome.DEAD, Outcome.CANCELLED])
    def test_a_retry_runs_a_finished_job_again_and_keeps_its_history(self, scene: Scene, end: Outcome) -> None:
        id, ann = scene.job(max_attempts=7, options=b"o", tags='["t"]', meta='{"m":1}', priority=3), scene.worker()
        ann.fail(ann.take(id), delay=1.0, error=b"first")
        scene.advance(1)
        ann.settle(ann.take(id), end, error=b"second", reason="why")
        before = scene.get(id)
        scene.advance(100)

        assert scene.act(Retry(), id) == [id]

        row = scene.get(id)
        assert (row.state, row.attempt, row.crashes, row.round) == (State.AVAILABLE, 0, 0, 1)
        assert row.attempts == before.attempts
        assert (row.finished_at, row.started_at, row.keep_until, row.suspect) == (None, None, None, False)
        for field in ("task", "queue", "payload", "priority", "max_attempts", "created_at", "tags", "meta", "options"):
            assert getattr(row, field) == getattr(before, field)
        assert ann.take(id).round == 1

    def test_attempts_of_all_rounds_are_numbered_in_their_round(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        for _ in range(2):
            ann.fail(ann.take(id), delay=1.0)
            scene.advance(1)
            ann.die(ann.take(id))
            scene.act(Retry(), id)

        assert [(a.round, a.number, a.outcome) for a in scene.get(id).attempts] == [
            (0, 1, Outcome.FAILED),
            (0, 2, Outcome.DEAD),
            (1, 1, Outcome.FAILED),
            (1, 2, Outcome.DEAD),
        ]

    def test_a_retry_forgets_the_checkpoint_and_keeps_the_log(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        ann.record(job, Checkpoint(b"half"), Log(scene.now, "info", "line"))
        ann.die(job)
        assert scene.store.recorded(id) == b"half"

        scene.act(Retry(), id)

        assert scene.store.recorded(id) is None
        assert ann.take(id).recorded is False
        assert [log.message for log in scene.store.logs(id)] == ["line"]

    def test_a_retry_of_a_scheduled_job_runs_it_now_and_spends_nothing(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        ann.fail(ann.take(id), delay=3600.0)

        assert scene.act(Retry(), id) == [id]

        job = ann.take(id)
        assert (job.attempt, job.round) == (1, 0)

    def test_a_scheduled_job_run_now_gets_a_new_entry_and_a_place_behind_those_that_waited(self, scene: Scene) -> None:
        id = scene.job(delay=3600.0)
        waiting, before = scene.job(), scene.get(id).entry
        scene.act(Retry(), id)
        later = scene.job()

        assert scene.get(id).entry > before
        assert scene.worker().ids() == [waiting, id, later]

    def test_a_retry_of_an_expired_job_is_not_expired_again(self, scene: Scene) -> None:
        id = scene.job(expires=60.0)
        scene.advance(61)
        scene.store.stage(scene.term, now=scene.now)
        scene.act(Retry(), id)
        scene.advance(1)
        scene.store.stage(scene.term, now=scene.now)

        assert scene.worker().take(id).expires_at is None

    def test_a_retried_job_is_not_pruned_by_its_old_retention(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        ann.settle(ann.take(id), keep=60.0)
        scene.act(Retry(), id)
        scene.advance(3600)
        scene.store.prune(scene.term, [], now=scene.now)

        ann.settle(ann.take(id), keep=60.0)
        assert scene.get(id).keep_until == scene.stamp(60)

    # -- delete

    def test_a_deleted_job_is_gone_with_all_that_was_recorded(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        job = ann.take(id)
        ann.record(job, Checkpoint(b"half"), Log(scene.now, "info", "line"))
        ann.fail(job, delay=60.0)

        assert scene.act(Delete(), id) == [id]

        assert scene.store.get(id) is None
        assert scene.store.recorded(id) is None
        assert scene.store.logs(id) == []
        assert scene.store.count(Filter()) == 0

    def test_a_deleted_id_that_is_stored_anew_starts_clean(self, scene: Scene) -> None:
        id, ann = scene.job(id=named("mine")), scene.worker()
        job = ann.take(id)
        ann.record(job, Checkpoint(b"half"), Log(scene.now, "info", "line"))
        ann.die(job)
        scene.act(Delete(), id)
        scene.advance(7200)
        scene.store.prune(scene.term, [], now=scene.now)

        scene.job(id=named("mine"))

        row = scene.get(id)
        assert (row.attempts, row.round, scene.store.logs(id), scene.store.recorded(id)) == ([], 0, [], None)
        assert ann.take(id).recorded is False

    # -- edit

    def test_an_edit_changes_what_is_given_and_nothing_else(self, scene: Scene) -> None:
        id = scene.job(delay=60.0, priority=1, tags='["t"]')
        before = scene.get(id)

        scene.act(Edit(priority=-7), id)

        row = scene.get(id)
        row.entry, row.place = before.entry, before.place  # it stands anew among those of its priority
        before.priority = -7
        assert row == before

    def test_an_edit_of_everything(self, scene: Scene) -> None:
        id = scene.job()
        scene.act(Edit(run_at=scene.stamp(60), priority=0, queue="other", payload=b""), id)

        row = scene.get(id)
        assert (row.state, row.run_at, row.priority) == (State.SCHEDULED, scene.stamp(60), 0)
        assert (row.queue, row.payload) == ("other", b"")

    def test_a_priority_of_zero_is_given(self, scene: Scene) -> None:
        id = scene.job(priority=5)
        scene.act(Edit(priority=0), id)

        assert scene.get(id).priority == 0

    @pytest.mark.parametrize("run_at", [0, 1])
    def test_a_waiting_job_whose_time_is_edited_to_the_past_is_available_at_once(
        self, scene: Scene, run_at: int
    ) -> None:
        id = scene.job(delay=3600.0)
        scene.act(Edit(run_at=run_at), id)

        assert scene.state(id) is State.AVAILABLE
        assert scene.worker().ids() == [id]

    def test_a_scheduled_job_edited_to_a_later_time_waits_for_it(self, scene: Scene) -> None:
        id, ann = scene.job(delay=10.0), scene.worker()
        scene.act(Edit(run_at=scene.stamp(100)), id)
        scene.advance(99)
        assert ann.ids() == []

        scene.advance(1)
        assert ann.ids() == [id]

    def test_an_edit_of_the_payload_leaves_a_scheduled_job_scheduled(self, scene: Scene) -> None:
        id = scene.job(delay=10.0)
        scene.act(Edit(payload=b"new", queue="other"), id)

        assert (scene.state(id), scene.get(id).run_at) == (State.SCHEDULED, scene.stamp(10))
        scene.advance(10)
        assert scene.worker().take(id).payload == b"new"

    @pytest.mark.parametrize("delay", [None, 60.0])
    def test_an_edit_under_an_entry_that_has_changed_touches_nothing(
        self, scene: Scene, other: Store, delay: float | None
    ) -> None:
        id = scene.job(delay=delay)
        seen = scene.get(id).entry
        assert other.act(Filter(ids=(id,), entry=seen), Edit(payload=b"first"), now=scene.now) == [id]

        assert other.act(Filter(ids=(id,), entry=seen), Edit(payload=b"second"), now=scene.now) == []
        assert scene.get(id).payload == b"first"
        assert other.act(Filter(ids=(id,), entry=scene.get(id).entry), Edit(payload=b"third"), now=scene.now) == [id]

    def test_an_edit_reaches_a_claim_on_another_handle(self, scene: Scene, other: Store) -> None:
        id = scene.job()
        other.act(Filter(ids=(id,)), Edit(payload=b"new"), now=scene.now)

        assert scene.worker().take(id).payload == b"new"
