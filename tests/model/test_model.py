"""Every engine behaves like the reference, whatever Hypothesis thinks of (see `machine`)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.contract.engines import ENGINES, EngineUnderTest
from tests.model.machine import EngineMachine

STEPS = 50
LOOK = (Phase.explicit, Phase.reuse, Phase.generate)  # explaining takes minutes before Python 3.12


@pytest.mark.model
@pytest.mark.timeout(180)
@pytest.mark.parametrize("engine_type", ENGINES, ids=lambda engine: engine.name)
def test_an_engine_behaves_like_the_reference(engine_type: type[EngineUnderTest]) -> None:
    in_memory = not engine_type.processes
    chosen = settings(
        max_examples=engine_type.stories,
        stateful_step_count=STEPS,
        # Shrinking on a disk takes five minutes; what is wrong there is mostly wrong in memory, too.
        phases=(*LOOK, Phase.shrink) if in_memory else LOOK,
        deadline=None,
    )
    with tempfile.TemporaryDirectory() as folder:
        machine = type("Machine", (EngineMachine,), {"engine_type": engine_type, "folder": Path(folder)})
        run_state_machine_as_test(machine, settings=chosen)
