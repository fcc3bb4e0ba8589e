"""The collector itself: an example that lies is noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.page import ROOT, matches

TICKS = "```"


def _run(tmp_path: Path, text: str) -> tuple[int, str]:
    page = tmp_path / "page.md"
    page.write_text(text.replace("~~~", TICKS), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("runner.py")), str(page)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_true_page_passes(tmp_path: Path) -> None:
    text = (
        "<!-- setup\nseven = 7\n-->\n"
        "~~~python\n# other.py\neight = 8\n~~~\n"
        "~~~python\nfrom other import eight\nimport asyncio\nawait asyncio.sleep(0)\nprint(seven, eight)\n~~~\n"
        "~~~output\n7 8\n~~~\n"
        "~~~console\n$ cat other.py\n# other.py\neight = ...\n$ echo a \\\n> b\na b\n~~~\n"
        "<!-- raises -->\n~~~python\nraise ValueError('no')\n~~~\n~~~output\nValueError: no\n~~~\n"
        "<!-- foreign -->\n~~~python\nimport celery\n~~~\n"
        "~~~sh\ndayjob worker shop:app -q mail:5 \\\n  -p 2  # two\n~~~\n"
    )

    assert _run(tmp_path, text) == (0, "")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("~~~python\nprint(1)\n~~~\n~~~output\n2\n~~~\n", "the page says:\n2"),
        ("~~~python\n1 / 0\n~~~\n", "page.md, line 2"),
        ("~~~console\n$ echo one\ntwo\n~~~\n", "`echo one` printed"),
        ("<!-- raises -->\n~~~python\nprint(1)\n~~~\n", "should have raised"),
        ("~~~sh\ndayjob worker --no-such-option\n~~~\n", "--no-such-option"),
        ("~~~output\nnever printed\n~~~\n", "never printed"),
    ],
)
def test_a_page_that_lies_is_noticed(tmp_path: Path, text: str, complaint: str) -> None:
    status, said = _run(tmp_path, text)

    assert status == 1
    assert complaint in said


def test_three_dots_stand_for_anything_and_nothing_else_does() -> None:
    assert matches("done in ... s\n1 job", "done in 0.31 s  \n1 job\n")
    assert not matches("done", "done twice")
