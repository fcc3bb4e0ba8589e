"""Migrations: numbered steps in two parts.

`pre` only adds, and runs while workers of the previous release work; `post` takes away what nobody of the present
release needs, and runs when the last worker of the previous one has gone. Each part of each step is one transaction under
an advisory lock; of two processes the second finds nothing left.
"""

from __future__ import annotations

from dayjob.errors import SchemaMismatch
from dayjob.store.migrate import Migration
from dayjob.store.postgres.database import _MIGRATIONS, SCHEMA, Connection, Database
from dayjob.store.sqlfile import in_namespace


def migrate(
    db: Database, *, dry_run: bool = False, part: str | None = None, steps: list[Migration] = _MIGRATIONS
) -> list[str]:
    """Apply what is missing of *part* (None: both); returns its names.

    Raises:
        SchemaMismatch: the schema is newer than this code.
    """
    if dry_run:
        with db.read(schema=False) as connection:
            return [step.name for step in _missing(db, connection, part, steps)]
    applied = []
    with db.write(schema=False) as connection:
        schema = f'"{db.namespace}"'
        connection.execute(
            "SELECT set_config('statement_timeout', '10min', true), set_config('lock_timeout', '3s', true)"
        )
        connection.execute("SELECT pg_advisory_xact_lock(hashtext($1), 3)", (db.namespace,))
        missing = _missing(db, connection, part, steps)
        if missing:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {schema}.schema (version integer NOT NULL, part text NOT NULL, name text NOT NULL, "
                "at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (version, part))"
            )
        for step in missing:
            connection.execute(in_namespace(step.sql, db.namespace).encode())
            connection.execute(
                f"INSERT INTO {schema}.schema (version, part, name) VALUES ($1, $2, $3)",
                (step.version, step.part, step.name),
            )
            applied.append(step.name)
    return applied


def _missing(db: Database, connection: Connection, part: str | None, steps: list[Migration]) -> list[Migration]:
    before, after = db.versions(connection)
    if before > SCHEMA or after > SCHEMA:
        raise SchemaMismatch(max(before, after), SCHEMA)
    done = {"pre": before, "post": after}
    return [step for step in steps if step.version > done[step.part] and part in (None, step.part)]
