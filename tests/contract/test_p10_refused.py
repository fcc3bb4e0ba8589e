"""P10, where there is no transaction to share: it is refused, in words that say what else to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dayjob.errors import NotSupported
from dayjob.states import Outcome, State
from dayjob.store.contract import Store
from dayjob.store.records import Lease
from tests.contract.engines import ENGINES, EngineUnderTest
from tests.contract.scene import Scene


@pytest.fixture(params=[one for one in ENGINES if not one.joins], ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EngineUnderTest]:
    """In place of all engines: those without transactions to share."""
    under_test: EngineUnderTest = request.param(tmp_path)
    yield under_test
    under_test.close()


def test_everything_about_a_shared_transaction_is_refused_and_writes_nothing(scene: Scene, store: Store) -> None:
    row, ann = scene.row(), scene.worker()
    job = ann.take(scene.job())
    lease = Lease(ann.id, job.id, job.entry)
    calls: list[Callable[[], object]] = [
        lambda: store.enqueue_script([row], now=scene.now),
        lambda: store.completion_script(lease, ann.settlement(job, Outcome.COMPLETED), now=scene.now),
        lambda: store.standing(lease),
        store.begin,
    ]

    for call in calls:
        with pytest.raises(NotSupported, match="PostgreSQL or SQLite"):
            call()
    assert store.system == ""
    assert store.get(row.id) is None
    assert scene.state(job.id) is State.RUNNING
