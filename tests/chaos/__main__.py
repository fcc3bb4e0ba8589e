"""Chaos for as long as you like, with a report at the end; and seeded bugs that the same chaos must bring to light.

python -m tests.chaos soak --engine sqlite --minutes 30
python -m tests.chaos mutants --engine valkey
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
from pathlib import Path

import msgspec

from dayjob.errors import StoreError
from tests.chaos.places import PLACES
from tests.chaos.play import CALM, folder_of, play
from tests.chaos.soaked import SOAKED

ACT, FAULTS = 60.0, 14.0
"""Seconds of an act, and of the faults in it; the rest is calm, in which nothing may go wrong by itself."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("what", choices=["soak", "mutants"])
    parser.add_argument("--engine", choices=sorted(PLACES), default="sqlite")
    parser.add_argument("--minutes", type=float, default=30.0, help="of a soak")
    parser.add_argument("--seed", type=int, default=random.randrange(1, 1_000_000))
    parser.add_argument("--report", type=Path, default=Path("build/chaos"), help="a folder for ledger, logs and report")
    parser.add_argument("--previous", metavar="REV", help="one worker of a soak runs the sources of this revision")
    parser.add_argument("--only", metavar="NAME", help="of the seeded bugs")
    given = parser.parse_args()
    return soak(given) if given.what == "soak" else mutants(given)


def soak(given: argparse.Namespace) -> int:
    """One long run; 1 when a rule was broken."""
    folder = folder_of(given.engine, given.seed, given.report)
    acts = max(1, round(given.minutes * 60 / ACT))
    with PLACES[given.engine](folder) as place:
        place.small_disk()
        report = play(
            place,
            given.seed,
            acts,
            FAULTS,
            healing=given.minutes * 60 / acts - CALM - FAULTS,
            table={kind: count for kind, count in SOAKED[type(place)].items() if kind.possible(place)},
            spare=True,
            previous=None if given.previous is None else sources(given.previous, folder / "previous"),
            say=lambda line: print(line, flush=True),
        )
    (folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    print(report.text())
    return 1 if report.verdict.violations else 0


def mutants(given: argparse.Namespace) -> int:
    """A short run with each seeded bug, and a line on who noticed; 1 when one was not noticed."""
    from tests.chaos.mutants import ENGINE_OF, MUTANTS

    engine = ENGINE_OF[given.engine]
    missed = 0
    for mutant in MUTANTS.values():
        if engine in mutant.engines and given.only in (None, mutant.name):
            os.environ["CHAOS_MUTANT"] = mutant.name
            folder = folder_of(given.engine, given.seed, given.report / mutant.name.replace(" ", "-"))
            try:
                with mutant.seeded(engine), PLACES[given.engine](folder) as place:
                    noticed = sorted(play(place, given.seed, say=lambda line: None).verdict.broken_rules())
            except (AssertionError, StoreError) as error:  # so broken that the run does not come to its end
                noticed = [f"the run itself: {str(error).partition(chr(10))[0]}"]
            missed += not noticed
            print(f"{mutant.name:<32} {', '.join(noticed) or 'NOT NOTICED'}", flush=True)
    return 1 if missed else 0


def sources(revision: str, folder: Path) -> Path:
    """The package as it was at *revision*, in *folder*."""
    folder.mkdir()
    tar = subprocess.run(["git", "archive", revision, "src"], stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=tar, check=True)
    return folder.absolute() / "src"


if __name__ == "__main__":
    sys.exit(main())
