"""The page of the command line is what the commands themselves say."""

from __future__ import annotations

import importlib.util

from tests.docs.page import ROOT


def test_cli_page_is_what_the_commands_say() -> None:
    source = ROOT / "docs" / "commands.py"
    spec = importlib.util.spec_from_file_location("commands", source)
    assert spec is not None
    assert spec.loader is not None
    commands = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(commands)

    assert commands.PAGE.read_text(encoding="utf-8") == commands.page(), "run: python docs/commands.py"
