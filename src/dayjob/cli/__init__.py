"""The command line: `dayjob COMMAND`.

Commands are modules of their own and are imported when they run, so `dayjob --help` and completion stay fast. They read
through the facade's managers and nothing else. Exit status: 0 done, 1 something failed, 2 wrong usage.
"""

from __future__ import annotations

from dayjob.cli.group import main

__all__ = ["main"]
