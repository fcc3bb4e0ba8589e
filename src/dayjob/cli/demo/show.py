"""The course of the demo: start workers, store jobs, kill a worker, wait, compare, report."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click import ClickException

from dayjob.cli.demo import report
from dayjob.cli.demo.crew import Crew, Member
from dayjob.cli.demo.display import Screen
from dayjob.cli.demo.reading import LAST_LINE, files_below, standard_library
from dayjob.cli.demo.scene import Scene
from dayjob.cli.demo.verify import stamp
from dayjob.cli.output import jobs
from dayjob.errors import DayjobError

if TYPE_CHECKING:
    from dayjob import App, Job

LEASE = 2.5
CONCURRENCY = 4
PATIENCE = 30.0
"""Seconds without any progress after which the demo gives up."""
OWN = 5
"""Files of our own, which come first."""
KILL_AT = 0.3
"""Share of the jobs that is done when a worker is killed."""


def run(top: Path | None, workers: int, url: str | None = None, *, keep: bool) -> int:
    """Give the whole show; returns the exit status. Whatever happens, no process and no file is left behind."""
    scratch = Path(tempfile.mkdtemp(prefix="dayjob-demo-"))
    screen = Screen()
    show = Show(screen, scratch, (top or standard_library()).resolve(), workers, url)
    # SIGTERM ends the demo as Ctrl-C does: through `finally`, so that the workers end with it.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return show.give()
    except KeyboardInterrupt:
        screen.keep()
        screen.say("  stopped; the workers are being ended ...")
        return 1
    finally:
        show.end(keep=keep)
        signal.signal(signal.SIGTERM, before)
        if keep:
            where = f"dayjob jobs list --url {show.url}" if url is None else f"namespace {show.namespace}"
            screen.say(f"  kept: {scratch}  ({where})")
        else:
            shutil.rmtree(scratch, ignore_errors=True)


class Trouble(Exception):
    """The show cannot go on; the text says why."""


class Show:
    """One performance.

    Attributes:
        paths: of all files, ours first. victims: ids of the jobs that the killed worker held. killed_at: wall clock.
    """

    def __init__(self, screen: Screen, scratch: Path, top: Path, workers: int, url: str | None = None) -> None:
        from dayjob.config import DEFAULT_URL

        self.screen, self.scratch, self.top, self.workers = screen, scratch, top, workers
        self.url = url or DEFAULT_URL.replace("dayjob.db", str(scratch / "demo.db"))
        self.namespace = "dayjob" if url is None else f"dayjob_demo_{os.getpid()}"
        self.crew = Crew(scratch, self._environ(), CONCURRENCY)
        self.app: App | None = None
        self.late = scratch / "late.txt"
        self.growing = scratch / "growing.txt"
        self.paths: list[str] = []
        self.stamps: dict[str, tuple[int, int] | None] = {}
        self.victims: list[str] = []
        self.victim: Member | None = None
        self.victim_name = ""
        self.killed_at: datetime | None = None
        self._seen_retries: set[tuple[str, int]] = set()

    def _environ(self) -> dict[str, str]:
        """The workers' environment: the caller's own dayjob settings are none of the demo's business."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("DAYJOB_")}
        return environ | {
            "DAYJOB_URL": self.url,
            "DAYJOB_DEMO_NAMESPACE": self.namespace,
            "DAYJOB_DEMO_FOLDER": str(self.scratch),
            "DAYJOB_DEMO_LEASH": "1",
            "DAYJOB_LEASE": str(LEASE),
            "DAYJOB_BEAT": "0.4",
            "DAYJOB_SWEEP": "0.2",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    # -- the acts ----------------------------------------------------------------------------------------------------

    def give(self) -> int:
        """All acts in order; returns the exit status."""
        paint, say = self.screen.paint, self.screen.say
        try:
            paths = self._stage()
        except Trouble as trouble:
            raise ClickException(str(trouble)) from None
        say()
        say(f"  {paint('dayjob demo', 'bold', 'cyan')}   one job for each of {len(paths):,} files below {self.top}")
        say(
            f"  {paint(f'{self.workers} workers, one of which will be killed. Its lease is {LEASE:g} s for the show (20 s by default).', 'dim')}"
        )
        try:
            self._open()
            self.crew.start(self.workers)
            total = self._store(paths)
            scene = self._watch(Scene(len(paths), LEASE), total)
            return report.close(self, scene, total)
        except Trouble as trouble:
            self.screen.keep()
            say(f"  {paint('✖', 'red')} {trouble}")
            for member in self.crew.members:
                tail = member.log.read_text(errors="replace").splitlines()[-8:]
                if tail:
                    say(f"    worker {member.number} said:")
                    for line in tail:
                        say(f"      {line}")
            return 1

    def _stage(self) -> list[str]:
        """The files to read, and a few of our own, so that the same things happen wherever the demo runs.

        Three links lead nowhere; one file comes into being only after its first attempt has failed; one is still being
        written, and the worker that waits for its end is the one to be killed.
        """
        found = files_below(self.top)
        if not found:
            raise Trouble(f"there are no files below {self.top}")
        links = [self.scratch / f"broken-link-{number}" for number in (1, 2, 3)]
        for link in links:
            link.symlink_to(self.scratch / "nowhere")
        self.growing.write_text("once upon a time\n")
        self.stamps = {path: stamp(path) for path in found}
        return [str(path) for path in (self.growing, self.late, *links)] + found

    def _open(self) -> None:
        os.environ.update({name: value for name, value in self._environ().items() if name.startswith("DAYJOB_")})
        from dayjob.cli.demo.tasks import app

        self.app = app
        try:
            app.migrate()
        except DayjobError as error:
            raise Trouble(str(error)) from None
        app.open()

    def _store(self, paths: list[str]) -> Job[Any]:
        """Store one job per file, and the one that adds up. The odd ones go first: their retries take longest."""
        from dayjob.cli.demo.tasks import follow, name_of, read_file, summarise

        assert self.app is not None
        urgent = read_file.using(priority=10)
        growing, *odd, first = (name_of(path) for path in paths[: OWN + 1])
        calls = [follow.using(priority=10).job(growing), *map(urgent.job, odd), read_file.job(first)]
        calls += [read_file.job(name_of(path)) for path in paths[OWN + 1 :]]
        started = time.perf_counter()
        jobs = self.app.enqueue_many(calls)
        took = time.perf_counter() - started
        self.paths = paths
        self.following, self.late_job = jobs[0], jobs[1]
        self.screen.say(f"  {len(jobs):,} jobs stored durably in {took:.2f} s")
        return summarise.enqueue()

    def _watch(self, scene: Scene, total: Job[Any]) -> Scene:
        """Draw until the last job has finished, and kill a worker on the way."""
        began = moved = time.monotonic()
        before: tuple[int, ...] = ()
        while True:
            scene.elapsed = time.monotonic() - began
            finished = self._look(scene, total)
            scene.sample()
            self.screen.show(scene.block(self.screen, self.crew.members), scene.summary())
            if finished and self.victim is not None:
                self.screen.keep()
                return scene
            if self.victim is None and scene.done >= KILL_AT * (scene.total - OWN):
                self._kill(scene)
            if not self.late.exists() and self.late_job.refresh().attempt:
                self.late.write_text("better late\nthan never\n")
            now = (scene.depth, scene.running, scene.done, scene.held)
            if now != before:
                before, moved = now, time.monotonic()
            self._worry(time.monotonic() - moved)
            time.sleep(0.04)

    def _worry(self, still: float) -> None:
        fallen = self.crew.fallen()
        if fallen is not None:
            raise Trouble(f"worker {fallen.number} ended by itself, exit status {fallen.process.returncode}")
        if still > PATIENCE:
            raise Trouble(f"nothing has moved for {still:.0f} s")

    def _look(self, scene: Scene, total: Job[Any]) -> bool:
        """Read the numbers from the store; True when the last job has finished."""
        assert self.app is not None
        counts: dict[str, int] = next((one.counts for one in self.app.queues.stats() if one.name == "files"), {})
        scene.depth = counts.get("available", 0) + counts.get("scheduled", 0)
        scene.running = counts.get("running", 0)
        scene.completed, scene.dead = counts.get("completed", 0), counts.get("dead", 0)
        people = self.app.workers()
        scene.busy = {one.pid: one.running for one in people}
        scene.leader = next((one.pid for one in people if one.leader), None)
        if counts.get("scheduled"):
            waiting = self.app.jobs.find(queue="files", state="scheduled", limit=1000)
            self._seen_retries |= {(job.id, job.attempt) for job in waiting if job.attempt}
        scene.retried = len(self._seen_retries)
        if self.victim is not None and self.killed_at is not None:
            scene.since_kill = (datetime.now(UTC) - self.killed_at).total_seconds()
            if scene.held:
                scene.held = len(self._held_by(self.victim_name))
                scene.rescued = len(self.victims) - scene.held
        return bool(total.refresh().state.terminal)

    def _kill(self, scene: Scene) -> None:
        """Kill the worker that waits for the growing file, and let the file be complete for the next who looks."""
        assert self.app is not None
        worker = self.following.refresh().worker
        people = {one.name: one for one in self.app.workers()}
        if str(self.following.state) != "running" or worker not in people:
            return
        member = next(one for one in self.crew.members if one.pid == people[worker].pid)
        self.crew.freeze(member)  # so that what it holds in mid-run can be looked at
        self.victim_name, self.victim, self.victims = worker, member, self._settled_view(worker)
        self.killed_at = datetime.now(UTC)
        self.crew.kill(member)
        with self.growing.open("a") as file:
            file.write(f"they lived happily ever after\n{LAST_LINE}\n")
        scene.held = len(self.victims)
        role = " (the leader)" if people[worker].leader else ""
        self.screen.say(
            f"  {scene.elapsed:.2f} s  {self.screen.paint('kill -9', 'red', 'bold')} worker {member.number}{role}: it "
            f"held {jobs(len(self.victims))}, which nobody else may touch until its lease is over"
        )

    def _settled_view(self, worker: str) -> list[str]:
        """What frozen *worker* holds, when nothing changes any more: a server still does what it was sent before."""
        held = self._held_by(worker)
        while True:
            time.sleep(0.1)
            before, held = held, self._held_by(worker)
            if held == before:
                return held

    def _held_by(self, worker: str) -> list[str]:
        assert self.app is not None
        page = self.app.jobs.find(state="running", limit=10_000)
        return [job.id for job in page if job.worker == worker]

    def end(self, *, keep: bool) -> None:
        """End every worker and let go of the store, which goes with us unless it is to be kept."""
        self.crew.stop()
        if self.app is not None:
            if not keep:
                with contextlib.suppress(DayjobError):
                    self.app.store.drop()
            self.app.close()
