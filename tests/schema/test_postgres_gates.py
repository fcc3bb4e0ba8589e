"""Keys and gates where another transaction stays open: who must wait for it, and who must not. And what the blocked cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import dayjob.store
from dayjob.errors import StoreUnavailable
from dayjob.store.contract import Store
from dayjob.store.gating import Gating
from tests.contract.gates.words import admit, concurrency, gated, key_of, laned, unique
from tests.contract.scene import Scene
from tests.contract.theirs import Theirs
from tests.servers.needed import needed
from tests.servers.postgres import postgres

if "postgresql" not in dayjob.store.ENGINES:
    pytest.skip("this release has no PostgreSQL engine", allow_module_level=True)

from tests.schema.blocked import OPERATIONS, STATES, Crowd, Gated


def test_a_key_in_an_open_transaction_refuses_its_row_and_not_the_neighbours(scene: Scene, app: Theirs) -> None:
    app.enqueue(scene.row(gating=unique()))
    rows = [scene.row(), scene.row(gating=unique()), scene.row(gating=unique("another"))]

    answers = scene.store.enqueue(rows, now=scene.now)

    assert [answer.outcome for answer in answers] == ["inserted", "refused", "inserted"]
    assert isinstance(answers[1].error, StoreUnavailable)
    app.rollback()


def test_a_claim_does_not_wait_for_a_replacement_that_is_not_committed(scene: Scene, app: Theirs) -> None:
    id, other = scene.job(gating=unique(), payload=b"old"), scene.job()
    app.enqueue(scene.row(gating=unique(on_conflict="replace"), payload=b"new"))
    ann = scene.worker()

    assert ann.ids() == [other]

    app.commit()
    assert ann.take(id).payload == b"new"


@pytest.mark.timeout(10)  # it waited for as long as the transaction was open
@pytest.mark.parametrize("policy", ["extend", "replace"])
@pytest.mark.parametrize("end", [Theirs.commit, Theirs.rollback], ids=lambda end: end.__name__)
def test_a_claim_does_not_wait_for_a_replacement_of_one_that_has_just_come(
    scene: Scene, app: Theirs, policy: str, end: Callable[[Theirs], None]
) -> None:
    first, other = scene.row(gating=unique()), scene.row()
    app.enqueue(first, other)
    app.commit()
    app.enqueue(scene.row(gating=unique(on_conflict=policy)))
    ann = scene.worker()

    assert ann.ids() == [other.id]

    end(app)
    admit(scene)
    assert ann.ids() == [first.id]


def test_one_that_has_just_come_is_not_lost_though_somebody_had_it_in_hand(scene: Scene, app: Theirs) -> None:
    row = scene.row(gating=unique())
    app.enqueue(row)
    app.commit()
    app.connection.execute(f"SELECT 1 FROM dayjob.job WHERE id = '{row.id}' FOR UPDATE")
    ann = scene.worker()
    assert ann.ids() == []

    app.rollback()
    admit(scene)

    assert ann.ids() == [row.id]


def test_what_is_due_and_being_put_off_is_left_for_the_next_turn(scene: Scene, app: Theirs) -> None:
    id, other = scene.job(gating=unique(), delay=5.0), scene.job(delay=5.0)
    app.enqueue(scene.row(gating=unique(on_conflict="extend"), delay=60.0))
    scene.advance(6)
    ann = scene.worker()

    assert ann.ids() == [other]

    app.rollback()
    assert ann.ids() == [id]


def test_producers_at_one_gate_do_not_wait_for_each_other(scene: Scene, app: Theirs) -> None:
    app.enqueue(scene.row(gating=gated(concurrency())))
    id = scene.job(gating=gated(concurrency()))

    assert scene.worker().ids() == [id]
    app.rollback()


@pytest.mark.parametrize("policy", ["extend", "replace"])
def test_who_stopped_behind_a_job_that_was_being_put_off_is_let_in(scene: Scene, app: Theirs, policy: str) -> None:
    gating = Gating(key_of(on_conflict=policy), gates=(concurrency("one"),))
    scene.job(queue="a", priority=5, gating=gating)
    other = scene.job(queue="b", gating=gated(concurrency("one")))
    app.enqueue(scene.row(queue="a", delay=3600.0, priority=5, gating=gating))
    ann = scene.worker()
    assert ann.ids() == []

    app.commit()

    assert ann.ids() == [other]


def test_lanes_of_a_transaction_get_their_turns_when_it_is_committed(scene: Scene, app: Theirs) -> None:
    scene.jobs(10, gating=laned("many"))
    row = scene.row(gating=laned("one"))
    app.enqueue(row)
    app.commit()

    assert row.id in scene.worker().ids(3)


def test_a_role_that_may_only_call_functions_is_told_of_refusals(scene: Scene) -> None:
    store: Store = scene.store
    id = scene.job(gating=unique())
    store.db.inserts = False  # type: ignore[attr-defined]  # as `producer` finds it

    [answer] = store.enqueue([scene.row(gating=unique())], now=scene.now)

    assert (answer.outcome, answer.id) == ("existing", id)


@pytest.fixture(scope="module", params=(18, 15))
def crowd(request: pytest.FixtureRequest) -> Iterator[Crowd]:
    crowd = Crowd(needed(lambda: postgres(request.param)))
    yield crowd
    crowd.end()


@pytest.mark.timeout(120)  # the first fills the database
@pytest.mark.parametrize("state", STATES)
def test_what_many_do_who_are_blocked_behind_one_key_costs_the_others_nothing(crowd: Crowd, state: str) -> None:
    gated = crowd.bring_to(state)
    far = {}
    for operation, most in OPERATIONS.items():
        looked_at = _rows_looked_at(gated, operation)
        if looked_at > most:
            far[operation.__name__] = (looked_at, sorted(gated.scans, key=lambda scan: -scan.rows)[:3])

    assert far == {}


def _rows_looked_at(gated: Gated, operation: Callable[[Gated], object]) -> int:
    operation(gated)  # what came before is not counted: a first look reads the catalogue
    gated.forget()
    operation(gated)
    return sum(scan.rows for scan in gated.scans)
