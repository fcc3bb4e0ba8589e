"""The PostgreSQL engine: one schema in your own database. Needs psycopg (`pip install "dayjob[postgres]"`)."""

from dayjob.errors import ConfigError

try:
    import psycopg  # noqa: F401  looked for here, so that its absence is told in our words
except ImportError as error:
    raise ConfigError("a postgresql:// URL needs psycopg, which is an extra: pip install 'dayjob[postgres]'") from error

from dayjob.store.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
