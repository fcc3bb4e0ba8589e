"""Every engine behaves like the reference, whatever Hypothesis thinks of (see `machine`).

`MODEL_STORIES=10000` tells so many of them instead (without a time limit), `MODEL_SEED=7` those of that seed.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.contract.engines import ENGINES, EngineUnderTest
from tests.model.machine import EngineMachine

STEPS = 50
STORIES, SEED = os.environ.get("MODEL_STORIES"), os.environ.get("MODEL_SEED")
LOOK = (Phase.explicit, Phase.reuse, Phase.generate)  # explaining takes minutes before Python 3.12


@pytest.mark.model
@pytest.mark.timeout(0 if STORIES else 180)
@pytest.mark.parametrize("engine_type", ENGINES, ids=lambda engine: engine.name)
def test_an_engine_behaves_like_the_reference(engine_type: type[EngineUnderTest]) -> None:
    in_memory = not engine_type.processes
    chosen = settings(
        max_examples=int(STORIES or engine_type.stories),
        stateful_step_count=STEPS,
        # Shrinking on a disk takes five minutes; what is wrong there is mostly wrong in memory, too.
        phases=(*LOOK, Phase.shrink) if in_memory else LOOK,
        deadline=None,
    )
    with tempfile.TemporaryDirectory() as folder:
        machine = type("Machine", (EngineMachine,), {"engine_type": engine_type, "folder": Path(folder)})
        run_state_machine_as_test(machine if SEED is None else seed(int(SEED))(machine), settings=chosen)
