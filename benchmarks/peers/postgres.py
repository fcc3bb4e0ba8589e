"""What peers in Python on PostgreSQL have in common."""

from __future__ import annotations

from benchmarks.peers.peer import PythonPeer


class PostgresPeer(PythonPeer):
    """A peer that keeps its jobs in tables.

    Attributes:
        unfinished: a query that counts the jobs which it has not finished.
    """

    unfinished: str

    def check(self, url: str) -> None:
        check(self.name, url, self.unfinished)


def check(name: str, url: str, unfinished: str) -> None:
    """That *unfinished* counts none."""
    import psycopg

    with psycopg.connect(url) as connection:
        found = connection.execute(unfinished).fetchone()  # type: ignore[arg-type]
    if found != (0,):
        raise RuntimeError(f"{name} ended with {found} jobs unfinished")
