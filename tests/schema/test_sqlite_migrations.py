"""The SQLite schema: who may bring it up, and who is turned away."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dayjob.errors import ConfigError, NotSupported, SchemaMismatch
from dayjob.store import open_store
from dayjob.store.migrate import migrations
from dayjob.store.records import Filter, NewRow
from dayjob.store.sqlfile import statements
from dayjob.store.sqlite.database import SCHEMA


def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'jobs.db'}"


def test_migrate_names_what_it_applied_and_then_finds_nothing_left(tmp_path: Path) -> None:
    store = open_store(url(tmp_path))

    assert store.migrate(dry_run=True) == [step.name for step in migrations("dayjob.store.sqlite.migrations")]
    assert store.migrate() == [step.name for step in migrations("dayjob.store.sqlite.migrations")]
    assert store.migrate() == []
    assert store.migrate(dry_run=True) == []


def test_the_sql_for_people_who_run_it_themselves_is_all_of_it(tmp_path: Path) -> None:
    store = open_store(url(tmp_path), namespace="shop")
    sql = store.migration_sql()
    assert list(tmp_path.iterdir()) == []
    with sqlite3.connect(tmp_path / "jobs.db") as connection:
        connection.executescript(sql)
    connection.close()

    assert (store.migrate(), store.migration_sql()) == ([], "")
    assert store.enqueue([NewRow("1", "t", "q", b"{}")])[0].outcome == "inserted"


@pytest.mark.parametrize("part", ["pre", "post", "roles"])
def test_a_file_has_no_parts_and_no_roles(tmp_path: Path, part: Any) -> None:
    store = open_store(url(tmp_path))
    for call in (store.migrate, store.migration_sql):
        with pytest.raises(NotSupported, match=f"--{part}"):
            call(part=part)


def test_a_store_that_was_never_migrated_says_so(tmp_path: Path) -> None:
    with pytest.raises(SchemaMismatch, match="run `dayjob migrate`") as caught:
        open_store(url(tmp_path)).enqueue([NewRow("1", "t", "q", b"{}")])

    assert (caught.value.found, caught.value.wanted) == (0, SCHEMA)


def test_looking_at_a_store_that_is_not_there_makes_no_file(tmp_path: Path) -> None:
    store = open_store(url(tmp_path))

    assert store.migrate(dry_run=True) != []
    assert (store.check().schema, store.check().facts["file"]) == (0, f"{tmp_path / 'jobs.db'}, not there yet")
    with pytest.raises(SchemaMismatch):
        store.find(Filter())
    assert list(tmp_path.iterdir()) == []


def test_a_newer_schema_is_refused_by_every_operation_and_left_alone(tmp_path: Path) -> None:
    open_store(url(tmp_path)).migrate()
    with sqlite3.connect(tmp_path / "jobs.db") as connection:
        connection.execute("INSERT INTO dayjob_schema VALUES (999, 'future', 0)")
    connection.close()
    store = open_store(url(tmp_path))

    for operation in (store.migrate, lambda: store.enqueue([NewRow("1", "t", "q", b"{}")]), lambda: store.get("1")):
        with pytest.raises(SchemaMismatch, match="newer release"):
            operation()
    assert store.check().schema == 999


def test_two_processes_that_migrate_at_once_apply_each_step_once(tmp_path: Path) -> None:
    program = (
        "import sys; from dayjob.store import open_store; "
        "sys.stdin.readline(); print(len(open_store(sys.argv[1]).migrate()))"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, url(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    applied = [int(child.communicate("go\n")[0]) for child in children]

    assert sorted(applied) == [0, 0, 0, SCHEMA]


def test_the_tables_of_a_namespace_stand_beside_an_applications_own(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "jobs.db") as connection:
        connection.execute("CREATE TABLE invoice (id INTEGER)")
    connection.close()
    one, two = (open_store(url(tmp_path), namespace=name) for name in ("dayjob", "other"))
    one.migrate()
    two.migrate()
    one.enqueue([NewRow("1", "t", "q", b"{}")])

    assert (one.get("1") is not None, two.get("1")) == (True, None)


@pytest.mark.parametrize("namespace", ["", "Dayjob", "x; DROP TABLE invoice", "a" * 40, "1st"])
def test_a_namespace_that_is_no_word_is_refused(tmp_path: Path, namespace: str) -> None:
    with pytest.raises(ConfigError, match="namespace"):
        open_store(url(tmp_path), namespace=namespace)


def test_a_statement_file_with_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'a' is given twice"):
        statements("-- name: a\nSELECT 1;\n-- name: a\nSELECT 2;\n")
    with pytest.raises(ValueError, match="'b' is empty"):
        statements("-- name: b\n\n-- name: a\nSELECT 2;\n")
