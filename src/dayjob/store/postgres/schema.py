"""Migrations and roles: what changes the schema itself.

Migrations are numbered steps in two parts. `pre` only adds, and runs while workers of the previous release work; `post`
takes away what nobody of the present release needs, and runs when the last worker of the previous one has gone. Each part
of each step is one transaction under an advisory lock; of two processes the second finds nothing left.

A step waits for locks no longer than a second, since whatever comes after it would wait behind it, and tries again.
All is done as the owner of the schema, whoever does it: functions of one owner must reach the tables of all steps.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from dayjob.errors import SchemaMismatch, StoreUnavailable
from dayjob.store.migrate import Migration
from dayjob.store.postgres.database import _MIGRATIONS, Connection, Database
from dayjob.store.sqlfile import in_namespace, load

TRIES = 20
LIMITS = "SELECT set_config('lock_timeout', '1s', true), set_config('statement_timeout', '1h', true)"
_SCHEMA = "CREATE SCHEMA dayjob"
_BEGINNING = """
CREATE TABLE dayjob.schema (
    version integer NOT NULL, part text NOT NULL, name text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (version, part)
)"""


def migrate(
    db: Database, *, dry_run: bool = False, part: str | None = None, steps: Sequence[Migration] = _MIGRATIONS
) -> list[str]:
    """Apply what is missing of *part* (None: both); returns its names.

    Raises:
        SchemaMismatch: the schema is newer than *steps*.
        StoreUnavailable: a lock could not be had; what was applied until then stays.
    """
    if dry_run:
        with db.read(schema=False) as connection:
            return [step.name for step in _missing(db, connection, part, steps)]
    applied: list[str] = []
    while _repeated(lambda: _apply_one(db, part, steps, applied)):
        pass
    return applied


def script(db: Database, *, part: str | None = None, steps: Sequence[Migration] = _MIGRATIONS) -> str:
    """What `migrate` would run, as one text for people who run it themselves; empty when nothing is due."""
    with db.read(schema=False) as connection:
        due, owner = _missing(db, connection, part, steps), _owner(db, connection)
        begun = _begun(db, connection)
    texts: list[str] = []
    for step in due:
        first = not (begun or texts)
        texts.append(
            _transaction(
                f"-- {step.name}", _statements(db.namespace, step, owner, first=first, new=first and owner is None)
            )
        )
    return "".join(texts)


def _apply_one(db: Database, part: str | None, steps: Sequence[Migration], applied: list[str]) -> bool:
    """The first step that is missing; False when there is none."""
    with _changing(db) as connection:
        due = _missing(db, connection, part, steps)
        if not due:
            return False
        owner, first = _owner(db, connection), not _begun(db, connection)
        for statement in _statements(db.namespace, due[0], owner, first=first, new=owner is None):
            connection.execute(statement.encode())
    applied.append(due[0].name)
    return True


def _statements(namespace: str, step: Migration, owner: str | None, *, first: bool, new: bool) -> list[str]:
    """All of *step*, as the *owner* of the schema, and who may use what it brings: nobody else, or the roles if there are any.

    Args:
        first: nothing is there yet. new: not even the schema.
    """
    roles = load("dayjob.store.postgres", "roles.sql", namespace)
    done = f"INSERT INTO dayjob.schema (version, part, name) VALUES ({step.version}, '{step.part}', '{step.name}')"
    texts = [
        in_namespace(text, namespace).strip() for text in [_SCHEMA] * new + [_BEGINNING] * first + [step.sql, done]
    ]
    if owner is not None:
        texts.insert(0, f"SET LOCAL ROLE {owner}")
    return [*texts, roles.close, *([roles.give] if owner == f"{namespace}_owner" else [])]


def _owner(db: Database, connection: Connection) -> str | None:
    """Whose the schema is, quoted where that is needed; None when there is none."""
    found = "SELECT quote_ident(pg_get_userbyid(nspowner)) FROM pg_namespace WHERE nspname = $1"
    row = connection.execute(found, (db.namespace,)).fetchone()
    return None if row is None else str(row[0])


def _begun(db: Database, connection: Connection) -> bool:
    """False before the first step. The schema itself may have been made for us by somebody who may: it is empty then."""
    found = "SELECT 1 FROM pg_class WHERE relname = 'schema' AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1)"
    return connection.execute(found, (db.namespace,)).fetchone() is not None


def _missing(db: Database, connection: Connection, part: str | None, steps: Sequence[Migration]) -> list[Migration]:
    before, after = db.versions(connection)
    newest = steps[-1].version
    if before > newest or after > newest:
        raise SchemaMismatch(max(before, after), newest)
    done = {"pre": before, "post": after}
    return [step for step in steps if step.version > done[step.part] and part in (None, step.part)]


# -- roles -------------------------------------------------------------------------------------------------------


ROLES = ("owner", "worker", "producer", "viewer")


def make_roles(db: Database) -> list[str]:
    """Create or mend the group roles; returns their names. Idempotent.

    Raises:
        SchemaMismatch: there is no schema yet. StoreError: this role may not create roles, or does not own the schema.
    """
    db.require_schema()
    _repeated(lambda: _run(db, _role_statements(db)))
    return role_names(db)


def role_names(db: Database) -> list[str]:
    """The group roles of a namespace."""
    return [f"{db.namespace}_{role}" for role in ROLES]


def roles_script(db: Database) -> str:
    """What `make_roles` runs, as one text."""
    return _transaction("-- roles", _role_statements(db))


def _role_statements(db: Database) -> list[str]:
    roles = load("dayjob.store.postgres", "roles.sql", db.namespace)
    return [roles.make, f'SET LOCAL ROLE "{db.namespace}_owner"', roles.close, roles.give]


def _run(db: Database, statements: list[str]) -> None:
    with _changing(db) as connection:
        for statement in statements:
            connection.execute(statement.encode())


# -- transactions ------------------------------------------------------------------------------------------------


@contextmanager
def _changing(db: Database) -> Iterator[Connection]:
    with db.write(schema=False) as connection:
        connection.execute(LIMITS)
        connection.execute("SELECT pg_advisory_xact_lock(hashtext($1), 3)", (db.namespace,))
        yield connection


def _repeated(change: Callable[[], bool | None]) -> bool | None:
    """*change*, which is repeated while others hold what it needs."""
    for _ in range(TRIES - 1):
        try:
            return change()
        except StoreUnavailable:
            time.sleep(random.uniform(0.2, 0.8))  # those who waited behind it go first
    return change()


def _transaction(title: str, statements: Sequence[str]) -> str:
    body = "".join(
        f"{statement.removesuffix(';')};\n"
        for statement in ("SET LOCAL search_path = pg_catalog, pg_temp", LIMITS, *statements)
    )
    return f"{title}\nBEGIN;\n{body}COMMIT;\n\n"
