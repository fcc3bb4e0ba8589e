"""The embedded engine: one SQLite file, no server."""

from dayjob.store.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
