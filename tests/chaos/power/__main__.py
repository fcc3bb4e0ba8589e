"""`python -m tests.chaos.power --cuts 2000 --seed 7`: the soak of power cuts."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from msgspec import msgpack

from tests.chaos.power.cuts import Report, cut, cut_many
from tests.chaos.power.recorder import Recording


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.power", description=__doc__)
    parser.add_argument("--cuts", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 1_000_000))
    parser.add_argument("--recording", type=Path, help="cut this one again, in the same places, instead of new ones")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    if asked.recording is not None:
        recording = msgpack.decode(asked.recording.read_bytes(), type=Recording)
        report = cut(recording, folder, asked.cuts, Report(recording.seed))
    else:
        report = cut_many(folder, asked.seed, asked.cuts)
    print(report.text())
    if report.broken:
        print(f"the recordings of these cuts are in {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if report.broken or not report.telling else 0


if __name__ == "__main__":
    sys.exit(main())
