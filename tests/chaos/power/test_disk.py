"""The disk of the power cuts keeps what a disk must, and may lose the rest in every way there is."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.chaos.power.disk import SECTOR, Disk
from tests.chaos.power.recorder import Op, Recording, read

OLD, NEW = b"o" * 4 * SECTOR, b"n" * 4 * SECTOR
CREATED = [Op(0, 1, "create", 1, "a"), Op(2, 3, "write", 1, "a", 0, OLD), Op(4, 5, "sync", 1), Op(6, 7, "sync")]


def left(ops: list[Op], moment: float, tries: int = 300) -> list[dict[str, bytes]]:
    """What a disk has after *ops*, often tried."""
    disk = Disk(Recording(ops, 0, ""))
    return [disk.cut(moment, random.Random(seed))[0] for seed in range(tries)]


def test_what_was_synced_is_there() -> None:
    ops = [*CREATED, Op(8, 9, "write", 1, "a", 0, NEW), Op(10, 11, "sync", 1)]

    assert all(files == {"a": NEW} for files in left(ops, 11))


def test_a_sync_that_has_not_returned_keeps_nothing() -> None:
    ops = [*CREATED, Op(8, 9, "write", 1, "a", 0, NEW), Op(10, 15, "sync", 1)]
    found = {files["a"] for files in left(ops, 14)}

    assert {OLD, NEW} < found
    assert any(len(set(content)) == 2 for content in found), "never torn"
    assert all(len(set(content[at : at + SECTOR])) == 1 for content in found for at in range(0, len(OLD), SECTOR))


def test_a_write_under_way_at_a_sync_is_not_synced_by_it() -> None:
    ops = [*CREATED, Op(8, 11, "write", 1, "a", 0, NEW), Op(10, 13, "sync", 1)]

    assert OLD in {files["a"] for files in left(ops, 20)}


def test_the_later_of_two_writes_may_be_there_alone() -> None:
    ops = [*CREATED, Op(8, 9, "write", 1, "a", 0, NEW[:SECTOR]), Op(10, 11, "write", 1, "a", SECTOR, NEW[:SECTOR])]

    assert OLD[:SECTOR] + NEW[:SECTOR] + OLD[2 * SECTOR :] in {files["a"] for files in left(ops, 20)}


def test_a_file_may_grow_without_its_data_and_lack_data_without_growing() -> None:
    grown = {files["a"] for files in left([*CREATED, Op(8, 9, "write", 1, "a", len(OLD), NEW)], 20)}

    assert {OLD, OLD + bytes(len(NEW)), OLD + NEW} < grown
    assert any(
        len(content) == len(OLD + NEW) and content[len(OLD) :] not in (NEW, bytes(len(NEW))) for content in grown
    )


def test_a_new_name_needs_a_sync_of_the_folder() -> None:
    """On a lenient disk any sync will do: half of these are."""
    without = left(CREATED[:3], 5)

    assert {len(files) for files in without} == {0, 1}
    assert all(files == {"a": OLD} for files in left(CREATED, 7))


def test_a_removed_file_may_come_back_with_what_was_in_it() -> None:
    removed = left([*CREATED, Op(8, 9, "remove", 1, "a")], 20)

    assert {} in removed
    assert {"a": OLD} in removed


@pytest.mark.parametrize(
    "call", ["mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, 5<{a}>, 0) = 0x7f0000000000", 'rename("{a}", "{a}") = 0']
)
def test_the_recorder_knows_all_that_it_sees_or_says_so(call: str, tmp_path: Path) -> None:
    path = "".join(f"\\x{byte:02x}" for byte in bytes(tmp_path.resolve() / "disk" / "a"))
    (tmp_path / "log").write_text(f"1 {call.format(a=path)}\n")

    with pytest.raises(AssertionError, match="does not know"):
        read(tmp_path / "log", tmp_path)


def test_a_call_that_another_interrupts_is_under_way_in_between(tmp_path: Path) -> None:
    path = "".join(f"\\x{byte:02x}" for byte in bytes(tmp_path.resolve() / "disk" / "a"))
    (tmp_path / "log").write_text(
        f'1 openat(AT_FDCWD<\\x2f>, "{path}", O_RDWR|O_CREAT, 0644) = 5<{path}>\n'
        f'1 pwrite64(5<{path}>, "\\x41\\x42", 2, 512 <unfinished ...>\n'
        f"2 fdatasync(5<{path}>) = 0\n"
        "1 <... pwrite64 resumed>) = 2\n"
        f"2 fdatasync(5<{path}> <unfinished ...>\n"
    )
    created, write, sync, lost = read(tmp_path / "log", tmp_path)

    assert (created.kind, created.name) == ("create", "a")
    assert (write.begun, write.ended, write.offset, write.data) == (2, 7, 512, b"AB")
    assert (sync.begun, sync.ended) == (4, 5)
    assert lost.ended == float("inf")
