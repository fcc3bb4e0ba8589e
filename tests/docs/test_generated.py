"""Pages that the code writes say what the code says."""

from __future__ import annotations

import importlib.util

from tests.docs.page import ROOT


def test_generated_pages_are_what_the_code_says() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)

    stale = [str(path) for path, text in generate.pages().items() if path.read_text(encoding="utf-8") != text]

    assert stale == [], "run: python docs/generate.py"
