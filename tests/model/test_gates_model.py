"""Every engine gates like the reference (see `gates_machine`). `MODEL_STORIES` and `MODEL_SEED` as in `test_model`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from dayjob.store.gating import TURN, Gating
from dayjob.store.records import Edit
from tests.contract.engines import ENGINES, EngineUnderTest
from tests.contract.scene import Scene
from tests.model.gates_machine import GatesMachine
from tests.model.test_model import LOOK, SEED, STORIES

STEPS = 40


@pytest.mark.model
@pytest.mark.timeout(0 if STORIES else 180)
@pytest.mark.parametrize("engine_type", ENGINES, ids=lambda engine: engine.name)
def test_an_engine_gates_like_the_reference(engine_type: type[EngineUnderTest]) -> None:
    chosen = settings(
        max_examples=int(STORIES or engine_type.stories // 2),
        stateful_step_count=STEPS,
        phases=LOOK if engine_type.processes else (*LOOK, Phase.shrink),
        deadline=None,
    )
    with tempfile.TemporaryDirectory() as folder:
        machine = type("Machine", (GatesMachine,), {"engine_type": engine_type, "folder": Path(folder)})
        run_state_machine_as_test(machine if SEED is None else seed(int(SEED))(machine), settings=chosen)


class Lanes:
    """Self-clocked fair queueing on paper. Places are of one queue at one priority, and begin anew when it is empty."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, int, str, str]] = []
        self.made = 0

    def enqueue(self, id: str, lane: str, weight: int) -> None:
        self.made += 1
        mine = [place for place, _, _, other in self.waiting if other == lane]
        first = min(self.waiting)[0] if self.waiting else 0.0
        place = max(first, *[each + TURN / weight for each in mine[-1:]]) if mine else first
        self.waiting.append((place, self.made, id, lane))
        self.waiting.sort()

    def give(self, pick: int, lane: str, weight: int) -> str | None:
        """Give one of those that wait another lane, if it is another; which one."""
        if not self.waiting:
            return None
        waits = self.waiting[pick % len(self.waiting)]
        if waits[3] != lane:
            self.waiting.remove(waits)
            self.enqueue(waits[2], lane, weight)
        return waits[2]

    def claimed(self, limit: int, ids: list[str]) -> None:
        """So many were asked for and *ids* came: those whose turn it was. Among lanes of one place, any may be the first."""
        places = {id: place for place, _, id, _ in self.waiting}
        assert [places[id] for id in ids] == [place for place, *_ in self.waiting[:limit]]
        self.waiting = [each for each in self.waiting if each[2] not in ids]


lanes = st.sampled_from(["a1", "b1", "c1", "d2", "e4"])
lane_story = st.lists(
    st.one_of(
        st.lists(lanes, min_size=1, max_size=8),
        st.integers(min_value=1, max_value=6),
        st.tuples(st.integers(0, 20), lanes),
    ),
    max_size=12,
)


@pytest.mark.model
@pytest.mark.parametrize("engine_type", ENGINES, ids=lambda engine: engine.name)
def test_lanes_take_turns_as_they_do_on_paper(engine_type: type[EngineUnderTest]) -> None:
    @settings(max_examples=engine_type.stories, phases=LOOK, deadline=None)
    @given(story=lane_story)
    def told(story: list[list[str] | int | tuple[int, str]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            engine = engine_type(Path(folder))
            try:
                tell(Scene(engine), story)
            finally:
                engine.close()

    told()


def tell(scene: Scene, story: list[list[str] | int | tuple[int, str]]) -> None:
    """Rows of lanes come, so many are claimed, and one that waits is given another lane."""
    paper, ann = Lanes(), scene.worker()
    for each in [*story, 1000]:
        if isinstance(each, tuple):
            pick, name = each
            id = paper.give(pick, name, int(name[1]))
            if id is not None:
                assert scene.act(Edit(gating=Gating(lane=name, weight=int(name[1]))), id) == [id]
            continue
        if isinstance(each, int):
            paper.claimed(each, ann.ids(each))
            continue
        rows = [scene.row(gating=Gating(lane=name, weight=int(name[1]))) for name in each]
        scene.store.enqueue(rows, now=scene.now)
        for name, row in zip(each, rows, strict=True):
            paper.enqueue(row.id, name, int(name[1]))
