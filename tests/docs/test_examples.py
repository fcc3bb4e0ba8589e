"""Every example of README and docs does what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.page import ROOT, needs_postgresql, pages, read
from tests.servers.needed import needed
from tests.servers.postgres import postgres

EXECUTED = {"python", "console", "output", "sh", "sql"}
SHOWN = {
    "text",
    "toml",
    "ini",
    "json",
    "dockerfile",
    "yaml",
    "ts",
    "mermaid",
    "{toctree}",
    "{note}",
    "{warning}",
    "{tip}",
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_of_a_page_do_what_it_says(page: Path, tmp_path: Path) -> None:
    here = Path(__file__).parent
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "src")]),
        "COLUMNS": "120",
        "NO_COLOR": "1",
    }
    if needs_postgresql(page):
        server = needed(postgres)
        server.drop_database("shop")
        server.sql("CREATE DATABASE shop")
        environment |= {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "postgres", "PGDATABASE": "shop"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(here / "runner.py"), str(page)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_a_page_has_a_known_kind(page: Path) -> None:
    unknown = {(block.kind, block.line) for block in read(page) if block.kind.split(" ")[0] not in EXECUTED | SHOWN}

    assert unknown == set()


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8"))
    broken = [target for target in targets if not (page.parent / target).exists()]

    assert broken == []
