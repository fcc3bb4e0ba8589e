"""Live chaos: four workers and two producers, while all that is listed in `faults.py` happens to them and their store.

`CHAOS_SEED=n` repeats an order of faults, `CHAOS_SECONDS=s` makes a run longer or shorter.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.chaos.places import PLACES
from tests.chaos.play import CALM, HEALING, play
from tests.chaos.rules.moments import TIMED
from tests.chaos.verdict import Verdict
from tests.servers.needed import needed

SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.randrange(1, 1_000_000)
IDLE = 0.3
"""Of a machine that is busier than that nobody can say in which second it does what."""
SECONDS = float(os.environ.get("CHAOS_SECONDS", "50"))

pytestmark = [pytest.mark.crash, pytest.mark.processes, pytest.mark.timeout(120 + 2 * SECONDS)]


@pytest.mark.parametrize("engine", PLACES)
def test_every_promise_is_kept_whatever_happens(engine: str, tmp_path: Path) -> None:
    print(f"CHAOS_SEED={SEED}")
    with needed(lambda: PLACES[engine](tmp_path)) as place:
        report = play(place, SEED, seconds=SECONDS - CALM - HEALING)
    print(report.text())

    if report.idle < IDLE:
        print(f"the machine was {report.idle:.0%} idle: what came when is reported, and not asserted")
    judged = [one for one in report.verdict.findings if report.idle >= IDLE or one.rule not in TIMED]
    assert Verdict(tuple(judged)).violations == []
