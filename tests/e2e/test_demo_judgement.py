"""The demo must not be able to pass when something went wrong: its judgement is tested on made-up outcomes."""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from pathlib import Path

import pytest

from dayjob.cli.demo.display import Screen, clip, sparkline
from dayjob.cli.demo.reading import Binary, Reading, detect, files_below, measure
from dayjob.cli.demo.verify import BINARY, UNREADABLE, Outcome, compare, plain, read_effects

GOOD = Reading("aa", 3, 1, 1, "ascii")


def outcome(
    name: str = "a", state: str = "completed", reason: str | None = None, attempt: int = 1, excuses: int | None = None
) -> Outcome:
    return Outcome(f"id-{name}", name, state, reason, attempt, GOOD if state == "completed" else None, excuses)


def faults(expected: dict[str, Reading | str], outcomes: list[Outcome], effects: dict[str, int]) -> list[str]:
    return compare(expected, outcomes, Counter(effects), 3).faults


def test_what_is_right_has_no_faults() -> None:
    expected: dict[str, Reading | str] = {"a": GOOD, "b": BINARY, "c": UNREADABLE}
    outcomes = [outcome(), outcome("b", "dead", "unrecoverable"), outcome("c", "dead", "failed", 3)]

    assert faults(expected, outcomes, {"id-a": 1}) == []


@pytest.mark.parametrize(
    ("expected", "outcomes", "effects", "fault"),
    [
        ({"a": GOOD, "b": GOOD}, [outcome()], {"id-a": 1}, "b: lost"),
        ({"a": GOOD}, [outcome(), outcome()], {"id-a": 1}, "two jobs for a"),
        ({}, [outcome()], {}, "nobody enqueued"),
        ({"a": GOOD}, [outcome(state="available")], {}, "never finished"),
        ({"a": GOOD}, [outcome()], {}, "without its effect"),
        ({"a": GOOD}, [outcome()], {"id-a": 2}, "2 times, 0 losses"),
        ({"a": GOOD}, [outcome(excuses=1)], {"id-a": 3}, "3 times, 1 losses"),
        ({"a": GOOD}, [outcome()], {"id-a": 1, "id-x": 1}, "an effect without a job"),
        ({"a": BINARY}, [outcome()], {"id-a": 1}, "plain computation says binary"),
        ({"a": BINARY}, [outcome(state="dead", reason="failed")], {}, "binary, but dead of failed"),
        ({"a": UNREADABLE}, [outcome(state="dead", reason="failed", attempt=1)], {}, "after 1 of 3"),
        ({"a": GOOD}, [outcome(state="dead", reason="crashed")], {}, "dead of crashed"),
        ({"a": Reading("bb", 3, 1, 1, "ascii")}, [outcome()], {"id-a": 1}, "plain computation says"),
    ],
)
def test_every_kind_of_wrong_is_a_fault(
    expected: dict[str, Reading | str], outcomes: list[Outcome], effects: dict[str, int], fault: str
) -> None:
    found = faults(expected, outcomes, effects)

    assert len(found) == 1
    assert fault in found[0]


def test_a_double_effect_is_explained_by_a_recorded_loss() -> None:
    verdict = compare({"a": GOOD}, [outcome(excuses=1)], Counter({"id-a": 2}), 3)

    assert (verdict.faults, verdict.doubled) == ([], 1)


def test_a_file_that_changed_meanwhile_proves_nothing() -> None:
    verdict = compare({"a": BINARY}, [outcome()], Counter({"id-a": 1}), 3, frozenset({"a"}))

    assert (verdict.faults, verdict.changed) == ([], ["a"])


def test_the_torn_last_line_of_a_killed_process_is_no_effect(tmp_path: Path) -> None:
    (tmp_path / "effects-1.jsonl").write_bytes(b'["a", 1]\n["b", 1]\n["a"')
    (tmp_path / "effects-2.jsonl").write_bytes(b'["a", 1]\n')

    assert read_effects(tmp_path) == Counter(a=2, b=1)


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b"", "ascii"),
        (b"abc\n", "ascii"),
        ("grüße".encode(), "utf-8"),
        ("grüße".encode("utf-8-sig"), "utf-8-sig"),
        ("grüße".encode("utf-16"), "utf-16"),
        ("grüße".encode("utf-32"), "utf-32"),
        ("grüße".encode("cp1252"), "cp1252"),
        (b"# coding: koi8-r\n\xc1\xc2", "koi8-r"),
        (b"\x81\x8d", "latin-1"),
    ],
)
def test_encodings_are_told_apart(data: bytes, encoding: str) -> None:
    assert detect(data, python=True) == encoding


@pytest.mark.parametrize("data", [b"ab\0c", b"\x7fELF\0", b"\xef\xbb\xbf\xff", b"# coding: ascii\n\xff"])
def test_what_is_no_text_is_binary(data: bytes) -> None:
    with pytest.raises(Binary):
        detect(data, python=True)


def test_reading_counts(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"one two\nthree\n")

    assert measure(str(file)) == Reading(hashlib.sha256(b"one two\nthree\n").hexdigest(), 14, 2, 3, "ascii")
    assert plain(str(tmp_path / "missing")) == UNREADABLE


def test_links_that_lead_nowhere_are_files_and_pipes_are_not(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to-pipe").symlink_to(tmp_path / "pipe")

    assert [Path(path).name for path in files_below(tmp_path)] == ["link", "to-pipe"]
    assert plain(str(tmp_path / "to-pipe")) == UNREADABLE


def test_without_a_terminal_the_screen_says_a_line_a_second_and_no_codes() -> None:
    stream = io.StringIO()
    screen = Screen(stream)
    screen.show(["a block"], "summary")
    screen.show(["a block"], "summary again, too soon")
    screen.say(screen.paint("done", "green"))

    assert stream.getvalue() == "summary\ndone\n"


def test_lines_are_cut_by_what_is_seen() -> None:
    assert clip("\x1b[31mabcdef\x1b[0m", 3) == "\x1b[31mabc\x1b[0m"
    assert sparkline([0, 1, 2, 4], 3) == "▂▄█"
