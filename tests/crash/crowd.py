"""The worker processes of a run, and what is done to them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from tests.crash import arena


class Crowd:
    """Worker processes on the store at *url*, whose ledger and log are in *folder*."""

    def __init__(self, folder: Path, url: str) -> None:
        self._environ = {**os.environ, "ARENA_URL": url, "ARENA_LEDGER": str(folder)}
        self._log = (folder / "workers.log").open("ab")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.stopped: dict[subprocess.Popen[bytes], float] = {}
        self.kills = self.stops = 0
        # Woken from a thread of its own: a worker stopped inside a write transaction holds the file, and the producer
        # then waits for it.
        self._ending = threading.Event()
        self._waker = threading.Thread(target=self._wake)
        self._waker.start()

    def add(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.arena"], env=self._environ, stdout=self._log, stderr=self._log
        )
        self.processes.append(process)

    def kill(self, rng: random.Random) -> None:
        victim = rng.choice(self.processes)
        victim.kill()
        victim.wait()
        self.processes.remove(victim)
        self.stopped.pop(victim, None)
        self.kills += 1
        self.add()

    def stop(self, rng: random.Random, now: float) -> None:
        able = [process for process in self.processes if process not in self.stopped]
        if len(able) > 1:
            victim = rng.choice(able)
            victim.send_signal(signal.SIGSTOP)
            self.stopped[victim] = now + 1.5 * arena.LEASE
            self.stops += 1

    def _wake(self) -> None:
        while not self._ending.wait(0.02):
            for process, until in list(self.stopped.items()):
                if time.monotonic() >= until:
                    process.send_signal(signal.SIGCONT)
                    self.stopped.pop(process, None)

    def end(self) -> None:
        self._ending.set()
        self._waker.join()
        for process in self.processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._log.close()
