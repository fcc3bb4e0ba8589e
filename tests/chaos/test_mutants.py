"""The checker notices every bug that is seeded, in a run that is clean without it.

A storm has three seeds to show a bug. `MUTANT_SEEDS=5` lets each bug meet five, on every engine, for their whole time, and
tells in how many it was noticed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dayjob.store.exits import returned
from tests.chaos.checker import RULES
from tests.chaos.evidence import Conditions, Evidence
from tests.chaos.mutants import MUTANTS, Mutant
from tests.chaos.mutants.mutant import STALE
from tests.chaos.mutation import Change, seeded
from tests.chaos.storms import LOSSY, LOSSY_TICKS, RUSHES, SLOW_FREEZES, Storm, Trial, weather
from tests.contract.engines import ENGINES, EngineUnderTest, SqliteMemory

SEEDS = int(os.environ.get("MUTANT_SEEDS", 0))
WIRED = {"postgres-18": "postgres", "valkey-9": "redis"}
"""Engines that are asked over a wire: in CI they meet some of the storms, for less time."""
SHARE = 0.4
TRIES = 3
SOME = (SLOW_FREEZES, LOSSY, RUSHES, LOSSY_TICKS)

Case = tuple[type[EngineUnderTest], Mutant]


def _cases() -> list[Case]:
    wired = [engine for engine in ENGINES if engine.name in WIRED]
    own = [mutant for mutant in MUTANTS.values() if mutant.own and (SEEDS or mutant.storm in SOME)]
    elsewhere = [(engine, mutant) for engine in wired for mutant in own if WIRED[engine.name] in mutant.engines]
    return [*((SqliteMemory, mutant) for mutant in MUTANTS.values()), *elsewhere]


CASES = _cases()


def _storm(engine: type[EngineUnderTest], mutant: Mutant) -> Storm:
    return mutant.storm if engine is SqliteMemory or SEEDS else mutant.storm.shorter(SHARE)


def _lived(engine: type[EngineUnderTest], folder: Path, storm: Storm, seed: int) -> Trial:
    place = engine(folder)
    try:
        store = place.open()  # not a copy of what others have migrated: that may be what is changed
        store.migrate()
        return weather(store, storm, seed)
    finally:
        place.close()


_CLEAN: dict[tuple[str, str, int], Trial] = {}


def _without(engine: type[EngineUnderTest], folder: Path, storm: Storm, seed: int) -> Trial:
    """The same without a bug; once is enough."""
    key = (engine.name, storm.name, seed)
    if key not in _CLEAN:
        _CLEAN[key] = _lived(engine, folder, storm, seed)
    return _CLEAN[key]


@pytest.mark.timeout(900 if SEEDS else 120)
@pytest.mark.parametrize(("engine", "mutant"), CASES, ids=[f"{engine.name}-{mutant.name}" for engine, mutant in CASES])
def test_the_checker_notices(engine: type[EngineUnderTest], mutant: Mutant, tmp_path: Path) -> None:
    storm = _storm(engine, mutant)
    noticed: list[int] = []
    for seed in range(1, (SEEDS or TRIES) + 1):
        with mutant.seeded(WIRED.get(engine.name, "sqlite")):
            trial = _lived(engine, tmp_path, storm, seed)
        broken = trial.verdict.broken_rules() & set(mutant.noticed)
        print(
            f"seed {seed}: {trial.jobs} jobs in {trial.seconds:.0f} s; broken: {', '.join(sorted(broken)) or 'nothing'}"
        )
        if broken:
            assert not _without(engine, tmp_path, storm, seed).verdict.violations
            noticed.append(seed)
            if not SEEDS:
                break

    print(f"{mutant.promise}: {mutant.breaks}; noticed in storm {noticed}")
    assert noticed


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(1, TRIES + 1))
def test_a_completion_that_is_not_fenced_is_noticed_whatever_the_seed(seed: int, tmp_path: Path) -> None:
    """The worst that there is: no luck is needed to see it."""
    mutant = MUTANTS["a completion is not fenced"]
    with mutant.seeded("sqlite"):
        trial = _lived(SqliteMemory, tmp_path, mutant.storm, seed)

    assert STALE in trial.verdict.broken_rules()
    assert not _without(SqliteMemory, tmp_path, mutant.storm, seed).verdict.violations


CONTROLS = {(engine.name, mutant.storm.name): (engine, mutant) for engine, mutant in CASES}
"""As many as there are storms."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("engine", "mutant"), CONTROLS.values(), ids=[" ".join(key) for key in CONTROLS])
def test_without_a_bug_the_same_storm_breaks_no_rule(
    engine: type[EngineUnderTest], mutant: Mutant, tmp_path: Path
) -> None:
    assert _without(engine, tmp_path, _storm(engine, mutant), 1).verdict.violations == []


def test_every_mutant_finds_its_place_in_every_engine_that_it_names() -> None:
    for mutant in MUTANTS.values():
        for engine in mutant.engines:
            with mutant.seeded(engine):
                pass


def test_every_mutant_is_noticed_by_rules_that_there_are() -> None:
    nothing = Evidence([], {}, [], Conditions(lease=1.0, beat=1.0, sweep=1.0, grace=1.0))
    known = {rule(nothing).rule for rule in RULES}

    assert {rule for mutant in MUTANTS.values() for rule in mutant.noticed} <= known


@pytest.mark.parametrize(
    "where", ["store/sqlite/queries.sql", "dayjob.store.exits:returned"], ids=["a statement", "a function"]
)
def test_a_change_whose_text_is_gone_is_an_error_and_not_a_bug_that_does_nothing(where: str) -> None:
    with pytest.raises(LookupError, match="0 times"), seeded([Change(where, "this was never there", "")]):
        pass


def test_a_bug_is_gone_afterwards() -> None:
    before = returned.__code__

    with seeded([Change("dayjob.store.exits:returned", "job.attempt + effect.attempt", "job.attempt")]):
        assert returned.__code__ is not before

    assert returned.__code__ is before


def test_a_process_has_the_bug_that_its_environment_names() -> None:
    code = (
        "import gc; from dayjob.store.exits import exit_of; from tests.chaos.mutants import apply_from_environment; "
        "apply_from_environment('sqlite'); gc.collect(); print(exit_of.__code__.co_filename)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CHAOS_MUTANT": "poison dies late"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, check=True)

    assert found.stdout.decode().strip() == "<mutant of exit_of>"
