"""The file system that can be full: it is, for as long as was asked, and leaves nothing behind."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.places.disk import Disk

MUCH = bytes(1 << 20)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    try:
        made = Disk(tmp_path / "disk")
    except OSError as error:
        pytest.skip(f"this machine mounts nothing for us: {error}")
    yield made
    if made.folder.is_mount():
        made.close()


def test_a_full_disk_takes_no_write_and_keeps_what_it_has(disk: Disk) -> None:
    (disk.folder / "before").write_bytes(MUCH)
    with disk.full():
        with pytest.raises(OSError, match="No space left") as refused:
            (disk.folder / "meanwhile").write_bytes(MUCH)

        assert refused.value.errno == errno.ENOSPC
        assert (disk.folder / "before").read_bytes() == MUCH


def test_it_has_room_again_also_when_its_user_failed_meanwhile(disk: Disk) -> None:
    with pytest.raises(ZeroDivisionError), disk.full():
        raise ZeroDivisionError

    (disk.folder / "after").write_bytes(MUCH)
    assert (disk.folder / "after").read_bytes() == MUCH


def test_nothing_is_left_of_a_closed_disk_not_even_while_somebody_has_a_file_open(disk: Disk) -> None:
    with (disk.folder / "open").open("wb"):
        disk.close()

    assert not disk.folder.exists()


def test_where_nothing_can_be_mounted_no_folder_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="mount"):
        Disk(tmp_path / "disk")

    assert not (tmp_path / "disk").exists()
