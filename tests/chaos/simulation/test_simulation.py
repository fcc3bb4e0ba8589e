"""A cluster's life on a virtual clock: from a seed, again and again the same, and without a broken promise."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.simulation.__main__ import shares
from tests.chaos.simulation.world import simulate
from tests.contract.engines import ENGINES, EngineUnderTest, SqliteMemory

HOURS = float(os.environ.get("SIMULATION_HOURS", 100))
SEED = int(os.environ.get("SIMULATION_SEED", 1))
RUNS = list(enumerate(shares(HOURS), SEED))
ELSEWHERE = [engine for engine in ENGINES if engine is not SqliteMemory]
SHORT = 0.2
"""Hours on an engine that is asked over a wire."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("seed", "hours"), RUNS)
def test_hours_of_faults_break_no_promise(seed: int, hours: float) -> None:
    life = simulate(seed, hours)

    print(life.summary)
    assert life.summary.violations == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize("engine", ELSEWHERE, ids=lambda engine: engine.name)
def test_the_same_life_on_every_engine_breaks_no_promise(engine: type[EngineUnderTest], tmp_path: Path) -> None:
    place = engine(tmp_path)

    life = simulate(3, SHORT, store=place.store())
    place.close()

    print(life.summary)
    assert life.summary.violations == []


def test_a_seed_gives_the_same_ledger_byte_for_byte() -> None:
    first, second, other = (simulate(seed, SHORT).ledger for seed in (11, 11, 12))

    assert first == second
    assert first != other


def test_a_seed_gives_the_same_ledger_in_another_process_whatever_its_hashes() -> None:
    code = "import hashlib, sys; from tests.chaos.simulation.world import simulate; "
    code += f"sys.stdout.write(hashlib.sha256(simulate(11, {SHORT}).ledger).hexdigest())"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout.decode()
        for seed in ("1", "2")
    }

    assert found == {hashlib.sha256(simulate(11, SHORT).ledger).hexdigest()}
