"""Nobody writes a figure by hand: RESULTS.md and README are what the last published run says."""

from __future__ import annotations

import json

from benchmarks import report

from tests.docs.page import ROOT

DOCUMENT = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))


def test_results_page_is_what_the_published_run_says() -> None:
    written = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    notes = (ROOT / "benchmarks" / "notes.md").read_text(encoding="utf-8")

    assert written == report.results(DOCUMENT, notes), "run: python -m benchmarks report"


def test_figures_in_readme_are_those_of_the_published_run() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert readme == report.into(readme, DOCUMENT), "run: python -m benchmarks report"


def test_the_published_run_is_a_whole_one() -> None:
    problems = [scenario["name"] for scenario in DOCUMENT["scenarios"] if scenario["problem"]]

    assert not DOCUMENT["quick"]
    assert problems == []
