"""Files that are not what they should be: each a clear typed error that names the file and the remedy."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from dayjob.errors import ConfigError, StoreError, StoreUnavailable
from dayjob.states import Outcome
from dayjob.store import open_store
from dayjob.store.contract import Store
from dayjob.store.records import Filter, NewRow, Settlement, Want, WorkerInfo
from dayjob.store.sqlite import database

ONE = [NewRow("1", "t", "q", b"{}")]


def migrated(path: Path) -> Store:
    store = open_store(f"sqlite:///{path}")
    store.migrate()
    return store


def test_a_file_that_is_not_sqlite_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my diary\n" * 1000)

    with pytest.raises(StoreError, match=r"notes\.txt is not an SQLite database"):
        open_store(f"sqlite:///{path}").migrate()
    assert path.read_text() == "my diary\n" * 1000


def test_a_damaged_file_says_how_to_recover(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    store = migrated(path)
    store.enqueue([NewRow(f"{n}", "t", "q", b"x" * 500) for n in range(900)])
    store.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xff" * (len(whole) - 8192))

    with pytest.raises(StoreError, match=r"is damaged .*restore a backup"):
        open_store(f"sqlite:///{path}").enqueue(ONE)


def test_a_truncated_file_says_how_to_recover(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    store = migrated(path)
    store.enqueue([NewRow(f"{n}", "t", "q", b"x" * 500) for n in range(900)])
    store.close()
    os.truncate(path, 20_000)

    with pytest.raises(StoreError, match="damaged"):
        open_store(f"sqlite:///{path}").find(Filter())


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"its folder .*nowhere does not exist"):
        open_store(f"sqlite:///{tmp_path / 'nowhere' / 'jobs.db'}").migrate()


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=str(tmp_path)):
        open_store(f"sqlite:///{tmp_path}").migrate()


READ_ONLY = """
import os, sys
from dayjob.errors import StoreError
from dayjob.store import open_store
from dayjob.store.records import NewRow
store = open_store(sys.argv[1])
os.setgid(65534), os.setuid(65534)
try:
    store.enqueue([NewRow("2", "t", "q", b"{}")])
except StoreError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can become a user who may not write")
def test_a_read_only_file_says_what_to_change(tmp_path: Path) -> None:
    path = tmp_path / "shelf" / "jobs.db"
    path.parent.mkdir()
    migrated(path).close()
    path.chmod(0o444)
    for folder in path.parents[: path.parents.index(Path(tempfile.gettempdir()))]:
        folder.chmod(folder.stat().st_mode | 0o055)

    said = subprocess.run(
        [sys.executable, "-c", READ_ONLY, f"sqlite:///{path}"], capture_output=True, text=True, check=False
    )

    assert "is read-only: give this user write access" in said.stdout, said


def test_a_full_disk_says_so_and_keeps_what_was_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's own page limit stands for the disk: the same error code on the same path."""
    store = migrated(tmp_path / "jobs.db")
    store.enqueue(ONE)
    with store.db.write() as connection:  # type: ignore[attr-defined]
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    store.db._writer.execute(f"PRAGMA max_page_count = {pages + 2}")  # type: ignore[attr-defined]

    with pytest.raises(StoreUnavailable, match=r"disk of .*jobs\.db is full: make room"):
        store.enqueue([NewRow(f"big-{n}", "t", "q", b"x" * 5000) for n in range(100)])
    store.db._writer.execute("PRAGMA max_page_count = 1000000")  # type: ignore[attr-defined]
    store.enqueue([NewRow("2", "t", "q", b"{}")])

    assert sorted(job.id for job in store.find(Filter()).jobs) == ["1", "2"]


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_file_deleted_or_replaced_in_use_swallows_nothing(tmp_path: Path, how: str) -> None:
    path = tmp_path / "jobs.db"
    store = migrated(path)
    store.enqueue(ONE)
    for ending in ("", "-wal", "-shm"):
        Path(f"{path}{ending}").unlink()
    if how == "replaced":
        migrated(path).close()

    what = "was deleted" if how == "deleted" else "was replaced"
    with pytest.raises(StoreUnavailable, match=f"{what} .*put it back"):
        store.enqueue([NewRow("2", "t", "q", b"{}")])


def test_a_callers_own_open_transaction_is_named_within_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_LIMIT", 0.2)
    path = tmp_path / "jobs.db"
    store = migrated(path)
    mine = sqlite3.connect(path, isolation_level=None)
    mine.execute("BEGIN IMMEDIATE")
    begun = time.monotonic()

    with pytest.raises(StoreUnavailable, match="your own transaction"):
        store.enqueue(ONE)
    assert time.monotonic() - begun < 1
    mine.execute("ROLLBACK")
    mine.close()
    store.enqueue(ONE)


def test_a_lock_held_for_a_while_only_delays(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    store = migrated(path)
    store.enqueue(ONE)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    waiting = threading.Thread(target=store.enqueue, args=([NewRow("2", "t", "q", b"{}")],))
    waiting.start()
    waiting.join(0.05)
    still = waiting.is_alive()
    other.execute("ROLLBACK")
    waiting.join()
    other.close()

    assert (still, store.get("2") is not None) == (True, True)


def test_only_a_claim_may_be_undone_by_a_loss_of_power(tmp_path: Path) -> None:
    """P1: whatever is acknowledged waits for the disk; a lost claim leaves the job available, and its worker is gone."""
    store = migrated(tmp_path / "jobs.db")
    seen = []

    def level() -> None:
        seen.append(store.db._writer.execute("PRAGMA synchronous").fetchone()[0])  # type: ignore[attr-defined]

    store.beat(WorkerInfo("w", "here:1", "here", 1), [])
    level()
    store.enqueue([*ONE, NewRow("2", "t", "q", b"{}")])
    claimed = store.turn("w", 1, wants=[Want(None, 1)]).claimed
    level()
    store.get("1")  # opens the reader
    store.enqueue([NewRow("3", "t", "q", b"{}")])
    level()
    store.turn("w", 2, wants=[Want(None, 1)])
    store.turn("w", 3, [Settlement("1", claimed[0].entry, Outcome.COMPLETED, 1, 2)], [Want(None, 1)])
    level()

    full, normal = 2, 1
    assert seen == [full, normal, full, full]


def test_a_new_file_and_its_companions_are_for_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    store = migrated(path)
    ear = store.listen(["work"])
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) & 0o077 for entry in tmp_path.iterdir()}
    ear.close()

    assert modes == {"jobs.db": 0, "jobs.db-wal": 0, "jobs.db-shm": 0, "jobs.db-wake": 0}


def test_a_path_longer_than_a_socket_address_still_wakes(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    store = migrated(deep / "jobs.db")
    ear = store.listen(["work"])
    store.notify("work", b"q")

    assert ear.wait(1) == [("work", b"q")]
    ear.close()


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///", "sqlite://jobs.db", "sqlite:///jobs.db?mode=ro", "sqlite:///a%00b", "mysql://x/y", ""],
)
def test_a_url_that_names_no_file_shows_how_to_write_one(url: str) -> None:
    with pytest.raises(ConfigError):
        open_store(url)


FORKED = """
import os, sys
from dayjob.store import open_store
from dayjob.store.records import NewRow
store = open_store(sys.argv[1]); store.migrate()
store.enqueue([NewRow("parent", "t", "q", b"{}")])
child = os.fork()
if child == 0:
    store.enqueue([NewRow("child", "t", "q", b"{}")])
    store.close()
    os._exit(0) if "hard" in sys.argv else sys.exit(0)
status = os.waitpid(child, 0)[1]
store.enqueue([NewRow("parent again", "t", "q", b"{}")])
print(status, [store.get(id) is not None for id in ("parent", "child", "parent again")])
"""


@pytest.mark.parametrize("ending", ["hard", "soft"])
def test_a_forked_child_opens_its_own_connections_and_harms_none_of_its_parents(tmp_path: Path, ending: str) -> None:
    said = subprocess.run(
        [sys.executable, "-c", FORKED, f"sqlite:///{tmp_path / 'jobs.db'}", ending],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert said.stdout.strip() == "0 [True, True, True]", said
    with sqlite3.connect(tmp_path / "jobs.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
