"""When the power goes, nothing that was acknowledged is lost; and a suite that could not lose anything would not notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.power.cuts import Report, cut
from tests.chaos.power.disk import LitDisk, LyingDisk
from tests.chaos.power.recorder import Recording, record
from tests.servers.needed import needed

CUTS = 20
SEED = 1

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """The engine as it is."""
    return needed(lambda: record(tmp_path_factory.mktemp("full"), SEED))


@pytest.fixture(scope="module")
def careless(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """The engine with a bug: a commit does not wait for the disk."""
    return needed(lambda: record(tmp_path_factory.mktemp("normal"), SEED, "NORMAL"))


def test_nothing_acknowledged_is_lost_when_the_power_goes(recording: Recording, tmp_path: Path) -> None:
    report = cut(recording, tmp_path, CUTS, Report(SEED))
    print(report.text())

    assert report.broken == []
    assert report.telling >= CUTS / 4, "cuts that lose nothing prove nothing"
    assert report.dropped > 0
    assert report.torn > 0
    assert report.again > 0, "no job was under way at any cut"


def test_an_engine_whose_commits_do_not_wait_for_the_disk_is_caught(careless: Recording, tmp_path: Path) -> None:
    report = cut(careless, tmp_path, 6 * CUTS, Report(SEED))  # one in twelve misses a settlement

    assert any("acknowledged and lost" in line for line in report.broken)
    assert any("accepted" in line for line in report.broken), "no settlement was missed"


def test_that_engine_loses_nothing_when_only_its_processes_die(careless: Recording, tmp_path: Path) -> None:
    report = cut(careless, tmp_path, CUTS, Report(SEED), LitDisk)

    assert report.broken == []
    assert not report.telling


def test_a_disk_that_answers_syncs_and_does_not_do_them_is_caught(recording: Recording, tmp_path: Path) -> None:
    report = cut(recording, tmp_path, CUTS, Report(SEED), LyingDisk)

    assert any("acknowledged and lost" in line for line in report.broken)
    assert any("damaged" in line or "does not open" in line for line in report.broken)
