"""Nobody writes a figure by hand: RESULTS.md and README are what the last published run says."""

from __future__ import annotations

from benchmarks import report
from benchmarks.__main__ import courses, published

from tests.docs.page import ROOT

DOCUMENTS = published()


def test_results_page_is_what_the_published_run_says() -> None:
    written = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    notes = (ROOT / "benchmarks" / "notes.md").read_text(encoding="utf-8")

    assert written == report.results(DOCUMENTS, notes, courses()), "run: python -m benchmarks report"


def test_figures_in_readme_are_those_of_the_published_run() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert readme == report.into(readme, DOCUMENTS), "run: python -m benchmarks report"


def test_the_published_runs_are_whole_ones() -> None:
    problems = [scenario["name"] for document in DOCUMENTS for scenario in document["scenarios"] if scenario["problem"]]

    engines = [document["engine"] for document in DOCUMENTS]
    assert engines == [engine for engine in ("sqlite", "postgres", "redis") if engine in engines]
    assert not any(document["quick"] for document in DOCUMENTS)
    assert problems == []
