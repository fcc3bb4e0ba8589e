"""How Sphinx builds these pages: `make docs`."""

from __future__ import annotations

from importlib.metadata import version as installed

from pygments.lexers.sql import PostgresLexer
from sphinx.application import Sphinx

project = "dayjob"
author = "the dayjob authors"
copyright = "the dayjob authors"
release = version = installed("dayjob")

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # pages that README shares may start below the first level

html_theme = "furo"
html_title = "dayjob"
html_theme_options = {"navigation_with_keys": True}


def setup(app: Sphinx) -> None:
    """SQL here is PostgreSQL's, whose functions are quoted by dollars."""
    app.add_lexer("sql", PostgresLexer)
