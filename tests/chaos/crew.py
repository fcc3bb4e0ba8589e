"""The processes of a run, and what is done to them. Whatever ends is replaced at once, so that there are always as many.

up ──SIGKILL, by us or by its own job──▶ gone ──▶ replaced            a thread of ours looks every 20 ms
 ├──SIGSTOP ── 1.5 leases ── SIGCONT──▶ up
 └──SIGTERM──▶ told, replaced ──▶ gone
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.chaos import app as chaos

LOOK = 0.02
SAMPLED = 5.0
FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


class Member:
    """One process.

    Attributes:
        role: worker or producer. number: its place, in which its replacement stands, too.
        spared: nothing ends it. told: it was told to end. busy: something is being done to it. clock: the file that says by how much its wall
            clock is wrong, None: it cannot be.
    """

    def __init__(
        self, role: str, number: int, process: subprocess.Popen[bytes], clock: Path | None, spared: bool
    ) -> None:
        self.role, self.number, self.process, self.clock, self.spared = role, number, process, clock, spared
        self.pid = process.pid
        self.told = self.busy = False

    def __str__(self) -> str:
        return f"{self.role} {self.number} (pid {self.pid})"

    def works(self) -> bool:
        """True when it has begun: it has said something."""
        return (chaos.ledger.folder / f"{self.pid}.jsonl").exists()

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def jump(self, seconds: int) -> None:
        """From now on its wall clock is wrong by so many seconds."""
        assert self.clock is not None
        fresh = self.clock.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.replace(self.clock)


class Crew:
    """*workers* and *producers* on the store at *url*, as long as this is open.

    Args:
        spare: the last worker lives as long as the crew, so that it can be seen whether it grows.
        previous: the sources of another release of dayjob, which worker 1 runs.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        workers: int,
        producers: int,
        seed: int,
        spare: bool = False,
        previous: Path | None = None,
    ) -> None:
        self._folder, self._seed = folder, seed
        self._environ = {**os.environ, "CHAOS_URL": url, "CHAOS_LEDGER": str(chaos.ledger.folder)}
        self._log = (folder / "processes.log").open("ab")
        self._lock = threading.RLock()
        self._members: list[Member] = []
        self._wanted = {"worker": workers, "producer": producers}
        self._spared = workers - 1 if spare else None
        self._previous = previous
        self._sampled_at = 0.0
        self._ending = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="crew")

    def __enter__(self) -> Crew:
        for role, count in self._wanted.items():
            for number in range(count):
                self._add(role, number)
        self._keeper.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ending.set()
        self._keeper.join()
        for member in self._members:
            member.send(signal.SIGKILL)
            member.process.wait()
        self._log.close()

    def _add(self, role: str, number: int) -> None:
        environ, clock = self._environ, None
        if role == "worker" and number == 0 and FAKETIME is not None:
            clock = self._folder / f"clock-{time.monotonic_ns()}"
            clock.write_text("+0\n")
            environ = environ | {
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(clock),
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_NO_CACHE": "1",
                "NO_FAKE_STAT": "1",
            }
        if role == "worker" and number == 1 and self._previous is not None:
            environ = environ | {"PYTHONPATH": f"{self._previous}{os.pathsep}{environ.get('PYTHONPATH', '')}"}
        self._seed += 1
        spared = role == "worker" and number == self._spared
        arguments = [str(self._seed)] if role == "producer" else chaos.QUEUES if spared else []
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.app", role, *arguments],
            env=environ,
            stdout=self._log,
            stderr=self._log,
        )
        self._members.append(Member(role, number, process, clock, spared))

    # -- a thread of its own

    def _keep(self) -> None:
        while not self._ending.wait(LOOK):
            with self._lock:
                for member in list(self._members):
                    if member.process.poll() is not None:
                        self._ended(member)
                if time.monotonic() >= self._sampled_at + SAMPLED:
                    self._sampled_at = time.monotonic()
                    for member in self._members:
                        self._sample(member)

    def _ended(self, member: Member) -> None:
        self._members.remove(member)
        chaos.ledger.note("exit", target=member.pid, code=member.process.returncode)
        if not member.told and self._wanted[member.role]:
            self._add(member.role, member.number)

    def _sample(self, member: Member) -> None:
        with suppress(OSError, IndexError):
            descriptors = sum(1 for _ in Path(f"/proc/{member.pid}/fd").iterdir())
            pages = int(Path(f"/proc/{member.pid}/statm").read_text().split()[1])
            memory = pages * os.sysconf("SC_PAGESIZE")
            chaos.ledger.note("sample", target=member.pid, descriptors=descriptors, memory=memory)

    # -- what is done to them

    @contextmanager
    def one(
        self, dice: random.Random, role: str = "worker", *, clocked: bool = False, to_end: bool = False
    ) -> Iterator[Member]:
        """A process to which nothing else is done meanwhile; waits until there is one. to_end: it may be ended."""
        while True:
            with self._lock:
                able = [
                    member
                    for member in self._members
                    if member.role == role
                    and not (member.busy or member.told)
                    and member.process.poll() is None
                    and (member.clock is not None or not clocked)
                    and not (to_end and member.spared)
                    and member.works()
                ]
                if able:
                    chosen = dice.choice(sorted(able, key=lambda member: member.number))
                    chosen.busy = True
                    break
            time.sleep(LOOK)
        try:
            yield chosen
        finally:
            chosen.busy = False

    def kill(self, member: Member) -> None:
        """SIGKILL, which takes a moment."""
        member.send(signal.SIGKILL)
        member.process.wait()

    def tell(self, member: Member, *, replaced: bool = True) -> None:
        """SIGTERM; somebody else takes its place at once."""
        with self._lock:
            member.told = True
            chaos.ledger.note("told", target=member.pid)
            member.send(signal.SIGTERM)
            if replaced:
                self._add(member.role, member.number)

    def dismiss(self, role: str, within: float) -> None:
        """Tell all of *role* to end, and wait until they have."""
        with self._lock:
            self._wanted[role] = 0
            for member in self._members:
                if member.role == role and not member.told:
                    self.tell(member, replaced=False)
        deadline = time.monotonic() + within
        while any(member.role == role for member in self._members):
            if time.monotonic() > deadline:
                raise AssertionError(f"{role}s were told to end {within:g} s ago and did not:\n{self.log()}")
            time.sleep(LOOK)

    def log(self) -> str:
        """The last that the processes said."""
        return (self._folder / "processes.log").read_text(errors="replace")[-3000:]
