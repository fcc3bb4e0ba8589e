"""`dayjob demo`: the main job on real input.

One job for every file below a folder reads it; one of the workers is killed on the way; a last job adds up. At the end every result is compared
with what one plain process computes. Rooms: `tasks` (what the workers run), `reading` (the work itself), `show` (the
course of events), `crew` (the processes), `display` and `scene` (the screen), `verify` (the judgement).
"""

from __future__ import annotations

from pathlib import Path

import click

from dayjob.cli.options import option


@click.command()
@click.argument(
    "folder", metavar="[DIR]", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@option("--workers", type=click.IntRange(2, 16), default=3, show_default=True, help="Worker processes.")
@click.option("--url", metavar="URL", help="A store to show it on, in a namespace of its own; default: an SQLite file.")
@option("--keep", is_flag=True, help="Keep the store and the logs, and say where they are.")
def demo(folder: Path | None, workers: int, url: str | None, keep: bool) -> int:
    """See it work on every file below DIR (default: Python's own standard library).

    Each file is a job: read, hashed, counted. One worker is killed with SIGKILL in mid-run. In the end every result is
    compared with a plain computation; any difference, loss or unexplained double effect is exit status 1.
    """
    from dayjob.cli.demo.show import run

    return run(folder, workers, url, keep=keep)
