"""What happens in a soak alone, beside all that `faults.py` has: it takes root, or long, or a program of the system."""

from __future__ import annotations

import resource
import shutil
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from dayjob.errors import StoreError, StoreUnavailable
from dayjob.store import open_store
from tests.chaos import app as chaos
from tests.chaos.faults import TABLES, Fault, Scene, Table
from tests.chaos.ledger import Plan
from tests.chaos.places import Place
from tests.chaos.places.postgres import Postgres
from tests.chaos.places.sqlite import Sqlite
from tests.chaos.places.valkey import Valkey
from tests.chaos.restore import Backup

PATIENCE = 30.0
"""Seconds for which somebody goes on trying."""


class Migrated(Fault):
    """Somebody runs `dayjob migrate` while all work."""

    name = "migrate"
    alone = True
    lasts = 0.5

    def happen(self, scene: Scene) -> None:
        scene.say(f"{self.name:<16} under load")
        until = time.monotonic() + PATIENCE
        with closing(open_store(scene.place.judged_at)) as store:
            while True:
                try:
                    assert store.migrate() == []
                    return
                except StoreUnavailable:  # of another fault
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.5)  # until its server is there again


class Damaged(Fault):
    """Pages of a copy are damaged: it is not served in silence."""

    name = "damaged copy"

    def happen(self, scene: Scene) -> None:
        scene.say(f"{self.name:<16} is looked at")
        url = scene.place.damaged_copy(self.dice)
        with closing(open_store(url)) as store:
            try:
                warnings = store.check().warnings
            except StoreError as error:
                warnings = [str(error)]
        Path(url.removeprefix("sqlite:///")).unlink()
        assert any("damaged" in warning or "malformed" in warning for warning in warnings), warnings


class BackedUp(Fault):
    """Somebody takes a backup, from which another store is made when all is over."""

    name = "backup"
    alone = True
    lasts = 1.0

    def happen(self, scene: Scene) -> None:
        path = scene.place.folder / f"backup-{time.monotonic_ns()}"
        scene.say(f"{self.name:<16} under load")
        before, backup = scene.backup, Backup(path, time.monotonic())
        scene.place.back_up(path)
        scene.backup = backup
        if before is not None:
            before.path.unlink()


class DescriptorsGone(Fault):
    """A worker can open nothing for a while."""

    name = "no descriptors"
    lasts = 2.0

    def happen(self, scene: Scene) -> None:
        with (
            scene.crew.one(self.dice) as worker,
            scene.suffering(self.name, worker, f"for {self.lasts:g} s") as suffered,
        ):
            suffered.happened = False
            with suppress(OSError):  # a job may end it
                limits = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
                taken = {int(path.name) for path in Path(f"/proc/{worker.pid}/fd").iterdir()}
                free = min(set(range(len(taken) + 1)) - taken)
                resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (free, limits[1]))
                suffered.happened = True
                time.sleep(self.lasts)  # the fault itself
                resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, limits)


class SyncFails(Fault):
    """The disk reports errors to a worker that waits for its writes."""

    name = "EIO on fsync"
    lasts = 3.0

    @classmethod
    def possible(cls, place: Any) -> bool:
        strace = shutil.which("strace")
        return strace is not None and not subprocess.run([strace, "-o", "/dev/null", "true"], check=False).returncode

    def happen(self, scene: Scene) -> None:
        log = scene.place.folder / f"strace-{time.monotonic_ns()}"
        calls = "fdatasync,fsync"
        inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:error=EIO:when=1..3", "-o", log]
        with scene.crew.one(self.dice) as worker, scene.suffering(self.name, worker) as suffered:
            with subprocess.Popen(["strace", "-f", "-qq", *inject, "-p", str(worker.pid)]) as strace:
                until = time.monotonic() + self.lasts
                while "(INJECTED)" not in (log.read_text() if log.exists() else "") and time.monotonic() < until:
                    time.sleep(0.1)  # until it waits for the disk, which may be a checkpoint's time
                time.sleep(0.5)  # the fault itself
                strace.terminate()
                with suppress(subprocess.TimeoutExpired):
                    strace.wait(2.0)
                strace.kill()  # it waits for ever for a thread that waits, in vfork, for a child which it holds itself
            times = log.read_text().count("(INJECTED)")
            suffered.happened = times > 0
        scene.say(f"{self.name:<16} happened {times} times")
        log.unlink()


class DiskFull(Fault):
    """There is no room for a write."""

    name = "disk full"
    everybody = True
    alone = True
    lasts = 4.0

    @classmethod
    def possible(cls, place: Any) -> bool:
        return place.disk is not None

    def happen(self, scene: Scene) -> None:
        with scene.suffering(self.name, None, "for 2 s"):
            scene.place.write_back()
            with scene.place.disk.full():
                time.sleep(2.0)  # the fault itself


class OutOfMemory(Fault):
    """A job wants more memory than there is: it fails, and nobody else does."""

    name = "out of memory"
    early = True

    def happen(self, scene: Scene) -> None:
        scene.say(f"{self.name:<16} for a job")
        scene.enqueue(chaos.devour, plan=Plan("dead", attempts=2, reason="failed"))


EVERYWHERE: Table = {Migrated: 1, DescriptorsGone: 2, OutOfMemory: 2}
SOAKED: dict[type[Place], Table] = {
    Sqlite: {**TABLES[Sqlite], **EVERYWHERE, Damaged: 1, DiskFull: 1, BackedUp: 1, SyncFails: 3},
    Postgres: {**TABLES[Postgres], **EVERYWHERE, BackedUp: 1},
    Valkey: {**TABLES[Valkey], **EVERYWHERE, BackedUp: 1},
}
"""What an engine suffers in an act of a soak, as far as this machine can let it happen."""
